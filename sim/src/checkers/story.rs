//! The shortest history that shows a violation, for whoever has to understand it.
//!
//! A run has thousands of operations, and a violation names two or three. What connects them is as short: the
//! chains of replacements from one to another and on to what nothing replaced, and the reads in between that
//! returned them. Each is told on one line, with its times, its outcome and its dots.

mod lines;

use std::collections::{BTreeSet, VecDeque};

use self::lines::Lines;
use super::Violation;
use super::dot_set::DotSet;
use super::graph::Graph;
use super::readings::{Read, readings};
use crate::dots::DotLog;
use crate::history::{History, Key, Number};

/// The most operations that are told, the named ones first, then those that say most.
const OPERATIONS_MAX: usize = 22;
/// The most chains of replacements that are told.
const CHAINS_MAX: usize = 5;
/// The most links that are told of one chain.
const LINKS_MAX: usize = 12;

/// A violation, in some thirty lines.
pub fn tell(history: &History, dots: &DotLog, violation: &Violation) -> String {
    let Some(key) = violation.key else {
        return format!("{} is broken: {}\n", violation.promise, violation.sentence);
    };
    let graph = Graph::of(dots, key);
    let named: Vec<Number> =
        violation.operations.iter().copied().filter(|number| *number < history.next()).collect();
    let mut chains = chains(&graph, &named);
    chains.truncate(CHAINS_MAX);

    let mut told = named.clone();
    told.extend(chains.iter().flatten());
    told.extend(witnesses(history, key, &named));
    told.extend(named.iter().flat_map(|number| replacers(&graph, *number)));
    let mut known = BTreeSet::new();
    told.retain(|number| *number < history.next() && known.insert(*number));
    told.truncate(OPERATIONS_MAX.max(named.len()));
    told.sort_unstable();

    let mut story = format!("{} is broken at key {}: {}\n\n", violation.promise, key.0, violation.sentence);
    story += &Lines::new(history, &graph).table(&told, &named);
    if !chains.is_empty() {
        story.push('\n');
        chains.iter().for_each(|chain| story += &link(&graph, chain));
    }
    story
}

/// Operations, each of which was replaced by the next.
type Chain = Vec<Number>;

/// The shortest chains from each of the named writes to each other one, and to what nothing replaced.
fn chains(graph: &Graph<'_>, named: &[Number]) -> Vec<Chain> {
    let all_of = |number: &Number| {
        let mut dots = graph.nothing();
        graph.of_operation(*number).for_each(|at| dots.insert(at));
        dots
    };
    let mut replaced = graph.nothing();
    (0..graph.len()).for_each(|at| replaced.add(graph.replaced(at)));
    let mut last = graph.nothing();
    last.insert_run(0..graph.len());
    last.subtract(&replaced);

    let pairs = named.iter().flat_map(|from| named.iter().map(move |to| (from, to)));
    let between = pairs.filter(|(from, to)| from != to).map(|(from, to)| (from, all_of(to)));
    let onwards = named.iter().map(|from| (from, last.clone()));
    let found = between.chain(onwards).filter_map(|(from, goals)| chain(graph, *from, &goals));
    let mut chains: Vec<Chain> = found.filter(|chain| chain.len() > 1).collect();
    chains.sort_by_key(|chain| chain.first().copied());
    chains.dedup();
    chains
}

/// The shortest chain from an operation to one of these dots.
fn chain(graph: &Graph<'_>, from: Number, goals: &DotSet) -> Option<Chain> {
    let mut came_from: Vec<Option<usize>> = vec![None; graph.len()];
    let mut waiting: VecDeque<usize> = graph.of_operation(from).collect();
    let mut reached = graph.nothing();
    waiting.iter().for_each(|at| reached.insert(*at));
    while let Some(at) = waiting.pop_front() {
        if goals.contains(at) {
            let way = std::iter::successors(Some(at), |at| came_from[*at]);
            let mut chain: Chain = way.map(|at| graph.operation(at)).collect();
            chain.reverse();
            return Some(chain);
        }
        for next in (0..graph.len()).filter(|next| graph.replaced(*next).contains(at)) {
            if !reached.contains(next) {
                reached.insert(next);
                came_from[next] = Some(at);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// Of the reads that returned a named value the first and the last, and the first that no longer did.
fn witnesses(history: &History, key: Key, named: &[Number]) -> Vec<Number> {
    let reads: Vec<Read<'_>> = readings(history).filter(|read| read.operation.key == key).collect();
    let mut witnesses = Vec::new();
    for number in named {
        let shows = |read: &Read<'_>| read.returned().any(|returned| returned == *number);
        let Some(first) = reads.iter().position(shows) else { continue };
        let last = reads.iter().rposition(shows).unwrap_or(first);
        let around = [Some(&reads[first]), Some(&reads[last]), reads.get(last + 1)];
        witnesses.extend(around.into_iter().flatten().map(|read| read.number));
    }
    witnesses
}

/// What replaced an operation directly, the earliest first.
fn replacers(graph: &Graph<'_>, number: Number) -> Vec<Number> {
    let replaces = |at: &usize| graph.of_operation(number).any(|old| graph.replaced(*at).contains(old));
    let mut dots: Vec<usize> = (0..graph.len()).filter(replaces).collect();
    dots.sort_by_key(|at| graph.minted(*at).at);
    dots.into_iter().map(|at| graph.operation(at)).collect()
}

/// `#1 was replaced by #4, that by #9, and that by nothing`
fn link(graph: &Graph<'_>, chain: &[Number]) -> String {
    let Some((first, rest)) = chain.split_first() else { return String::new() };
    let mut links: Vec<String> = rest.iter().map(|number| format!("#{}", number.0)).collect();
    if links.len() > LINKS_MAX {
        let left_out = links.len() - LINKS_MAX;
        links.splice(LINKS_MAX / 2..LINKS_MAX / 2 + left_out, [format!("{left_out} more")]);
    }
    let is_last = rest.last().is_some_and(|last| replacers(graph, *last).is_empty());
    let end = if is_last { ", which nothing replaced" } else { "" };
    format!("#{} was replaced by {}{end}\n", first.0, links.join(", that by "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{KEY, Sample};
    use crate::checkers::{Promise, p03_context, p13_membership};
    use crate::history::Outcome;

    #[test]
    fn a_story_has_what_connects_the_named_operations() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.got(&[milk], &[(1, 1)]);
        sample.unknown(&[(1, 1)], (2, 1));
        sample.stored(&[], (1, 2));
        let read = sample.got(&[], &[(1, 1)]);
        let violation = p03_context::check(&sample.evidence()).unwrap_err();
        assert_eq!(violation.operations, [milk, read]);
        let story = tell(&sample.history, &sample.dots, &violation);
        let expected = "\
P3 Honest context is broken at key 0: #4 returned a context that covers #0, without its value: whoever puts with that \
context replaces #0 unseen

     invoked  returned
* #0   0.000     0.001  client 1  put 17 bytes, W = 2, in place of nothing  stored as n1a:1
  #1   0.002     0.003  client 1  get, R = 2                                got #0
  #2   0.004     0.005  client 1  put 17 bytes, W = 2, in place of #0       unknown, applied as n2a:1
* #4   0.008     0.009  client 1  get, R = 2                                got nothing, with a context of #0

#0 was replaced by #2, which nothing replaced
";
        assert_eq!(story, expected, "\n{story}");
    }

    #[test]
    fn a_long_story_is_cut_and_keeps_what_was_named() {
        let mut sample = Sample::new();
        let first = sample.stored(&[], (1, 1));
        for counter in 2..100 {
            let before = sample.stored(&[(1, counter - 1)], (1, counter));
            sample.got(&[before], &[(1, counter)]);
        }
        let last = sample.stored(&[(2, 1)], (3, 1));
        let violation = Violation::at(Promise::Durability, KEY, [first, last], "Lost.".to_owned());
        let story = tell(&sample.history, &sample.dots, &violation);
        assert!(story.lines().count() <= 31, "{story}");
        assert!(story.contains("* #0 ") && story.contains(&format!("* #{} ", last.0)), "{story}");
    }

    #[test]
    fn a_chain_of_many_is_told_by_its_ends() {
        let mut sample = Sample::new();
        let names: Vec<Number> = (0..40).map(|_| sample.put(&[], Outcome::Stored)).collect();
        let told = link(&Graph::of(&sample.dots, KEY), &names);
        assert!(told.starts_with("#0 was replaced by #1, that by #2"), "{told}");
        assert!(told.contains("that by 27 more, that by #34"), "{told}");
        assert!(told.contains("that by #39, which nothing replaced"), "{told}");
    }

    #[test]
    fn a_violation_of_no_key_is_a_sentence() {
        let mut sample = Sample::new();
        sample.opinions[0].members.pop();
        let violation = p13_membership::check(&sample.evidence()).unwrap_err();
        let story = tell(&sample.history, &sample.dots, &violation);
        assert_eq!(story, "P13 Membership is broken: node 0 doesn't know the member 0000000000000003\n");
    }
}
