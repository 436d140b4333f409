//! P13: another cluster's id or secret has no effect; a removed or cloned identity is fenced until wiped.
//!
//! So at rest every node knows exactly the members that the cluster has: a stranger let in, a removed node
//! back, or a member forgotten shows here. And a client that didn't know the secret was told nothing and changed nothing.

use ringmain::id::NodeId;

use super::{Evidence, Opinion, Promise, Violation};
use crate::history::Outcome;

/// Does every node know the members, and nobody else? Had who didn't know the secret no effect?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    check_intruder(evidence)?;
    let wrong = evidence.opinions.iter().find_map(|opinion| {
        problem(opinion, evidence.members).or_else(|| readmitted(opinion, evidence.removed))
    });
    wrong.map_or(Ok(()), |sentence| {
        Err(Violation { promise: Promise::Membership, key: None, sentence, operations: Vec::new() })
    })
}

fn check_intruder(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let intruders = |client: u32| Some(client) == evidence.intruder;
    let operations = evidence.history.iter().filter(|(_, operation)| intruders(operation.client));
    for (number, operation) in operations {
        let what = match operation.outcome {
            Outcome::Got(_) | Outcome::Stored => "answered",
            _ if !evidence.dots.of_operation(number).is_empty() => "applied",
            Outcome::Failed(_) | Outcome::Unknown => continue,
        };
        let sentence = format!("#{} of a client that didn't know the secret was {what}", number.0);
        return Err(Violation::at(Promise::Membership, operation.key, [number], sentence));
    }
    Ok(())
}

fn problem(opinion: &Opinion, members: &[NodeId]) -> Option<String> {
    if opinion.members == members {
        return None;
    }
    let stranger = opinion.members.iter().find(|member| !members.contains(member));
    let forgotten = members.iter().find(|member| !opinion.members.contains(member));
    let what = match (stranger, forgotten) {
        (Some(stranger), _) => format!("takes {stranger} for a member, which it isn't"),
        (None, Some(forgotten)) => format!("doesn't know the member {forgotten}"),
        (None, None) => "knows the members twice or out of order".to_owned(),
    };
    Some(format!("node {} {what}", opinion.node))
}

/// Whoever was removed owns nothing any more, once the ring has changed. That it does is P7's.
fn readmitted(opinion: &Opinion, removed: &[NodeId]) -> Option<String> {
    if opinion.change.is_some() {
        return None;
    }
    let back = opinion.in_ring.iter().find(|node| removed.contains(node))?;
    Some(format!("node {} has {back} in its ring, which was removed", opinion.node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;
    use ringmain_schema::message::ErrorCode;

    fn wrong(members: &[u64]) -> Option<String> {
        let mut sample = Sample::new();
        sample.opinions[1].members = members.iter().copied().map(NodeId).collect();
        check(&sample.evidence()).err().map(|violation| violation.sentence)
    }

    #[test]
    fn who_does_not_know_the_secret_is_told_nothing_and_changes_nothing() {
        let told = |fill: fn(&mut Sample), intruder| {
            let mut sample = Sample::new();
            sample.intruder = intruder;
            fill(&mut sample);
            check(&sample.evidence()).err().map(|violation| violation.sentence)
        };
        let refused = |sample: &mut Sample| {
            sample.put(&[], Outcome::Failed(ErrorCode::Unauthorized));
            sample.put(&[], Outcome::Unknown);
        };
        assert_eq!(told(refused, Some(1)), None);
        let read = |sample: &mut Sample| _ = sample.got(&[], &[]);
        assert!(told(read, Some(1)).unwrap().contains("was answered"));
        let applied = |sample: &mut Sample| _ = sample.unknown(&[], (1, 1));
        assert!(told(applied, Some(1)).unwrap().contains("was applied"));
        assert_eq!(told(applied, Some(2)), None, "another client's");
    }

    #[test]
    fn each_node_knows_the_members_and_nobody_else() {
        assert_eq!(wrong(&[1, 2, 3]), None);
        assert!(wrong(&[1, 2, 3, 4]).unwrap().contains("node 1 takes 0000000000000004 for a member"));
        assert!(wrong(&[1, 3, 4]).unwrap().contains("takes 0000000000000004"));
        assert!(wrong(&[1, 3]).unwrap().contains("doesn't know the member 0000000000000002"));
        assert!(wrong(&[1, 2, 3, 3]).unwrap().contains("twice"));
    }
}
