//! What happens to a cluster while clients are at work.

use std::time::{Duration, Instant};

use super::clients::history::{Call, Operation, Outcome};
use super::clients::load::{Load, Terms};
use super::clients::verdict::{AtRest, Verdict};
use super::network::{NODES, between, ways};
use super::nodes::Nodes;

/// Before the first fault, and after the last.
const CALM: Duration = Duration::from_secs(1);

/// A fault under load.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) terms: Terms,
    /// Does something to the cluster for so long, and undoes it.
    pub(crate) fault: fn(&mut Nodes, Duration),
    pub(crate) length: Duration,
}

/// Three and two.
pub(crate) fn halves(nodes: &mut Nodes, length: Duration) {
    nodes.network().cut(&between(&[0, 1], &[2, 3, 4]));
    std::thread::sleep(length);
    nodes.network().heal();
}

/// One node, then another.
pub(crate) fn isolate_one(nodes: &mut Nodes, length: Duration) {
    for alone in [3, 0] {
        let others: Vec<usize> = (0..NODES).filter(|&node| node != alone).collect();
        nodes.network().cut(&between(&[alone], &others));
        std::thread::sleep(length / 2);
    }
    nodes.network().heal();
}

/// Two and two that reach each other only by way of the fifth, which doesn't pass anything on.
pub(crate) fn bridge(nodes: &mut Nodes, length: Duration) {
    nodes.network().cut(&between(&[0, 1], &[3, 4]));
    std::thread::sleep(length);
    nodes.network().heal();
}

/// Two that hear the others, and aren't heard; then one that is heard, and is deaf.
pub(crate) fn one_way(nodes: &mut Nodes, length: Duration) {
    nodes.network().cut(&ways(&[1, 2], &[0, 3, 4]));
    std::thread::sleep(length / 2);
    nodes.network().cut(&ways(&[0, 1, 2, 3], &[4]));
    std::thread::sleep(length / 2);
    nodes.network().heal();
}

/// Another two are cut off each second, before anybody has got over the last ones.
pub(crate) fn moving(nodes: &mut Nodes, length: Duration) {
    for second in 0..length.as_secs() as usize {
        let apart = [second % NODES, (second + 1) % NODES];
        let others: Vec<usize> = (0..NODES).filter(|node| !apart.contains(node)).collect();
        nodes.network().cut(&between(&apart, &others));
        std::thread::sleep(Duration::from_secs(1));
    }
    nodes.network().heal();
}

/// One that doesn't answer, but whose connections stand.
pub(crate) fn pause(nodes: &mut Nodes, length: Duration) {
    nodes.process(2).pause();
    std::thread::sleep(length);
    nodes.process(2).resume();
}

/// The end without a word, as by a power cut, and the return without any memory.
pub(crate) fn kill_and_restart(nodes: &mut Nodes, length: Duration) {
    nodes.process(1).kill();
    std::thread::sleep(length);
    nodes.restart(1);
}

/// Each is asked to stop, and comes back without any memory; the next follows when it has its copies again.
pub(crate) fn rolling_restart(nodes: &mut Nodes, length: Duration) {
    for node in 0..NODES {
        nodes.process(node).terminate();
        assert_eq!(nodes.process(node).wait().code(), Some(0));
        nodes.restart(node);
        std::thread::sleep(length / NODES as u32);
    }
}

/// One is cut off and killed, and forgets what only it was told.
pub(crate) fn isolate_and_kill(nodes: &mut Nodes, length: Duration) {
    nodes.network().cut(&between(&[4], &[0, 1, 2, 3]));
    std::thread::sleep(length);
    nodes.process(4).kill();
    nodes.network().heal();
    nodes.restart(4);
}

/// All that the clients of one scenario did.
pub(crate) struct Played {
    pub(crate) name: &'static str,
    terms: Terms,
    history: Vec<Operation>,
}

impl Scenario {
    /// Play it, and judge it when the cluster is at rest.
    pub(crate) fn play(&self, nodes: &mut Nodes) -> (Played, Verdict) {
        let load = Load::start(self.name, self.terms, nodes.keys(), nodes.servers());
        let begun = Instant::now();
        std::thread::sleep(CALM);
        (self.fault)(nodes, self.length);
        let healed = Instant::now();
        std::thread::sleep(CALM);
        let (history, loaded) = (load.stop(), begun.elapsed());
        let (at_rest, converged) = nodes.converge(healed);
        let played = Played { name: self.name, terms: self.terms, history };
        let verdict = played.verdict(&at_rest);
        super::say(&played.report(&verdict, loaded, converged));
        (played, verdict)
    }
}

impl Played {
    /// What is there now, of what was done then.
    pub(crate) fn verdict(&self, at_rest: &AtRest) -> Verdict {
        let begin = format!("{}/", self.name);
        let own = at_rest.iter().filter(|(key, _)| key.starts_with(&begin));
        let own = own.map(|(key, values)| (key.clone(), values.clone())).collect();
        Verdict::of(&self.history, &own, self.terms.overwrite)
    }

    /// How many writes ended so.
    pub(crate) fn writes(&self, outcome: Outcome) -> usize {
        let writes = self.history.iter().filter(|operation| !matches!(operation.call, Call::Read(_)));
        writes.filter(|write| write.outcome == outcome).count()
    }

    fn report(&self, verdict: &Verdict, loaded: Duration, converged: Duration) -> String {
        let [acknowledged, failed, unknown] =
            [Outcome::Ok, Outcome::Failed, Outcome::Unknown].map(|outcome| self.writes(outcome));
        let seen = self.history.iter().filter_map(|operation| match &operation.call {
            Call::Read(seen) if operation.outcome == Outcome::Ok => Some(seen.len()),
            _ => None,
        });
        let (answered, siblings) = (seen.clone().count(), seen.filter(|&seen| seen > 1).count());
        let Verdict { lost, resurrected, shown_again, phantoms } = verdict;
        format!(
            "partitions: {}: {:.1} s, {} operations. {answered} reads were answered ({siblings} with siblings), {} \
             weren't; {acknowledged} writes were acknowledged, {failed} failed, {unknown} are in doubt. {} lost, {} \
             resurrected, {} shown again, {} made up; at rest {:.2} s after the last fault",
            self.name,
            loaded.as_secs_f64(),
            self.history.len(),
            self.history.len() - answered - acknowledged - failed - unknown,
            lost.len(),
            resurrected.len(),
            shown_again.len(),
            phantoms.len(),
            converged.as_secs_f64(),
        )
    }
}
