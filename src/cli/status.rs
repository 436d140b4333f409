//! How each shard of each node says that it is.

use ringmain_client::{MemberStatus, ShardStatus, Status};
use serde::Serialize;

use super::Failure;
use super::arguments::StatusArguments;
use super::render::json;
use super::requests::{print, run};

pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let statuses = run(&arguments.target, async |client| Ok(client.status().await))?;
    if arguments.json {
        let statuses: Vec<_> = statuses.iter().map(ShardReport::new).collect();
        return print(json(&statuses).as_bytes());
    }
    let text: String = statuses.iter().map(render_status).collect();
    print(text.as_bytes())
}

/// One shard's status, as JSON shows it.
#[derive(Serialize)]
struct ShardReport<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusReport<'a>>,
}

#[derive(Serialize)]
struct StatusReport<'a> {
    name: &'a str,
    node: String,
    cluster: String,
    shard: u16,
    shards: u16,
    topology_epoch: String,
    serving: bool,
    software: &'a str,
    /// While the ring changes: how far that has come.
    #[serde(skip_serializing_if = "str::is_empty")]
    change: &'a str,
    members: Vec<MemberReport<'a>>,
    counters: std::collections::BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct MemberReport<'a> {
    name: &'a str,
    node: String,
    address: &'a str,
    incarnation: u64,
    state: &'a str,
    intent: &'a str,
    weight: u32,
    data_center: &'a str,
    rack: &'a str,
}

impl<'a> ShardReport<'a> {
    fn new(shard: &'a ShardStatus) -> Self {
        let (status, error) = match &shard.status {
            Ok(status) => (Some(StatusReport::new(status)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { address: &shard.address, error, status }
    }
}

impl<'a> StatusReport<'a> {
    fn new(status: &'a Status) -> Self {
        let members = status.members.iter().map(|member| MemberReport {
            name: &member.name,
            node: format!("{:016x}", member.node),
            address: &member.address,
            incarnation: member.incarnation,
            state: &member.state,
            intent: &member.intent,
            weight: member.weight,
            data_center: &member.data_center,
            rack: &member.rack,
        });
        Self {
            name: &status.name,
            node: format!("{:016x}", status.node),
            cluster: format!("{:016x}", status.cluster),
            shard: status.shard,
            shards: status.shards,
            topology_epoch: format!("{:016x}", status.epoch),
            serving: status.serving,
            software: &status.software,
            change: &status.change,
            members: members.collect(),
            counters: status.counters.iter().map(|counter| (&*counter.name, counter.value)).collect(),
        }
    }
}

fn render_status(shard: &ShardStatus) -> String {
    use std::fmt::Write as _;
    let status = match &shard.status {
        Ok(status) => status,
        Err(error) => return format!("{}: {error}\n", shard.address),
    };
    let serving = if status.serving { "serving" } else { "not serving" };
    let (name, number, shards) = (&status.name, status.shard, status.shards);
    let mut text = format!("{name} shard {number} of {shards} at {}: {serving}\n", shard.address);
    for member in &status.members {
        let _ = writeln!(text, "  {}", render_member(member));
    }
    if !status.change.is_empty() {
        let _ = writeln!(text, "  the ring changes: {}", status.change);
    }
    for counter in status.counters.iter().filter(|counter| counter.value > 0) {
        let _ = writeln!(text, "  {} {}", counter.name, counter.value);
    }
    text
}

/// One line: what it is meant to be, and how it is.
fn render_member(member: &MemberStatus) -> String {
    let intent = if member.intent.is_empty() { "member" } else { &member.intent };
    let zone = match (&*member.data_center, &*member.rack) {
        ("", "") => String::new(),
        (center, "") => format!(", in {center}"),
        ("", rack) => format!(", in rack {rack}"),
        (center, rack) => format!(", in {center}, rack {rack}"),
    };
    let (name, address, weight) = (&member.name, &member.address, member.weight);
    let (incarnation, state) = (member.incarnation, &member.state);
    format!("{intent} {name} at {address}, weight {weight}{zone}, incarnation {incarnation}: {state}")
}
