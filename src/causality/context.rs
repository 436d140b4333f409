//! Contexts as clients hold them: opaque bytes that only this cluster can make, and only for one key.
//!
//! ```text
//! version    1 byte, now 1
//! body       for each actor, ascending: id (8 bytes, little-endian), epoch and counter (LEB128, shortest form)
//! tag        16 bytes: SipHash-2-4-128 over the length of version and body (8 bytes), version, body, key
//! ```
//!
//! A context says "replace all I've seen". One that is made up, or taken from another key, would delete what
//! nobody has seen, so each is authenticated before a byte of its body is read. The length stands first in
//! the tag's input, so that no byte can pass from the body to the key.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hash128, Hasher128, SipHasher24};
use thiserror::Error;

use super::clock::Entry;
use super::{ACTORS_MAX, Actor, VersionVector};
use crate::id::ClusterId;

/// No context is longer. An entry takes at most 8 (id) + 5 (epoch) + 9 (counter, 63 bits) bytes.
pub const CONTEXT_BYTES_MAX: usize = 1 + ACTORS_MAX * (8 + 5 + 9) + TAG_BYTES;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

/// What all nodes of a cluster share, to know their own contexts again.
#[derive(Clone, Copy)]
pub struct ContextKey(u64, u64);

/// Why a context was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ContextError {
    /// It's too short, or its body breaks the format.
    #[error("the context is malformed: send it exactly as a reply gave it")]
    Malformed,
    /// It's longer than [`CONTEXT_BYTES_MAX`].
    #[error("the context is longer than {CONTEXT_BYTES_MAX} bytes: no reply gave it")]
    TooLong,
    /// Its first byte is a version that this node doesn't know.
    #[error("the context has version {0}, this node knows {VERSION}: read the key again")]
    UnsupportedVersion(u8),
    /// Its tag is wrong.
    #[error("the context was not issued by this cluster for this key: read the key again")]
    Forged,
}

impl ContextKey {
    /// From the cluster's secret. It's as strong as the secret is long and random.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self::derive(b"ringmain context key, from a secret", secret)
    }

    /// For a cluster without a secret: it catches mistakes, but whoever knows the cluster id can forge.
    pub fn from_cluster(cluster: ClusterId) -> Self {
        Self::derive(b"ringmain context key, from a cluster id", &cluster.0.to_le_bytes())
    }

    /// Appends the context that a reader of `key` who has `seen` this gets.
    pub fn seal(&self, key: &[u8], seen: &VersionVector, out: &mut Vec<u8>) {
        self.seal_clock(key, seen.as_slice(), out);
    }

    /// The same, from a state's clock without the detour of a version vector.
    ///
    /// Of a clock longer than [`ACTORS_MAX`], which puts never make, only the first entries are told. A
    /// context that covers less can make a sibling, never lose one.
    pub fn seal_clock(&self, key: &[u8], clock: &[(Actor, u64)], out: &mut Vec<u8>) {
        debug_assert!(clock.is_sorted_by(|left, right| left.0 < right.0));
        let start = out.len();
        out.push(VERSION);
        for &(actor, counter) in clock.iter().take(ACTORS_MAX) {
            out.extend_from_slice(&actor.id.to_le_bytes());
            write_varint(u64::from(actor.epoch), out);
            write_varint(counter, out);
        }
        let tag = self.tag(&out[start..], key);
        out.extend_from_slice(&u128::from(tag).to_le_bytes());
        debug_assert!(out.len() - start <= CONTEXT_BYTES_MAX);
    }

    /// What the client had seen, if this cluster issued `sealed` for `key`.
    pub fn open(&self, key: &[u8], sealed: &[u8]) -> Result<VersionVector, ContextError> {
        if sealed.len() > CONTEXT_BYTES_MAX {
            return Err(ContextError::TooLong);
        }
        let (authenticated, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(ContextError::Malformed)?;
        let (&version, body) = authenticated.split_first().ok_or(ContextError::Malformed)?;
        if version != VERSION {
            return Err(ContextError::UnsupportedVersion(version));
        }
        // `Hash128` compares in constant time, so that a tag can't be found byte by byte.
        if self.tag(authenticated, key) != Hash128::from(u128::from_le_bytes(*tag)) {
            return Err(ContextError::Forged);
        }
        read_body(body)
    }

    fn derive(purpose: &[u8], from: &[u8]) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(&(purpose.len() as u64).to_le_bytes());
        hasher.write(purpose);
        hasher.write(from);
        let derived = hasher.finish128();
        Self(derived.h1, derived.h2)
    }

    fn tag(&self, authenticated: &[u8], key: &[u8]) -> Hash128 {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        hasher.write(&(authenticated.len() as u64).to_le_bytes());
        hasher.write(authenticated);
        hasher.write(key);
        hasher.finish128()
    }
}

/// A key is never printed.
impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextKey(..)")
    }
}

/// Even under a right tag the body is checked: another version of this program may have made it.
fn read_body(body: &[u8]) -> Result<VersionVector, ContextError> {
    let mut rest = body;
    let mut well_formed = true;
    let entries = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        let entry = read_entry(&mut rest);
        well_formed &= entry.is_some();
        entry
    });
    let seen = VersionVector::try_from_sorted(entries).map_err(|_| ContextError::Malformed)?;
    if well_formed { Ok(seen) } else { Err(ContextError::Malformed) }
}

fn read_entry(rest: &mut &[u8]) -> Option<Entry> {
    let (id, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    let epoch = u32::try_from(read_varint(rest)?).ok()?;
    let counter = read_varint(rest)?;
    Some((Actor { id: u64::from_le_bytes(*id), epoch }, counter))
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// One number of at most 63 bits in its shortest form: any other would be a second spelling of a context.
fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return shortest.then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::causality::COUNTER_MAX;

    const KEY: ContextKey = ContextKey(1, 2);

    fn vectors() -> impl Strategy<Value = VersionVector> {
        let counter = prop_oneof![1..300u64, 1..=COUNTER_MAX];
        let epoch = prop_oneof![0..300u32, any::<u32>()];
        prop::collection::btree_map((any::<u64>(), epoch), counter, 0..8).prop_map(|entries| {
            let entries = entries.into_iter().map(|((id, epoch), counter)| (Actor { id, epoch }, counter));
            VersionVector::try_from_sorted(entries).expect("a sorted map")
        })
    }

    fn sealed(seen: &VersionVector) -> Vec<u8> {
        let mut out = Vec::new();
        KEY.seal(b"cart", seen, &mut out);
        out
    }

    /// A body of the test's own making under a right tag.
    fn resealed(body: &[u8]) -> Vec<u8> {
        let mut out = [&[VERSION], body].concat();
        let tag = KEY.tag(&out, b"cart");
        out.extend_from_slice(&u128::from(tag).to_le_bytes());
        out
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed(seen in vectors()) {
            prop_assert_eq!(KEY.open(b"cart", &sealed(&seen)), Ok(seen));
        }

        #[test]
        fn refuses_every_flipped_bit_and_every_truncation(seen in vectors()) {
            let whole = sealed(&seen);
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(KEY.open(b"cart", &flipped).is_err(), "bit {}", bit);
            }
            for length in 0..whole.len() {
                prop_assert!(KEY.open(b"cart", &whole[..length]).is_err(), "{} bytes", length);
            }
        }

        #[test]
        fn any_authenticated_body_is_opened_to_itself_or_refused(
            body in prop::collection::vec(prop_oneof![0..3u8, any::<u8>()], 0..40),
        ) {
            let foreign = resealed(&body);
            match KEY.open(b"cart", &foreign) {
                Ok(seen) => prop_assert_eq!(sealed(&seen), foreign),
                Err(error) => prop_assert_eq!(error, ContextError::Malformed),
            }
        }
    }

    #[test]
    fn refuses_another_key_another_cluster_and_another_version() {
        let seen = VersionVector::try_from_sorted([(Actor { id: 7, epoch: 0 }, 3)]).expect("sorted");
        let mut context = sealed(&seen);
        assert_eq!(context.len(), 1 + 10 + TAG_BYTES, "one actor in 27 bytes");
        assert_eq!(KEY.open(b"cars", &context), Err(ContextError::Forged));
        assert_eq!(ContextKey::from_secret(b"other").open(b"cart", &context), Err(ContextError::Forged));
        context[0] = 2;
        assert_eq!(KEY.open(b"cart", &context), Err(ContextError::UnsupportedVersion(2)));
        assert_eq!(KEY.open(b"cart", &[]), Err(ContextError::Malformed));
        assert_eq!(KEY.open(b"cart", &vec![1; CONTEXT_BYTES_MAX + 1]), Err(ContextError::TooLong));
    }

    #[test]
    fn refuses_a_second_spelling() {
        let id = 7u64.to_le_bytes();
        let body = |tail: &[u8]| [&id, tail].concat();
        assert!(KEY.open(b"cart", &resealed(&body(&[0, 1]))).is_ok());
        for tail in [&[0x80, 0, 1][..], &[0, 0x81, 0], &[0, 0], &[0], &[0xff, 0xff, 0xff, 0xff, 0x10, 1]] {
            assert_eq!(KEY.open(b"cart", &resealed(&body(tail))), Err(ContextError::Malformed), "{tail:?}");
        }
    }

    /// All nodes must derive the same key and tag for ever, or the contexts in clients' hands die with an upgrade.
    #[test]
    fn keys_and_tags_are_the_same_on_every_machine_for_ever() {
        let key = ContextKey::from_cluster(ClusterId(5));
        let mut context = vec![];
        key.seal_clock(b"cart", &[(Actor { id: 7, epoch: 1 }, 300)], &mut context);
        let (body, tag) = context.split_last_chunk::<TAG_BYTES>().expect("a tag at least");
        assert_eq!(body, [1, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0xac, 0x02]);
        assert_eq!(u128::from_le_bytes(*tag), 0xe8f4_55d2_cfe0_4f81_a1d1_63f3_0b46_9171);
    }

    #[test]
    fn the_largest_context_fits_its_bound_and_keys_differ_by_origin() {
        let crowd = (0..ACTORS_MAX as u64).map(|id| (Actor { id, epoch: u32::MAX }, COUNTER_MAX));
        let crowd = VersionVector::try_from_sorted(crowd).expect("sorted");
        let largest = sealed(&crowd);
        assert_eq!((largest.len(), KEY.open(b"cart", &largest)), (CONTEXT_BYTES_MAX, Ok(crowd)));

        let by_id = ContextKey::from_cluster(ClusterId(5));
        let by_secret = ContextKey::from_secret(&5u64.to_le_bytes());
        assert_ne!((by_id.0, by_id.1), (by_secret.0, by_secret.1));
        assert_eq!(format!("{by_id:?}"), "ContextKey(..)");
    }
}
