//! What keeps a node from serving, in words for its operator.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::id::NodeId;

/// Characters of what somebody else has said.
const WHY_CHARS_MAX: usize = 300;

/// Why a node doesn't serve, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Trouble {
    /// Another process has taken its name over: it will not serve again.
    #[error(
        "this process is fenced: another one, at {at}, has started as {name} and taken its place. Stop one of the two. \
         If this one is to go on as {name}, stop the other and start this one again; else start this one under another \
         name, with an empty data directory"
    )]
    Fenced {
        /// The name that both have.
        name: String,
        /// Where the other is.
        at: String,
    },
    /// A founder makes another ring of the same members.
    #[error(
        "{name} was started with --partitions {} --replicas {}, this node with --partitions {} --replicas {}: all \
         founders need the same, so restart those that are wrong",
        theirs.0, theirs.1, ours.0, ours.1
    )]
    OtherRing {
        /// Who.
        name: String,
        /// Its Q and N.
        theirs: (u32, u8),
        /// This node's.
        ours: (u32, u8),
    },
    /// Another node doesn't take it for a peer.
    #[error("{by} refuses this node: {why}")]
    Refused {
        /// Its name, or its address if it isn't known.
        by: String,
        /// As it says.
        why: String,
    },
    /// It doesn't take another node for a peer.
    #[error("this node refuses {name}: {why}")]
    Refusing {
        /// Its name, as it says.
        name: String,
        /// As it was told.
        why: String,
    },
}

/// All of them: one for each member, and one for all whom the node doesn't know.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Final.
    fence: Option<Trouble>,
    by_member: BTreeMap<NodeId, Trouble>,
}

impl Troubles {
    /// The one to tell of: the first in the order of the members, so that it stays the same while nothing changes.
    pub(super) fn first(&self) -> Option<&Trouble> {
        self.fence.as_ref().or_else(|| self.by_member.values().next())
    }

    pub(super) const fn is_fenced(&self) -> bool {
        self.fence.is_some()
    }

    pub(super) fn fence(&mut self, name: String, at: String) {
        self.fence = Some(Trouble::Fenced { name, at }.cut());
    }

    /// `member` must be one, or nobody, so that the table stays as small as that of the members. Of several it is the one
    /// that says most, so that two nodes which refuse each other in turn don't say so in turn; and of those that are refused
    /// here the first, as a stranger can give ever new reasons for it.
    pub(super) fn note(&mut self, member: NodeId, trouble: Trouble) {
        let is_told = matches!(trouble, Trouble::Refusing { .. });
        let outweighs =
            |known: &Trouble| known.rank() < trouble.rank() || known.rank() == trouble.rank() && !is_told;
        if self.by_member.get(&member).is_none_or(outweighs) {
            self.by_member.insert(member, trouble.cut());
        }
    }

    /// This member speaks with the node as peers do.
    pub(super) fn clear(&mut self, member: NodeId) {
        self.by_member.remove(&member);
    }

    /// The node serves.
    pub(super) fn clear_all(&mut self) {
        self.by_member.clear();
    }
}

impl Trouble {
    const fn rank(&self) -> u8 {
        match self {
            Self::Refusing { .. } => 0,
            Self::Refused { .. } => 1,
            Self::OtherRing { .. } => 2,
            Self::Fenced { .. } => 3,
        }
    }

    /// What somebody else has said may be long, and may try to write on the operator's terminal.
    fn cut(mut self) -> Self {
        let cut = |text: &mut String| {
            *text = text.chars().filter(|letter| !letter.is_control()).take(WHY_CHARS_MAX).collect();
        };
        match &mut self {
            Self::Fenced { name, at: other }
            | Self::Refused { by: name, why: other }
            | Self::Refusing { name, why: other } => [name, other].into_iter().for_each(cut),
            Self::OtherRing { name, .. } => cut(name),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(why: &str) -> Trouble {
        Trouble::Refused { by: "n2".to_owned(), why: why.to_owned() }
    }

    /// A stranger had a node that did not serve yet write to its log and to its error output as often as it called.
    #[test]
    fn a_stranger_is_told_of_once() {
        let mut troubles = Troubles::default();
        let refusing = |why: &str| Trouble::Refusing { name: String::new(), why: why.to_owned() };
        ["protocol 7", "protocol 8", "another cluster"]
            .iter()
            .for_each(|why| troubles.note(NodeId(0), refusing(why)));
        assert_eq!(troubles.first(), Some(&refusing("protocol 7")));
        troubles.note(NodeId(0), refused("no"));
        assert_eq!(troubles.first(), Some(&refused("no")));
    }

    #[test]
    fn a_fence_is_final_and_a_ring_outweighs_a_refusal() {
        let mut troubles = Troubles::default();
        let ring = Trouble::OtherRing { name: "n2".to_owned(), theirs: (64, 3), ours: (128, 2) };
        troubles.note(NodeId(2), ring.clone());
        troubles.note(NodeId(2), refused("no"));
        assert_eq!(troubles.first(), Some(&ring));
        let sentence = ring.to_string();
        assert!(
            sentence.contains("--partitions 64 --replicas 3, this node with --partitions 128 --replicas 2")
        );
        troubles.fence("n1".to_owned(), "10.0.0.9:7400".to_owned());
        troubles.clear_all();
        assert!(troubles.is_fenced() && troubles.first().unwrap().to_string().contains("10.0.0.9:7400"));
    }

    #[test]
    fn two_that_refuse_each_other_in_turn_say_one_thing() {
        let mut troubles = Troubles::default();
        let refusing = || Trouble::Refusing { name: "n2".to_owned(), why: "no".to_owned() };
        for trouble in [refusing(), refused("no"), refusing()] {
            troubles.note(NodeId(2), trouble);
        }
        assert_eq!(troubles.first(), Some(&refused("no")));
        troubles.note(NodeId(2), refused("another reason"));
        assert_eq!(troubles.first(), Some(&refused("another reason")));
    }

    /// P12: a refusal comes from anybody.
    #[test]
    fn what_others_say_is_cut_and_cannot_command_a_terminal() {
        let mut troubles = Troubles::default();
        let hostile = "\u{1b}[2J\n".repeat(1000);
        troubles.note(NodeId(0), refused(&hostile));
        let mut told = vec![troubles.first().unwrap().to_string()];
        troubles
            .note(NodeId(0), Trouble::OtherRing { name: hostile.clone(), theirs: (64, 3), ours: (128, 2) });
        told.push(troubles.first().unwrap().to_string());
        troubles.fence(hostile.clone(), hostile);
        told.push(troubles.first().unwrap().to_string());
        for sentence in told {
            assert!(sentence.len() < 1200 && !sentence.contains(char::is_control), "{sentence}");
        }
    }
}
