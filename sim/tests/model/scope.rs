//! How far a search goes, and which mistake is planted in it.

/// What a client may ask for in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Read,
    /// A put that has seen nothing.
    BlindPut,
    /// A put with the context of the client's last reply; not while it has none.
    Put,
    /// A delete with that context.
    Delete,
    /// A put that replaces all that its coordinator has.
    Overwrite,
    /// The client's last write again, as it was, if nobody has acknowledged that.
    Retry,
}

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// For each client, for each of its steps, what it may ask for.
    pub(crate) steps: [&'static [&'static [Ask]]; super::world::CLIENTS],
    /// So many steps of the first client are taken before the search begins, by the first of `told` nodes.
    pub(crate) played: usize,
    pub(crate) told: usize,
    /// R.
    pub(crate) read: u8,
    /// W. `read + write > 3`, and fewer wipes than W.
    pub(crate) write: u8,
    /// Processes that are killed and start again with what they had.
    pub(crate) crashes: u8,
    /// Processes that start again with nothing.
    pub(crate) wipes: u8,
    /// How many times a fourth node is asked to stand in for a primary.
    pub(crate) hints: u8,
    /// How many times a primary proposes to reap.
    pub(crate) reaps: u8,
    /// How many of its rounds are given up.
    pub(crate) overs: u8,
    pub(crate) mistake: Option<Mistake>,
}

impl Scope {
    pub(crate) fn has(&self, ask: Ask) -> bool {
        self.steps.iter().flat_map(|steps| steps.iter()).any(|menu| menu.contains(&ask))
    }
}

/// Each breaks one promise; who doesn't find it has checked nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// P1: a put replaces all that its coordinator has, not what its client has seen.
    ReplacesTheUnseen,
    /// P1: a replica takes the state that comes last in place of its own.
    LastMessageWins,
    /// P2: a replica that receives siblings swaps their values.
    SwapsValues,
    /// P3: a put is answered with all that its coordinator has seen.
    TellsTheUnshown,
    /// P4: a merge keeps whatever stands on one side or the other.
    MergesByUnion,
    /// P5: a delete leaves a tombstone that has forgotten what it deleted.
    DropsTheClock,
    /// P6: after a wipe a node goes on minting under its old name (riak_kv #679).
    KeepsItsName,
    /// P7: a coordinator repairs nobody.
    RepairsNobody,
    /// P9: a node that restarted empty is counted as one that knows.
    CountsTheEmpty,
    /// P9: a write is acknowledged by whoever it was sent to.
    AcknowledgesUnheard,
    /// P1: a hint is dropped when it is sent.
    DropsBeforeTheAnswer,
    /// P1: a hint is taken for handed over when its target died on the way (scylla #24415).
    FailedReplayIsDone,
    /// P1: a primary and who stands in for it are two.
    CountsTwice,
    /// P1: a fallback promises to take nothing old while it holds a hint (scylla #23712).
    IgnoresPendingHints,
    /// P5: nobody looks at the epoch of a message.
    TakesAnyEpoch,
    /// P1: a tombstone is reaped with all that is known of the key, and the next write starts from the first dot; an
    /// old one that is handed off later covers it (riak_kv PR 1094).
    ReapsTheEpochToo,
    /// P1: a fallback that is killed forgets what it has promised.
    PromisesBeforeDurable,
    /// P5: a read that began before the raise repairs after it.
    RepairsWithAnOldRead,
    /// P1: who is bound itself says that no round rests on what was lost.
    MeetsWhileBound,
    /// P1: a node that lost its record acknowledges writes at once.
    AcknowledgesUnmet,
    /// Retries: a write that stands under two dots is shown under both.
    ShowsTwins,
}
