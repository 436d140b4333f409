//! A key's state in eight bytes, equal wherever the state is.
//!
//! What goes in is what makes two states one: how far each actor has been seen, and which dots stand. A dot is one
//! version for ever, so its value needs no reading; its timestamp and its name come with it.
//!
//! Nor does it matter whether a version is a value or a tombstone. A delete mints a dot of its own, so the same
//! dot is both only where a value has expired, and replicas come to that when they look, each by its own clock. If
//! expiry changed the digest, a key would differ between replicas from the first that looked until the last, and
//! would be sent about for nothing.

use bytes::Bytes;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::causality::{Actor, Siblings};

/// Bytes of an actor with a counter.
const ENTRY_BYTES: usize = 20;
/// Between the clock and the dots. Counters start at 1: nothing in a clock looks like this.
const BETWEEN: [u8; ENTRY_BYTES] = [0; ENTRY_BYTES];

/// The digest of what is known of a key with this token; 0 if nothing is.
pub fn digest(token: u64, state: &Siblings<Bytes>) -> u64 {
    match (state.clock(), state.versions()) {
        ([], _) => 0,
        // The usual case: of a known length, and so quicker.
        (&[(actor, counter)], [version]) => {
            let mut bytes = [0; 3 * ENTRY_BYTES];
            bytes[..ENTRY_BYTES].copy_from_slice(&entry(actor, counter));
            bytes[2 * ENTRY_BYTES..].copy_from_slice(&entry(version.dot.actor, version.dot.counter));
            xxh3_64_with_seed(&bytes, token)
        }
        (clock, versions) => {
            let clock = clock.iter().map(|&(actor, counter)| entry(actor, counter));
            let dots = versions.iter().map(|version| entry(version.dot.actor, version.dot.counter));
            let mut bytes = SmallVec::<[u8; 8 * ENTRY_BYTES]>::new();
            clock.chain([BETWEEN]).chain(dots).for_each(|entry| bytes.extend_from_slice(&entry));
            xxh3_64_with_seed(&bytes, token)
        }
    }
}

fn entry(actor: Actor, counter: u64) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(&actor.id.to_le_bytes());
    bytes[8..12].copy_from_slice(&actor.epoch.to_le_bytes());
    bytes[12..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Content, VersionVector};
    use crate::id::OperationId;
    use crate::time::WallTime;

    const ME: Actor = Actor { id: 7, epoch: 1 };

    fn put(state: &mut Siblings<Bytes>, covered: &VersionVector, content: Content<Bytes>, time: u64) {
        let expiry = matches!(content, Content::Value(_)).then_some(WallTime(100));
        state.put(ME, covered, content, expiry, OperationId::NONE, WallTime(time));
    }

    fn value() -> Content<Bytes> {
        Content::Value(Bytes::from_static(b"v"))
    }

    #[test]
    fn every_write_changes_it_and_a_delete_too() {
        let mut state = Siblings::new();
        let mut seen = vec![digest(5, &state)];
        put(&mut state, &VersionVector::new(), value(), 1);
        seen.push(digest(5, &state));
        put(&mut state, &VersionVector::new(), value(), 1);
        seen.push(digest(5, &state));
        let context = state.context();
        put(&mut state, &context, Content::Tombstone, 1);
        seen.push(digest(5, &state));
        seen.push(digest(6, &state));
        assert_eq!(seen[0], 0);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    /// The page of the protocol says what is hashed; a way round for the usual case must not say otherwise.
    #[test]
    fn one_version_is_hashed_like_many() {
        let mut state = Siblings::new();
        put(&mut state, &VersionVector::new(), value(), 1);
        let bytes = [entry(ME, 1), BETWEEN, entry(ME, 1)].concat();
        assert_eq!(digest(5, &state), xxh3_64_with_seed(&bytes, 5));
        put(&mut state, &VersionVector::new(), value(), 1);
        let bytes = [entry(ME, 2), BETWEEN, entry(ME, 1), entry(ME, 2)].concat();
        assert_eq!(digest(5, &state), xxh3_64_with_seed(&bytes, 5));
    }

    /// Two states that have seen the same and of which one has dropped a version differ.
    #[test]
    fn what_stands_matters_beside_what_was_seen() {
        let mut state = Siblings::new();
        put(&mut state, &VersionVector::new(), value(), 1);
        put(&mut state, &VersionVector::new(), value(), 1);
        let less = Siblings::from_parts(state.clock().to_vec(), [state.versions()[1].clone()]).unwrap();
        assert_ne!(digest(5, &state), digest(5, &less));
    }

    #[test]
    fn neither_expiry_nor_clocks_change_it() {
        let (mut early, mut late) = (Siblings::new(), Siblings::new());
        put(&mut early, &VersionVector::new(), value(), 1);
        put(&mut late, &VersionVector::new(), value(), 2);
        early.expire(WallTime(100));
        assert_eq!(digest(5, &early), digest(5, &late));
    }
}
