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

/// The digest of what is known of a key with this token; 0 if nothing is.
pub fn digest(token: u64, state: &Siblings<Bytes>) -> u64 {
    if state.is_empty() {
        return 0;
    }
    // One actor and one version, the usual case, need no heap.
    let mut bytes = SmallVec::<[u8; 64]>::new();
    let mut add = |actor: Actor, counter: u64| {
        bytes.extend_from_slice(&actor.id.to_le_bytes());
        bytes.extend_from_slice(&actor.epoch.to_le_bytes());
        bytes.extend_from_slice(&counter.to_le_bytes());
    };
    state.clock().iter().for_each(|&(actor, counter)| add(actor, counter));
    // Counters start at 1: nothing in a clock looks like this.
    add(Actor { id: 0, epoch: 0 }, 0);
    state.versions().iter().for_each(|version| add(version.dot.actor, version.dot.counter));
    xxh3_64_with_seed(&bytes, token)
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
