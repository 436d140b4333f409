//! What a shard says that it keeps in memory, held against the allocator that the server runs on.
//!
//! P11 rests on it: a limit is only as good as the sum that is held against it. Every allocation of this process is counted
//! by the bytes that the allocator has handed out for it, classes and all.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use mimalloc::MiMalloc;
use ringmain::causality::{Actor, Content, VersionVector};
use ringmain::hint::{HintStore, Keeping};
use ringmain::id::{NodeId, OperationId, PartitionId};
use ringmain::prng::Prng;
use ringmain::replica::{Covered, Place, Replica, Write};
use ringmain::storage::{Change, Index, cost};
use ringmain::time::{Instant, Now, WallTime};
use ringmain_schema::token;

const PARTITIONS: u32 = 64;

/// Counts what this thread has allocated and not freed.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is the inner allocator's; what it has handed out is looked at before it is given back.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as this function's own contract.
        let pointer = unsafe { MiMalloc.alloc(layout) };
        if !pointer.is_null() {
            count(pointer, 1);
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(pointer, -1);
        // SAFETY: as this function's own contract.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

fn count(pointer: *mut u8, sign: isize) {
    // SAFETY: the inner allocator has handed it out, and has not had it back.
    let bytes = unsafe { MiMalloc.usable_size(pointer) };
    // A thread that ends frees what it had when this is gone.
    let _ = LIVE.try_with(|live| live.set(live.get() + sign * bytes as isize));
}

fn live() -> isize {
    LIVE.with(Cell::get)
}

/// What was counted must be no less than what was allocated, and not much more.
fn check(what: &str, said: usize, before: isize, slack: f64) {
    let truly = (live() - before) as f64;
    let said = said as f64;
    assert!(said >= truly * 0.999, "{what}: {said} bytes are counted, and {truly} are allocated");
    assert!(
        said <= truly * slack + 4096.0,
        "{what}: {said} bytes are counted, and only {truly} are allocated"
    );
}

fn now(wall: u64) -> Now {
    Now { monotonic: Instant(0), wall: WallTime(wall) }
}

fn place(key: &[u8]) -> Place<'_> {
    let token = token::token(key);
    Place { key, token, partition: PartitionId(token::partition(token, PARTITIONS)) }
}

fn put(
    replica: &mut Replica,
    key: &[u8],
    value: &[u8],
    expiry: Option<u64>,
    covered: Covered,
    sequence: u64,
) {
    let operation = OperationId { client: 7, sequence };
    let write = Write { value: Some(value), covered, expiry: expiry.map(WallTime), operation };
    replica.coordinate(now(1), place(key), write, 0).unwrap();
}

/// Sizes from nothing to some hundred kilobytes, as caches see them.
fn size(prng: &mut Prng) -> usize {
    (prng.next_u64() >> (47 + prng.next_u64() % 17)) as usize
}

#[test]
fn the_allocator_has_the_classes_that_are_counted_by() {
    let sizes = (1..5000).chain((5000..600_000).step_by(1013)).chain([512 << 10, 1 << 20, 8 << 20]);
    for bytes in sizes {
        let before = live();
        let held: Vec<u8> = Vec::with_capacity(bytes);
        let truly = (live() - before) as usize;
        drop(held);
        let said = cost::allocated(bytes);
        assert!(
            said >= truly && said <= truly + (64 << 10),
            "{bytes} bytes: {said} counted, {truly} allocated"
        );
        assert!(bytes >= 512 << 10 || said == truly, "{bytes} bytes: {said} counted, {truly} allocated");
    }
}

#[test]
fn what_a_replica_keeps_is_counted_as_it_is_allocated() {
    let value = vec![9; 512 << 10];
    let before = live();
    let mut replica = Replica::new(PARTITIONS, 1, 16 << 20);
    let total = |replica: &Replica| replica.memory().iter().sum::<usize>();
    check("nothing", total(&replica), before, 1.0);
    let mut prng = Prng::from_seed(1);
    for sequence in 0..60_000 {
        let key = format!("key:{}", prng.next_u64() % 20_000);
        let length = size(&mut prng).min(value.len());
        let expiry = prng.next_u64().is_multiple_of(3).then(|| prng.next_u64() % (1 << 40));
        let covered = match prng.next_u64() % 8 {
            0 => Covered::Context(VersionVector::new()),
            _ => Covered::Everything,
        };
        put(&mut replica, key.as_bytes(), &value[..length], expiry, covered, sequence);
        replica.take_changes().for_each(drop);
        // Half of the values are read, by somebody who counts itself.
        if prng.next_u64().is_multiple_of(2) {
            let seen = replica.read(now(1), place(key.as_bytes())).map(|entry| entry.state.clone());
            drop(seen);
        }
    }
    // Values that nobody has read count as if somebody had.
    check("keys, siblings and timers", total(&replica), before, 1.02);
    while replica.next_expiry(now(1 << 40)).is_some() {
        replica.expire(now(1 << 40), 100);
    }
    check("after what expires has expired", total(&replica), before, 1.02);
    for partition in 0..PARTITIONS / 2 {
        replica.wipe(PartitionId(partition), false);
        replica.take_changes().for_each(drop);
    }
    check("with half of it wiped", total(&replica), before, 1.05);
}

#[test]
fn small_values_cost_what_is_said() {
    let before = live();
    let mut replica = Replica::new(PARTITIONS, 1, 16 << 20);
    for sequence in 0..100_000u64 {
        put(&mut replica, format!("user:{sequence:012}").as_bytes(), &[7; 100], None, Covered::Everything, 0);
        replica.take_changes().for_each(drop);
    }
    let said: usize = replica.memory().iter().sum();
    let per_key = (live() - before) as usize / replica.keys();
    // 32 bytes a value, for who reads it, are counted before anybody does.
    check("100,000 keys of 17 bytes, values of 100", said, before, 1.12);
    println!("{per_key} bytes a key, {} of them beyond key and value", per_key - 117);
}

#[test]
fn hints_and_trees_cost_at_most_what_is_said() {
    let before = live();
    let mut store = HintStore::new(usize::MAX);
    let mut prng = Prng::from_seed(2);
    let value = Bytes::from(vec![9; 64 << 10]);
    for at in 0..20_000u64 {
        let key = format!("key:{}", prng.next_u64() % 10_000);
        let length = size(&mut prng).min(value.len());
        let mut state = ringmain::causality::Siblings::new();
        let actor = Actor { id: 1 + at % 3, epoch: 1 };
        let content = Content::Value(Bytes::copy_from_slice(&value[..length]));
        state.put(actor, &VersionVector::new(), content, None, OperationId::NONE, WallTime(1));
        let keeping = Keeping {
            target: NodeId(at % 5),
            key: key.as_bytes(),
            partition: place(key.as_bytes()).partition,
        };
        store.keep(keeping, &state, 0).unwrap();
        store.note_minter(key.as_bytes(), actor);
    }
    check("hints", store.memory() + cost::allocated(value.len()), before, 1.6);
    drop((store, value));
    assert_eq!(live(), before, "all of it is gone");

    let mut trees = ringmain::anti_entropy::Trees::new(1 << 16);
    for _ in 0..50_000 {
        let token = prng.next_u64();
        let partition = PartitionId(token::partition(token, 1 << 16));
        trees.apply(&Change { partition, token, before: 0, after: 1 });
    }
    check("hash trees", trees.memory(), before, 1.01);
}

/// A shard's own index alone: what is shared with a reader stays allocated until the reader lets go.
#[test]
fn what_a_reader_holds_is_not_the_indexs_any_more() {
    let mut index = Index::new(1);
    let shared: Arc<[u8]> = vec![1; 1000].into();
    let write = |index: &mut Index| {
        index.update(PartitionId(0), 5, b"k", |entry| {
            let seen = entry.state.context();
            let content = Content::Value(Bytes::copy_from_slice(&shared));
            entry.state.put(Actor { id: 1, epoch: 1 }, &seen, content, None, OperationId::NONE, WallTime(1));
        });
        index.take_changes().for_each(drop);
    };
    write(&mut index);
    let before = live();
    let read = index.find(PartitionId(0), 5, b"k").unwrap().state.clone();
    assert_eq!(live() - before, 32, "a reader counts itself, and that was counted");
    let said = index.memory();
    write(&mut index);
    assert_eq!(index.memory(), said);
    assert!(live() - before >= 1000, "the reader has the old value");
    drop(read);
    assert_eq!(live(), before, "the new value has no reader yet");
}
