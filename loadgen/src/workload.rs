//! A made-up load: a schedule, and for each due moment a kind, a key and a length.

use ringmain::prng::Prng;

use crate::keys::Keys;
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
    prng: Prng,
    number: u64,
}

impl Workload {
    /// Operations are numbered from `number_first`.
    pub fn new(
        schedule: Schedule,
        mix: Mix,
        keys: Keys,
        sizes: Sizes,
        prng: Prng,
        number_first: u64,
    ) -> Self {
        Self { schedule, mix, keys, sizes, prng, number: number_first }
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
        let value_len = if kind == Kind::Write { self.sizes.draw(&mut self.prng) } else { 0 };
        Some(Operation { number, kind, key, value_len, due_ns })
    }
}

/// One write for each of `count` keys, with a length from `sizes`.
pub fn preload(count: u64, sizes: &Sizes, prng: &mut Prng) -> impl Iterator<Item = (Key, u32)> {
    (0..count).map(|key| (Key(key), sizes.draw(prng)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::keys::Popularity;
    use crate::schedule::Arrivals;

    use super::*;

    fn workload(seed: u64) -> Workload {
        let mut prng = Prng::from_seed(seed);
        let rate = "1k/s".parse().expect("a rate");
        Workload::new(
            Schedule::new(rate, Arrivals::Poisson, Duration::from_secs(2), prng.split()),
            "read=50,write=45,delete=5".parse().expect("a mix"),
            Keys::new(100, Popularity::Zipf, 0.99),
            "10..20".parse().expect("sizes"),
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
            Kind::Write => (10..=20).contains(&operation.value_len),
            _ => operation.value_len == 0,
        }));
    }
}
