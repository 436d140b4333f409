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
    /// Why it does not serve, and what to do.
    #[serde(skip_serializing_if = "str::is_empty")]
    trouble: &'a str,
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
    /// While the ring changes: what it has confirmed.
    #[serde(skip_serializing_if = "str::is_empty")]
    step: &'a str,
    /// Partitions that it has to be sent.
    partitions_lacking: u32,
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
            step: &member.step,
            partitions_lacking: member.lacking,
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
            trouble: &status.trouble,
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
    if !status.trouble.is_empty() {
        let _ = writeln!(text, "  {}", status.trouble);
    }
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
    let step = match &*member.step {
        "" => String::new(),
        "not heard" => ", has not confirmed the change".to_owned(),
        step => format!(", {step}"),
    };
    let lacking = match member.lacking {
        0 => String::new(),
        1 => ", lacks 1 partition".to_owned(),
        count => format!(", lacks {count} partitions"),
    };
    format!(
        "{intent} {name} at {address}, weight {weight}{zone}, incarnation {incarnation}: {state}{step}{lacking}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_a_member_lacks_and_how_far_it_is() {
        let member = |step: &str, lacking| MemberStatus {
            node: 1,
            name: "n4".to_owned(),
            address: "h:1".to_owned(),
            incarnation: 2,
            state: "up".to_owned(),
            intent: "member".to_owned(),
            weight: 100,
            data_center: String::new(),
            rack: "r1".to_owned(),
            step: step.to_owned(),
            lacking,
        };
        let before = "member n4 at h:1, weight 100, in rack r1, incarnation 2: up";
        assert_eq!(render_member(&member("", 0)), before);
        assert_eq!(render_member(&member("writing", 12)), format!("{before}, writing, lacks 12 partitions"));
        assert_eq!(render_member(&member("", 1)), format!("{before}, lacks 1 partition"));
        let unheard = render_member(&member("not heard", 0));
        assert_eq!(unheard, format!("{before}, has not confirmed the change"));
    }
}
