//! What befalls nodes and links at a given time, drawn before the run.

use ringmain::prng::Prng;
use ringmain::time::{Duration, Instant};

use crate::cut::{Cut, Fault};
use crate::plan::Plan;

/// Something that is done to the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A node's process dies and is started again.
    Crash {
        /// Which node.
        node: usize,
        /// How.
        ending: Ending,
    },
    /// A process stands still: neither dead nor alive.
    Pause {
        /// Which node.
        node: usize,
        /// For how long.
        lasts: Duration,
    },
    /// Messages from the first of each pair to the second are lost from here on; an empty list heals.
    Split {
        /// Pairs of nodes.
        blocked: Vec<(usize, usize)>,
    },
    /// A wall clock jumps.
    ClockJump {
        /// Which node's.
        node: usize,
        /// Microseconds.
        by_us: i64,
    },
    /// The next sync of a node's disk fails, and with it all later ones until a restart.
    SyncError {
        /// Which node's.
        node: usize,
    },
    /// The operator says something of the members.
    Word(Word),
    /// A second process starts under a node's name, with a copy of its disk or with none.
    Clone {
        /// Whose disk it has, as it was when that last started.
        copied: bool,
    },
    /// A disk takes nothing more for a while.
    DiskFull {
        /// Which node's.
        node: usize,
        /// For how long.
        lasts: Duration,
    },
}

/// What the operator wants of machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// A spare becomes a member.
    Join(usize),
    /// A member hands its share over.
    Leave(usize),
    /// A machine is gone for good, with its disk.
    Remove(usize),
    /// The first is gone for good, and a spare takes its place.
    Replace(usize, usize),
    /// A member takes more or less.
    Weight(usize, u32),
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// It is asked to stop first, and given a second.
    pub graceful: bool,
    /// The machine restarts: its monotonic clock begins anew.
    pub reboot: bool,
    /// How long it stays down.
    pub down: Duration,
    /// What becomes of its disk meanwhile.
    pub disk: DiskFate,
}

/// What becomes of a disk while its node is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFate {
    /// It stays.
    Kept,
    /// It comes back empty.
    Wiped,
    /// It comes back as it was at some earlier start.
    OldImage,
    /// Bits of it have flipped, or writes have gone astray.
    Damaged,
}

/// Partitions are looked at so often.
const PARTITION_CHECK: Duration = Duration::from_millis(100);

/// All deeds of a run, in the order of time, less those that are cut away.
pub fn draw_deeds(plan: &Plan, prng: &mut Prng, cut: &Cut) -> Vec<(usize, Instant, Deed)> {
    let mut deeds = Vec::new();
    // Each kind has a generator of its own, so that one that is cut away doesn't change the others.
    for fault in
        [Fault::Crash, Fault::Pause, Fault::Partition, Fault::ClockJump, Fault::SyncError, Fault::DiskFull]
    {
        let mut own = prng.split();
        if !own.chance(0.5) || cut.without.contains(&fault) {
            continue;
        }
        match fault {
            Fault::Crash => draw_crashes(plan, &mut own, cut, &mut deeds),
            Fault::Pause => draw_pauses(plan, &mut own, &mut deeds),
            Fault::Partition => draw_partitions(plan, &mut own, &mut deeds),
            Fault::ClockJump => draw_jumps(plan, &mut own, &mut deeds),
            Fault::SyncError => draw_sync_errors(plan, &mut own, &mut deeds),
            _ => draw_full_disks(plan, &mut own, &mut deeds),
        }
    }
    draw_words(plan, &mut prng.split(), &mut deeds);
    if plan.clone.is_some() {
        let mut own = prng.split();
        deeds.push((some_time(plan, &mut own), Deed::Clone { copied: own.chance(0.5) }));
    }
    deeds.sort_by_key(|(at, _)| *at);
    let numbered = deeds.into_iter().enumerate().map(|(number, (at, deed))| (number, at, deed));
    numbered.filter(|(number, ..)| !cut.deeds.contains(number)).collect()
}

fn some_time(plan: &Plan, prng: &mut Prng) -> Instant {
    Instant(0) + Duration(prng.below(plan.span.0))
}

/// Each spare joins or takes a member's place; some members leave, are lost, or weigh more or less.
fn draw_words(plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    let founder = |prng: &mut Prng| prng.below(plan.nodes as u64) as usize;
    for spare in plan.nodes..plan.machines() {
        let word = if prng.chance(0.3) { Word::Replace(founder(prng), spare) } else { Word::Join(spare) };
        say_at_some_time(word, plan, prng, deeds);
        if prng.chance(0.5) {
            let word = match prng.below(5) {
                0 => Word::Leave(spare),
                1 => Word::Remove(founder(prng)),
                2 => Word::Remove(spare),
                _ => Word::Leave(founder(prng)),
            };
            say_at_some_time(word, plan, prng, deeds);
            if let Word::Leave(node) = word
                && prng.chance(0.3)
            {
                deeds.push((soon_after_the_last(prng, deeds), Deed::Word(Word::Join(node))));
            }
        }
        if prng.chance(0.3) {
            let node = founder(prng);
            let word = Word::Weight(node, 50 + prng.below(200) as u32);
            deeds.push((some_time(plan, prng), Deed::Word(word)));
            if prng.chance(0.3) {
                let back = Word::Weight(node, ringmain::ring::WEIGHT_ORDINARY);
                deeds.push((soon_after_the_last(prng, deeds), Deed::Word(back)));
            }
        }
    }
}

/// What was said last is taken back while the change may be under way.
fn soon_after_the_last(prng: &mut Prng, deeds: &[(Instant, Deed)]) -> Instant {
    let said = deeds.iter().rev().find(|(_, deed)| matches!(deed, Deed::Word(_)));
    said.map_or(Instant(0), |(at, _)| *at) + Duration(prng.below(Duration::from_secs(5).0))
}

/// Most of the machines that are lost for good are lost while some don't hear the others, so that fallbacks keep what
/// nobody else has for who won't come back. Three fallbacks of a half keep it for three owners, of whom two come back: so
/// nearly always it is one node that hears nobody, and for so long that the others have noticed the loss before it hears them.
fn say_at_some_time(word: Word, plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    let at = some_time(plan, prng);
    deeds.push((at, Deed::Word(word)));
    if matches!(word, Word::Remove(_) | Word::Replace(..)) && prng.chance(0.8) {
        let lasts = Duration::from_millis(3_000 + prng.below(9_000));
        let shape = if prng.chance(0.9) { Shape::Isolated } else { Shape::Halves };
        deeds.push((at, Deed::Split { blocked: blocked(shape, plan.machines(), prng) }));
        deeds.push((at + lasts, Deed::Split { blocked: Vec::new() }));
    }
}

/// 1 to 10 a node a run.
fn draw_crashes(plan: &Plan, prng: &mut Prng, cut: &Cut, deeds: &mut Vec<(Instant, Deed)>) {
    let wipes = prng.chance(0.5) && !cut.without.contains(&Fault::Wipe);
    let images = prng.chance(0.5) && !cut.without.contains(&Fault::OldImage);
    let damages = prng.chance(0.5) && !cut.without.contains(&Fault::Damage);
    let most = 1 + prng.below(10);
    for node in 0..plan.machines() {
        for _ in 0..=prng.below(most) {
            let fate = prng.below(100);
            let disk = match fate {
                0..30 if wipes => DiskFate::Wiped,
                30..35 if images => DiskFate::OldImage,
                35..55 if damages => DiskFate::Damaged,
                _ => DiskFate::Kept,
            };
            let (graceful, reboot) = (prng.chance(0.2), prng.chance(0.5));
            let longest_ms = [200, 2_000, 20_000][prng.below(3) as usize];
            let down = Duration::from_millis(1 + prng.below(longest_ms));
            let ending = Ending { graceful, reboot, down, disk };
            deeds.push((some_time(plan, prng), Deed::Crash { node, ending }));
        }
    }
}

/// 0 to 5 a node a run, each of 1 to 60 s.
fn draw_pauses(plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    for node in 0..plan.machines() {
        for _ in 0..prng.below(6) {
            let longest_ms = [2_000, 10_000, 60_000][prng.below(3) as usize];
            let lasts = Duration::from_millis(1_000 + prng.below(longest_ms - 1_000));
            deeds.push((some_time(plan, prng), Deed::Pause { node, lasts }));
        }
    }
}

/// Begun with a probability of 0 to 3% a check, healed with one of 1 to 10%.
fn draw_partitions(plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    let (begins, heals) = (prng.unit() * 0.03, 0.01 + prng.unit() * 0.09);
    let mut shape = None;
    let mut at = Instant(0);
    while at.since(Instant(0)) < plan.span {
        at = at + PARTITION_CHECK;
        match shape {
            None if prng.chance(begins) => {
                let drawn = SHAPES[prng.below(SHAPES.len() as u64) as usize];
                shape = Some(drawn);
                deeds.push((at, Deed::Split { blocked: blocked(drawn, plan.machines(), prng) }));
            }
            Some(_) if prng.chance(heals) => {
                shape = None;
                deeds.push((at, Deed::Split { blocked: Vec::new() }));
            }
            Some(Shape::Moving) if prng.chance(0.1) => {
                deeds.push((at, Deed::Split { blocked: blocked(Shape::Moving, plan.machines(), prng) }));
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Shape {
    /// Two halves.
    Halves,
    /// One node alone.
    Isolated,
    /// Two halves and one node that both hear.
    Bridge,
    /// One node speaks and does not hear, or the other way round.
    OneWay,
    /// Halves that change while they last.
    Moving,
}

const SHAPES: [Shape; 5] = [Shape::Halves, Shape::Isolated, Shape::Bridge, Shape::OneWay, Shape::Moving];

/// The pairs between which nothing passes.
fn blocked(shape: Shape, nodes: usize, prng: &mut Prng) -> Vec<(usize, usize)> {
    let order = shuffled(nodes, prng);
    let (left, right) = order.split_at(nodes / 2);
    let both_ways = |left: &[usize], right: &[usize]| -> Vec<(usize, usize)> {
        left.iter().flat_map(|&l| right.iter().flat_map(move |&r| [(l, r), (r, l)])).collect()
    };
    match shape {
        Shape::Halves | Shape::Moving => both_ways(left, right),
        Shape::Isolated => both_ways(&order[..1], &order[1..]),
        Shape::Bridge => both_ways(left, right.get(1..).unwrap_or_default()),
        Shape::OneWay => {
            let outwards = prng.chance(0.5);
            let (one, others) = order.split_at(1);
            others.iter().map(|&other| if outwards { (one[0], other) } else { (other, one[0]) }).collect()
        }
    }
}

fn shuffled(nodes: usize, prng: &mut Prng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes).collect();
    for at in (1..nodes).rev() {
        order.swap(at, prng.below(at as u64 + 1) as usize);
    }
    order
}

/// 0 to 2 a node a run: half a minute either way, an hour back, or 400 days on.
fn draw_jumps(plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    const SECOND: i64 = 1_000_000;
    const JUMPS: [i64; 4] = [30 * SECOND, -30 * SECOND, -3600 * SECOND, 400 * 24 * 3600 * SECOND];
    for node in 0..plan.nodes {
        for _ in 0..prng.below(3) {
            let by_us = JUMPS[prng.below(4) as usize];
            deeds.push((some_time(plan, prng), Deed::ClockJump { node, by_us }));
        }
    }
}

/// One a run: it takes the node's acknowledgements away until it restarts.
fn draw_sync_errors(plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    if plan.durable {
        let node = prng.below(plan.nodes as u64) as usize;
        deeds.push((some_time(plan, prng), Deed::SyncError { node }));
    }
}

fn draw_full_disks(plan: &Plan, prng: &mut Prng, deeds: &mut Vec<(Instant, Deed)>) {
    if plan.durable {
        let node = prng.below(plan.nodes as u64) as usize;
        let lasts = Duration::from_millis(prng.below(10_000));
        deeds.push((some_time(plan, prng), Deed::DiskFull { node, lasts }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_their_shapes() {
        let mut prng = Prng::from_seed(1);
        let count = |shape, prng: &mut Prng| blocked(shape, 5, prng).len();
        assert_eq!(count(Shape::Halves, &mut prng), 2 * 2 * 3);
        assert_eq!(count(Shape::Isolated, &mut prng), 2 * 4);
        assert_eq!(count(Shape::Bridge, &mut prng), 2 * 2 * 2);
        assert_eq!(count(Shape::OneWay, &mut prng), 4);
        assert!(blocked(Shape::Isolated, 1, &mut prng).is_empty(), "one node has nobody to lose");
    }
}
