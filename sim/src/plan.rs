//! A run's plan: everything that a seed decides before the first event.
//!
//! Swarm testing: each fault is on with probability one half, and only then is its rate drawn, so that no fault
//! hides what another one alone would show. Faults that come at a time are drawn in advance, as [`Deed`]s; those that
//! befall single messages are rates. A [`Cut`] takes parts of a plan away, to find out what a violation needs.

use ringmain::prng::Prng;
use ringmain::time::{Duration, Instant};

use crate::cut::{Cut, Fault};
use crate::deeds::{Deed, DiskFate, draw_deeds};

/// N.
pub const REPLICAS: u8 = 3;

/// All that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Machines that stand by, each a guest of the cluster until the operator lets it join.
    pub spares: usize,
    /// Shards of each.
    pub shards: u16,
    /// R, if a request doesn't say.
    pub read: u8,
    /// W, if a request doesn't say.
    pub write: u8,
    /// `durable` mode with `sync = always`, else `memory`, where a restart destroys the node's copies.
    pub durable: bool,
    /// What each key is used for. One more key is left alone until the end.
    pub keys: Vec<Application>,
    /// Clients at work.
    pub clients: u32,
    /// Rounds of all clients together, if nothing held them up.
    pub operations: u32,
    /// How long the clients work and the faults last.
    pub span: Duration,
    /// Bytes of hints that a shard keeps for each node; 0 for strict quorums.
    pub hint_bytes_max: usize,
    /// Replicas found stale by a read are repaired.
    pub read_repair: bool,
    /// Primaries compare their hash trees once a second.
    pub anti_entropy: bool,
    /// Tombstones are reaped.
    pub reaping: bool,
    /// Bytes that a shard may take; 0 for no limit.
    pub memory_max: usize,
    /// With such a limit, how often a key is put out although there is room, or with a log its values: a probability for each turn of
    /// a shard.
    pub evicts: f64,
    /// With such a limit and a log, how often a record can't be read again.
    pub read_errors: f64,
    /// Tables so small that they fill.
    pub small_tables: bool,
    /// Rare choices are forced a quarter of the time.
    pub rare_choices: bool,
    /// Some values expire.
    pub time_to_live: bool,
    /// The cluster has a secret, which the stranger and one more client don't know.
    pub has_secret: bool,
    /// A node of another cluster has this cluster's addresses; if there is a secret, its id too.
    pub stranger: bool,
    /// A second process starts under this node's name at some time.
    pub clone: Option<usize>,
    /// Machines that were removed come back, with their disks or without.
    pub returns: bool,
    /// All nodes lose power at once when the clients stop.
    pub power_loss: bool,
    /// Shards have much to do, now and then, and inputs wait for them.
    pub waits: bool,
    /// Nodes stand in so many racks by turns; in none if it is 0.
    pub racks: u8,
    /// Faults never destroy W copies of one write; else only safety is checked for those that lost them.
    pub limited: bool,
    /// What befalls messages.
    pub network: NetworkFaults,
    /// What befalls disks, but for what the deeds do to them.
    pub torn: f64,
    /// What befalls nodes and links, in the order of time, each with its number.
    pub deeds: Vec<(usize, Instant, Deed)>,
    /// After so many operations the clients begin no more.
    pub operations_max: u32,
}

/// What an application does with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Application {
    /// Read, then write with the read's context.
    Register,
    /// A set that only grows, merged by its readers: Dynamo's shopping cart.
    Cart,
    /// A counter: one slot a client, merged by its readers.
    Counter,
    /// Writes that have seen nothing, merged now and then.
    Blind,
    /// Writes that have seen nothing, and nobody merges them.
    Neglected,
    /// Put, delete, put again.
    Deletes,
    /// The last writer wins, by the clients' own wish.
    Overwrites,
}

/// What befalls messages. Each is a probability for one message.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct NetworkFaults {
    /// Lost.
    pub loss: f64,
    /// Delivered twice.
    pub duplication: f64,
    /// Mean of an exponential delay for every message, so that they overtake one another; zero for a quick network that
    /// keeps their order.
    pub delay: Duration,
    /// Clogs its link for up to five seconds.
    pub clog: f64,
}

/// Limits of a shard's memory: what it takes before it holds anything is a part of them.
const MEMORY_MAX: [usize; 3] = [512 << 10, 640 << 10, 1 << 20];
/// Faults end here at the latest, operations too.
const SPAN_SECS: (u64, u64) = (40, 100);

impl Plan {
    /// All that `seed` decides, less what is cut away.
    pub fn draw(seed: u64, cut: &Cut) -> Self {
        let mut prng = Prng::from_seed(seed);
        let mut shape = prng.split();
        let nodes = draw_nodes(&mut shape);
        let (read, write) = [(2, 2), (1, 1), (1, 3), (3, 1)][shape.below(4) as usize];
        let span = Duration::from_secs(SPAN_SECS.0 + shape.below(SPAN_SECS.1 - SPAN_SECS.0));
        let keys: Vec<_> = (0..=shape.below(8)).map(|_| draw_application(&mut shape)).collect();
        let mut faults = prng.split();
        let on = |fault: Fault, faults: &mut Prng| {
            let on = faults.chance(0.5);
            on && !cut.without.contains(&fault)
        };
        let network = draw_network(&mut faults, on);
        let drawn = faults.unit();
        let torn = if on(Fault::Torn, &mut faults) { 0.8 + 0.2 * drawn } else { 0.0 };
        let mut seldom = |fault, share| faults.chance(share) && !cut.without.contains(&fault);
        let durable = shape.chance(0.75);
        let mut plan = Self {
            seed,
            nodes,
            spares: 0,
            shards: 1 + shape.below(4) as u16,
            read,
            write,
            durable,
            keys,
            clients: 4 + shape.below(12) as u32,
            operations: 7000 + shape.below(4000) as u32,
            span,
            hint_bytes_max: [0, 0, 0, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 600]
                [shape.below(10) as usize],
            read_repair: shape.chance(0.75),
            anti_entropy: false,
            reaping: false,
            memory_max: 0,
            evicts: 0.0,
            read_errors: 0.0,
            small_tables: seldom(Fault::SmallTables, 0.1),
            rare_choices: seldom(Fault::RareChoices, 0.25),
            time_to_live: seldom(Fault::TimeToLive, 0.25),
            clone: None,
            returns: false,
            has_secret: false,
            stranger: seldom(Fault::Stranger, 0.15),
            power_loss: seldom(Fault::PowerLoss, 0.5) && durable,
            waits: false,
            racks: 0,
            limited: shape.chance(0.8),
            network,
            torn,
            deeds: Vec::new(),
            operations_max: cut.operations.unwrap_or(u32::MAX),
        };
        // On half of the seeds, most of them such that read repair doesn't hide what anti-entropy lacks.
        plan.anti_entropy = shape.chance(if plan.read_repair { 0.4 } else { 0.8 });
        // Changes need somebody to leave behind.
        let mut churn = prng.split();
        if plan.nodes >= 3 && churn.chance(0.3) && !cut.without.contains(&Fault::Churn) {
            plan.spares = 1 + churn.below(2) as usize;
        }
        let (mut deeds, mut later) = (prng.split(), prng.split());
        if plan.nodes >= 3 && later.chance(0.15) && !cut.without.contains(&Fault::Clone) {
            plan.clone = Some(later.below(plan.nodes as u64) as usize);
        }
        plan.returns = later.chance(0.7) && !cut.without.contains(&Fault::Return);
        // Drawn apart, so that all else of a seed stays as it was without it.
        let is_cut = cut.without.contains(&Fault::Waits);
        let mut apart = Prng::from_seed(!seed);
        plan.waits = apart.chance(0.5) && !is_cut;
        if apart.chance(0.3) && plan.nodes >= 3 && !cut.without.contains(&Fault::Racks) {
            plan.racks = 2 + apart.below(2) as u8;
        }
        plan.has_secret = apart.chance(0.15) && !cut.without.contains(&Fault::Secret);
        plan.stranger |= apart.chance(0.5) && plan.has_secret && !cut.without.contains(&Fault::Stranger);
        let is_cut = cut.without.contains(&Fault::Reaping);
        (plan.memory_max, plan.evicts) = draw_memory(&plan, cut);
        if plan.durable {
            (plan.memory_max, plan.evicts, plan.read_errors) = draw_cold(&plan, cut);
        }
        plan.reaping = Prng::from_seed(seed.swap_bytes()).chance(0.8) && !is_cut;
        plan.deeds = draw_deeds(&plan, &mut deeds, cut);
        plan
    }

    /// All machines of the cluster, the spares after the founders.
    pub const fn machines(&self) -> usize {
        self.nodes + self.spares
    }

    /// Where the second process under a node's name is, if there is one: behind all machines.
    pub fn clone_at(&self) -> Option<usize> {
        self.clone.map(|_| self.machines())
    }

    /// The rack of a machine, which a second process under its name shares.
    pub fn rack(&self, machine: usize) -> Option<usize> {
        let machine = self.clone.filter(|_| Some(machine) == self.clone_at()).unwrap_or(machine);
        (self.racks > 0).then(|| machine % usize::from(self.racks))
    }

    /// What nodes and clients of the cluster have to say.
    pub const fn secret(&self) -> &'static [u8] {
        if self.has_secret { b"of the cluster" } else { b"" }
    }

    /// What is said by those who don't know it: nothing, or something as long that is wrong at its end.
    pub const fn guess(&self) -> &'static [u8] {
        if self.seed.is_multiple_of(2) { b"" } else { b"of the clustes" }
    }

    /// The client that doesn't know the secret: the one after those at work.
    pub fn intruder(&self) -> Option<u32> {
        self.has_secret.then_some(self.clients)
    }

    /// How many replicas a key has.
    pub fn replicas(&self) -> u8 {
        REPLICAS.min(self.nodes as u8)
    }

    /// Is there something at work that makes replicas equal?
    pub const fn converges(&self) -> bool {
        self.read_repair || self.anti_entropy
    }

    /// Do wall clocks jump in this run, and nothing but an expiry depends on them? Which of several versions is the latest decides
    /// how large an answer is, and where memory is limited, that decides who has to go.
    pub fn compares_clocks(&self) -> bool {
        !self.time_to_live && self.memory_max == 0 && self.jumps_clocks()
    }

    /// Does some disk come back as it was, or is one copied?
    pub fn restores_images(&self) -> bool {
        let is_restore =
            |deed: &Deed| matches!(deed, Deed::Crash { ending, .. } if ending.disk == DiskFate::OldImage);
        self.clone.is_some() || self.deeds.iter().any(|(.., deed)| is_restore(deed))
    }

    /// Do wall clocks jump in this run?
    pub fn jumps_clocks(&self) -> bool {
        self.deeds.iter().any(|(.., deed)| matches!(deed, Deed::ClockJump { .. }))
    }
}

/// On half of the seeds without a log: a limit, tight or wide, and how often somebody goes before it is reached.
fn draw_memory(plan: &Plan, cut: &Cut) -> (usize, f64) {
    // Drawn apart, as above.
    let mut apart = Prng::from_seed(plan.seed.rotate_left(32) ^ 0xe71c);
    let is_limited = apart.chance(0.5) && !plan.durable && !cut.without.contains(&Fault::Memory);
    let limit = MEMORY_MAX[apart.below(MEMORY_MAX.len() as u64) as usize];
    let evicts = [0.0, 0.0001, 0.001, 0.01][apart.below(4) as usize];
    if is_limited { (limit, evicts) } else { (0, 0.0) }
}

/// On a third of the seeds with a log: a limit, how often values are let go before it is reached, and how often they can't be read.
fn draw_cold(plan: &Plan, cut: &Cut) -> (usize, f64, f64) {
    // Drawn apart, as above.
    let mut apart = Prng::from_seed(plan.seed.rotate_left(16) ^ 0xc01d);
    let is_limited = apart.chance(1.0 / 3.0) && !cut.without.contains(&Fault::Memory);
    let limit = MEMORY_MAX[apart.below(MEMORY_MAX.len() as u64) as usize];
    let evicts = [0.001, 0.01, 0.05, 0.2][apart.below(4) as usize];
    let errors = if apart.chance(0.3) { 0.002 } else { 0.0 };
    let errors = if cut.without.contains(&Fault::Damage) { 0.0 } else { errors };
    if is_limited { (limit, evicts, errors) } else { (0, 0.0, 0.0) }
}

/// {1: 5%, 3: 45%, 5: 35%, 7: 15%}
fn draw_nodes(prng: &mut Prng) -> usize {
    match prng.below(100) {
        0..5 => 1,
        5..50 => 3,
        50..85 => 5,
        _ => 7,
    }
}

fn draw_application(prng: &mut Prng) -> Application {
    use Application::{Blind, Cart, Counter, Deletes, Neglected, Overwrites, Register};
    match prng.below(50) {
        0 => Neglected,
        drawn => [Register, Cart, Counter, Blind, Deletes, Overwrites][drawn as usize % 6],
    }
}

fn draw_network(prng: &mut Prng, on: impl Fn(Fault, &mut Prng) -> bool) -> NetworkFaults {
    let mut rate = |fault, most: f64| {
        let (on, drawn) = (on(fault, prng), prng.unit());
        if on { drawn * most } else { 0.0 }
    };
    let (loss, duplication, clog) =
        (rate(Fault::Loss, 0.3), rate(Fault::Duplication, 0.5), rate(Fault::Clog, 0.02));
    let delay = match rate(Fault::Delay, 1.0) {
        0.0 => Duration::ZERO,
        drawn => Duration::from_millis(30 + (drawn * 70.0) as u64),
    };
    NetworkFaults { loss, duplication, delay, clog }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_everything_and_no_two_seeds_the_same() {
        let plan = |seed| format!("{:?}", Plan::draw(seed, &Cut::default()));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn shapes_and_faults_come_as_often_as_the_programme_says() {
        let plans: Vec<Plan> = (0..4000).map(|seed| Plan::draw(seed, &Cut::default())).collect();
        let share =
            |is: fn(&Plan) -> bool| plans.iter().filter(|plan| is(plan)).count() as f64 / plans.len() as f64;
        let near = |measured: f64, stated: f64| (measured - stated).abs() < 0.03;
        assert!(near(share(|plan| plan.nodes == 1), 0.05));
        assert!(near(share(|plan| plan.nodes == 3), 0.45));
        assert!(near(share(|plan| plan.nodes == 5), 0.35));
        assert!(near(share(|plan| plan.nodes == 7), 0.15));
        assert!(near(share(|plan| plan.network.loss > 0.0), 0.5));
        assert!(near(share(|plan| plan.network.delay > Duration::ZERO), 0.5));
        assert!(near(share(|plan| plan.spares > 0), 0.285));
        assert!(near(share(|plan| plan.rare_choices), 0.25));
        assert!(near(share(|plan| plan.limited), 0.8));
        assert!(near(share(|plan| plan.anti_entropy), 0.5));
        assert!(near(share(|plan| plan.anti_entropy && !plan.read_repair), 0.2));
        let repairs = |plan: &Plan| (plan.hint_bytes_max > 0, plan.read_repair, plan.anti_entropy);
        let all: BTreeSet<_> = plans.iter().map(repairs).collect();
        assert_eq!(all.len(), 8, "each way to become equal is on and off beside each other one");
    }

    #[test]
    fn what_is_cut_is_gone_and_the_rest_stays() {
        let cut = Cut { without: [Fault::Loss].into(), operations: Some(10), ..Cut::default() };
        for seed in 0..50 {
            let (whole, less) = (Plan::draw(seed, &Cut::default()), Plan::draw(seed, &cut));
            assert_eq!((less.network.loss, less.operations_max), (0.0, 10));
            assert_eq!(less.network.duplication, whole.network.duplication);
            assert_eq!((less.nodes, less.deeds), (whole.nodes, whole.deeds));
        }
    }
}
