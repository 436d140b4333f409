//! The names of clusters and nodes, on which founders agree without asking anybody.

use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::id::{ClusterId, NodeId};

/// One of the initial members, as every founder's configuration lists it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Founder {
    /// Its name, unique in the cluster.
    pub name: Arc<str>,
    /// Where it listens.
    pub host: Arc<str>,
    /// The port that its shards share.
    pub port: u16,
}

/// The initial members of a cluster, in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Founders(Vec<Founder>);

/// A list that no cluster can start from.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum InvalidFounders {
    /// Two members of one name.
    #[error("the initial member {0} is listed twice: give each node a name of its own")]
    Twice(Arc<str>),
    /// Two members at one address.
    #[error("two initial members are listed at {0}: each node needs an address of its own")]
    SameAddress(String),
    /// A node that starts a cluster must be in its list.
    #[error("this node, {0}, is not in the list of initial members: add it, or join by seeds instead")]
    WithoutMe(Arc<str>),
}

impl Founders {
    /// A checked list; `me` must be in it, unless it is empty.
    pub fn new(mut founders: Vec<Founder>, me: &Arc<str>) -> Result<Self, InvalidFounders> {
        founders.sort();
        for (before, after) in founders.iter().zip(founders.iter().skip(1)) {
            if before.name == after.name {
                return Err(InvalidFounders::Twice(before.name.clone()));
            }
        }
        let mut addresses: Vec<_> = founders.iter().map(|founder| (&founder.host, founder.port)).collect();
        addresses.sort();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(InvalidFounders::SameAddress(format!("{}:{}", pair[0].0, pair[0].1)));
        }
        if !founders.is_empty() && !founders.iter().any(|founder| founder.name == *me) {
            return Err(InvalidFounders::WithoutMe(me.clone()));
        }
        Ok(Self(founders))
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Founder> {
        self.0.iter()
    }

    /// Does the cluster start from nobody but this node?
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The id of a cluster: a hash of its name and of its founders' names, in order, without their addresses, so that
/// a cluster may move. Never 0.
pub fn cluster_id<'a>(name: &str, founders: impl Iterator<Item = &'a str>) -> ClusterId {
    let mut hasher = Xxh3::with_seed(CLUSTER_SEED);
    let mut feed = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    feed(name);
    founders.for_each(&mut feed);
    ClusterId(hasher.digest().max(1))
}

/// The id of a node: a hash of its cluster's id and its name. Never 0.
pub fn node_id(cluster: ClusterId, name: &str) -> NodeId {
    let mut hasher = Xxh3::with_seed(NODE_SEED);
    hasher.update(&cluster.0.to_le_bytes());
    hasher.update(name.as_bytes());
    NodeId(hasher.digest().max(1))
}

/// Seeds keep the two kinds of ids apart; their values mean nothing.
const CLUSTER_SEED: u64 = 1;
const NODE_SEED: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(name: &str, port: u16) -> Founder {
        Founder { name: name.into(), host: "127.0.0.1".into(), port }
    }

    #[test]
    fn founders_agree_whatever_the_order() {
        let me: Arc<str> = "b".into();
        let one = Founders::new(vec![founder("a", 1), founder("b", 2)], &me).unwrap();
        let other = Founders::new(vec![founder("b", 2), founder("a", 1)], &me).unwrap();
        assert_eq!(one, other);
        let id = |founders: &Founders| cluster_id("x", founders.iter().map(|founder| &*founder.name));
        assert_eq!(id(&one), id(&other));
        assert_ne!(id(&one), cluster_id("x", ["a", "c"].into_iter()));
        assert_ne!(id(&one), cluster_id("y", ["a", "b"].into_iter()));
        assert_ne!(cluster_id("x", ["ab"].into_iter()), cluster_id("xa", ["b"].into_iter()));
    }

    #[test]
    fn lists_that_cannot_work_are_refused() {
        let me: Arc<str> = "a".into();
        let refused = |list| Founders::new(list, &me).unwrap_err();
        assert!(matches!(refused(vec![founder("a", 1), founder("a", 2)]), InvalidFounders::Twice(_)));
        assert!(matches!(refused(vec![founder("a", 1), founder("b", 1)]), InvalidFounders::SameAddress(_)));
        assert!(matches!(refused(vec![founder("b", 1)]), InvalidFounders::WithoutMe(_)));
    }
}
