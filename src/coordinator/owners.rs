//! Who owns a key: one set of nodes, or two while the ring changes.

use crate::id::NodeId;

use super::{Role, majority};

/// The nodes that own a key.
#[derive(Clone, Copy, Debug)]
pub struct Owners<'a> {
    /// By the ring in force; distinct.
    pub primaries: &'a [NodeId],
    /// By the ring to be; distinct. The same while nothing changes.
    pub successors: &'a [NodeId],
}

impl<'a> Owners<'a> {
    /// Does the ring change here?
    pub fn is_changing(self) -> bool {
        self.primaries != self.successors
    }

    /// Each once, the primaries first.
    pub fn iter(self) -> impl Iterator<Item = NodeId> + Clone + 'a {
        let newcomers = self.successors.iter().filter(move |node| !self.primaries.contains(node));
        self.primaries.iter().chain(newcomers).copied()
    }

    /// Is it one of them?
    pub fn contains(self, node: NodeId) -> bool {
        self.sets(node) != Sets::NONE
    }

    /// The sets of which a write needs W each.
    pub fn each(self) -> impl Iterator<Item = &'a [NodeId]> {
        let second = self.is_changing().then_some(self.successors);
        std::iter::once(self.primaries).chain(second)
    }

    pub(super) fn sets(self, node: NodeId) -> Sets {
        let among = |set: &[NodeId], this: Sets| if set.contains(&node) { this.0 } else { 0 };
        Sets(among(self.primaries, Sets::PRIMARIES) | among(self.successors, Sets::SUCCESSORS))
    }
}

/// Owners while nothing changes.
impl<'a, T: AsRef<[NodeId]> + ?Sized> From<&'a T> for Owners<'a> {
    fn from(primaries: &'a T) -> Self {
        Self { primaries: primaries.as_ref(), successors: primaries.as_ref() }
    }
}

/// In which sets of owners a node is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Sets(u8);

impl Sets {
    /// It stands in for others.
    pub(super) const NONE: Self = Self(0);
    pub(super) const PRIMARIES: Self = Self(1);
    pub(super) const SUCCESSORS: Self = Self(2);
    pub(super) const BOTH: Self = Self(3);

    pub(super) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn role(self) -> Role {
        if self.0 == 0 { Role::Fallback } else { Role::Primary }
    }
}

/// How many of a set's members a request waits for: as many as were asked for, or a majority if that is 0.
pub fn share(asked: u8, members: usize) -> u8 {
    let members = members as u8;
    if asked == 0 { majority(members) } else { asked.min(members) }
}
