//! The coordinator: counts answers and decides, and does nothing else.
//!
//! A [`PutQuorum`] waits for W durable acknowledgements, a [`GetQuorum`] for R answers of replicas whose
//! silence means something (paper §4.5). Neither sends, waits or knows a network: the shard tells them what
//! came back and asks for the verdict. Each request has its own N, R and W.
//!
//! Two promises live here. Acknowledgements are counted by distinct node, and only durable ones (P1). A read
//! counts complete replicas only, since one that restarted empty has nothing to say about what it doesn't
//! have (P9); but when all N have answered there is nothing more to ask, and their union is the answer.
//!
//! While the ring changes a key has two sets of owners (`docs/adr/0011`): a write needs W among each, and so does a read from
//! a certain step on. A request under way is regrouped when the sets change, and keeps what it has been told.
//!
//! A write may ask to be in several zones (racks, data centres) before it is acknowledged, beside its W.
//!
//! Fallbacks stand in for primaries that can't be reached (paper §4.6): what one holds counts, to a write and to a
//! read, unless the request wants primaries; what it doesn't hold says nothing.

mod get;
mod owners;
mod put;
mod zones;

pub use get::{GetQuorum, GetVerdict};
pub use owners::{Owners, share};
pub use put::{PutQuorum, PutVerdict};

/// A majority of `replicas`: what R and W are unless a request or the configuration says otherwise.
pub const fn majority(replicas: u8) -> u8 {
    replicas / 2 + 1
}

/// What a node is to a key at a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// It owns the key.
    Primary,
    /// It stands in for a primary that can't be reached (paper §4.6).
    Fallback,
}

/// What an answer rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Basis {
    /// Primary replicas.
    pub primaries: u8,
    /// Fallback replicas.
    pub fallbacks: u8,
    /// Distinct nodes.
    pub nodes: u8,
}

impl Basis {
    /// So many primaries, and nobody else.
    pub const fn primaries(count: u8) -> Self {
        Self { primaries: count, fallbacks: 0, nodes: count }
    }

    /// Both together.
    #[must_use]
    pub(super) const fn plus(self, more: Self) -> Self {
        Self {
            primaries: self.primaries + more.primaries,
            fallbacks: self.fallbacks + more.fallbacks,
            nodes: self.nodes + more.nodes,
        }
    }

    /// And one node more.
    #[must_use]
    pub const fn and(self, role: Role) -> Self {
        let Self { primaries, fallbacks, nodes } = self;
        match role {
            Role::Primary => Self { primaries: primaries + 1, fallbacks, nodes: nodes + 1 },
            Role::Fallback => Self { primaries, fallbacks: fallbacks + 1, nodes: nodes + 1 },
        }
    }
}
