//! Who may name whom: the rooms of `src`, the crates of the workspace, and what of the outside each may touch.

use super::paths::{Mention, What};

/// The rooms of the server, each with its rank: a room imports only rooms of a lower rank.
const ROOMS: [(&str, u8); 17] = [
    ("id", 0),
    ("time", 0),
    ("prng", 0),
    ("failpoint", 1),
    ("ring", 1),
    ("causality", 1),
    ("storage", 1),
    ("coordinator", 2),
    ("replica", 2),
    ("hint", 2),
    ("anti_entropy", 2),
    ("membership", 2),
    ("pace", 2),
    ("shard", 3),
    ("shell", 4),
    ("config", 5),
    ("main", 6),
];

/// Imports between rooms of one rank: what storage keeps are the siblings of a key, and what failpoints tell of are
/// their dots.
const LEVEL: [(&str, &str); 2] = [("storage", "causality"), ("failpoint", "causality")];

/// The only rooms that see the whole configuration, and what it may see itself.
const READERS_OF_CONFIG: [&str; 2] = ["shell", "main"];
const SEEN_BY_CONFIG: [&str; 2] = ["time", "id"];

/// What of the outside belongs to some rooms only: a path's beginning, and the rooms. Tests are exempt.
const OUTSIDE: [(&[&str], &[&str]); 22] = [
    (&["glommio"], &["shell"]),
    (&["io_uring"], &["shell"]),
    (&["libc"], &["shell"]),
    (&["rustix"], &["shell"]),
    (&["rtrb"], &["shell"]),
    (&["signal_hook"], &["shell"]),
    (&["std", "net"], &["shell"]),
    (&["std", "thread"], &["shell"]),
    (&["std", "os"], &["shell"]),
    (&["std", "sync", "Mutex"], &["shell"]),
    (&["std", "sync", "RwLock"], &["shell"]),
    (&["std", "time"], &["shell", "main"]),
    (&["std", "process"], &["shell", "main"]),
    (&["std", "fs"], &["shell", "config", "main"]),
    (&["std", "env"], &["shell", "config", "main"]),
    (&["clap"], &["config", "main"]),
    (&["serde"], &["config", "main"]),
    (&["toml"], &["config"]),
    (&["serde_json"], &["main"]),
    (&["tokio"], &["main"]),
    (&["ringmain_client"], &["main"]),
    (&["mimalloc"], &["main"]),
];

/// Names whose order depends on a random hash, forbidden below the shell, in tests too.
const RANDOM_ORDER: [&[&str]; 5] = [
    &["std", "collections", "HashMap"],
    &["std", "collections", "HashSet"],
    &["std", "collections", "hash_map"],
    &["std", "collections", "hash_set"],
    &["std", "hash", "RandomState"],
];

/// The crates beside the server: where their sources are, and which of ours they may name besides themselves.
const CRATES: [(&str, &[&str]); 4] = [
    ("schema/", &["ringmain_schema"]),
    ("client/", &["ringmain_client", "ringmain_schema"]),
    ("sim/", &["ringmain_sim", "ringmain", "ringmain_schema"]),
    ("loadgen/", &["loadgen", "ringmain", "ringmain_client", "ringmain_schema"]),
];
const OURS: [&str; 5] = ["ringmain", "ringmain_schema", "ringmain_client", "ringmain_sim", "loadgen"];

/// What is wrong with the imports of a file, each with its line. `file` is relative to the root of the
/// workspace; `is_test` says that the whole of it is compiled for tests only.
pub(crate) fn violations(file: &str, is_test: bool, mentions: &[Mention]) -> Vec<(usize, String)> {
    let paths = mentions.iter().filter_map(|mention| match &mention.what {
        What::Path(path) => Some((mention, path.as_slice())),
        _ => None,
    });
    let mut wrong = Vec::new();
    for (mention, path) in paths {
        let in_test = is_test || mention.in_test;
        let found = match Place::of(file) {
            Place::Server(module) => in_server(&module, mention, path, in_test),
            Place::Crate(ours) => in_crate(ours, path),
            Place::Elsewhere => None,
        };
        wrong.extend(found.map(|sentence| (mention.line, sentence)));
    }
    wrong
}

/// Where a file stands.
enum Place {
    /// In `src`: its module path. The binary is one room, `main`.
    Server(Vec<String>),
    /// In a crate that may name these of ours.
    Crate(&'static [&'static str]),
    /// Tests and benches, and what opens the server's library: free to name anything.
    Elsewhere,
}

impl Place {
    fn of(file: &str) -> Self {
        if let Some(path) = file.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")) {
            let module: Vec<_> = path.split('/').filter(|part| *part != "mod").map(str::to_owned).collect();
            return match module[0].as_str() {
                "lib" => Self::Elsewhere,
                "main" | "cli" => Self::Server(vec!["main".to_owned()]),
                _ => Self::Server(module),
            };
        }
        match CRATES.iter().find(|(folder, _)| file.starts_with(folder)) {
            Some((_, ours)) => Self::Crate(ours),
            None => Self::Elsewhere,
        }
    }
}

fn in_crate(ours: &[&str], path: &[String]) -> Option<String> {
    let first = path[0].as_str();
    (OURS.contains(&first) && !ours.contains(&first)).then(|| format!("this crate doesn't import {first}"))
}

fn in_server(module: &[String], mention: &Mention, path: &[String], in_test: bool) -> Option<String> {
    let room = module[0].as_str();
    if room == "main" {
        return outside(room, path);
    }
    let Some(rank) = rank(room) else {
        return Some(format!(
            "'{room}' is no room of ARCHITECTURE.md: give it a rank in tests/tidy/imports.rs"
        ));
    };
    if let Some(inside) = from_the_root(module, &mention.nested, path) {
        let other = inside.first()?.as_str();
        return (!may_import(room, other)).then(|| format!("{room} doesn't import {other}"));
    }
    let random = RANDOM_ORDER.iter().any(|name| starts_with(path, name))
        || matches!(path, [std, collections, ..] if std == "std" && collections == "collections"
            && path.get(2).is_none_or(|last| last == "*" || last == "self"));
    if rank < 4 && random {
        return Some(format!(
            "{} has a random order: use a BTree or hashbrown with a fixed hash",
            path.join("::")
        ));
    }
    if in_test { None } else { outside(room, path) }
}

fn outside(room: &str, path: &[String]) -> Option<String> {
    let owners = OUTSIDE.iter().find(|(start, _)| starts_with(path, start)).map(|(_, owners)| owners)?;
    (!owners.contains(&room))
        .then(|| format!("{room} doesn't name {}: that is for {}", path.join("::"), owners.join(" and ")))
}

fn starts_with(path: &[String], start: &[&str]) -> bool {
    // `core` and `alloc` are `std` by other names.
    let named =
        |word: &str| if matches!(word, "core" | "alloc") { "std".to_owned() } else { word.to_owned() };
    path.len() >= start.len() && path.iter().zip(start).all(|(word, expected)| named(word) == *expected)
}

/// A path into our own crate, from its root; none if it leads elsewhere, or to the root itself.
fn from_the_root(module: &[String], nested: &[String], path: &[String]) -> Option<Vec<String>> {
    let here = [module, nested].concat();
    match path[0].as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([&here[..], &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let base = here.get(..here.len().saturating_sub(ups))?;
            Some([base, &path[ups..]].concat())
        }
        _ => None,
    }
}

fn rank(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank)
}

fn may_import(room: &str, other: &str) -> bool {
    if room == other {
        return true;
    }
    match (room, other) {
        (_, "config") => READERS_OF_CONFIG.contains(&room),
        ("config", _) => SEEN_BY_CONFIG.contains(&other),
        _ => rank(other) < rank(room) && rank(other).is_some() || LEVEL.contains(&(room, other)),
    }
}
