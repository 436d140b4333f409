//! The ledger against models: a linearizable register is never blamed, a dropped write always is, and the
//! compact history agrees with the rule written out over the full one.

use proptest::prelude::*;

use super::*;

const KEY: Key = Key(0);

fn value(number: u64) -> Seen {
    Seen::Value(Verified::Written(number))
}

fn read(ledger: &mut Ledger, seen: Seen) -> Verdict {
    let ticket = ledger.read_issued(KEY);
    ledger.read_answered(ticket, seen, Moment(1000))
}

fn put(ledger: &mut Ledger, number: u64, issued: u64, acknowledged: u64) {
    ledger.write_issued(KEY, number, Effect::Value, Moment(issued));
    ledger.write_acknowledged(KEY, number, Moment(acknowledged));
}

#[test]
fn before_the_first_write_anything_old_is_right() {
    let mut ledger = Ledger::new(0..1);
    assert_eq!(read(&mut ledger, Seen::NotFound), Verdict::Right);
    assert_eq!(read(&mut ledger, Seen::Value(Verified::OtherRun)), Verdict::Right);
    assert_eq!(read(&mut ledger, Seen::Value(Verified::Anonymous)), Verdict::Right);
}

/// A growing load may insert ten billion keys, which would take 320 GB: only what is touched takes memory.
#[test]
fn keys_that_nobody_touches_take_no_memory() {
    let mut ledger = Ledger::new(7..Key::COUNT_MAX);
    let last = Key(20_000_006);
    for key in [Key(7), Key(8), last] {
        ledger.write_issued(key, 1, Effect::Value, Moment(10));
        ledger.write_acknowledged(key, 1, Moment(20));
    }
    assert_eq!(ledger.blocks.iter().flatten().count(), 2);
    let ticket = ledger.read_issued(last);
    assert_eq!(ledger.read_answered(ticket, Seen::NotFound, Moment(30)), Verdict::Behind);
    let ticket = ledger.read_issued(Key(9));
    assert_eq!(ledger.read_answered(ticket, Seen::NotFound, Moment(30)), Verdict::Right);
    let mut last_of_all = Ledger::new(0..BLOCK_LEN + 1);
    let _ticket = last_of_all.read_issued(Key(BLOCK_LEN));
    assert_eq!(last_of_all.blocks.iter().flatten().map(|block| block.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn an_acknowledged_write_must_be_seen() {
    let mut ledger = Ledger::new(0..1);
    put(&mut ledger, 1, 10, 20);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Right);
    assert_eq!(read(&mut ledger, Seen::NotFound), Verdict::Behind);
    assert_eq!(read(&mut ledger, Seen::Value(Verified::OtherRun)), Verdict::Behind);
    put(&mut ledger, 2, 30, 40);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Behind);
    assert_eq!(read(&mut ledger, value(2)), Verdict::Right);
}

/// From the end of its lifetime on, less what a server's clock may be ahead, a value may be gone; an older one must
/// not come back.
#[test]
fn a_value_may_be_absent_when_its_lifetime_is_over() {
    const SECOND: u64 = 1_000_000_000;
    let mut ledger = Ledger::new(0..1);
    put(&mut ledger, 1, SECOND, 2 * SECOND);
    ledger.write_issued(KEY, 2, Effect::of_value(Some(Duration::from_secs(60))), Moment(10 * SECOND));
    ledger.write_acknowledged(KEY, 2, Moment(11 * SECOND));
    let mut read = |seen, second| {
        let ticket = ledger.read_issued(KEY);
        ledger.read_answered(ticket, seen, Moment(second * SECOND))
    };
    assert_eq!(read(Seen::NotFound, 68), Verdict::Behind);
    assert_eq!(read(Seen::NotFound, 69), Verdict::Right);
    assert_eq!(read(value(2), 69), Verdict::Right);
    assert_eq!(read(Seen::Value(Verified::Anonymous), 69), Verdict::Right);
    assert_eq!(read(value(1), 100), Verdict::Behind);
    assert_eq!(
        Effect::of_value(Some(Duration::MAX)),
        Effect::Value,
        "what lives longer than any run lives for ever"
    );
}

/// Issued before the acknowledgement, the read may miss the write; and what it may answer must not be
/// forgotten while it is in flight.
#[test]
fn a_read_is_judged_by_when_it_was_issued() {
    let mut ledger = Ledger::new(0..1);
    put(&mut ledger, 1, 10, 20);
    let early = ledger.read_issued(KEY);
    put(&mut ledger, 2, 30, 40);
    let late = ledger.read_issued(KEY);
    assert_eq!(ledger.read_answered(early, value(1), Moment(50)), Verdict::Right);
    assert_eq!(ledger.read_answered(late, value(1), Moment(50)), Verdict::Behind);
    assert!(
        matches!(ledger.history(KEY), History::Quiet(_)),
        "write 1 is forgotten with the last read that may ask"
    );
}

#[test]
fn of_overlapping_writes_either_may_win() {
    let mut ledger = Ledger::new(0..1);
    ledger.write_issued(KEY, 1, Effect::Value, Moment(10));
    put(&mut ledger, 2, 12, 20);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Right, "in flight");
    ledger.write_acknowledged(KEY, 1, Moment(30));
    assert_eq!(read(&mut ledger, value(1)), Verdict::Right);
    assert_eq!(read(&mut ledger, value(2)), Verdict::Right);
    put(&mut ledger, 3, 40, 50);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Behind);
    assert_eq!(read(&mut ledger, value(2)), Verdict::Behind);
}

#[test]
fn an_unknown_write_may_win_up_to_its_end() {
    let mut ledger = Ledger::new(0..1);
    ledger.write_issued(KEY, 1, Effect::Value, Moment(10));
    ledger.write_unknown(KEY, 1, Moment(100));
    put(&mut ledger, 2, 50, 60);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Right, "it may have come late");
    assert_eq!(read(&mut ledger, value(2)), Verdict::Right);
    put(&mut ledger, 3, 101, 110);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Behind, "it can't have come so late");
}

#[test]
fn a_delete_is_a_write_of_not_found() {
    let mut ledger = Ledger::new(0..1);
    put(&mut ledger, 1, 10, 20);
    ledger.write_issued(KEY, 2, Effect::Absent, Moment(30));
    assert_eq!(read(&mut ledger, Seen::NotFound), Verdict::Right);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Right);
    ledger.write_acknowledged(KEY, 2, Moment(40));
    assert_eq!(read(&mut ledger, Seen::NotFound), Verdict::Right);
    assert_eq!(read(&mut ledger, value(1)), Verdict::Behind, "deleted items must not come back");
    assert_eq!(read(&mut ledger, Seen::Value(Verified::Anonymous)), Verdict::Behind);
}

#[test]
fn a_refused_write_must_never_be_seen() {
    let mut ledger = Ledger::new(0..1);
    ledger.write_issued(KEY, 1, Effect::Value, Moment(10));
    ledger.write_refused(KEY, 1, Moment(20));
    assert_eq!(read(&mut ledger, value(1)), Verdict::Phantom);
    assert_eq!(read(&mut ledger, Seen::NotFound), Verdict::Right);
}

#[test]
fn a_quiet_key_is_small_again() {
    let mut ledger = Ledger::new(0..1);
    for number in 1..1000 {
        put(&mut ledger, number, number * 10, number * 10 + 5);
        let ticket = ledger.read_issued(KEY);
        assert_eq!(ledger.read_answered(ticket, value(number), Moment(1000)), Verdict::Right);
    }
    let history = ledger.history(KEY);
    assert!(matches!(history, History::Quiet(_)), "{history:?}");
    assert_eq!(size_of::<History>(), 32);
    for number in 1000..2000 {
        ledger.write_issued(KEY, number, Effect::Value, Moment(number * 10));
        ledger.write_refused(KEY, number, Moment(number * 10 + 5));
    }
    let History::Busy(busy) = ledger.history(KEY) else { panic!("refused writes are remembered") };
    assert!(format!("{busy:?}").matches("number").count() <= 65);
}

/// Something that happens to a register. Indices pick among what is possible, modulo how many there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    Issue(Effect),
    /// A write in flight takes effect.
    Apply(usize),
    Acknowledge(usize),
    Refuse(usize),
    GiveUp(usize),
    IssueRead,
    /// A read in flight takes its answer.
    Sample(usize),
    Answer(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = 0usize..8;
    let step = prop_oneof![
        3 => Just(Step::Issue(Effect::Value)),
        1 => Just(Step::Issue(Effect::Absent)),
        4 => index.clone().prop_map(Step::Apply),
        4 => index.clone().prop_map(Step::Acknowledge),
        1 => index.clone().prop_map(Step::Refuse),
        1 => index.clone().prop_map(Step::GiveUp),
        4 => Just(Step::IssueRead),
        4 => index.clone().prop_map(Step::Sample),
        4 => index.prop_map(Step::Answer),
    ];
    prop::collection::vec(step, 0..120)
}

#[derive(Clone, Copy, Debug)]
struct ModelWrite {
    number: u64,
    effect: Effect,
    issued: u64,
    applied: bool,
    acknowledged: Option<u64>,
    refused: bool,
    /// After this it may not take effect; unknown writes have one, writes in flight none.
    end: Option<u64>,
}

#[derive(Debug)]
struct ModelRead {
    ticket: ReadTicket,
    issued: u64,
    answer: Option<Seen>,
}

/// A register with one current state, and the ledger watching it.
#[derive(Debug)]
struct Model {
    now: u64,
    state: Seen,
    writes: Vec<ModelWrite>,
    reads: Vec<ModelRead>,
    ledger: Ledger,
}

/// How long after being given up a write of unknown outcome may still take effect.
const UNKNOWN_FOR: u64 = 7;

impl Model {
    fn new() -> Self {
        let ledger = Ledger::new(0..1);
        Self { now: 0, state: Seen::NotFound, writes: Vec::new(), reads: Vec::new(), ledger }
    }

    /// Runs one step. An answered read gives its issue moment, its answer and the ledger's verdict.
    fn step(&mut self, step: Step) -> Option<(u64, Seen, Verdict)> {
        self.now += 1;
        let at = Moment(self.now);
        match step {
            Step::Issue(effect) => {
                let number = self.now;
                self.ledger.write_issued(KEY, number, effect, at);
                self.writes.push(ModelWrite {
                    number,
                    effect,
                    issued: self.now,
                    applied: false,
                    acknowledged: None,
                    refused: false,
                    end: None,
                });
            }
            Step::Apply(index) => {
                if let Some(write) = self.pick(index, |write, now| {
                    !write.applied && !write.refused && write.end.is_none_or(|end| now <= end)
                }) {
                    write.applied = true;
                    let write = *write;
                    self.state =
                        if write.effect == Effect::Value { value(write.number) } else { Seen::NotFound };
                }
            }
            Step::Acknowledge(index) => {
                let now = self.now;
                if let Some(write) = self.pick(index, |write, _| write.applied && write.end.is_none()) {
                    (write.acknowledged, write.end) = (Some(now), Some(now));
                    let number = write.number;
                    self.ledger.write_acknowledged(KEY, number, at);
                }
            }
            Step::Refuse(index) => {
                let now = self.now;
                if let Some(write) = self.pick(index, |write, _| !write.applied && write.end.is_none()) {
                    (write.refused, write.end) = (true, Some(now));
                    let number = write.number;
                    self.ledger.write_refused(KEY, number, at);
                }
            }
            Step::GiveUp(index) => {
                let until = self.now + UNKNOWN_FOR;
                if let Some(write) = self.pick(index, |write, _| write.end.is_none()) {
                    write.end = Some(until);
                    let number = write.number;
                    self.ledger.write_unknown(KEY, number, Moment(until));
                }
            }
            Step::IssueRead => {
                let ticket = self.ledger.read_issued(KEY);
                self.reads.push(ModelRead { ticket, issued: self.now, answer: None });
            }
            Step::Sample(index) => {
                if !self.reads.is_empty() {
                    let place = index % self.reads.len();
                    self.reads[place].answer = Some(self.state);
                }
            }
            Step::Answer(index) => {
                if !self.reads.is_empty() {
                    let read = self.reads.swap_remove(index % self.reads.len());
                    let answer = read.answer.unwrap_or(self.state);
                    let verdict = self.ledger.read_answered(read.ticket, answer, Moment(self.now));
                    return Some((read.issued, answer, verdict));
                }
            }
        }
        None
    }

    fn pick(&mut self, index: usize, possible: impl Fn(&ModelWrite, u64) -> bool) -> Option<&mut ModelWrite> {
        let now = self.now;
        let mut candidates: Vec<_> = self.writes.iter_mut().filter(|write| possible(write, now)).collect();
        if candidates.is_empty() {
            return None;
        }
        let place = index % candidates.len();
        Some(candidates.swap_remove(place))
    }

    /// The rule of the module's essay, word for word, over the full history.
    fn rule(&self, read_issued: u64, answer: Seen) -> Verdict {
        let superseded = |end: u64| {
            self.writes
                .iter()
                .any(|v| v.issued > end && v.acknowledged.is_some_and(|moment| moment < read_issued))
        };
        let allowed = |write: &ModelWrite| !write.refused && !write.end.is_some_and(superseded);
        let right = match answer {
            Seen::NotFound => {
                !superseded(0) || self.writes.iter().any(|w| w.effect == Effect::Absent && allowed(w))
            }
            Seen::Value(Verified::Written(number)) => {
                let write = self.writes.iter().find(|write| write.number == number);
                write.is_some_and(|write| write.effect == Effect::Value && allowed(write))
            }
            Seen::Value(_) => unreachable!("the model has no such values"),
        };
        if right { Verdict::Right } else { Verdict::Behind }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_linearizable_register_is_never_blamed(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            if let Some((_, answer, verdict)) = model.step(step) {
                prop_assert_eq!(verdict, Verdict::Right, "{:?} from {:?}", answer, model);
            }
        }
    }

    /// The register answers with any state it likes; the compact ledger must agree with the full rule.
    #[test]
    fn the_compact_history_agrees_with_the_rule(steps in steps(), answers in prop::collection::vec(0usize..6, 120)) {
        let mut model = Model::new();
        for (step, pick) in steps.into_iter().zip(answers) {
            // Of the latest writes, one is made the state whatever really happened to it.
            if let Some(write) = model.writes.iter().rev().nth(pick) {
                model.state = if write.effect == Effect::Value { value(write.number) } else { Seen::NotFound };
            }
            if let Some((issued, answer, verdict)) = model.step(step) {
                let blamed = verdict != Verdict::Right;
                prop_assert_eq!(blamed, model.rule(issued, answer) != Verdict::Right, "{:?} in {:?}", answer, model);
            }
        }
    }

    #[test]
    fn a_dropped_write_is_always_seen(steps in steps(), delete in any::<bool>()) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        // Everything in flight ends, and what is unknown runs out.
        while model.writes.iter().any(|write| write.end.is_none()) {
            model.step(Step::Apply(0));
            model.step(Step::Acknowledge(0));
        }
        model.now += UNKNOWN_FOR + 1;
        let effect = if delete { Effect::Absent } else { Effect::Value };
        let number = model.now;
        model.ledger.write_issued(KEY, number, effect, Moment(number));
        model.ledger.write_acknowledged(KEY, number, Moment(number + 1));
        // A dropped delete of nothing can't be told from a kept one.
        prop_assume!(!(delete && model.state == Seen::NotFound));
        prop_assert_eq!(read(&mut model.ledger, model.state), Verdict::Behind);
    }
}
