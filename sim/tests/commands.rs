//! The command, as README.md shows it: a clean run, a replay, and a bug that is found.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } =
        Command::new(env!("CARGO_BIN_EXE_ringmain-sim")).args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[test]
fn a_run_ends_with_one_line_that_says_it_all() {
    let (code, said) = sim(&["--seeds", "20"]);
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("seeds 20, violations 0, seeds/h ") && last.contains(", virtual/real "),
        "{said}"
    );
    assert_eq!(code, Some(0), "{said}");
}

/// The shortest way to see that checks can fail: a bug that any client would notice.
#[test]
fn a_planted_bug_is_found_shrunk_and_replayed() {
    let (code, said) = sim(&["--planted", "value-truncated"]);
    assert!(said.contains("found after 1 of 50 seeds, by P2"), "{said}");
    assert_eq!(code, Some(0));
    assert!(said.contains("seed 0: shrunk in "), "{said}");
    let broken = |said: &str| said.lines().find(|line| line.contains(" is broken: ")).unwrap().to_owned();
    assert!(broken(&said).contains("P2 No phantoms"), "{said}");
    let command = said.lines().find_map(|line| line.strip_prefix("replay: ")).unwrap();
    let arguments = command.strip_prefix("cargo run --release -p ringmain-sim -- ").unwrap();
    let arguments: Vec<&str> = arguments.split(' ').map(|argument| argument.trim_matches('\'')).collect();
    let cut = arguments.iter().position(|argument| *argument == "--cut").map(|at| arguments[at + 1]).unwrap();
    assert!(cut.contains("crash") && cut.contains(";operations="), "what it doesn't need is left out: {cut}");

    let (code, replayed) = sim(&arguments);
    assert_eq!((code, broken(&replayed)), (Some(1), broken(&said)));
    let story = |said: &str| said[said.find(" is broken: ").unwrap()..].to_owned();
    assert_eq!(story(&replayed), story(&said), "and its history, and the command once more");
    assert!(replayed.lines().count() > said.lines().count(), "with all that happened before");
}

#[test]
fn a_seed_replays_to_the_bit() {
    let hash = || {
        let (code, said) = sim(&["--seed", "3"]);
        assert_eq!(code, Some(0), "{said}");
        said
    };
    assert_eq!(hash(), hash());
    let (_, traced) = sim(&["--seed", "3", "--trace"]);
    assert!(traced.lines().count() > 1000 && traced.ends_with(&hash()), "a trace changes nothing");
}

#[test]
fn mistakes_are_told_with_advice() {
    let (code, said) = sim(&["--planted", "gremlins"]);
    assert!(code == Some(1) && said.contains("--planted list"), "{said}");
    let (code, said) = sim(&["--planted", "list"]);
    assert!(code == Some(0) && said.contains("riak_kv #679") && said.contains("waits for"), "{said}");
    assert_eq!(sim(&["--cut", "gremlins"]).0, Some(2));
}
