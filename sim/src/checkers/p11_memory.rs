//! P11: memory never exceeds the limit. What is held against it is a sum that each shard keeps as things change; it must be
//! what one gets who counts them anew. A key too few, and a limit would be passed unseen; one too many, and a shard would be full
//! that holds nothing.
//!
//! Asked of every run, of all shards that are up at its end. That the sum is that of the allocator is for `tests/memory.rs`. Where
//! there is a limit, the world holds each shard against it after each input (`world::watch`).

use super::{Evidence, Promise, Violation};

/// What the sums are of, in the order in which an index tells them.
const SUMS: [&str; 5] = [
    "keys",
    "bytes of keys and values",
    "bytes allocated",
    "timers of what expires",
    "keys whose values are on the disk alone",
];

/// Does each shard know what it holds?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for ((node, shard), [counted, recounted]) in evidence.accounts {
        let sums = SUMS.iter().zip(counted.iter().zip(recounted));
        if let Some((what, (counted, recounted))) = sums.into_iter().find(|(_, (one, other))| one != other) {
            let sentence =
                format!("shard {shard} of node {node} counts {counted} {what}, and there are {recounted}");
            return Err(Violation { promise: Promise::Memory, key: None, sentence, operations: Vec::new() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;

    #[test]
    fn a_sum_that_has_drifted_is_seen() {
        let mut sample = Sample::new();
        sample.accounts.insert((0, 0), [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]);
        assert!(check(&sample.evidence()).is_ok());
        sample.accounts.insert((1, 0), [[1, 2, 3, 4, 5], [1, 2, 5, 4, 5]]);
        let violation = check(&sample.evidence()).unwrap_err();
        assert_eq!(violation.promise, Promise::Memory);
        assert_eq!(violation.sentence, "shard 0 of node 1 counts 3 bytes allocated, and there are 5");
    }
}
