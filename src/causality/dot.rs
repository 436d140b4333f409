//! Who minted, and which of its events: the name of a version.

/// The greatest counter. One bit is left free so that a counter from outside can be refused before adding to
/// it could overflow; a key written a million times a second gets there in 292,000 years.
pub const COUNTER_MAX: u64 = u64::MAX >> 1;

/// A replica in one of its lives. A different epoch is a different actor to every rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Actor {
    /// Drawn at random at every start of a node; never a core number, never a timestamp.
    pub id: u64,
    /// Raised whenever this id mints a key of which it has no record.
    pub epoch: u32,
}

/// One event of one actor at one key: the name of one version, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dot {
    /// Who minted it.
    pub actor: Actor,
    /// `1 <= counter <= COUNTER_MAX`
    pub counter: u64,
}
