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
