use super::*;

const A: Actor = Actor { id: 1, epoch: 0 };
const B: Actor = Actor { id: 2, epoch: 0 };
const C: Actor = Actor { id: 3, epoch: 0 };

type Cart = Siblings<&'static str>;

fn operation(sequence: u64) -> OperationId {
    OperationId { client: 9, sequence }
}

/// A put without expiry or name, at time 0.
fn put(state: &mut Cart, actor: Actor, covered: &VersionVector, value: &'static str) -> Dot {
    state.put(actor, covered, Content::Value(value), None, OperationId::NONE, WallTime(0))
}

fn put_named(state: &mut Cart, actor: Actor, value: &'static str, sequence: u64) -> Dot {
    let blind = VersionVector::new();
    state.put(actor, &blind, Content::Value(value), None, operation(sequence), WallTime(0))
}

fn shown(state: &Cart) -> Vec<&'static str> {
    let value = |version: &Version<&'static str>| match version.content {
        Content::Value(value) => value,
        Content::Cold { .. } | Content::Tombstone | Content::Expired => panic!("it is never shown"),
    };
    state.values().map(value).collect()
}

fn merged(left: &Cart, right: &Cart) -> Cart {
    let mut both = left.clone();
    both.merge(right);
    both
}

/// The story of the paper's figure 3: the first put reaches A and B, the second B and C.
#[test]
fn two_coordinators_conflict_and_a_cart_merge_leaves_one() {
    let (mut at_a, mut at_b, mut at_c) = (Cart::new(), Cart::new(), Cart::new());
    put(&mut at_a, A, &VersionVector::new(), "book");
    assert!(at_b.merge(&at_a));
    put(&mut at_c, C, &VersionVector::new(), "lamp");
    assert!(at_b.merge(&at_c));

    let read = merged(&at_a, &at_c);
    assert_eq!(shown(&read), ["book", "lamp"]);
    assert_eq!(read, at_b);

    put(&mut at_a, A, &read.context(), "book, lamp");
    assert!(at_b.merge(&at_a) && at_c.merge(&at_a));
    assert_eq!(shown(&at_b), ["book, lamp"]);
    assert_eq!((&at_b, &at_c), (&at_a, &at_a));
}

#[test]
fn a_put_replaces_what_its_client_saw_and_nothing_else() {
    let mut state = Cart::new();
    put(&mut state, A, &VersionVector::new(), "first");
    let early = state.context();
    put(&mut state, A, &VersionVector::new(), "second");
    put(&mut state, A, &early, "third");
    assert_eq!(shown(&state), ["second", "third"]);
}

#[test]
fn a_delete_that_saw_the_value_is_final() {
    let mut at_a = Cart::new();
    put(&mut at_a, A, &VersionVector::new(), "socks");
    let stale = at_a.clone();
    at_a.put(A, &stale.context(), Content::Tombstone, None, OperationId::NONE, WallTime(0));
    assert_eq!(shown(&merged(&stale, &at_a)), [""; 0]);
    assert!(!at_a.would_change(&stale), "an old copy has nothing to tell");
    assert!(!at_a.is_empty(), "deleted is not unknown");
}

/// riak_kv #679: B lost its record of the key and minted counter 1 again, under the same name. Everyone who
/// had seen B up to 2 took the acknowledged put for an old one and dropped it.
#[test]
fn a_key_not_found_is_minted_under_a_fresh_epoch_so_no_sibling_is_lost() {
    let (mut at_a, mut at_b) = (Cart::new(), Cart::new());
    put(&mut at_b, B, &VersionVector::new(), "one");
    put(&mut at_b, B, &VersionVector::new(), "two");
    at_a.merge(&at_b);

    let mut as_shipped = Cart::new();
    put(&mut as_shipped, B, &VersionVector::new(), "three");
    assert_eq!(shown(&merged(&at_a, &as_shipped)), ["one", "two"], "how the put was lost");

    let mut with_epoch = Cart::new();
    put(&mut with_epoch, Actor { epoch: 1, ..B }, &VersionVector::new(), "three");
    assert_eq!(shown(&merged(&at_a, &with_epoch)), ["one", "two", "three"]);
}

#[test]
fn a_context_may_name_actors_unknown_here() {
    let mut at_a = Cart::new();
    put(&mut at_a, A, &VersionVector::new(), "old");
    let mut at_b = Cart::new();
    put(&mut at_b, B, &at_a.context(), "new");
    assert_eq!(at_b.seen(A), 1);
    assert_eq!(shown(&merged(&at_a, &at_b)), ["new"]);
}

#[test]
fn a_mint_goes_beyond_its_own_context() {
    let ahead = VersionVector::try_from_sorted([(A, 41)]).expect("sorted");
    let mut state = Cart::new();
    assert_eq!(put(&mut state, A, &ahead, "x"), Dot { actor: A, counter: 42 });
}

#[test]
fn a_retry_under_two_dots_is_shown_once_under_the_least() {
    let (mut at_a, mut at_b) = (Cart::new(), Cart::new());
    let first = put_named(&mut at_a, A, "x", 1);
    put_named(&mut at_b, B, "x", 1);
    let mut both = merged(&at_b, &at_a);
    assert_eq!(both, merged(&at_a, &at_b));
    assert_eq!((shown(&both), both.contains_operation(operation(1))), (vec!["x"], Some(first)));
    assert_eq!(both.sibling_count(), 1);

    let read = both.context();
    put(&mut both, A, &read, "y");
    assert_eq!(shown(&merged(&both, &at_b)), ["y"], "whoever read the value has seen both twins");
}

/// The limit told in the file's essay: the same in every order, and a value too many, never one too few.
#[test]
fn a_twin_nobody_saw_stays_as_a_sibling_in_every_order() {
    let (mut at_a, mut at_b) = (Cart::new(), Cart::new());
    put_named(&mut at_a, A, "x", 1);
    put_named(&mut at_b, B, "x", 1);
    let mut replaced = at_a.clone();
    put(&mut replaced, C, &at_a.context(), "y");
    let twins_first = merged(&merged(&at_a, &at_b), &replaced);
    let twins_last = merged(&merged(&at_a, &replaced), &at_b);
    assert_eq!(twins_first, twins_last);
    assert_eq!(shown(&twins_first), ["x", "y"]);
}

#[test]
fn unnamed_operations_are_never_twins() {
    let mut state = Cart::new();
    put(&mut state, A, &VersionVector::new(), "x");
    put(&mut state, A, &VersionVector::new(), "x");
    assert_eq!((state.sibling_count(), state.contains_operation(OperationId::NONE)), (2, None));
}

#[test]
fn expiry_buries_with_the_same_dot_and_wins_everywhere() {
    let mut early = Cart::new();
    let blind = VersionVector::new();
    let dot = early.put(A, &blind, Content::Value("x"), Some(WallTime(10)), OperationId::NONE, WallTime(0));
    let mut late = early.clone();
    assert_eq!(
        (early.expire(WallTime(9)), early.expire(WallTime(10)), early.expire(WallTime(11))),
        (0, 1, 0)
    );
    assert_eq!((early.versions()[0].dot, early.sibling_count()), (dot, 0));
    assert!(!early.would_change(&late) && late.would_change(&early));
    assert!(late.merge(&early));
    assert_eq!(late, early);
}

#[test]
fn latest_picks_by_timestamp_then_dot() {
    let mut state = Cart::new();
    assert!(state.latest().is_none());
    for (actor, value, timestamp) in [(C, "tied, lesser", 7), (A, "newest", 8), (B, "oldest", 1)] {
        let blind = VersionVector::new();
        state.put(actor, &blind, Content::Value(value), None, OperationId::NONE, WallTime(timestamp));
    }
    assert_eq!(state.latest().map(|version| version.dot.actor), Some(A));
    let blind = VersionVector::new();
    state.put(C, &blind, Content::Value("tied, greater"), None, OperationId::NONE, WallTime(8));
    assert_eq!(state.latest().map(|version| version.dot.counter), Some(2));
}

#[test]
fn one_version_by_one_actor_needs_no_heap() {
    let mut state = Cart::new();
    for _ in 0..10 {
        let read = state.context();
        put(&mut state, A, &read, "x");
    }
    assert!(!state.clock.spilled() && !state.versions.spilled());
    assert_eq!(state.seen(A), 10);
}

#[test]
fn foreign_states_that_break_a_rule_are_refused() {
    let version = |actor, counter| Version {
        dot: Dot { actor, counter },
        content: Content::Value(()),
        expiry: None,
        operation: OperationId::NONE,
        timestamp: WallTime(0),
    };
    let parts = |clock: &[Entry], versions: Vec<Version<()>>| Siblings::from_parts(clock.to_vec(), versions);
    assert!(parts(&[(A, 2), (B, 1)], vec![version(A, 1), version(A, 2), version(B, 1)]).is_ok());

    let refused = |clock: &[Entry], versions| parts(clock, versions).err();
    assert_eq!(refused(&[(B, 1), (A, 1)], vec![]), Some(InvalidState::ActorsUnsorted));
    assert_eq!(refused(&[(A, 0)], vec![]), Some(InvalidState::CounterOutOfRange));
    assert_eq!(refused(&[(A, 2)], vec![version(A, 0)]), Some(InvalidState::CounterOutOfRange));
    assert_eq!(refused(&[(A, 2)], vec![version(A, 3)]), Some(InvalidState::DotNotSeen));
    assert_eq!(refused(&[(A, 2)], vec![version(B, 1)]), Some(InvalidState::DotNotSeen));
    assert_eq!(refused(&[(A, 2)], vec![version(A, 2), version(A, 1)]), Some(InvalidState::VersionsUnsorted));
    assert_eq!(refused(&[(A, 2)], vec![version(A, 2), version(A, 2)]), Some(InvalidState::VersionsUnsorted));
    let endless = (1..).map(|counter| version(A, counter));
    let too_many = Siblings::from_parts([(A, COUNTER_MAX)], endless).err();
    assert_eq!(too_many, Some(InvalidState::TooManyVersions));
    let undead = Version { content: Content::Tombstone, expiry: Some(WallTime(1)), ..version(A, 1) };
    assert_eq!(refused(&[(A, 1)], vec![undead]), Some(InvalidState::TombstoneExpires));
}

#[test]
fn a_put_that_would_outgrow_the_limits_is_foretold() {
    let mut state = Siblings::<()>::new();
    let blind = VersionVector::new();
    while state.has_room_for(A, &blind) {
        state.put(A, &blind, Content::Value(()), None, OperationId::NONE, WallTime(0));
    }
    assert_eq!(state.versions().len(), VERSIONS_PUT_MAX);
    assert!(state.has_room_for(A, &state.context()), "a put that replaces is always welcome");

    let crowd = (0..ACTORS_PUT_MAX as u64).map(|id| (Actor { id: id + 100, epoch: 0 }, 1));
    let crowd = VersionVector::try_from_sorted(crowd).expect("sorted");
    let crowded = Siblings::<()>::from_parts(crowd.iter(), []).expect("sound");
    assert!(!crowded.has_room_for(A, &crowd) && crowded.has_room_for(Actor { id: 100, epoch: 0 }, &crowd));
    let exhausted = Siblings::<()>::from_parts([(A, COUNTER_MAX)], []).expect("sound");
    assert!(!exhausted.has_room_for(A, &blind));
}

fn bytes_put(
    state: &mut Siblings<Bytes>,
    actor: Actor,
    covered: &VersionVector,
    value: &'static [u8],
) -> Dot {
    let content = Content::Value(Bytes::from_static(value));
    state.put(actor, covered, content, None, OperationId::NONE, WallTime(0))
}

/// Everything but the values stays, and they come back by their dots.
#[test]
fn a_state_is_cooled_and_warmed_again() {
    let mut state = Siblings::new();
    bytes_put(&mut state, A, &VersionVector::new(), b"milk");
    bytes_put(&mut state, B, &VersionVector::new(), b"bread");
    bytes_put(&mut state, C, &VersionVector::new(), b"");
    let hot = state.clone();
    assert!(state.cool() && state.is_cold() && !state.cool());
    assert_eq!((state.sibling_count(), state.context(), state.is_deleted()), (3, hot.context(), false));
    assert!(!state.would_change(&hot) && !hot.would_change(&state));
    let mut less = Siblings::new();
    bytes_put(&mut less, A, &VersionVector::new(), b"milk");
    assert!(!state.warm(&less), "another is still missing");
    assert!(state.warm(&hot));
    assert_eq!(state, hot);
}

/// A version whose value has expired meanwhile is not brought back, whatever was read.
#[test]
fn what_is_read_fills_in_values_and_changes_nothing_else() {
    let mut state = Siblings::new();
    let content = Content::Value(Bytes::from_static(b"milk"));
    state.put(A, &VersionVector::new(), content, Some(WallTime(9)), OperationId::NONE, WallTime(0));
    let hot = state.clone();
    state.cool();
    state.expire(WallTime(9));
    let before = state.clone();
    assert!(state.warm(&hot));
    assert_eq!(state, before);
}

/// What a merge leaves cold is known before; and a value that comes with it is taken.
#[test]
fn a_cold_state_is_merged_if_nothing_cold_stays() {
    let mut cold = Siblings::new();
    bytes_put(&mut cold, A, &VersionVector::new(), b"milk");
    let mut both = cold.clone();
    cold.cool();
    let mut replaces = Siblings::new();
    bytes_put(&mut replaces, B, &cold.context(), b"bread");
    let mut beside = Siblings::new();
    bytes_put(&mut beside, C, &VersionVector::new(), b"eggs");
    assert!(!cold.stays_cold(&replaces) && cold.stays_cold(&beside));
    assert!(!cold.stays_cold_beside(&cold.context()) && cold.stays_cold_beside(&VersionVector::new()));
    both.merge(&beside);
    assert!(!cold.stays_cold(&both));
    let mut merged = cold.clone();
    assert!(merged.merge(&both) && !merged.is_cold());
    assert_eq!(merged, both);
    assert!(cold.merge(&replaces) && !cold.is_cold());
}
