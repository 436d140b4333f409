//! What an operator may say of a member, whether it makes sense, and what the records become.

use std::collections::BTreeMap;

use ringmain_schema::limits::WEIGHT_MAX;
use thiserror::Error;

use crate::id::NodeId;
use crate::ring::Plan;

use super::{Intent, Member};

/// A refusal names at most so many members.
const NAMED_MAX: usize = 20;

/// What an operator wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// A guest becomes a member. One that is leaving stays.
    Join {
        /// Who.
        name: String,
        /// Its capacity, if it is to be another than it says itself.
        weight: Option<u32>,
    },
    /// A member hands its share over, and is removed when it has.
    Leave {
        /// Who.
        name: String,
    },
    /// A member is gone for good. What only it holds is lost.
    Remove {
        /// Who.
        name: String,
    },
    /// A guest takes a member's place, which is gone for good.
    Replace {
        /// Who is gone.
        old: String,
        /// Who comes.
        new: String,
    },
    /// A member's capacity is another.
    Weight {
        /// Whose.
        name: String,
        /// 100 is ordinary.
        weight: u32,
    },
}

/// What a word changes and moves.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// The records that change, as they become; none if all is so already.
    pub changed: Vec<Member>,
    /// From the ring in force to the one that is wanted then.
    pub plan: Plan,
}

/// Why a word was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[allow(missing_docs, reason = "each says it in its sentence")]
pub enum Refused {
    #[error("there is no member {name:?}; there are {known}. A node that starts with --seeds shows itself")]
    Unknown { name: String, known: String },
    #[error("{name} is removed for good: start a node under another name and let that one join")]
    Removed { name: String },
    #[error("{name} is a guest and has no place that could be taken: let the newcomer join instead")]
    HoldsNothing { name: String },
    #[error("{name} holds a share of its own: a place is taken by a guest, a node that starts with --seeds")]
    HoldsAShare { name: String },
    #[error("{name} is the only member, and nobody would hold anything: let another join first")]
    LastMember { name: String },
    #[error("a weight is 1 to {WEIGHT_MAX}, and 100 is ordinary: {weight} isn't one")]
    Weight { weight: u32 },
    #[error(
        "{name} can be reached: let it leave, so that it hands over what it holds. To drop it at once, and with it \
         whatever it alone holds, use --force"
    )]
    CanBeReached { name: String },
}

impl Word {
    /// The records that become others, as they become: with a later version than any word before. None if all is
    /// so already, so that a word can be said again.
    pub fn apply(&self, members: &BTreeMap<NodeId, Member>) -> Result<Vec<Member>, Refused> {
        let last = members.values().map(|member| member.intent_version).max();
        let known = Known { members, version: last.unwrap_or(0) + 1 };
        match self {
            Self::Join { name, weight } => known.join(name, *weight),
            Self::Leave { name } => known.leave(name),
            Self::Remove { name } => known.remove(name),
            Self::Replace { old, new } => known.replace(old, new),
            Self::Weight { name, weight } => known.weigh(name, *weight),
        }
    }

    /// Who is gone for good at once, if anybody.
    pub fn removes(&self) -> Option<&str> {
        match self {
            Self::Remove { name } | Self::Replace { old: name, .. } => Some(name),
            Self::Join { .. } | Self::Leave { .. } | Self::Weight { .. } => None,
        }
    }
}

/// All members, and the version of the word about them.
struct Known<'a> {
    members: &'a BTreeMap<NodeId, Member>,
    version: u64,
}

impl Known<'_> {
    fn join(&self, name: &str, weight: Option<u32>) -> Result<Vec<Member>, Refused> {
        let member = self.present(name)?;
        let weight = weight.map_or(Ok(member.weight), in_range)?;
        Ok(self.unless_same(member, Member { intent: Intent::Member, weight, ..member.clone() }))
    }

    fn leave(&self, name: &str) -> Result<Vec<Member>, Refused> {
        let member = self.find(name)?;
        let intent = match member.intent {
            Intent::Member => Intent::Leaving,
            // It has nothing to hand over.
            Intent::Guest => Intent::Removed,
            already @ (Intent::Leaving | Intent::Removed) => already,
        };
        self.check_not_last(member, intent)?;
        Ok(self.unless_same(member, Member { intent, ..member.clone() }))
    }

    fn remove(&self, name: &str) -> Result<Vec<Member>, Refused> {
        let member = self.find(name)?;
        self.check_not_last(member, Intent::Removed)?;
        Ok(self.unless_same(member, Member { intent: Intent::Removed, ..member.clone() }))
    }

    fn replace(&self, old: &str, new: &str) -> Result<Vec<Member>, Refused> {
        let (old, new) = (self.find(old)?, self.present(new)?);
        if is_replaced(old, new) {
            return Ok(vec![]);
        }
        let old = self.present(&old.name)?;
        if old.intent == Intent::Guest {
            return Err(Refused::HoldsNothing { name: old.name.to_string() });
        }
        if new.intent != Intent::Guest {
            return Err(Refused::HoldsAShare { name: new.name.to_string() });
        }
        let gone = Member { intent: Intent::Removed, intent_version: self.version, ..old.clone() };
        let mut comes = Member { intent: Intent::Member, intent_version: self.version, ..new.clone() };
        take_place(&mut comes, old);
        Ok(vec![gone, comes])
    }

    fn weigh(&self, name: &str, weight: u32) -> Result<Vec<Member>, Refused> {
        let member = self.present(name)?;
        Ok(self.unless_same(member, Member { weight: in_range(weight)?, ..member.clone() }))
    }

    fn find(&self, name: &str) -> Result<&Member, Refused> {
        let found = self.members.values().find(|member| *member.name == *name);
        found.ok_or_else(|| Refused::Unknown { name: name.to_owned(), known: self.names() })
    }

    /// Found, and not removed.
    fn present(&self, name: &str) -> Result<&Member, Refused> {
        let member = self.find(name)?;
        if member.intent == Intent::Removed {
            return Err(Refused::Removed { name: name.to_owned() });
        }
        Ok(member)
    }

    fn names(&self) -> String {
        let there = self.members.values().filter(|member| member.intent != Intent::Removed);
        let mut names: Vec<&str> = there.map(|member| &*member.name).collect();
        names.sort_unstable();
        let more = names.len().saturating_sub(NAMED_MAX);
        names.truncate(NAMED_MAX);
        let names = names.join(", ");
        if more == 0 { names } else { format!("{names} and {more} more") }
    }

    /// Somebody must hold what there is.
    fn check_not_last(&self, member: &Member, intent: Intent) -> Result<(), Refused> {
        let others = self.members.values().filter(|other| other.node != member.node);
        let stays = others.filter(|other| other.intent == Intent::Member).count() > 0;
        if member.intent == Intent::Member && intent != Intent::Member && !stays {
            return Err(Refused::LastMember { name: member.name.to_string() });
        }
        Ok(())
    }

    fn unless_same(&self, before: &Member, after: Member) -> Vec<Member> {
        if *before == after { vec![] } else { vec![Member { intent_version: self.version, ..after }] }
    }
}

fn in_range(weight: u32) -> Result<u32, Refused> {
    if (1..=WEIGHT_MAX).contains(&weight) { Ok(weight) } else { Err(Refused::Weight { weight }) }
}

/// It was said before: the newcomer has the place, and who had it is gone.
fn is_replaced(old: &Member, new: &Member) -> bool {
    old.intent == Intent::Removed
        && new.intent == Intent::Member
        && new.place == old.place
        && new.node != old.node
}

/// The newcomer is to the ring what `of` was.
fn take_place(newcomer: &mut Member, of: &Member) {
    newcomer.place = of.place;
    newcomer.weight = of.weight;
    newcomer.data_center = of.data_center.clone();
    newcomer.rack = of.rack.clone();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::member::tests::member;

    /// Members n1, n2 and n3, and guest n4, after so many words.
    fn members() -> BTreeMap<NodeId, Member> {
        let mut members: BTreeMap<_, _> = (1..=4).map(|node| (NodeId(node), member(node))).collect();
        members.get_mut(&NodeId(4)).unwrap().intent = Intent::Guest;
        members.get_mut(&NodeId(2)).unwrap().intent_version = 7;
        members
    }

    fn with(changes: &[(u64, Intent)]) -> BTreeMap<NodeId, Member> {
        let mut members = members();
        for &(node, intent) in changes {
            members.get_mut(&NodeId(node)).unwrap().intent = intent;
        }
        members
    }

    fn join(node: u64) -> Word {
        Word::Join { name: format!("n{node}"), weight: None }
    }

    fn leave(node: u64) -> Word {
        Word::Leave { name: format!("n{node}") }
    }

    fn remove(node: u64) -> Word {
        Word::Remove { name: format!("n{node}") }
    }

    fn replace(old: u64, new: u64) -> Word {
        Word::Replace { old: format!("n{old}"), new: format!("n{new}") }
    }

    fn weight(node: u64, weight: u32) -> Word {
        Word::Weight { name: format!("n{node}"), weight }
    }

    /// What the records become, in short.
    fn become_of(word: &Word, members: &BTreeMap<NodeId, Member>) -> Vec<(u64, Intent, u64)> {
        let changed = word.apply(members).unwrap();
        changed.iter().map(|member| (member.node.0, member.intent, member.intent_version)).collect()
    }

    #[test]
    fn a_word_changes_what_it_says_with_a_version_of_its_own() {
        let members = members();
        assert_eq!(become_of(&join(4), &members), [(4, Intent::Member, 8)]);
        assert_eq!(become_of(&leave(1), &members), [(1, Intent::Leaving, 8)]);
        assert_eq!(
            become_of(&leave(4), &members),
            [(4, Intent::Removed, 8)],
            "a guest has nothing to hand over"
        );
        assert_eq!(become_of(&remove(3), &members), [(3, Intent::Removed, 8)]);
        assert_eq!(become_of(&weight(1, 50), &members), [(1, Intent::Member, 8)]);
        let heavy = Word::Join { name: "n4".to_owned(), weight: Some(250) };
        assert_eq!(heavy.apply(&members).unwrap()[0].weight, 250);
    }

    #[test]
    fn a_join_ends_a_leave_and_a_word_said_again_changes_nothing() {
        let leaving = with(&[(1, Intent::Leaving), (3, Intent::Removed)]);
        assert_eq!(become_of(&join(1), &leaving), [(1, Intent::Member, 8)]);
        for word in [join(2), leave(1), remove(3), leave(3), weight(2, 100)] {
            assert_eq!(word.apply(&leaving), Ok(vec![]), "{word:?}");
        }
    }

    #[test]
    fn a_newcomer_is_to_the_ring_what_it_replaces() {
        let mut members = members();
        let old = members.get_mut(&NodeId(1)).unwrap();
        (old.weight, old.rack, old.place) = (70, "r7".into(), NodeId(9));
        assert_eq!(become_of(&replace(1, 4), &members), [(1, Intent::Removed, 8), (4, Intent::Member, 8)]);
        let newcomer = &replace(1, 4).apply(&members).unwrap()[1];
        assert_eq!((newcomer.place, newcomer.weight, &*newcomer.rack), (NodeId(9), 70, "r7"));
        assert_eq!(newcomer.oneself, members[&NodeId(4)].oneself);
    }

    /// The answer to a word may be lost, and two operators may say the same.
    #[test]
    fn a_replacement_said_again_changes_nothing() {
        let mut members = members();
        members.values_mut().for_each(|member| member.place = member.node);
        let changed = replace(1, 4).apply(&members).unwrap();
        members.extend(changed.into_iter().map(|member| (member.node, member)));
        assert_eq!(replace(1, 4).apply(&members), Ok(vec![]));
        // Not even when the newcomer weighs something else by now.
        let heavier = weight(4, 300).apply(&members).unwrap();
        members.extend(heavier.into_iter().map(|member| (member.node, member)));
        assert_eq!(replace(1, 4).apply(&members), Ok(vec![]));
        assert!(replace(1, 2).apply(&members).is_err(), "it was another that took the place");
        members.get_mut(&NodeId(4)).unwrap().intent = Intent::Removed;
        assert!(replace(1, 4).apply(&members).unwrap_err().to_string().contains("removed for good"));
    }

    #[test]
    fn nonsense_is_refused_with_advice() {
        let members = with(&[(3, Intent::Removed)]);
        for (word, words) in [
            (leave(9), "there are n1, n2, n4."),
            (join(3), "another name"),
            (weight(3, 100), "removed for good"),
            (replace(3, 4), "removed for good"),
            (replace(4, 4), "let the newcomer join"),
            (replace(1, 2), "holds a share"),
            (weight(1, 0), "1 to 10000"),
            (weight(1, 10_001), "10001 isn't one"),
            (Word::Join { name: "n4".to_owned(), weight: Some(0) }, "1 to 10000"),
        ] {
            let refused = word.apply(&members).unwrap_err().to_string();
            assert!(refused.contains(words), "{word:?}: {refused}");
        }
    }

    #[test]
    fn the_last_member_stays() {
        let alone = with(&[(2, Intent::Leaving), (3, Intent::Removed)]);
        for word in [leave(1), remove(1)] {
            let refused = word.apply(&alone).unwrap_err();
            assert_eq!(refused, Refused::LastMember { name: "n1".to_owned() });
        }
        assert_eq!(become_of(&remove(2), &alone), [(2, Intent::Removed, 8)]);
        assert_eq!(become_of(&replace(1, 4), &alone).len(), 2, "somebody comes");
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let many: BTreeMap<_, _> = (1..=30).map(|node| (NodeId(node), member(node))).collect();
        let refused = leave(99).apply(&many).unwrap_err().to_string();
        assert!(refused.contains("and 10 more"), "{refused}");
    }
}
