//! One shard's hints.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causality::{Actor, Content, Siblings};
use crate::id::{NodeId, OperationId, PartitionId};
use crate::storage::cost;

/// What a hint costs beside its key and values: the entry of a tree, its clock and its versions.
const HINT_BYTES: usize = 200;

/// Writes that a hint is known to have replaced, at most: the last ones.
const REPLACED_MAX: usize = 4;

/// The state of one key, kept for a node that could not be reached.
#[derive(Debug)]
pub struct Hint {
    /// Where the key belongs.
    pub partition: PartitionId,
    /// All that is to be handed over.
    pub state: Siblings<Bytes>,
    /// The log record that covers it; 0 if there is no log.
    pub appended: u64,
    /// Changes with the state: an acknowledgement of an older one drops nothing.
    pub version: u64,
    /// Who has said that it holds this version.
    pub held_by: SmallVec<[NodeId; 3]>,
    /// Some of the writes that it replaced.
    replaced: SmallVec<[OperationId; REPLACED_MAX]>,
}

/// The hints for this node are as many bytes as they may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// What is kept, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// For whom.
    pub target: NodeId,
    /// The key.
    pub key: &'a [u8],
    /// Where it belongs.
    pub partition: PartitionId,
}

/// All hints of one shard.
#[derive(Debug)]
pub struct HintStore {
    targets: BTreeMap<NodeId, Target>,
    /// Under whose name the last write to each key was minted here, while all hints of the key since then are still here:
    /// together they hold all that was minted under it.
    minters: BTreeMap<Box<[u8]>, Actor>,
    /// Partitions of which something is kept, and of how many keys, each as often as it is kept.
    partitions: BTreeMap<PartitionId, usize>,
    /// Bytes for each target.
    bytes_max: usize,
    /// Of all targets.
    hints: usize,
    /// What their keys and states cost, but for their places in the maps.
    state_bytes: usize,
    last_version: u64,
    /// Records of the log that cover nothing any more, since they were last taken.
    dead: Vec<u64>,
}

#[derive(Debug, Default)]
struct Target {
    hints: BTreeMap<Box<[u8]>, Hint>,
    bytes: usize,
    /// The key that was handed out last: the next one comes after it.
    cursor: Box<[u8]>,
}

impl HintStore {
    /// At most so many bytes for each target, 0 for none at all.
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            targets: BTreeMap::new(),
            minters: BTreeMap::new(),
            partitions: BTreeMap::new(),
            bytes_max,
            hints: 0,
            state_bytes: 0,
            last_version: 0,
            dead: Vec::new(),
        }
    }

    /// Nothing is kept for anybody.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Keep this state too; true if it was news. `appended` is the log record that will cover it, if so.
    pub fn keep(
        &mut self,
        keeping: Keeping<'_>,
        theirs: &Siblings<Bytes>,
        appended: u64,
    ) -> Result<bool, Full> {
        if self.find(keeping.target, keeping.key).is_some_and(|hint| !hint.state.would_change(theirs)) {
            return Ok(false);
        }
        let mut state =
            self.find(keeping.target, keeping.key).map(|hint| hint.state.clone()).unwrap_or_default();
        state.merge(theirs);
        self.replace(keeping, state, appended)?;
        Ok(true)
    }

    /// Is there room to keep this state instead of what is kept for this key and target, and so many bytes more?
    pub fn has_room(&self, keeping: Keeping<'_>, state: &Siblings<Bytes>, more: usize) -> bool {
        self.bytes_with(keeping, state) + more <= self.bytes_max
    }

    /// What would be kept for this target, with this state.
    fn bytes_with(&self, Keeping { target, key, .. }: Keeping<'_>, state: &Siblings<Bytes>) -> usize {
        let before = self.find(target, key).map_or(0, |hint| hint_bytes(key, &hint.state));
        self.bytes(target) + hint_bytes(key, state) - before
    }

    /// Keep this state instead of what was kept for this key and target, if there is room.
    pub fn replace(
        &mut self,
        keeping: Keeping<'_>,
        state: Siblings<Bytes>,
        appended: u64,
    ) -> Result<(), Full> {
        if !self.has_room(keeping, &state, 0) {
            return Err(Full);
        }
        self.put(keeping, state, appended);
        Ok(())
    }

    /// The log has kept this. There may be more than has room since the limit was lowered, but W was counted on it.
    pub fn recover(&mut self, keeping: Keeping<'_>, state: Siblings<Bytes>, appended: u64) {
        self.put(keeping, state, appended);
    }

    fn put(&mut self, keeping: Keeping<'_>, state: Siblings<Bytes>, appended: u64) {
        let Keeping { target, key, partition } = keeping;
        let bytes = self.bytes_with(keeping, &state);
        self.last_version += 1;
        self.state_bytes += cost_of(key, &state);
        let kept = self.targets.entry(target).or_default();
        let (version, held_by) = (self.last_version, SmallVec::new());
        let mut hint = Hint { partition, state, appended, version, held_by, replaced: SmallVec::new() };
        if let Some(before) = kept.hints.get_mut(key) {
            let gone = before.state.replaced_in(&hint.state).map(|gone| gone.operation);
            hint.replaced = std::mem::take(&mut before.replaced);
            note(&mut hint.replaced, gone);
        }
        kept.bytes = bytes;
        let before = kept.hints.insert(key.into(), hint);
        match &before {
            None => {
                self.hints += 1;
                *self.partitions.entry(partition).or_default() += 1;
            }
            Some(before) => self.state_bytes -= cost_of(key, &before.state),
        }
        self.dead.extend(before.map(|before| before.appended).filter(|record| *record != 0));
    }

    /// What is kept of a key for this target has replaced these writes, here or elsewhere.
    pub fn note_replaced(&mut self, target: NodeId, key: &[u8], replaced: impl Iterator<Item = OperationId>) {
        let hint = self.targets.get_mut(&target).and_then(|target| target.hints.get_mut(key));
        if let Some(hint) = hint {
            note(&mut hint.replaced, replaced);
        }
    }

    /// What is kept of a key for this target.
    pub fn find(&self, target: NodeId, key: &[u8]) -> Option<&Hint> {
        self.targets.get(&target)?.hints.get(key)
    }

    /// All that is kept of a key, for whomever; empty if there is nothing.
    pub fn known(&self, key: &[u8]) -> Siblings<Bytes> {
        let mut known = Siblings::new();
        for hint in self.targets.values().filter_map(|target| target.hints.get(key)) {
            known.merge(&hint.state);
        }
        known
    }

    /// The record of a state that holds this write, kept for whomever. What is kept for another may have replaced it.
    pub fn record_of(&self, key: &[u8], operation: OperationId) -> Option<u64> {
        let mut kept = self.targets.values().filter_map(|target| target.hints.get(key));
        kept.find(|hint| hint.state.contains_operation(operation).is_some()).map(|hint| hint.appended)
    }

    /// Is this write in what is kept of a key for whomever, or what replaced it? It may be so even if "no".
    pub fn accounts_for(&self, key: &[u8], write: OperationId) -> bool {
        let mut kept = self.targets.values().filter_map(|target| target.hints.get(key));
        kept.any(|hint| hint.replaced.contains(&write) || hint.state.contains_operation(write).is_some())
    }

    /// Who may mint on for this key, in a state that holds all that is kept of it.
    pub fn minter(&self, key: &[u8]) -> Option<Actor> {
        self.minters.get(key).copied()
    }

    /// What was kept last of this key was minted under this name.
    pub fn note_minter(&mut self, key: &[u8], actor: Actor) {
        self.minters.insert(key.into(), actor);
    }

    /// The next hint to be handed over to this target: each in turn, and then from the beginning.
    pub fn next(&mut self, target: NodeId) -> Option<(&[u8], &Hint)> {
        let Target { hints, cursor, .. } = self.targets.get_mut(&target)?;
        let after = (Bound::Excluded(&**cursor), Bound::Unbounded);
        let (key, hint) = hints.range::<[u8], _>(after).next().or_else(|| hints.first_key_value())?;
        cursor.clone_from(key);
        Some((key, hint))
    }

    /// `node` holds this version of the hint: who does by now, unless it has changed since.
    pub fn held(&mut self, target: NodeId, key: &[u8], version: u64, node: NodeId) -> Option<&[NodeId]> {
        let hint =
            self.targets.get_mut(&target)?.hints.get_mut(key).filter(|hint| hint.version == version)?;
        if !hint.held_by.contains(&node) {
            hint.held_by.push(node);
        }
        Some(&hint.held_by)
    }

    /// Nothing is kept of this key for this target any more.
    pub fn forget(&mut self, target: NodeId, key: &[u8]) {
        let Some(kept) = self.targets.get_mut(&target) else { return };
        if let Some(hint) = kept.hints.remove(key) {
            let left = self.partitions.get_mut(&hint.partition).expect("each hint is counted");
            *left -= 1;
            if *left == 0 {
                self.partitions.remove(&hint.partition);
            }
            self.dead.extend(Some(hint.appended).filter(|record| *record != 0));
            kept.bytes -= hint_bytes(key, &hint.state);
            self.hints -= 1;
            self.state_bytes -= cost_of(key, &hint.state);
            self.minters.remove(key);
        }
        if kept.hints.is_empty() {
            self.targets.remove(&target);
        }
    }

    /// Another record of the log is about to cover a hint.
    pub fn cover(&mut self, target: NodeId, key: &[u8], appended: u64) {
        let hint = self.targets.get_mut(&target).and_then(|target| target.hints.get_mut(key));
        if let Some(hint) = hint {
            let before = std::mem::replace(&mut hint.appended, appended);
            self.dead.extend(Some(before).filter(|record| *record != 0));
        }
    }

    /// The hints that these records of the log cover.
    pub fn covered_by(&self, first: u64, last: u64) -> impl Iterator<Item = (NodeId, Box<[u8]>)> {
        let all =
            self.targets.iter().flat_map(|(node, target)| target.hints.iter().map(|hint| (*node, hint)));
        let covered = all.filter(move |(_, (_, hint))| (first..=last).contains(&hint.appended));
        covered.map(|(node, (key, _))| (node, key.clone()))
    }

    /// Records of the log that cover no hint any more, since the last call.
    pub fn take_dead(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.dead.drain(..)
    }

    /// For whom there is something, how many keys and how many bytes.
    pub fn backlog(&self) -> impl Iterator<Item = (NodeId, usize, usize)> {
        self.targets.iter().map(|(node, target)| (*node, target.hints.len(), target.bytes))
    }

    /// At most what all of it costs in memory, as the allocator gives it out.
    pub fn memory(&self) -> usize {
        let key = size_of::<Box<[u8]>>();
        let (hint, minter) = (key + size_of::<Hint>(), key + size_of::<Actor>());
        let target = size_of::<(NodeId, Target)>();
        let partition = size_of::<(PartitionId, usize)>();
        let hints = self.hints * cost::map_slot(hint) + self.targets.len() * cost::map_root(hint);
        let targets = self.targets.len() * cost::map_slot(target);
        let minters = self.minters.len() * cost::map_slot(minter);
        let partitions = self.partitions.len() * cost::map_slot(partition);
        let roots =
            if self.is_empty() { 0 } else { [target, minter, partition].map(cost::map_root).iter().sum() };
        self.state_bytes + hints + targets + minters + partitions + roots
    }

    /// Where they all belong.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.keys().copied()
    }

    /// Is anything kept of this partition?
    pub fn keeps(&self, partition: PartitionId) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// All that is kept of this partition: for whom, and of which keys.
    pub fn of_partition(&self, partition: PartitionId) -> Vec<(NodeId, Box<[u8]>)> {
        let all =
            self.targets.iter().flat_map(|(node, target)| target.hints.iter().map(|hint| (*node, hint)));
        all.filter(|(_, (_, hint))| hint.partition == partition)
            .map(|(node, (key, _))| (node, key.clone()))
            .collect()
    }

    fn bytes(&self, target: NodeId) -> usize {
        self.targets.get(&target).map_or(0, |target| target.bytes)
    }
}

fn note(replaced: &mut SmallVec<[OperationId; REPLACED_MAX]>, more: impl Iterator<Item = OperationId>) {
    for write in more.filter(|write| *write != OperationId::NONE) {
        if replaced.contains(&write) {
            continue;
        }
        if replaced.len() == REPLACED_MAX {
            replaced.remove(0);
        }
        replaced.push(write);
    }
}

/// What a hint's key and state cost in memory: the key as often as it is kept, here, as that of a minter and as the cursor.
fn cost_of(key: &[u8], state: &Siblings<Bytes>) -> usize {
    3 * cost::allocated(key.len()) + cost::of_state(state)
}

fn hint_bytes(key: &[u8], state: &Siblings<Bytes>) -> usize {
    let length = |content: &Content<Bytes>| match content {
        Content::Value(value) => value.len(),
        Content::Cold { .. } => unreachable!("hints stay in memory"),
        Content::Tombstone | Content::Expired => 0,
    };
    let values: usize = state.versions().iter().map(|version| length(&version.content)).sum();
    HINT_BYTES + key.len() + values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::VersionVector;
    use crate::id::OperationId;
    use crate::time::WallTime;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn state(actor: u64, value: &'static [u8]) -> Siblings<Bytes> {
        let mut state = Siblings::new();
        let value = Content::Value(Bytes::from_static(value));
        let actor = Actor { id: actor, epoch: 1 };
        state.put(actor, &VersionVector::new(), value, None, OperationId::NONE, WallTime(1));
        state
    }

    fn keeping(target: NodeId, key: &[u8]) -> Keeping<'_> {
        Keeping { target, key, partition: PartitionId(0) }
    }

    #[test]
    fn hints_for_one_key_merge_and_each_target_has_its_own() {
        let mut store = HintStore::new(10_000);
        assert_eq!(store.keep(keeping(A, b"k"), &state(1, b"milk"), 1), Ok(true));
        assert_eq!(store.keep(keeping(A, b"k"), &state(2, b"bread"), 2), Ok(true));
        assert_eq!(store.keep(keeping(A, b"k"), &state(2, b"bread"), 3), Ok(false));
        assert_eq!(store.keep(keeping(B, b"k"), &state(3, b"eggs"), 4), Ok(true));
        assert_eq!(store.find(A, b"k").map(|hint| (hint.state.sibling_count(), hint.appended)), Some((2, 2)));
        assert_eq!(store.known(b"k").sibling_count(), 3);
        assert!(store.known(b"other").is_empty());
    }

    #[test]
    fn what_was_sent_before_a_hint_changed_is_not_what_is_held() {
        let mut store = HintStore::new(10_000);
        store.keep(keeping(A, b"k"), &state(1, b"milk"), 1).unwrap();
        let sent = store.next(A).unwrap().1.version;
        store.keep(keeping(A, b"k"), &state(2, b"bread"), 2).unwrap();
        assert_eq!(store.held(A, b"k", sent, A), None);
        let sent = store.next(A).unwrap().1.version;
        assert_eq!(store.held(A, b"k", sent, A), Some(&[A][..]));
        assert_eq!(store.held(A, b"k", sent, A), Some(&[A][..]), "twice is once");
        assert_eq!(store.held(A, b"k", sent, B), Some(&[A, B][..]));
        store.keep(keeping(A, b"k"), &state(3, b"eggs"), 3).unwrap();
        assert!(store.find(A, b"k").unwrap().held_by.is_empty(), "nobody holds what is new");
    }

    #[test]
    fn each_comes_in_turn() {
        let mut store = HintStore::new(10_000);
        for key in [b"a", b"b", b"c"] {
            store.keep(keeping(A, key), &state(1, b"milk"), 1).unwrap();
        }
        let turns: Vec<Vec<u8>> = (0..4).map(|_| store.next(A).unwrap().0.to_vec()).collect();
        assert_eq!(turns, [b"a", b"b", b"c", b"a"]);
        assert!(store.next(B).is_none());
    }

    #[test]
    fn a_full_store_declines_and_keeps_what_it_has() {
        let mut store = HintStore::new(HINT_BYTES + 10);
        store.keep(keeping(A, b"k"), &state(1, b"milk"), 1).unwrap();
        assert_eq!(store.keep(keeping(A, b"l"), &state(1, b"milk"), 2), Err(Full));
        assert_eq!(store.keep(keeping(A, b"k"), &state(2, b"too long"), 2), Err(Full));
        assert_eq!(store.keep(keeping(B, b"l"), &state(1, b"milk"), 2), Ok(true), "each target has its own");
        assert_eq!(store.backlog().collect::<Vec<_>>(), [(A, 1, HINT_BYTES + 5), (B, 1, HINT_BYTES + 5)]);
        store.forget(A, b"k");
        assert_eq!(store.keep(keeping(A, b"l"), &state(1, b"milk"), 3), Ok(true));
    }

    /// A node that started anew with a smaller `--hint-bytes-max` forgot hints that writes had been acknowledged on.
    #[test]
    fn what_was_kept_outlives_a_lower_limit() {
        let mut store = HintStore::new(HINT_BYTES + 5);
        store.recover(keeping(A, b"k"), state(1, b"milk"), 1);
        store.recover(keeping(A, b"l"), state(1, b"milk"), 2);
        assert!(store.find(A, b"k").is_some() && store.find(A, b"l").is_some());
        assert_eq!(
            store.keep(keeping(A, b"m"), &state(1, b""), 1),
            Err(Full),
            "nothing new until there is room"
        );
        store.forget(A, b"k");
        store.forget(A, b"l");
        assert_eq!(store.keep(keeping(A, b"m"), &state(1, b"milk"), 2), Ok(true));
    }

    #[test]
    fn what_is_kept_is_counted_and_what_has_left_is_not() {
        let mut store = HintStore::new(10_000);
        assert_eq!(store.memory(), 0);
        store.keep(keeping(A, b"k"), &state(1, b"milk"), 1).unwrap();
        let one = store.memory();
        store.keep(keeping(A, b"l"), &state(1, b"milk"), 2).unwrap();
        store.keep(keeping(A, b"l"), &state(2, b"bread"), 3).unwrap();
        store.keep(keeping(B, b"k"), &state(1, b"milk"), 4).unwrap();
        assert!(store.memory() > one);
        [(A, b"l"), (B, b"k")].iter().for_each(|(target, key)| store.forget(*target, *key));
        assert_eq!(store.memory(), one);
        store.forget(A, b"k");
        assert_eq!((store.memory(), store.hints, store.state_bytes), (0, 0, 0));
    }

    #[test]
    fn who_minted_is_known_while_all_of_it_is_here() {
        let mut store = HintStore::new(10_000);
        store.keep(keeping(A, b"k"), &state(1, b"milk"), 1).unwrap();
        store.keep(keeping(B, b"k"), &state(1, b"milk"), 2).unwrap();
        store.note_minter(b"k", Actor { id: 1, epoch: 1 });
        assert_eq!(store.minter(b"k"), Some(Actor { id: 1, epoch: 1 }));
        store.forget(A, b"l");
        assert!(store.minter(b"k").is_some() && store.minter(b"l").is_none());
        store.forget(A, b"k");
        assert_eq!(store.minter(b"k"), None, "one of two states has left");
    }
}
