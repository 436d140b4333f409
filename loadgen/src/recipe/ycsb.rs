//! The core workloads of YCSB (B. Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010; the files
//! `workloads/workloada` to `workloadf`): mixes, key choosers and the default size of the data.
//!
//! What is not the same: YCSB's records have ten fields of 100 bytes, and an update writes one of them. Ringmain's values
//! have no fields, so every write is a whole value of 1000 bytes. YCSB reads only inserts that were acknowledged; here the
//! choice is made before the run, so a read may come before its key's insert has ended, and rightly find nothing. And
//! the load is open: YCSB's threads wait for answers.

use crate::keys::Popularity;
use crate::target::cluster::Writes;

use super::{Recipe, built_in};

/// All that can be offered. E, which is of scans, is told about where its name is parsed.
pub(super) const NAMES: [&str; 5] = ["ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-f"];

/// YCSB's `recordcount`, unless it is told otherwise.
const RECORDS: u64 = 1000;
/// Fields times bytes in each.
const VALUE_BYTES: &str = "1000";
/// `user` and a 64-bit number.
const KEY_BYTES: &str = "23";

/// The workload of this name, if there is one.
pub(super) fn recipe(name: &str) -> Option<Recipe> {
    let (mix, popularity, writes) = match name {
        "ycsb-a" => ("read=50,write=50", Popularity::YcsbZipf, Writes::Overwrite),
        "ycsb-b" => ("read=95,write=5", Popularity::YcsbZipf, Writes::Overwrite),
        "ycsb-c" => ("read=100", Popularity::YcsbZipf, Writes::Overwrite),
        "ycsb-d" => ("read=95,write=5", Popularity::Growing, Writes::Overwrite),
        "ycsb-f" => ("read=50,write=50", Popularity::YcsbZipf, Writes::Update),
        _ => return None,
    };
    Some(Recipe {
        name: Some(name.to_owned()),
        keys: RECORDS,
        popularity,
        zipf: Some(0.99),
        key_size: Some(built_in(KEY_BYTES)),
        value_size: built_in(VALUE_BYTES),
        mix: built_in(mix),
        writes,
        preload: true,
        ..Recipe::default()
    })
}

/// The names, and what each stands for.
pub(super) fn list() -> String {
    "YCSB's core workloads: 1000 keys (--keys), values of 1000 bytes, all written first, Zipf 0.99 as YCSB scatters it\n\
     ycsb-a   half reads, half updates\n\
     ycsb-b   95% reads, 5% updates\n\
     ycsb-c   reads only\n\
     ycsb-d   95% reads of what was inserted last, 5% inserts\n\
     ycsb-f   half reads, half read-modify-writes\n\
     (E is 95% scans of key ranges, which Ringmain's protocol doesn't have.)\n"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use ringmain::prng::Prng;

    use crate::operation::Kind;

    use super::*;

    /// The proportions of the workload files.
    #[test]
    fn mixes_are_those_of_the_core_workloads() {
        for (name, reads, popularity) in [
            ("ycsb-a", 50, Popularity::YcsbZipf),
            ("ycsb-b", 95, Popularity::YcsbZipf),
            ("ycsb-c", 100, Popularity::YcsbZipf),
            ("ycsb-d", 95, Popularity::Growing),
            ("ycsb-f", 50, Popularity::YcsbZipf),
        ] {
            let recipe = recipe(name).expect(name);
            let mut prng = Prng::from_seed(1);
            let drawn = (0..10_000).filter(|_| recipe.mix.choose(&mut prng) == Kind::Read).count();
            assert!(drawn.abs_diff(reads * 100) < 250, "{name}: {drawn}");
            assert_eq!(
                (recipe.popularity, recipe.zipf, recipe.keys),
                (popularity, Some(0.99), 1000),
                "{name}"
            );
            assert_eq!((recipe.value_size.shortest(), recipe.value_size.longest()), (1000, 1000));
            assert_eq!(recipe.writes == Writes::Update, name == "ycsb-f");
        }
        assert_eq!(recipe("ycsb-e"), None);
    }
}
