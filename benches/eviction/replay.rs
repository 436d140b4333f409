//! Requests against a cache of so many bytes: this one's way of making room, and the usual one.

use std::collections::BTreeMap;

use ringmain::id::PartitionId;
use ringmain::prng::Prng;
use ringmain::storage::{Seat, Seats};

/// A request: what for, and how large that is.
pub(crate) type Request = (u64, u64);

/// Hits, of all requests, by a cache that puts out as ours does.
pub(crate) fn hits_by_seats(requests: &[Request], limit: u64) -> usize {
    let (mut seats, mut held) = (Seats::default(), BTreeMap::<u64, (Seat, u64)>::new());
    let mut hits = 0;
    for &(key, bytes) in requests {
        if let Some((seat, before)) = held.get_mut(&key) {
            hits += 1;
            seats.touch(seat);
            if *before != bytes {
                seats.resize(seat, bytes as usize);
                *before = bytes;
            }
        } else if bytes <= limit {
            while seats.bytes() + bytes > limit
                && let Some(victim) = seats.put_out()
            {
                held.remove(&victim.token);
            }
            held.insert(key, (seats.take(PartitionId(0), key, bytes as usize), bytes));
        }
        while seats.bytes() > limit
            && let Some(victim) = seats.put_out()
        {
            held.remove(&victim.token);
        }
    }
    hits
}

/// The same by one that puts out what was not used for the longest time.
pub(crate) fn hits_by_age(requests: &[Request], limit: u64) -> usize {
    let mut held = BTreeMap::<u64, (usize, u64)>::new();
    let mut order = BTreeMap::<usize, u64>::new();
    let (mut total, mut hits) = (0, 0);
    for (time, &(key, bytes)) in requests.iter().enumerate() {
        let before = held.get(&key).copied();
        if let Some((used, before)) = before {
            hits += 1;
            order.remove(&used);
            total -= before;
        }
        if before.is_none() && bytes > limit {
            continue;
        }
        held.insert(key, (time, bytes));
        order.insert(time, key);
        total += bytes;
        while total > limit {
            let (_, oldest) = order.pop_first().expect("something takes these bytes");
            total -= held.remove(&oldest).expect("it is held").1;
        }
    }
    hits
}

/// Keys by Zipf's law, each of a size of its own.
pub(crate) fn zipf(requests: usize, keys: usize, exponent: f64, seed: u64) -> Vec<Request> {
    let mut prng = Prng::from_seed(seed);
    let mut sum = 0.0;
    let below: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let draw =
        |prng: &mut Prng| below.partition_point(|until| *until < prng.unit() * sum).min(keys - 1) as u64;
    (0..requests)
        .map(|_| {
            let key = draw(&mut prng);
            (key.wrapping_mul(0x9e37_79b9_7f4a_7c15), 64 + (key.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 54))
        })
        .collect()
}

/// The requests of a trace, `version,time,op,size,object` a line, after a line of names.
pub(crate) fn read_trace(text: &str) -> Vec<Request> {
    let fields = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split(',').skip(3);
        Some((fields.next()?.parse().ok()?, fields.next()?.trim().parse::<u64>().ok()?))
    });
    fields.map(|(size, object): (u64, u64)| (object.wrapping_mul(0x9e37_79b9_7f4a_7c15), size)).collect()
}

/// Bytes of all keys, each as large as it was last.
pub(crate) fn footprint(requests: &[Request]) -> u64 {
    requests.iter().copied().collect::<BTreeMap<u64, u64>>().values().sum()
}
