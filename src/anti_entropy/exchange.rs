//! The walk down two trees, from the side that began it.
//!
//! ```text
//! Roots --differ--> Branches --differ--> Leaves --differ--> List --differ--> Pull, Push
//!   ^  next partitions   ^  next partition  ^ next branch     ^ rest of a list   |
//!   +--------------------+------------------+-----------------+------------------+
//! ```

use std::collections::VecDeque;

use ringmain_schema::limits::{PULL_TOKENS_MAX, TREE_PARTITIONS_MAX};

use super::listing::{Listing, Selection, differences};
use super::tree::{FAN_OUT, Trees};
use crate::id::PartitionId;

/// What the exchange needs next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Ask for the roots of these partitions.
    Roots(Vec<PartitionId>),
    /// Ask for the branches of this partition.
    Branches(PartitionId),
    /// Ask for the leaves of this branch.
    Leaves(PartitionId, u8),
    /// Ask for a list, and take one here.
    List(Selection),
    /// Have the states under these tokens sent here.
    Pull(PartitionId, Vec<u64>),
    /// Send the states under these tokens there.
    Push(PartitionId, Vec<u64>),
    /// Nothing: all is compared.
    Done,
}

/// An answer that doesn't fit what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unexpected;

/// One walk over all partitions that two shards have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// Not yet compared.
    partitions: VecDeque<PartitionId>,
    /// Their roots differ; at most [`TREE_PARTITIONS_MAX`].
    differing: Vec<PartitionId>,
    stage: Stage,
    /// Branches of this partition that differ and have not been looked at.
    branches: u32,
    /// The leaves that are being looked at. Its `leaves` are none when that branch is done.
    at: Selection,
    /// Tokens to be asked for, then tokens to be sent: no more than two lists hold.
    pull: VecDeque<u64>,
    push: VecDeque<u64>,
    /// Nothing is asked for.
    gives_only: bool,
    found: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Roots,
    Branches,
    Leaves,
    List,
    Move,
    Done,
}

impl Exchange {
    /// About these partitions, each of which both hold.
    pub fn new(partitions: impl Iterator<Item = PartitionId>) -> Self {
        let at = Selection { partition: PartitionId(0), branch: 0, leaves: 0, from: 0 };
        let mut exchange = Self {
            partitions: partitions.collect(),
            differing: Vec::new(),
            stage: Stage::Roots,
            branches: 0,
            at,
            pull: VecDeque::new(),
            push: VecDeque::new(),
            gives_only: false,
            found: 0,
        };
        exchange.go_on();
        exchange
    }

    /// The same, but nothing is asked for: what the other has besides is of no use here.
    pub fn giving(partitions: impl Iterator<Item = PartitionId>) -> Self {
        Self { gives_only: true, ..Self::new(partitions) }
    }

    /// What comes next. The answer is for the handler of that step.
    pub fn step(&self) -> Step {
        let partition = self.at.partition;
        let first = |tokens: &VecDeque<u64>| tokens.iter().take(PULL_TOKENS_MAX).copied().collect();
        match self.stage {
            Stage::Roots => Step::Roots(self.asked().collect()),
            Stage::Branches => Step::Branches(partition),
            Stage::Leaves => Step::Leaves(partition, self.at.branch),
            Stage::List => Step::List(self.at),
            Stage::Move if !self.pull.is_empty() => Step::Pull(partition, first(&self.pull)),
            Stage::Move => Step::Push(partition, first(&self.push)),
            Stage::Done => Step::Done,
        }
    }

    /// Tokens under which the two differed so far.
    pub const fn found(&self) -> usize {
        self.found
    }

    /// Leaves that differ in the branch that is being looked at.
    pub const fn leaves(&self) -> u32 {
        self.at.leaves
    }

    fn asked(&self) -> impl ExactSizeIterator<Item = PartitionId> + '_ {
        self.partitions.iter().take(TREE_PARTITIONS_MAX).copied()
    }

    /// The other's roots, branches or leaves, in the order in which they were asked for.
    pub fn on_nodes(&mut self, trees: &Trees, theirs: &[u64]) -> Result<(), Unexpected> {
        let differing = |mine: &[u64; FAN_OUT]| -> Result<u32, Unexpected> {
            let theirs: &[u64; FAN_OUT] = theirs.try_into().map_err(|_| Unexpected)?;
            let bits = (0..FAN_OUT).filter(|&at| mine[at] != theirs[at]).map(|at| 1 << at);
            Ok(bits.sum())
        };
        match self.stage {
            Stage::Roots => {
                if theirs.len() != self.asked().len() {
                    return Err(Unexpected);
                }
                let asked = self.partitions.drain(..theirs.len()).zip(theirs);
                let differing = asked.filter(|(partition, theirs)| trees.root(*partition) != **theirs);
                self.differing = differing.map(|(partition, _)| partition).collect();
            }
            Stage::Branches => self.branches = differing(&trees.branches(self.at.partition))?,
            Stage::Leaves => {
                self.at.leaves = differing(&trees.leaves(self.at.partition, self.at.branch))?;
                self.at.from = 0;
            }
            Stage::List | Stage::Move | Stage::Done => return Err(Unexpected),
        }
        self.go_on();
        Ok(())
    }

    /// The other's list of what was selected, and this shard's own.
    pub fn on_keys(&mut self, trees: &Trees, mine: &Listing, theirs: &Listing) -> Result<(), Unexpected> {
        let is_asked = |&(token, _): &(u64, u64)| self.at.contains(trees, token);
        if self.stage != Stage::List || !theirs.keys.iter().all(is_asked) {
            return Err(Unexpected);
        }
        let found = differences(mine, theirs);
        let both = found.theirs.iter().filter(|token| found.mine.binary_search(token).is_ok()).count();
        self.found += found.theirs.len() + found.mine.len() - both;
        self.push = found.mine.into();
        self.pull = if self.gives_only { VecDeque::new() } else { found.theirs.into() };
        match found.until.and_then(|token| token.checked_add(1)) {
            Some(from) => self.at.from = from,
            None => self.at.leaves = 0,
        }
        self.go_on();
        Ok(())
    }

    /// The first `tokens` of those that were asked for have been sent here.
    pub fn on_pulled(&mut self, tokens: usize) -> Result<(), Unexpected> {
        Self::moved(self.stage, &mut self.pull, tokens)?;
        self.go_on();
        Ok(())
    }

    /// The first `tokens` of those to be sent there have arrived.
    pub fn on_pushed(&mut self, tokens: usize) -> Result<(), Unexpected> {
        Self::moved(self.stage, &mut self.push, tokens)?;
        self.go_on();
        Ok(())
    }

    fn moved(stage: Stage, queue: &mut VecDeque<u64>, tokens: usize) -> Result<(), Unexpected> {
        if stage != Stage::Move || tokens == 0 || tokens > queue.len().min(PULL_TOKENS_MAX) {
            return Err(Unexpected);
        }
        queue.drain(..tokens);
        Ok(())
    }

    /// To whatever is left, the innermost first.
    fn go_on(&mut self) {
        self.stage = if !self.pull.is_empty() || !self.push.is_empty() {
            Stage::Move
        } else if self.at.leaves != 0 {
            Stage::List
        } else if self.branches != 0 {
            self.at.branch = self.branches.trailing_zeros() as u8;
            self.branches &= self.branches - 1;
            Stage::Leaves
        } else if let Some(partition) = self.differing.pop() {
            self.at.partition = partition;
            Stage::Branches
        } else if self.partitions.is_empty() {
            Stage::Done
        } else {
            Stage::Roots
        };
    }
}

#[cfg(test)]
mod tests;
