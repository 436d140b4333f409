//! Requests go to whoever holds the key, also after that has changed.

use std::sync::Arc;
use std::time::Duration;

use ringmain_client::{Builder, Client, Error, Routing};
use ringmain_schema::frame::{Flags, Kind};
use ringmain_schema::token::{partition, shard_of, token};
use ringmain_schema::{Encoder, ErrorCode, Frame};

use crate::fake::{Behaviour, Fake, PATIENCE, got, topology};

/// A server that answers every read with its own name.
async fn named(name: &'static str, flags: Flags) -> Fake {
    let handler = move |frame: &Frame<'_>, encoder: &mut Encoder, out: &mut Vec<u8>| {
        let is_get = frame.header.kind == Kind::GET;
        if is_get {
            got(encoder, frame.header.request_id, flags, b"", &[name.as_bytes()], out);
        }
        is_get
    };
    Fake::start(Behaviour { handler: Some(Arc::new(handler)), ..Behaviour::default() }).await
}

async fn read(client: &Client, key: &str) -> String {
    let value = client.get(key).await.unwrap().into_value().unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

async fn until_epoch(client: &Client, epoch: u64) {
    let known = async {
        while client.known_topology().is_none_or(|topology| topology.epoch != epoch) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("the new topology never arrived");
}

#[tokio::test]
async fn each_key_goes_to_the_shard_that_holds_it() {
    let names = ["n0s0", "n0s1", "n1s0", "n1s1"];
    let fakes = [
        named(names[0], Flags::NONE).await,
        named(names[1], Flags::NONE).await,
        named(names[2], Flags::NONE).await,
        named(names[3], Flags::NONE).await,
    ];
    let ports = fakes.each_ref().map(|fake| fake.port);
    fakes[0].tell(topology(1, &[&ports[..2], &ports[2..]], 1));
    let client = Builder::default().servers([fakes[0].address()]).connect().await.unwrap();
    for number in 0..100 {
        let key = format!("key {number}");
        let partition = partition(token(key.as_bytes()), 8);
        let expected = names[(partition % 2 * 2) as usize + usize::from(shard_of(partition, 2))];
        assert_eq!(read(&client, &key).await, expected);
    }
}

#[tokio::test]
async fn reads_take_turns_and_writes_keep_to_the_first() {
    let (mut fakes, client) = Fake::cluster::<2>(Builder::default()).await;
    let (mut reads, mut writes) = ([0, 0], [0, 0]);
    for _ in 0..10 {
        let [first, second] = &mut fakes;
        let (_, place) = tokio::join!(client.get("key"), async {
            let (place, request) = tokio::select! { request = first.next() => (0, request), request = second.next() => (1, request) };
            request.got(b"", &[b"value"]);
            place
        });
        reads[place] += 1;
        let (_, place) = tokio::join!(client.put("key", "value"), async {
            let (place, request) = tokio::select! { request = first.next() => (0, request), request = second.next() => (1, request) };
            request.stored();
            place
        });
        writes[place] += 1;
    }
    assert_eq!(reads, [5, 5]);
    assert!(writes == [10, 0] || writes == [0, 10], "{writes:?}");
}

#[tokio::test]
async fn a_new_topology_is_followed_as_soon_as_it_is_told() {
    let (old, new) = (named("old", Flags::NONE).await, named("new", Flags::NONE).await);
    old.tell(topology(1, &[&[old.port]], 1));
    let client = Builder::default().servers([old.address()]).connect().await.unwrap();
    assert_eq!(read(&client, "key").await, "old");
    while old.topologies_asked() < 2 {
        // The second one subscribes.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    old.tell(topology(2, &[&[new.port]], 1));
    until_epoch(&client, 2).await;
    assert_eq!(read(&client, "key").await, "new");
}

#[tokio::test]
async fn a_wrong_shard_makes_the_client_look_again() {
    let (mut old, mut new) =
        (Fake::start(Behaviour::default()).await, Fake::start(Behaviour::default()).await);
    old.tell(topology(1, &[&[old.port]], 1));
    let client = Builder::default().servers([old.address()]).connect().await.unwrap();
    let (stored, ()) = tokio::join!(client.request("key").direct().put("value"), async {
        let request = old.next().await;
        assert!(request.frame().header.flags.contains(Flags::DIRECT));
        assert_eq!(request.put().epoch, 1);
        // Not told to subscribers: the client has to ask.
        *old.behaviour.topology.lock().unwrap() = topology(2, &[&[new.port]], 1);
        request.refuse(ErrorCode::WrongShard);
        let request = new.next().await;
        assert_eq!(request.put().epoch, 2);
        request.stored();
    });
    stored.unwrap();
    let (stored, ()) = tokio::join!(client.request("key").direct().put("value"), async {
        new.tell(topology(2, &[&[new.port]], 1));
        new.next().await.refuse(ErrorCode::WrongShard);
    });
    assert_eq!(stored.unwrap_err(), Error::WrongShard, "nothing newer is known");
}

#[tokio::test]
async fn a_forwarded_answer_makes_the_client_look_again_but_not_often() {
    let (old, new) = (named("old", Flags::FORWARDED).await, named("new", Flags::NONE).await);
    old.tell(topology(1, &[&[old.port]], 1));
    let client = Builder::default().servers([old.address()]).connect().await.unwrap();
    for _ in 0..100 {
        assert_eq!(read(&client, "key").await, "old");
    }
    assert!(old.topologies_asked() <= 4, "asked {} times", old.topologies_asked());
    *old.behaviour.topology.lock().unwrap() = topology(2, &[&[new.port]], 1);
    let moved = async {
        while read(&client, "key").await != "new" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("the client never looked again");
}

#[tokio::test]
async fn the_subscription_moves_when_its_server_dies() {
    let fakes = [named("a", Flags::NONE).await, named("b", Flags::NONE).await, named("c", Flags::NONE).await];
    let ports = fakes.each_ref().map(|fake| [fake.port]);
    let all: Vec<&[u16]> = ports.iter().map(|ports| &ports[..]).collect();
    fakes.iter().for_each(|fake| fake.tell(topology(1, &all, 3)));
    let client = Builder::default().servers(fakes.each_ref().map(Fake::address)).connect().await.unwrap();
    let mut fakes = Vec::from(fakes);
    while fakes.len() > 1 {
        drop(fakes.remove(0));
        for _ in 0..20 {
            assert_ne!(read(&client, "key").await, "a", "the dead don't answer");
        }
        let epoch = 10 - fakes.len() as u64;
        let retold = tokio::time::timeout(PATIENCE, async {
            while client.known_topology().unwrap().epoch != epoch {
                fakes.iter().for_each(|fake| fake.tell(topology(epoch, &all, 3)));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        retold.await.expect("nobody follows any longer");
    }
}

#[tokio::test]
async fn when_no_primary_can_be_reached_others_pass_it_on() {
    let (dead, mut alive) =
        (Fake::start(Behaviour::default()).await, Fake::start(Behaviour::default()).await);
    let mut all = topology(1, &[&[dead.port], &[alive.port]], 1);
    all.primaries = vec![0; 8];
    alive.tell(all);
    drop(dead);
    let client = Builder::default().servers([alive.address()]).connect().await.unwrap();
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        let request = alive.next().await;
        assert_eq!(request.put().epoch, 0, "not routed by a topology");
        request.stored();
    });
    stored.unwrap();
}

#[tokio::test]
async fn given_servers_get_everything_if_so_wished() {
    let (owner, asked) = (named("owner", Flags::NONE).await, named("asked", Flags::FORWARDED).await);
    asked.tell(topology(1, &[&[owner.port]], 1));
    let builder = Builder::default().servers([asked.address()]).routing(Routing::Given);
    let client = builder.connect().await.unwrap();
    for _ in 0..10 {
        assert_eq!(read(&client, "key").await, "asked");
    }
    assert_eq!(owner.accepted(), 0);
}

#[tokio::test]
async fn the_wrong_servers_are_asked_if_so_wished_and_the_right_ones_when_no_other_is_left() {
    let mut fakes = Vec::new();
    for name in ["0", "1", "2"] {
        fakes.push(named(name, Flags::FORWARDED).await);
    }
    let ports: Vec<u16> = fakes.iter().map(|fake| fake.port).collect();
    let topology = topology(1, &ports.chunks(1).collect::<Vec<_>>(), 1);
    let owner =
        |key: &str| topology.primaries[partition(token(key.as_bytes()), topology.partitions) as usize];
    fakes.iter().for_each(|fake| fake.tell(topology.clone()));
    let builder = Builder::default().servers([fakes[0].address()]).routing(Routing::Wrong);
    let client = builder.connect().await.unwrap();
    until_epoch(&client, 1).await;
    let keys: Vec<String> = (0..40).map(|number| format!("key {number}")).collect();
    let mut asked = std::collections::BTreeSet::new();
    for key in &keys {
        let by = read(&client, key).await;
        assert_ne!(by, owner(key).to_string(), "{key} went to its owner");
        asked.insert(by);
    }
    assert_eq!(asked.len(), 3, "the others have their turns: {asked:?}");
    let left = fakes.pop().unwrap();
    drop(fakes);
    let key = keys.iter().find(|key| owner(key) == 2).unwrap();
    assert_eq!(read(&client, key).await, "2");
    drop(left);
}

#[tokio::test]
async fn every_shard_is_asked_for_its_status() {
    let (mut fakes, client) =
        Fake::cluster::<2>(Builder::default().timeout(Duration::from_millis(100))).await;
    let status = ringmain_client::Status {
        node: 1,
        name: "n0".to_owned(),
        cluster: 1,
        shard: 0,
        shards: 1,
        epoch: 1,
        serving: true,
        software: String::new(),
        members: Vec::new(),
        counters: Vec::new(),
        change: String::new(),
        trouble: String::new(),
    };
    let (statuses, ()) = tokio::join!(client.status(), async {
        fakes[0].next().await.answer(|encoder, id, out| status.encode(encoder, id, out));
    });
    let told: Vec<_> = statuses.into_iter().map(|shard| (shard.address, shard.status)).collect();
    assert_eq!(told, [(fakes[0].address(), Ok(status)), (fakes[1].address(), Err(Error::Timeout))]);
}

/// A read that needs no other data centre doesn't wait for one. Writes go where all clients send theirs.
#[tokio::test]
async fn reads_keep_near_and_go_farther_only_when_they_must() {
    let names = ["other", "center", "rack"];
    let mut fakes = Vec::new();
    for name in names {
        fakes.push(Some(named(name, Flags::NONE).await));
    }
    let ports: Vec<u16> = fakes.iter().flatten().map(|fake| fake.port).collect();
    let mut topology = topology(1, &ports.chunks(1).collect::<Vec<_>>(), 3);
    for (member, (center, rack)) in topology.members.iter_mut().zip([("y", "r1"), ("x", "r2"), ("x", "r1")]) {
        (member.data_center, member.rack) = (center.to_owned(), rack.to_owned());
    }
    let seed = fakes[0].as_ref().unwrap();
    seed.tell(topology);
    let builder = Builder::default().servers([seed.address()]).near("x", "r1");
    let client = builder.connect().await.unwrap();
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    // Connections open as they are needed, and one that is open is preferred to one that isn't.
    for nearest in ["rack", "center", "other"] {
        for _ in 0..2 {
            for key in &keys {
                read(&client, key).await;
            }
        }
        for key in &keys {
            assert_eq!(read(&client, key).await, nearest);
        }
        let gone = names.iter().position(|name| *name == nearest).unwrap();
        if gone > 0 {
            drop(fakes[gone].take());
        }
    }
}
