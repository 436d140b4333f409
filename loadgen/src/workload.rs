//! A made-up load: a schedule, and for each due moment a kind, a key and a length.

use std::ops::Range;
use std::time::Duration;

use ringmain::prng::Prng;

use crate::keys::Keys;
use crate::lifetimes::Lifetimes;
use crate::mix::Mix;
use crate::operation::{Key, Kind, Operation};
use crate::schedule::Schedule;
use crate::sizes::Sizes;

/// An iterator of operations in the order they are due. The same seed gives the same operations.
#[derive(Clone, Debug)]
pub struct Workload {
    schedule: Schedule,
    mix: Mix,
    keys: Keys,
    sizes: Sizes,
    lifetimes: Lifetimes,
    prng: Prng,
    number: u64,
}

/// A write before the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preload {
    /// To which key.
    pub key: Key,
    /// The length of the value in bytes.
    pub value_len: u32,
    /// How long it lives; `None` for ever.
    pub lifetime: Option<Duration>,
}

impl Workload {
    /// Operations are numbered from `number_first`.
    pub fn new(
        schedule: Schedule,
        mix: Mix,
        keys: Keys,
        sizes: Sizes,
        lifetimes: Lifetimes,
        prng: Prng,
        number_first: u64,
    ) -> Self {
        Self { schedule, mix, keys, sizes, lifetimes, prng, number: number_first }
    }
}

impl Iterator for Workload {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        let due_ns = self.schedule.next()?;
        let number = self.number;
        self.number += 1;
        let kind = self.mix.choose(&mut self.prng);
        let key = self.keys.choose(kind, &mut self.prng);
        let (mut value_len, mut lifetime) = (0, None);
        if kind == Kind::Write {
            value_len = self.sizes.draw(&mut self.prng);
            lifetime = self.lifetimes.draw(&mut self.prng);
        }
        Some(Operation { number, kind, key, value_len, lifetime, due_ns })
    }
}

/// One write for each of these keys, with a length from `sizes` and a lifetime.
pub fn preload(
    numbers: Range<u64>,
    sizes: &Sizes,
    lifetimes: &Lifetimes,
    prng: &mut Prng,
) -> impl Iterator<Item = Preload> {
    numbers.map(|key| Preload { key: Key(key), value_len: sizes.draw(prng), lifetime: lifetimes.draw(prng) })
}

#[cfg(test)]
mod tests {
    use crate::keys::Popularity;
    use crate::profile::Profile;
    use crate::schedule::Arrivals;

    use super::*;

    fn workload(seed: u64) -> Workload {
        let mut prng = Prng::from_seed(seed);
        let rate = "1k/s".parse().expect("a rate");
        Workload::new(
            Schedule::new(Profile::steady(rate, Duration::from_secs(2)), Arrivals::Poisson, prng.split()),
            "read=50,write=45,delete=5".parse().expect("a mix"),
            Keys::new(100, Popularity::Zipf, 0.99, 0),
            "10..20".parse().expect("sizes"),
            "60s".parse().expect("lifetimes"),
            prng.split(),
            500,
        )
    }

    #[test]
    fn a_seed_replays_its_operations() {
        let operations: Vec<Operation> = workload(1).collect();
        assert_eq!(operations, workload(1).collect::<Vec<_>>());
        assert_ne!(operations, workload(2).collect::<Vec<_>>());
        assert!(operations.iter().zip(500..).all(|(operation, number)| operation.number == number));
        assert!(operations.iter().all(|operation| match operation.kind {
            Kind::Write => (10..=20).contains(&operation.value_len) && operation.lifetime.is_some(),
            _ => operation.value_len == 0 && operation.lifetime.is_none(),
        }));
    }
}
