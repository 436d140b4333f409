//! Borrowed views of the frames by which replicas compare their hash trees. All of them carry a checksum.
//!
//! Each request says all that its answer needs, so whoever answers keeps nothing between two of them.

use flatbuffers::Vector;

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::peer as wire;
use crate::limits::{EXCHANGE_KEYS_MAX, PULL_TOKENS_MAX, TREE_FAN_OUT, TREE_PARTITIONS_MAX};
use crate::message::{Malformed, verified};

pub use wire::KeyHash;

/// Which nodes of hash trees are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Nodes {
    /// The roots of these partitions, at most [`TREE_PARTITIONS_MAX`].
    Roots(Vec<u32>),
    /// All branches of this partition.
    Branches(u32),
    /// All leaves of a branch of this partition; `branch <` [`TREE_FAN_OUT`].
    Leaves {
        /// The partition.
        partition: u32,
        /// The branch.
        branch: u8,
    },
}

/// Tell me nodes of your hash trees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeRequest {
    /// The hash of the sender's ring.
    pub ring: u64,
    /// Which nodes.
    pub nodes: Nodes,
    /// The epochs of these partitions at the sender; none if it is 0 for each.
    pub epochs: Vec<u64>,
    /// To make both sides alike; or else one of them is to hold all that the other does.
    pub round: bool,
}

impl TreeRequest {
    /// From a frame of kind `TREE_REQUEST`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::TreeRequest<'_>>(frame, "TreeRequest", 1)?;
        let partitions = numbers(wire.partitions(), TREE_PARTITIONS_MAX)?;
        let nodes = match (wire.branch(), partitions.as_slice()) {
            (0, [_, ..]) => Nodes::Roots(partitions),
            (1, &[partition]) => Nodes::Branches(partition),
            (branch, &[partition]) if usize::from(branch) < 2 + TREE_FAN_OUT => {
                Nodes::Leaves { partition, branch: branch - 2 }
            }
            _ => return Err(Malformed::Field("a tree request that names no node of a hash tree")),
        };
        let epochs = numbers(wire.epochs(), TREE_PARTITIONS_MAX)?;
        Ok(Self { ring: wire.ring(), nodes, epochs, round: wire.round() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        let (partitions, branch) = match &self.nodes {
            Nodes::Roots(partitions) => (partitions.as_slice(), 0),
            Nodes::Branches(partition) => (std::slice::from_ref(partition), 1),
            Nodes::Leaves { partition, branch } => (std::slice::from_ref(partition), branch + 2),
        };
        encoder.frame(out, Kind::TREE_REQUEST, Flags::CHECKSUM, request_id, [], |builder| {
            let partitions = Some(builder.create_vector(partitions));
            let epochs = (!self.epochs.is_empty()).then(|| builder.create_vector(&self.epochs));
            let (ring, round) = (self.ring, self.round);
            let arguments = wire::TreeRequestArgs { ring, partitions, branch, epochs, round };
            wire::TreeRequest::create(builder, &arguments)
        });
    }
}

/// The nodes that were asked for, in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// A hash each.
    pub nodes: Vec<u64>,
    /// If they are roots, the epochs of their partitions at the sender; none if it is 0 for each.
    pub epochs: Vec<u64>,
}

impl Tree {
    /// From a frame of kind `TREE`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Tree<'_>>(frame, "Tree", 1)?;
        let nodes = numbers(wire.nodes(), TREE_PARTITIONS_MAX.max(TREE_FAN_OUT))?;
        Ok(Self { nodes, epochs: numbers(wire.epochs(), TREE_PARTITIONS_MAX)? })
    }

    /// Append as a frame.
    pub fn encode(encoder: &mut Encoder, request_id: u64, nodes: &[u64], epochs: &[u64], out: &mut Vec<u8>) {
        encoder.frame(out, Kind::TREE, Flags::CHECKSUM, request_id, [], |builder| {
            let nodes = Some(builder.create_vector(nodes));
            let epochs = (!epochs.is_empty()).then(|| builder.create_vector(epochs));
            wire::Tree::create(builder, &wire::TreeArgs { nodes, epochs })
        });
    }
}

/// Tell me the tokens that you hold under some leaves, with the hashes of their states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeysRequest {
    /// The hash of the sender's ring.
    pub ring: u64,
    /// The partition.
    pub partition: u32,
    /// A branch of its tree; below [`TREE_FAN_OUT`].
    pub branch: u8,
    /// A bit for each leaf of that branch.
    pub leaves: u32,
    /// No token below this.
    pub from: u64,
    /// The epoch of the partition at the sender.
    pub partition_epoch: u64,
}

impl KeysRequest {
    /// From a frame of kind `KEYS_REQUEST`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::KeysRequest<'_>>(frame, "KeysRequest", 1)?;
        if usize::from(wire.branch()) >= TREE_FAN_OUT {
            return Err(Malformed::Field("a keys request for a branch that no hash tree has"));
        }
        Ok(Self {
            ring: wire.ring(),
            partition: wire.partition(),
            branch: wire.branch(),
            leaves: wire.leaves(),
            from: wire.from(),
            partition_epoch: wire.partition_epoch(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::KEYS_REQUEST, Flags::CHECKSUM, request_id, [], |builder| {
            let Self { ring, partition, branch, leaves, from, partition_epoch } = *self;
            let arguments = wire::KeysRequestArgs { ring, partition, branch, leaves, from, partition_epoch };
            wire::KeysRequest::create(builder, &arguments)
        });
    }
}

/// Tokens with the hashes of their states.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys<'a> {
    keys: Option<Vector<'a, KeyHash>>,
    /// There are more behind the last.
    pub more: bool,
}

impl<'a> Keys<'a> {
    /// From a frame of kind `KEYS`: at most [`EXCHANGE_KEYS_MAX`], sorted by token, each once.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Keys<'a>>(frame, "Keys", 1)?;
        let keys = Self { keys: wire.keys(), more: wire.more() };
        let count = keys.keys().count();
        if count > EXCHANGE_KEYS_MAX || (keys.more && count == 0) {
            return Err(Malformed::Field(
                "a list of keys that is too long, or says that more follow nothing",
            ));
        }
        if !keys.keys().is_sorted_by(|before, after| before.0 < after.0) {
            return Err(Malformed::Field("a list of keys that isn't sorted by token"));
        }
        Ok(keys)
    }

    /// Token and hash of each.
    pub fn keys(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.keys.into_iter().flat_map(|keys| keys.iter()).map(|key| (key.token(), key.hash()))
    }

    /// Append as a frame.
    pub fn encode(encoder: &mut Encoder, request_id: u64, keys: &[KeyHash], more: bool, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::KEYS, Flags::CHECKSUM, request_id, [], |builder| {
            let keys = Some(builder.create_vector(keys));
            wire::Keys::create(builder, &wire::KeysArgs { keys, more })
        });
    }
}

/// Send me, as `REPLICATE`, the states of all keys under these tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullRequest {
    /// The hash of the sender's ring.
    pub ring: u64,
    /// The partition.
    pub partition: u32,
    /// At most [`PULL_TOKENS_MAX`].
    pub tokens: Vec<u64>,
    /// The epoch of the partition at the sender.
    pub partition_epoch: u64,
}

impl PullRequest {
    /// From a frame of kind `PULL_REQUEST`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::PullRequest<'_>>(frame, "PullRequest", 1)?;
        let tokens = numbers(wire.tokens(), PULL_TOKENS_MAX)?;
        let (ring, partition, partition_epoch) = (wire.ring(), wire.partition(), wire.partition_epoch());
        Ok(Self { ring, partition, tokens, partition_epoch })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::PULL_REQUEST, Flags::CHECKSUM, request_id, [], |builder| {
            let tokens = Some(builder.create_vector(&self.tokens));
            let Self { ring, partition, partition_epoch, .. } = *self;
            let arguments = wire::PullRequestArgs { ring, partition, tokens, partition_epoch };
            wire::PullRequest::create(builder, &arguments)
        });
    }
}

/// The states that were pulled have been sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulled {
    /// So many of the tokens, from the first, were served.
    pub tokens: u32,
    /// Of these, those under which nothing is held any more: at most [`PULL_TOKENS_MAX`].
    pub gone: Vec<u64>,
}

impl Pulled {
    /// From a frame of kind `PULLED`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Pulled<'_>>(frame, "Pulled", 1)?;
        Ok(Self { tokens: wire.tokens(), gone: numbers(wire.gone(), PULL_TOKENS_MAX)? })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::PULLED, Flags::CHECKSUM, request_id, [], |builder| {
            let gone = (!self.gone.is_empty()).then(|| builder.create_vector(&self.gone));
            wire::Pulled::create(builder, &wire::PulledArgs { tokens: self.tokens, gone })
        });
    }
}

/// A vector of at most `limit` numbers.
pub(crate) fn numbers<'a, T>(vector: Option<Vector<'a, T>>, limit: usize) -> Result<Vec<T::Inner>, Malformed>
where
    T: flatbuffers::Follow<'a> + 'a,
{
    let vector = vector.iter().flat_map(Vector::iter);
    if vector.clone().count() > limit {
        return Err(Malformed::Field("a frame of anti-entropy that names more than its kind may"));
    }
    Ok(vector.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Encoder::default(), &mut out);
        out
    }

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame::split(bytes, bytes.len()).unwrap().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        for nodes in [
            Nodes::Roots(vec![3, 1, 2]),
            Nodes::Branches(9),
            Nodes::Leaves { partition: 7, branch: 0 },
            Nodes::Leaves { partition: 7, branch: 31 },
        ] {
            let request = TreeRequest { ring: 5, nodes, epochs: vec![0, 4], round: true };
            let bytes = written(|encoder, out| request.encode(encoder, 1, out));
            assert_eq!(TreeRequest::parse(&frame(&bytes)), Ok(request));
        }
        let request =
            KeysRequest { ring: 5, partition: 2, branch: 31, leaves: u32::MAX, from: 77, partition_epoch: 3 };
        let bytes = written(|encoder, out| request.encode(encoder, 1, out));
        assert_eq!(KeysRequest::parse(&frame(&bytes)), Ok(request));
        let keys = [KeyHash::new(1, 10), KeyHash::new(2, 20)];
        let bytes = written(|encoder, out| Keys::encode(encoder, 1, &keys, true, out));
        let read = Keys::parse(&frame(&bytes)).unwrap();
        assert_eq!((read.keys().collect(), read.more), (vec![(1, 10), (2, 20)], true));
        let request = PullRequest { ring: 5, partition: 2, tokens: vec![9, 8], partition_epoch: 3 };
        let bytes = written(|encoder, out| request.encode(encoder, 1, out));
        assert_eq!(PullRequest::parse(&frame(&bytes)), Ok(request));
        for gone in [vec![], vec![7]] {
            let pulled = Pulled { tokens: 2, gone };
            let bytes = written(|encoder, out| pulled.encode(encoder, 1, out));
            assert_eq!(Pulled::parse(&frame(&bytes)), Ok(pulled));
        }
        let bytes = written(|encoder, out| Tree::encode(encoder, 1, &[4, 5], &[0, 7], out));
        assert_eq!(Tree::parse(&frame(&bytes)), Ok(Tree { nodes: vec![4, 5], epochs: vec![0, 7] }));
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        let request = |nodes| {
            let bytes = written(|encoder, out| {
                TreeRequest { ring: 5, nodes, epochs: vec![], round: false }.encode(encoder, 1, out);
            });
            TreeRequest::parse(&frame(&bytes))
        };
        assert!(request(Nodes::Roots(Vec::new())).is_err(), "no partition at all");
        assert!(request(Nodes::Roots(vec![0; TREE_PARTITIONS_MAX + 1])).is_err());
        assert!(request(Nodes::Leaves { partition: 1, branch: 32 }).is_err());
        let keys = |keys: &[KeyHash], more| {
            let bytes = written(|encoder, out| Keys::encode(encoder, 1, keys, more, out));
            Keys::parse(&frame(&bytes)).map(|_| ())
        };
        assert_eq!(keys(&[], false), Ok(()));
        assert!(keys(&[], true).is_err(), "more of nothing");
        assert!(keys(&[KeyHash::new(2, 0), KeyHash::new(1, 0)], false).is_err(), "unsorted");
        assert!(keys(&[KeyHash::new(1, 0), KeyHash::new(1, 0)], false).is_err(), "twice");
        let many: Vec<_> = (0..=EXCHANGE_KEYS_MAX as u64).map(|token| KeyHash::new(token, 0)).collect();
        assert!(keys(&many, false).is_err() && keys(&many[1..], false).is_ok());
        let pull =
            PullRequest { ring: 5, partition: 2, tokens: vec![0; PULL_TOKENS_MAX + 1], partition_epoch: 0 };
        let bytes = written(|encoder, out| pull.encode(encoder, 1, out));
        assert!(PullRequest::parse(&frame(&bytes)).is_err());
    }
}
