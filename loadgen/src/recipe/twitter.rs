//! Twitter's 54 production cache clusters of March 2020, from the table in `presets/twitter-2020-03.csv`, whose head names
//! its source and its licence (CC BY 4.0).
//!
//! What is made of the table: sizes of keys and values are their means, always; `get` and `gets` are reads, `delete` is a
//! delete, and all else (`set`, `add`, `cas`, `incr`, `prepend`) is a write of a whole value. The table leaves out
//! operations and lifetimes with a small share, so the shares given add up to a little less than 1 (for lifetimes sometimes
//! much less: the ten most common are listed); they are stretched to 1 in proportion.

use std::fmt::Write as _;

use super::{Recipe, built_in};

const TABLE: &str = include_str!("../../presets/twitter-2020-03.csv");
const PREFIX: &str = "twitter-";

/// A line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Row {
    cluster: &'static str,
    key_bytes: &'static str,
    value_bytes: &'static str,
    /// Such as `4d:0.59 2d:0.41`.
    ttl: &'static str,
    /// Such as `get:0.93 set:0.07`.
    operations: &'static str,
    /// Empty for some.
    zipf_alpha: &'static str,
}

/// The row of a preset, if there is one of this name.
pub(super) fn row(name: &str) -> Option<Row> {
    let cluster = name.strip_prefix(PREFIX)?;
    rows().find(|row| row.cluster == cluster)
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = String> {
    rows().map(|row| row.name())
}

/// The names, and what each stands for.
pub(super) fn list() -> String {
    let mut list = "Twitter's cache clusters, March 2020 (twitter/cache-trace; Yang, Yue, Rashmi, OSDI 2020; CC BY 4.0)\n\
        name          key B  value B   zipf  mix, and how long values live\n"
        .to_owned();
    for row in rows() {
        let Some(recipe) = row.recipe() else { continue };
        let zipf = if row.zipf_alpha.is_empty() { "--zipf" } else { row.zipf_alpha };
        let Recipe { mix, ttl, .. } = recipe;
        let (name, key, value) = (row.name(), row.key_bytes, row.value_bytes);
        let _ = writeln!(list, "{name:<12}{key:>7}{value:>9}{zipf:>7}  {mix}; {ttl}");
    }
    list
}

fn rows() -> impl Iterator<Item = Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.skip(1).map(|line| {
        let columns: Vec<&'static str> = line.split(',').collect();
        let [cluster, key_bytes, value_bytes, ttl, operations, zipf_alpha] = columns[..] else {
            unreachable!("every line of the table has six columns: {line}")
        };
        Row { cluster, key_bytes, value_bytes, ttl, operations, zipf_alpha }
    })
}

impl Row {
    /// The load of this cluster; `None` if the table has no figures for it.
    pub(super) fn recipe(&self) -> Option<Recipe> {
        if self.operations.is_empty() {
            return None;
        }
        let zipf = (!self.zipf_alpha.is_empty()).then(|| built_in(self.zipf_alpha));
        Some(Recipe {
            name: Some(self.name()),
            zipf,
            key_size: Some(built_in(self.key_bytes)),
            value_size: built_in(self.value_bytes),
            mix: built_in(&self.mix()),
            ttl: built_in(&self.lifetimes()),
            preload: true,
            ..Recipe::default()
        })
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}", self.cluster)
    }

    fn mix(&self) -> String {
        let mut kinds = [("read", 0.0), ("write", 0.0), ("delete", 0.0)];
        for (operation, share) in shares(self.operations) {
            let kind = match operation {
                "get" | "gets" => 0,
                "delete" => 2,
                _ => 1,
            };
            kinds[kind].1 += share;
        }
        stretched(&kinds).map(|(kind, percent)| format!("{kind}={percent}")).collect::<Vec<_>>().join(",")
    }

    fn lifetimes(&self) -> String {
        let shares: Vec<(&str, f64)> = shares(self.ttl).collect();
        if shares.is_empty() {
            return "none".to_owned();
        }
        stretched(&shares).map(|(time, percent)| format!("{time}:{percent}%")).collect::<Vec<_>>().join(",")
    }
}

/// `get:0.93 set:0.07`, part by part.
fn shares(text: &'static str) -> impl Iterator<Item = (&'static str, f64)> {
    text.split_whitespace().map(|part| {
        let (name, share) = part.split_once(':').expect("every part of the table has a share");
        (name, built_in(share))
    })
}

/// Percentages with two decimals that add up to 100, the largest taking what rounding leaves.
fn stretched<'a>(shares: &[(&'a str, f64)]) -> impl Iterator<Item = (&'a str, f64)> {
    let sum: f64 = shares.iter().map(|&(_, share)| share).sum();
    let mut hundredths: Vec<(&str, i64)> =
        shares.iter().map(|&(name, share)| (name, (share / sum * 1e4).round() as i64)).collect();
    let missing = 10_000 - hundredths.iter().map(|&(_, share)| share).sum::<i64>();
    let largest = hundredths.iter_mut().max_by_key(|(_, share)| *share).expect("there is a share");
    largest.1 += missing;
    hundredths.into_iter().filter(|&(_, share)| share > 0).map(|(name, share)| (name, share as f64 / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_with_figures_is_a_load() {
        let recipes: Vec<Recipe> = rows().filter_map(|row| row.recipe()).collect();
        assert_eq!((rows().count(), recipes.len()), (54, 53));
        assert_eq!(recipes.iter().filter(|recipe| recipe.zipf.is_none()).count(), 2);
        assert_eq!(row("twitter-5").expect("a row").recipe(), None);
        assert_eq!(row("twitter-0"), None);
        assert_eq!(row("12"), None);
    }

    #[test]
    fn a_preset_is_the_tables_row() {
        let recipe = |name| row(name).and_then(|row| row.recipe()).expect("figures");
        let twelve = recipe("twitter-12");
        assert_eq!(twelve.key_size.expect("a size").to_string(), "44");
        assert_eq!((twelve.value_size.to_string(), twelve.zipf), ("1030".to_owned(), Some(0.3048)));
        assert_eq!(
            (twelve.mix.to_string(), twelve.ttl.to_string()),
            ("read=20,write=80".into(), "300s:98%,299s:2%".into())
        );
        let delete = recipe("twitter-14");
        assert_eq!(delete.mix.to_string(), "read=65,write=13,delete=22");
        let cas = recipe("twitter-11");
        assert_eq!(cas.mix.to_string(), "read=97,write=3");
        let short = recipe("twitter-1");
        assert_eq!((short.mix.to_string(), short.ttl.to_string()), ("read=100".into(), "240s:100%".into()));
        let stretched = recipe("twitter-6");
        assert!(stretched.ttl.to_string().starts_with("520s:11.54%,"), "{}", stretched.ttl);
    }

    /// The table in the repository against the one it was made of.
    #[test]
    #[ignore = "needs twitter-2020Mar-stats.md: RINGMAIN_DATA=FOLDER cargo test -p loadgen its_sources -- --ignored"]
    fn the_table_is_its_sources() {
        let folder = std::env::var_os("RINGMAIN_DATA").expect("RINGMAIN_DATA names the folder of the table");
        let source = std::path::PathBuf::from(folder).join("twitter-2020Mar-stats.md");
        let source = std::fs::read_to_string(source).expect("the table");
        let lines: Vec<&str> = source.lines().skip(2).filter(|line| line.contains("cluster")).collect();
        assert_eq!(lines.len(), 54);
        for (line, row) in lines.iter().zip(rows()) {
            let cells: Vec<String> =
                line.split('|').map(|cell| cell.split_whitespace().collect::<String>()).collect();
            let same = |cell: &str, ours: &str| {
                let theirs = cell.replace("N/A", "").replace("NA", "").replace(',', "");
                assert_eq!(theirs, ours.replace(' ', ""), "{line}");
            };
            same(&cells[1].replace("cluster", ""), row.cluster);
            same(&cells[4], row.key_bytes);
            same(&cells[5], row.value_bytes);
            same(&cells[10], row.ttl);
            same(&cells[13], row.operations);
            same(&cells[14], row.zipf_alpha);
        }
    }
}
