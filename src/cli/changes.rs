//! The commands that change who holds what.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use ringmain_client::{Change, Changed, Client, Error, MemberStatus, Move, ShardStatus, Status, What};
use serde::Serialize;

use super::Failure;
use super::arguments::{
    JoinArguments, LeaveArguments, Manner, RemoveArguments, ReplaceArguments, WeightArguments,
};
use super::render::json;
use super::requests::{connected, print, span};

/// With `--wait`, so often is looked how far it is,
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// and so often it is told, if it is not the same any more.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// So many members are named at once.
const NAMED_MAX: usize = 5;

const NOTHING: Change<'static> =
    Change { what: What::Join, name: "", new_name: "", weight: 0, plan_only: false, force: false };

pub(super) fn join(arguments: &JoinArguments) -> Result<(), Failure> {
    let weight = arguments.weight.unwrap_or(0);
    change(&arguments.manner, Change { what: What::Join, name: &arguments.name, weight, ..NOTHING })
}

pub(super) fn leave(arguments: &LeaveArguments) -> Result<(), Failure> {
    change(&arguments.manner, Change { what: What::Leave, name: &arguments.name, ..NOTHING })
}

pub(super) fn remove(arguments: &RemoveArguments) -> Result<(), Failure> {
    let force = arguments.force;
    change(&arguments.manner, Change { what: What::Remove, name: &arguments.name, force, ..NOTHING })
}

pub(super) fn replace(arguments: &ReplaceArguments) -> Result<(), Failure> {
    let (name, new_name, force) = (&*arguments.old, &*arguments.new, arguments.force);
    change(&arguments.manner, Change { what: What::Replace, name, new_name, force, ..NOTHING })
}

pub(super) fn weight(arguments: &WeightArguments) -> Result<(), Failure> {
    let weight = arguments.weight;
    change(&arguments.manner, Change { what: What::Weight, name: &arguments.name, weight, ..NOTHING })
}

fn change(manner: &Manner, word: Change<'_>) -> Result<(), Failure> {
    let word = Change { plan_only: manner.plan, ..word };
    connected(&manner.target, async |client| {
        let changed = client.change(&word).await.map_err(|error| failure(&error))?;
        if manner.json {
            print(json(&Report::new(&word, &changed)).as_bytes())?;
        } else {
            print(render(&word, &changed).as_bytes())?;
        }
        match manner.wait.map(span) {
            Some(patience) => wait(&client, &word, patience).await,
            None => Ok(()),
        }
    })
}

/// What stopped the change, in the server's own words where it has some.
fn failure(error: &Error) -> Failure {
    match error {
        Error::BadRequest(sentence) => Failure::Failed(sentence.clone()),
        Error::MaybeApplied { .. } => Failure::failed(
            "no answer came, and the change may have been made: say it again, which does no harm, or look at \
             `ringmain status`",
        ),
        error => Failure::failed(error),
    }
}

/// Until every shard that answers has come to the end of the change.
async fn wait(client: &Client, word: &Change<'_>, patience: Duration) -> Result<(), Failure> {
    let mut teller = Teller::default();
    let is_over = async {
        loop {
            let shards = client.status().await;
            if is_over(word, &shards) {
                return;
            }
            teller.tell(awaited(word, &shards));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let ended = tokio::time::timeout(patience, is_over).await;
    teller.end();
    ended.map_err(|_| {
        Failure::Failed(format!(
            "the change was taken, and goes on: it has not come to its end in the time of --wait, since {}; `ringmain \
             status` shows how far it is",
            teller.told
        ))
    })
}

/// Says on the error output whom the change waits for: in one line that is written anew on a terminal, else in a line
/// for each news.
#[derive(Default)]
struct Teller {
    told: String,
    told_at: Option<tokio::time::Instant>,
}

impl Teller {
    fn tell(&mut self, awaited: String) {
        let now = tokio::time::Instant::now();
        let is_early = self.told_at.is_some_and(|at| now.duration_since(at) < TELL_EVERY);
        if awaited == self.told || is_early {
            return;
        }
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[Kwaiting: {awaited}");
        } else {
            eprintln!("waiting: {awaited}");
        }
        (self.told, self.told_at) = (awaited, Some(now));
    }

    /// What comes next stands in a line of its own.
    fn end(&self) {
        if self.told_at.is_some() && io::stderr().is_terminal() {
            eprintln!();
        }
    }
}

/// Whom the change waits for, and why.
fn awaited(word: &Change<'_>, shards: &[ShardStatus]) -> String {
    let told: Vec<&Status> = shards.iter().filter_map(|shard| shard.status.as_ref().ok()).collect();
    let Some(first) = told.first() else { return "no node answers".to_owned() };
    // Whoever is at the change knows most of the others.
    let knows = told.iter().find(|status| !status.change.is_empty()).unwrap_or(first);
    let members = knows.members.iter().filter(|member| member.intent != "removed");
    let mut reasons: Vec<String> = members.filter_map(|member| reason(member, &told)).collect();
    let behind = told.iter().filter(|status| status.change.is_empty() && !is_as_said(word, status));
    reasons.extend(behind.map(|status| format!("{} has not heard of it", status.name)));
    reasons.sort_unstable();
    reasons.dedup();
    let more = reasons.len().saturating_sub(NAMED_MAX);
    reasons.truncate(NAMED_MAX);
    match (reasons.is_empty(), more) {
        (true, _) => "all have confirmed, and the last step is being told".to_owned(),
        (_, 0) => reasons.join("; "),
        _ => format!("{}; and {more} more", reasons.join("; ")),
    }
}

/// Why a member holds the change up, if it does.
fn reason(member: &MemberStatus, told: &[&Status]) -> Option<String> {
    let name = &member.name;
    let others =
        told.iter().flat_map(|status| status.members.iter()).filter(|other| other.node == member.node);
    let is_away = others.clone().all(|other| other.state != "self")
        && others.clone().any(|other| ["suspected", "not met"].contains(&&*other.state));
    if is_away {
        return Some(format!("{name} can't be reached, and the change waits until it is back or removed"));
    }
    match (&*member.step, member.lacking) {
        ("not heard", _) => Some(format!("{name} has not confirmed that it knows of the change")),
        ("writing", 0) => Some(format!("{name} has not confirmed that it has all it will own")),
        ("writing", 1) => Some(format!("{name} still lacks 1 partition")),
        ("writing", lacking) => Some(format!("{name} still lacks {lacking} partitions")),
        ("whole", _) => Some(format!("{name} has not confirmed that it reads from the new owners")),
        _ => None,
    }
}

/// A node that has not heard of the change yet knows other intents; one that works on it says so. Whoever doesn't
/// answer holds up the others, who say so too.
fn is_over(word: &Change<'_>, shards: &[ShardStatus]) -> bool {
    let goes = matches!(word.what, What::Leave | What::Remove | What::Replace).then_some(word.name);
    let told = shards.iter().filter_map(|shard| shard.status.as_ref().ok());
    // Whoever is gone is told nothing more.
    let mut told = told.filter(|status| Some(&*status.name) != goes).peekable();
    let anybody = told.peek().is_some();
    anybody && told.all(|status| status.change.is_empty() && is_as_said(word, status))
}

fn is_as_said(word: &Change<'_>, status: &Status) -> bool {
    let member = |name: &str| status.members.iter().find(|member| member.name == name);
    let is_gone = |name| member(name).is_none_or(|member| member.intent == "removed");
    let is_member = |name| member(name).is_some_and(|member| member.intent == "member");
    let weighs = |name| member(name).is_some_and(|member| word.weight == 0 || member.weight == word.weight);
    match word.what {
        What::Join => is_member(word.name) && weighs(word.name),
        What::Leave | What::Remove => is_gone(word.name),
        What::Replace => is_gone(word.name) && is_member(word.new_name),
        What::Weight => weighs(word.name),
    }
}

/// What a change moves, as JSON shows it.
#[derive(Serialize)]
struct Report<'a> {
    applied: bool,
    version: u64,
    partitions: u32,
    replicas: u8,
    replicas_wanted: u8,
    copies_to_send: u64,
    copies_to_send_at_least: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    members: Vec<MemberReport<'a>>,
}

#[derive(Serialize)]
struct MemberReport<'a> {
    name: &'a str,
    node: String,
    weight: u32,
    before: u32,
    after: u32,
    gains: u32,
    loses: u32,
    fair: f64,
}

impl<'a> Report<'a> {
    fn new(word: &Change<'_>, changed: &'a Changed) -> Self {
        let member = |moved: &'a Move| MemberReport {
            name: &moved.name,
            node: format!("{:016x}", moved.node),
            weight: moved.weight,
            before: moved.before,
            after: moved.after,
            gains: moved.gains,
            loses: moved.loses,
            fair: f64::from(moved.fair_milli) / 1000.0,
        };
        Self {
            applied: changed.applied,
            version: changed.version,
            partitions: changed.partitions,
            replicas: changed.replicas,
            replicas_wanted: changed.replicas_wanted,
            copies_to_send: changed.streamed,
            copies_to_send_at_least: changed.least,
            warning: warning(word, changed),
            members: changed.moves.iter().map(member).collect(),
        }
    }
}

/// A table of the partitions that each member owns, and what it comes to.
fn render(word: &Change<'_>, changed: &Changed) -> String {
    let width = changed.moves.iter().map(|moved| moved.name.chars().count()).max().unwrap_or(0).max(6);
    let mut text =
        format!("{:width$}  weight    now  after  gains  loses  fair share\n", "member", width = width);
    let mut moves: Vec<_> = changed.moves.iter().collect();
    moves.sort_unstable_by_key(|moved| &moved.name);
    for moved in moves {
        let fair = f64::from(moved.fair_milli) / 1000.0;
        let Move { name, weight, before, after, gains, loses, .. } = moved;
        let _ = writeln!(
            text,
            "{name:width$}  {weight:6}  {before:5}  {after:5}  {gains:5}  {loses:5}  {fair:10.1}"
        );
    }
    let copies = u64::from(changed.partitions) * u64::from(changed.replicas);
    let (streamed, least) = (changed.streamed, changed.least);
    let _ = writeln!(
        text,
        "copies of partitions to send: {streamed} of {copies}, and no way sends fewer than {least}"
    );
    if let Some(warning) = warning(word, changed) {
        let _ = writeln!(text, "{warning}");
    }
    text.push_str(match (changed.version, changed.applied) {
        (0, _) => "nothing to do: all is so already\n",
        (_, false) => "planned only: nothing has changed\n",
        (_, true) => "the members are being told; `ringmain status` shows how far it is\n",
    });
    text
}

/// Fewer members than copies.
fn warning(word: &Change<'_>, changed: &Changed) -> Option<String> {
    let (wanted, replicas) = (changed.replicas_wanted, changed.replicas);
    let members = if replicas == 1 { "member" } else { "members" };
    let nodes = if replicas == 1 { "node" } else { "nodes" };
    let come = match word.what {
        What::Leave | What::Remove => format!("{replicas} {members} will remain"),
        What::Join | What::Replace | What::Weight => format!("there will be {replicas} {members}"),
    };
    (replicas < wanted).then(|| format!("N is {wanted}, {come}: each key on {replicas} {nodes}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(name: &str, before: u32, after: u32) -> Move {
        Move {
            node: 1,
            name: name.to_owned(),
            weight: 100,
            before,
            after,
            gains: after.saturating_sub(before),
            loses: before.saturating_sub(after),
            fair_milli: after * 1000,
        }
    }

    fn changed(moves: Vec<Move>) -> Changed {
        Changed {
            applied: false,
            version: 9,
            partitions: 64,
            replicas_wanted: 3,
            replicas: 2,
            streamed: 0,
            least: 0,
            moves,
        }
    }

    #[test]
    fn a_plan_is_a_table_and_says_when_copies_are_few() {
        let leave = Change { what: What::Leave, name: "n2", plan_only: true, ..NOTHING };
        let text = render(&leave, &changed(vec![moved("n0", 64, 64), moved("a-long-name", 64, 0)]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "member       weight    now  after  gains  loses  fair share");
        assert_eq!(lines[1], "a-long-name     100     64      0      0     64         0.0");
        assert_eq!(lines[4], "N is 3, 2 members will remain: each key on 2 nodes");
        assert_eq!(lines[5], "planned only: nothing has changed");
        let parsed: serde_json::Value =
            serde_json::from_str(&json(&Report::new(&leave, &changed(vec![moved("n0", 64, 63)])))).unwrap();
        assert_eq!(
            (&parsed["members"][0]["loses"], &parsed["members"][0]["fair"]),
            (&1.into(), &63.0.into())
        );
    }

    fn shard(name: &str, intent: &str, weight: u32, change: &str) -> ShardStatus {
        let member = MemberStatus {
            node: 1,
            name: name.to_owned(),
            address: String::new(),
            incarnation: 1,
            state: "up".to_owned(),
            intent: intent.to_owned(),
            weight,
            data_center: String::new(),
            rack: String::new(),
            step: String::new(),
            lacking: 0,
        };
        let status = Status {
            node: 1,
            name: name.to_owned(),
            cluster: 1,
            shard: 0,
            shards: 1,
            epoch: 1,
            serving: true,
            software: String::new(),
            members: vec![member],
            counters: vec![],
            change: change.to_owned(),
            trouble: String::new(),
        };
        ShardStatus { address: String::new(), status: Ok(status) }
    }

    #[test]
    fn whoever_holds_a_change_up_is_named() {
        let join = Change { what: What::Join, name: "n4", ..NOTHING };
        let at = |change: &str, step: &str, lacking, state: &str| {
            let mut shard = shard("n4", "member", 100, change);
            let member = &mut shard.status.as_mut().unwrap().members[0];
            (member.step, member.lacking, member.state) = (step.to_owned(), lacking, state.to_owned());
            shard
        };
        let told = |shards: &[ShardStatus]| awaited(&join, shards);
        let away = || ShardStatus { address: String::new(), status: Err(Error::Timeout) };
        assert_eq!(told(&[away()]), "no node answers");
        assert_eq!(told(&[away(), at("writing", "writing", 12, "up")]), "n4 still lacks 12 partitions");
        assert!(told(&[at("writing", "not heard", 0, "up")]).contains("n4 has not confirmed that it knows"));
        assert!(told(&[at("whole", "writing", 0, "up")]).contains("all it will own"));
        assert!(told(&[at("reading", "whole", 0, "up")]).contains("reads from the new owners"));
        assert!(told(&[at("writing", "writing", 3, "suspected")]).contains("n4 can't be reached"));
        assert!(told(&[shard("n4", "guest", 100, "")]).contains("n4 has not heard of it"));
        let suspected_by_one =
            [at("writing", "writing", 3, "suspected"), at("writing", "writing", 3, "self")];
        assert_eq!(told(&suspected_by_one), "n4 still lacks 3 partitions", "it answers for itself");
    }

    #[test]
    fn a_change_is_over_when_all_who_answer_say_so() {
        let join = Change { what: What::Join, name: "n4", ..NOTHING };
        let heavy = Change { weight: 200, ..join };
        let leave = Change { what: What::Leave, ..join };
        let away = || ShardStatus { address: String::new(), status: Err(Error::Timeout) };
        let is_member = || shard("n4", "member", 100, "");
        assert!(is_over(&join, &[is_member(), away()]));
        assert!(!is_over(&join, &[away()]), "nobody knows");
        assert!(!is_over(&join, &[is_member(), shard("n4", "guest", 100, "")]), "one has not heard of it");
        assert!(!is_over(&join, &[is_member(), shard("n4", "member", 100, "writing")]), "one is at it");
        assert!(!is_over(&heavy, &[is_member()]) && is_over(&heavy, &[shard("n4", "member", 200, "")]));
        assert!(!is_over(&leave, &[shard("n4", "leaving", 100, "")]));
        assert!(is_over(&leave, &[shard("n1", "member", 100, ""), shard("n4", "removed", 100, "reading")]));
        assert!(!is_over(&leave, &[shard("n1", "member", 100, "reading")]));
    }
}
