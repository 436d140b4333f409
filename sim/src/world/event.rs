//! What can happen next.

use bytes::Bytes;
use ringmain::shard::{DialId, SiblingMessage};

use crate::deeds::Word;
use crate::network::Side;

/// A shard in one of its node's lives. In another life the event is stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// The node.
    pub node: usize,
    /// Its shard.
    pub shard: u16,
    /// Which life.
    pub life: u32,
}

/// Something planned.
#[derive(Debug)]
pub enum Event {
    /// A shard's next timeout.
    Tick(At),
    /// A frame arrives at this side.
    Frame(Side, Bytes),
    /// The called side hears of the call.
    Called(Side),
    /// The caller hears that it got through.
    Reached(Side, DialId),
    /// The caller hears that it did not.
    DialFailed(At, DialId),
    /// The other side has closed.
    Closed(Side),
    /// A sibling shard spoke.
    Sibling(At, u16, SiblingMessage),
    /// A log may be synced.
    Sync(At),
    /// A record has been read again.
    Read(At, u64),
    /// A client has something to do: its number, and the number of the plan, which a newer one makes stale.
    Client(usize, u64),
    /// A deed of the plan, by its place there.
    Deed(usize),
    /// The operator tries to be heard.
    Word(Word),
    /// A machine that was removed is to come back.
    Return(usize),
    /// A node's process is to start.
    Start(usize),
    /// A stopping node has had its time.
    Kill(usize, u32),
    /// A paused node goes on.
    Resume(usize),
    /// Look whether deletes have settled.
    Survey,
}

impl At {
    const fn mark(self) -> u64 {
        self.node as u64 ^ (self.shard as u64) << 8 ^ (self.life as u64) << 24
    }
}

impl Event {
    /// What kind of event it is, and to whom it happens: for the hash over all of them.
    pub(super) const fn mark(&self) -> [u64; 2] {
        match self {
            Self::Tick(at) => [1, at.mark()],
            Self::Frame(side, _) => [2, side.mark()],
            Self::Called(side) => [3, side.mark()],
            Self::Reached(side, _) => [4, side.mark()],
            Self::DialFailed(at, _) => [5, at.mark()],
            Self::Closed(side) => [6, side.mark()],
            Self::Sibling(at, from, _) => [7, at.mark() ^ (*from as u64) << 48],
            Self::Sync(at) => [8, at.mark()],
            Self::Client(number, plan) => [9, *number as u64 ^ *plan << 16],
            Self::Deed(number) => [10, *number as u64],
            Self::Word(_) => [11, 0],
            Self::Return(node) => [12, *node as u64],
            Self::Start(node) => [13, *node as u64],
            Self::Kill(node, life) => [14, *node as u64 ^ (*life as u64) << 16],
            Self::Resume(node) => [15, *node as u64],
            Self::Survey => [16, 0],
            Self::Read(at, sequence) => [17, at.mark() ^ *sequence << 32],
        }
    }
}
