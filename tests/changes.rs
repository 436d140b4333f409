//! Changes of members, as an operator makes them: with the program's own commands, against real processes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use cluster::{Cluster, Ended, run};
use serde_json::Value;

/// Run a command against the first node.
fn ask(cluster: &Cluster, arguments: &[&str]) -> Ended {
    let server = cluster.address(0).to_string();
    run(&[arguments, &["--server", &server, "--timeout", "5s"]].concat())
}

#[track_caller]
fn ask_json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let ended = ask(cluster, &[arguments, &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// What each shard that answers says is wanted of a member, and its weight.
fn intents(cluster: &Cluster, name: &str) -> Vec<(String, u64)> {
    let status = ask_json(cluster, &["status"]);
    let statuses = status.as_array().unwrap().iter().filter(|shard| shard["error"].is_null());
    let of_name = |shard: &Value| {
        let members = shard["status"]["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["name"] == name).unwrap();
        (member["intent"].as_str().unwrap().to_owned(), member["weight"].as_u64().unwrap())
    };
    statuses.map(of_name).collect()
}

fn wait_for_intent(cluster: &Cluster, name: &str, intent: &str, weight: u64) {
    cluster::wait_until(&format!("{name} is {intent} everywhere"), || {
        intents(cluster, name).iter().all(|told| *told == (intent.to_owned(), weight))
    });
}

#[track_caller]
fn refused(cluster: &Cluster, arguments: &[&str], words: &str) {
    let ended = ask(cluster, arguments);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{arguments:?}: {ended:?}");
    assert!(ended.stderr.contains(words) && ended.stderr.lines().count() == 1, "{arguments:?}: {ended:?}");
}

#[test]
fn a_guest_joins_as_planned() {
    let mut cluster = Cluster::start(3, 2, &[]);
    cluster.join(2);
    let plan = ask_json(&cluster, &["join", "n3", "--plan"]);
    assert_eq!((&plan["applied"], &plan["replicas"]), (&false.into(), &3.into()));
    let newcomer = plan["members"].as_array().unwrap().iter().find(|member| member["name"] == "n3").unwrap();
    assert_eq!((&newcomer["before"], &newcomer["fair"]), (&0.into(), &768.0.into()));
    assert_eq!(newcomer["gains"], newcomer["after"]);
    assert!(intents(&cluster, "n3").iter().all(|(intent, _)| intent == "guest"));

    let joined = ask(&cluster, &["join", "n3", "--wait", "20s"]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    assert!(joined.stdout.starts_with("member") && joined.stdout.contains("being told"), "{joined:?}");
    let told = intents(&cluster, "n3");
    assert_eq!(told, vec![("member".to_owned(), 100); 8]);
    let again = ask(&cluster, &["join", "n3"]);
    assert!(again.code == Some(0) && again.stdout.contains("nothing to do"), "{again:?}");
    let status = ask(&cluster, &["status"]).stdout;
    assert!(status.contains("member n3 at 127.0.0.1:") && status.contains(", weight 100,"), "{status}");
}

#[test]
fn what_makes_no_sense_is_refused_in_one_sentence() {
    let mut cluster = Cluster::start(2, 1, &[]);
    cluster.join(1);
    refused(&cluster, &["join", "n7"], "there are n0, n1, n2");
    refused(&cluster, &["replace", "n0", "n1", "--force"], "n1 holds a share");
    refused(&cluster, &["remove", "n1"], "--force");
    let leave = ask(&cluster, &["leave", "n1", "--plan"]);
    assert!(leave.stdout.contains("N is 3, 1 member will remain: each key on 1 node"), "{leave:?}");
    assert!(intents(&cluster, "n1").iter().all(|(intent, _)| intent == "member"), "all was but asked");
}

#[test]
fn a_dead_member_is_replaced_and_a_weight_is_changed() {
    let mut cluster = Cluster::start(3, 1, &[]);
    let newcomer = cluster.join(1);
    cluster.kill(2);
    for observer in [0, 1, newcomer] {
        cluster.wait_for_state(observer, 2, "suspected");
    }
    assert_eq!(ask(&cluster, &["weight", "n1", "300"]).code, Some(0));
    wait_for_intent(&cluster, "n1", "member", 300);
    let replaced = ask(&cluster, &["replace", "n2", "n3"]);
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    let again = ask(&cluster, &["replace", "n2", "n3", "--wait", "20s"]);
    assert!(again.code == Some(0) && again.stdout.contains("nothing to do"), "{again:?}");
    wait_for_intent(&cluster, "n2", "removed", 100);
    wait_for_intent(&cluster, "n3", "member", 100);
    refused(&cluster, &["join", "n2"], "another name");
}
