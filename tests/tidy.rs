//! The rules of STYLE.md and ARCHITECTURE.md that a program can check, and proof that the checks can fail.
//!
//! Each check takes text and gives sentences; the tests at the end feed every one of them with samples that it
//! must refuse, and others that it must let pass.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/paths.rs"]
mod paths;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use paths::{Mention, What};

/// A file has a reason to split by this many lines.
const LINES_MAX: usize = 800;
/// A room says what it is, what it promises and what it never does: that takes more than a title.
const ESSAY_WORDS_MIN: usize = 40;
const VAGUE_NAMES: [&str; 9] =
    ["util", "utils", "helper", "helpers", "common", "manager", "misc", "data", "info"];
const MACROS_OF_THE_MOMENT: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Pieced together, so that this file doesn't hold them.
const WORDS_OF_THE_MOMENT: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];
const FOLDERS_OF_SOMEBODY: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Use", "rs/"),
    concat!("/mn", "t/"),
];

/// A file of the repository.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

#[test]
fn the_tree_is_tidy() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the walk misses the sources");
    let mut wrong: Vec<String> = Vec::new();
    let tests_only = files_for_tests_only(&sources);
    for source in &sources {
        let mut found = text_violations(source);
        if source.path.ends_with(".rs") {
            found.extend(rust_violations(source, tests_only.contains(&source.path)));
        }
        wrong.extend(found.into_iter().map(|(line, sentence)| format!("{}:{line}: {sentence}", source.path)));
    }
    wrong.extend(unexplained_dependencies(&sources));
    assert!(wrong.is_empty(), "{} things to tidy up:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every file that people write.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries: Vec<PathBuf> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in entries {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if is_made_by_a_program(&relative) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                sources.push(Source { path: relative, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Built, generated or resolved, or kept by another program.
fn is_made_by_a_program(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "target" | ".git" | "Cargo.lock") || path == "schema/src/generated"
}

/// What a file of any kind must not hold.
fn text_violations(source: &Source) -> Vec<(usize, String)> {
    let mut wrong = Vec::new();
    let lines = source.text.lines().count();
    if source.path.ends_with(".rs") && lines > LINES_MAX {
        wrong.push((lines, format!("{lines} lines are more than {LINES_MAX}: it holds more than one idea")));
    }
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let vague = source.path.split(['/', '.']).find(|part| VAGUE_NAMES.contains(part));
    if let Some(part) = vague.filter(|_| name.ends_with(".rs")) {
        wrong.push((1, format!("'{part}' says nothing: name it for its idea")));
    }
    for (number, line) in (1..).zip(source.text.lines()) {
        wrong.extend(line_violation(line).map(|sentence| (number, sentence)));
    }
    wrong
}

fn line_violation(line: &str) -> Option<String> {
    if let Some(word) = WORDS_OF_THE_MOMENT.into_iter().find(|word| has_word(line, word)) {
        return Some(format!("'{word}': do it, or file an issue"));
    }
    let begins_there = |folder: &str| {
        let mut starts = line.match_indices(folder).map(|(at, _)| line[..at].chars().next_back());
        starts
            .any(|before| before.is_none_or(|before| !before.is_alphanumeric() && !"._-}*".contains(before)))
    };
    let folder = FOLDERS_OF_SOMEBODY.into_iter().find(|folder| begins_there(folder))?;
    Some(format!("'{folder}' is a folder of somebody's machine: use a relative path"))
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|character: char| !character.is_alphanumeric()).any(|part| part == word)
}

/// What a Rust file must not hold.
fn rust_violations(source: &Source, is_test: bool) -> Vec<(usize, String)> {
    let mentions = match paths::mentions(&source.text) {
        Ok(mentions) => mentions,
        Err(error) => return vec![(1, format!("can't be read as Rust: {error}"))],
    };
    let mut wrong = imports::violations(&source.path, is_test, &mentions);
    wrong.extend(mentions.iter().filter_map(|mention| Some((mention.line, passing(mention)?))));
    wrong.extend(essay_violation(source).map(|sentence| (1, sentence)));
    wrong
}

/// What may pass through a working copy but not into a commit.
fn passing(mention: &Mention) -> Option<String> {
    match &mention.what {
        What::Macro(name) if MACROS_OF_THE_MOMENT.contains(&name.as_str()) => {
            Some(format!("'{name}!' isn't finished work"))
        }
        What::IgnoreWithoutReason => Some("#[ignore] without a reason: write #[ignore = \"why\"]".to_owned()),
        _ => None,
    }
}

/// The file that opens a room begins with an essay; one that is a room of its own with a sentence at least.
fn essay_violation(source: &Source) -> Option<String> {
    let inside = source.path.strip_prefix("src/")?;
    let words_min = match inside.strip_suffix("/mod.rs") {
        Some(room) if !room.contains('/') => ESSAY_WORDS_MIN,
        Some(_) => return None,
        None if inside.contains('/') => return None,
        None => 1,
    };
    let essay = source.text.lines().map_while(|line| line.strip_prefix("//!"));
    let words = essay.flat_map(str::split_whitespace).count();
    let sentence = "say what it is, what it promises and what it never does";
    (words < words_min)
        .then(|| format!("opens with {words} words of //!, fewer than {words_min}: {sentence}"))
}

/// Files that a `#[cfg(test)] mod name;` brings in, and all under them.
fn files_for_tests_only(sources: &[Source]) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let inside = match file {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            _ => source.path.trim_end_matches(".rs").to_owned(),
        };
        let mentions = paths::mentions(&source.text).unwrap_or_default();
        for name in mentions.iter().filter_map(|mention| match &mention.what {
            What::TestFile(name) => Some(name),
            _ => None,
        }) {
            let (alone, folder) = (format!("{inside}/{name}.rs"), format!("{inside}/{name}/"));
            let under = |path: &String| *path == alone || path.starts_with(&folder);
            files.extend(sources.iter().map(|source| source.path.clone()).filter(under));
        }
    }
    files
}

/// Dependencies that ARCHITECTURE.md has no line for, and lines that no dependency is left for.
fn unexplained_dependencies(sources: &[Source]) -> Vec<String> {
    let manifests = sources.iter().filter(|source| source.path.ends_with("Cargo.toml"));
    let used: BTreeSet<String> = manifests.flat_map(|manifest| dependencies(&manifest.text)).collect();
    let architecture = sources.iter().find(|source| source.path == "ARCHITECTURE.md");
    let explained = explained_dependencies(architecture.map_or("", |source| source.text.as_str()));
    let missing = used.difference(&explained).map(|name| format!("`{name}` has no line that says why"));
    let left = explained.difference(&used).map(|name| format!("`{name}` has a line, but nobody uses it"));
    missing.chain(left).map(|sentence| format!("ARCHITECTURE.md: the dependency {sentence}")).collect()
}

/// The first column of the table under its heading.
fn explained_dependencies(architecture: &str) -> BTreeSet<String> {
    let section = architecture.split("## Why each dependency").nth(1).unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.map(|(name, _)| name.to_owned()).collect()
}

/// The names in a manifest's `[dependencies]`, but for our own.
fn dependencies(manifest: &str) -> Vec<String> {
    let table: toml::Table = manifest.parse().expect("cargo has read it already");
    let names =
        table.get("dependencies").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    names.filter(|name| !name.starts_with("ringmain")).cloned().collect()
}

mod the_checks_can_fail {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// Sentences about a file, apart from the one that asks for an essay.
    fn about(path: &str, text: &str) -> Vec<(usize, String)> {
        let source = source(path, text);
        let mut found = text_violations(&source);
        found.extend(rust_violations(&source, false));
        found.retain(|(_, sentence)| !sentence.contains("words of //!"));
        found
    }

    #[track_caller]
    fn refused(path: &str, text: &str, line: usize, words: &str) {
        let found = about(path, text);
        let hit = found.iter().any(|(at, sentence)| *at == line && sentence.contains(words));
        assert!(hit, "{path}: '{text}' should be refused on line {line} with '{words}', but: {found:?}");
    }

    #[track_caller]
    fn passed(path: &str, text: &str) {
        assert_eq!(about(path, text), [], "{path}: '{text}'");
    }

    #[test]
    fn imports_run_one_way() {
        refused("src/ring/mod.rs", "use crate::shard::Shard;", 1, "ring doesn't import shard");
        refused("src/id.rs", "use crate::time::Now;", 1, "id doesn't import time");
        refused("src/shard/mod.rs", "\nuse crate::shell::Shell;", 2, "shard doesn't import shell");
        refused("src/storage/mod.rs", "fn f() { crate::replica::g(); }", 1, "storage doesn't import replica");
        refused("src/causality/x.rs", "use crate::storage::Index;", 1, "causality doesn't import storage");
        passed("src/storage/mod.rs", "use crate::causality::Siblings;");
        passed("src/shell/mod.rs", "use crate::{config::Config, shard::Shard, time::Now};");
        passed("src/shard/mod.rs", "use crate::{ring::Ring, id::NodeId}; use self::io::Input;");
    }

    #[test]
    fn rooms_of_the_middle_rank_never_import_each_other() {
        refused("src/replica/mod.rs", "use crate::membership::View;", 1, "replica doesn't import membership");
        refused("src/coordinator/get.rs", "use crate::{ring::Ring, replica::Replica};", 1, "import replica");
        let nested = "use crate::{\n  ring::{Ring, Token},\n  hint::Hint as H,\n};";
        refused("src/coordinator/get.rs", nested, 3, "coordinator doesn't import hint");
    }

    #[test]
    fn a_way_round_is_seen() {
        refused("src/replica/mod.rs", "use super::membership::View;", 1, "replica doesn't import membership");
        refused("src/replica/apply.rs", "use super::super::membership::View;", 1, "import membership");
        let inner = "mod inner { fn f() { super::super::membership::g() } }";
        refused("src/replica/mod.rs", inner, 1, "import membership");
        passed("src/replica/mod.rs", "mod inner { use super::apply; }");
        refused("src/ring/mod.rs", "fn f() { assert!(crate::shard::g()); }", 1, "ring doesn't import shard");
        refused("src/ring/mod.rs", "use ::std::net::TcpStream;", 1, "ring doesn't name std::net");
        refused("src/ring/mod.rs", "use core::time::Duration;", 1, "ring doesn't name core::time");
    }

    #[test]
    fn only_the_shell_touches_the_machine() {
        for path in ["glommio::Task", "io_uring::IoUring", "std::net::TcpStream", "std::fs::File"] {
            refused("src/shard/mod.rs", &format!("use {path};"), 1, "shell");
            passed("src/shell/mod.rs", &format!("use {path};"));
        }
        refused("src/ring/mod.rs", "fn f() { std::thread::yield_now(); }", 1, "std::thread");
        refused("src/ring/mod.rs", "use std::{fmt, time::Instant};", 1, "std::time");
        refused("src/config.rs", "use std::net::Ipv4Addr;", 1, "std::net");
        passed("src/config.rs", "use std::fs;");
        passed("src/ring/mod.rs", "//! std::net in words\n// std::fs\nconst S: &str = \"std::thread\";");
    }

    #[test]
    fn tests_may_touch_the_machine_but_not_the_order_of_rooms() {
        passed("src/ring/mod.rs", "#[cfg(test)]\nmod tests { use std::time::Instant; }");
        refused("src/ring/mod.rs", "#[cfg(test)] mod tests {} use std::time::Instant;", 1, "std::time");
        refused("src/ring/mod.rs", "#[cfg(test)] use a::b; use std::time::Instant;", 1, "std::time");
        refused("src/ring/mod.rs", "#[cfg(test)] mod tests { use crate::shard::Shard; }", 1, "import shard");
    }

    #[test]
    fn a_file_for_tests_only_is_known_by_who_opens_it() {
        let opener = "#[cfg(test)]\nmod history;\nmod clock;\n#[cfg(test)] mod tests { fn f() {} } mod dot;";
        let mut sources = vec![source("src/causality/mod.rs", opener)];
        for name in ["clock", "history", "history/naive", "dot"] {
            sources.push(source(&format!("src/causality/{name}.rs"), ""));
        }
        let expected = ["src/causality/history.rs", "src/causality/history/naive.rs"].map(str::to_owned);
        assert_eq!(files_for_tests_only(&sources), BTreeSet::from(expected));
    }

    #[test]
    fn only_main_and_the_shell_see_the_configuration() {
        refused("src/shard/mod.rs", "use crate::config::Config;", 1, "shard doesn't import config");
        refused("src/config.rs", "use crate::shell::Shell;", 1, "config doesn't import shell");
        passed("src/cli.rs", "use ringmain::config::Config;");
    }

    #[test]
    fn a_room_that_nobody_ranked_is_refused() {
        refused("src/attic/mod.rs", "use crate::id::NodeId;", 1, "'attic' is no room");
        refused("src/shard/mod.rs", "use crate::attic::Box;", 1, "shard doesn't import attic");
    }

    #[test]
    fn crates_keep_their_distance() {
        refused("client/src/lib.rs", "use ringmain::id::NodeId;", 1, "doesn't import ringmain");
        refused("client/src/lib.rs", "\nuse loadgen::Rate;", 2, "doesn't import loadgen");
        refused("schema/src/lib.rs", "use ringmain_client::Client;", 1, "doesn't import ringmain_client");
        refused("sim/src/lib.rs", "use ringmain_client::Client;", 1, "doesn't import ringmain_client");
        passed("client/src/lib.rs", "use ringmain_schema::Frame; use std::time::Instant;");
        passed("loadgen/src/main.rs", "use ringmain::config::Config; use ringmain_client::Client;");
        refused("src/shard/mod.rs", "use ringmain_client::Client;", 1, "that is for main");
    }

    #[test]
    fn no_map_of_the_core_has_a_random_order() {
        refused("src/shard/mod.rs", "use std::collections::{BTreeMap, HashMap};", 1, "random order");
        refused("src/ring/mod.rs", "fn f() { let m = std::collections::HashSet::new(); }", 1, "random order");
        refused(
            "src/ring/mod.rs",
            "#[cfg(test)] mod t { use std::collections::HashMap; }",
            1,
            "random order",
        );
        refused("src/ring/mod.rs", "use std::collections as c;", 1, "random order");
        refused("src/ring/mod.rs", "use std::collections::*;", 1, "random order");
        passed("src/ring/mod.rs", "use std::collections::BTreeMap; use hashbrown::HashTable;");
        passed("src/shell/mod.rs", "use std::collections::HashMap;");
    }

    #[test]
    fn unfinished_work_is_refused() {
        for name in MACROS_OF_THE_MOMENT {
            refused("client/src/x.rs", &format!("fn f() {{\n {name}!() }}"), 2, "isn't finished");
        }
        passed("client/src/x.rs", "fn f(todo: u8) -> bool { todo != 1 } // todo!");
        for word in WORDS_OF_THE_MOMENT {
            refused("client/src/x.rs", &format!("\n// {word}: later"), 2, "file an issue");
        }
        refused("tests/x.rs", "#[test]\n#[ignore]\nfn f() {}", 2, "without a reason");
        passed("tests/x.rs", "#[test]\n#[ignore = \"takes an hour\"]\nfn f() {}");
    }

    #[test]
    fn files_have_a_size_and_a_name() {
        passed("src/shard/x.rs", &"\n".repeat(LINES_MAX));
        refused("src/shard/x.rs", &"\n".repeat(LINES_MAX + 1), LINES_MAX + 1, "more than one idea");
        refused("client/src/utils.rs", "", 1, "'utils' says nothing");
        refused("tests/common/mod.rs", "", 1, "'common' says nothing");
        passed("client/src/utility_company.rs", "");
    }

    #[test]
    fn a_room_opens_with_an_essay() {
        let essay = |path: &str, words: usize| {
            essay_violation(&source(path, &format!("//!{}\n\nmod x;", " word".repeat(words)))).is_some()
        };
        assert!(essay("src/ring/mod.rs", ESSAY_WORDS_MIN - 1));
        assert!(!essay("src/ring/mod.rs", ESSAY_WORDS_MIN));
        assert!(essay("src/id.rs", 0) && !essay("src/id.rs", 1));
        assert!(!essay("src/ring/placement.rs", 0));
        assert!(essay_violation(&source("src/ring/mod.rs", "mod x;\n//! late")).is_some());
    }

    #[test]
    fn paths_of_a_machine_are_refused() {
        for folder in FOLDERS_OF_SOMEBODY {
            assert!(line_violation(&format!("see {folder}me/notes")).is_some(), "{folder}");
            assert!(line_violation(&format!("{folder}me")).is_some(), "{folder}");
            assert!(line_violation(&format!("https://example.org{folder}x")).is_none(), "{folder}");
        }
    }

    #[test]
    fn a_dependency_needs_its_line() {
        let manifest = source(
            "client/Cargo.toml",
            "[dependencies]\nbytes = '1'\nserde = { version = '1' }\nringmain-schema = '0'",
        );
        let architecture = source(
            "ARCHITECTURE.md",
            "| `serde` |\n## Why each dependency\n| `bytes` | why |\n| `old` | why |",
        );
        let wrong = unexplained_dependencies(&[manifest, architecture]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(
            wrong[0].contains("`serde` has no line") && wrong[1].contains("`old` has a line"),
            "{wrong:?}"
        );
    }

    #[test]
    fn what_is_no_rust_is_said_to_be_none() {
        refused("client/src/x.rs", "fn f( {", 1, "can't be read as Rust");
    }
}
