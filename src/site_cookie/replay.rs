//! Which request ids of proven hops were seen lately, so that a hop that somebody overheard cannot be sent
//! again.
//!
//! Ids are kept as hashes in two generations: the younger one is written, both are asked, and the older one
//! is thrown away whole. An id is so remembered for one to two times [`GENERATION_SECONDS`], longer where no
//! request comes. Memory is bounded: when a generation is full before its time it ages at once, which forgets the oldest ids first and
//! refuses nobody. Only ids whose MAC was right get here, so that strangers cannot fill it.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    mem,
};

use parking_lot::Mutex;

/// The ids of one instance, for all its services.
#[derive(Debug)]
pub struct ReplayGuard {
    /// Several, so that threads seldom meet and no growing set holds everyone up.
    shards: [Mutex<Generations>; SHARDS],
    hasher: RandomState,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
    /// When the young generation began, Unix seconds.
    began: u64,
}

impl ReplayGuard {
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// `capacity`: ids of one generation in one shard.
    fn with_capacity(capacity: usize) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), capacity }
    }

    /// Remembers the id of a request from a site. `false`: it was seen before.
    pub(super) fn is_new(&self, src: &str, rid: &str, now: u64) -> bool {
        let hash = self.hasher.hash_one((src, rid));
        let mut shard = self.shards[(hash >> 32) as usize % SHARDS].lock();
        shard.age(now, self.capacity);
        !shard.old.contains(&hash) && shard.young.insert(hash)
    }
}

impl Default for ReplayGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Generations {
    fn age(&mut self, now: u64, capacity: usize) {
        if now.saturating_sub(self.began) >= GENERATION_SECONDS || self.young.len() >= capacity {
            // Only one generation, however late it is: a clock that jumped ahead may jump back.
            mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
            self.began = now;
        }
    }
}

/// A hop that is dated as far ahead as is allowed is good for twice the allowed skew.
const GENERATION_SECONDS: u64 = 2 * super::hop::MAX_SKEW + 1;

const SHARDS: usize = 16;

/// About 16 MiB in all when every generation is full: 16,000 hops a second.
const CAPACITY: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_per_site() {
        let guard = ReplayGuard::new();
        assert!(guard.is_new("a", "1", 1000));
        assert!(!guard.is_new("a", "1", 1000));
        assert!(guard.is_new("b", "1", 1000));
        assert!(guard.is_new("a", "2", 1000));
    }

    #[test]
    fn an_id_is_remembered_for_a_minute_whenever_it_came() {
        for came in [1000, 1030, 1060] {
            let guard = ReplayGuard::new();
            for n in 0..1000 {
                guard.is_new("every shard begins", &n.to_string(), 1000);
            }
            assert!(guard.is_new("a", "1", came));
            for now in came..=came + 60 {
                assert!(!guard.is_new("a", "1", now), "{now}, came {came}");
            }
        }
    }

    #[test]
    fn what_is_long_gone_is_forgotten() {
        let guard = ReplayGuard::new();
        for n in 0..10_000 {
            guard.is_new("a", &n.to_string(), 1000);
        }
        for n in 0..1000 {
            guard.is_new("b", &n.to_string(), 1000 + GENERATION_SECONDS);
        }
        assert!(guard.is_new("a", "1", 1000 + 2 * GENERATION_SECONDS));
        for n in 0..1000 {
            guard.is_new("c", &n.to_string(), 1000 + 2 * GENERATION_SECONDS);
        }
        let held = |shard: &Mutex<Generations>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        let kept: usize = guard.shards.iter().map(held).sum();
        assert_eq!(kept, 2001, "every shard was asked again and has let go of the oldest");
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_remembered() {
        let guard = ReplayGuard::with_capacity(100);
        for n in 0..10_000 {
            assert!(guard.is_new("a", &n.to_string(), 1000), "nobody is refused");
            assert!(!guard.is_new("a", &n.to_string(), 1000));
        }
        for shard in &guard.shards {
            let shard = shard.lock();
            assert!(shard.young.len() <= 100 && shard.old.len() <= 100);
        }
    }

    #[test]
    fn a_clock_that_jumps_back_or_ahead_and_back_forgets_nothing() {
        let guard = ReplayGuard::new();
        assert!(guard.is_new("a", "1", 5000));
        assert!(!guard.is_new("a", "1", 100));
        for n in 0..1000 {
            guard.is_new("every shard jumps", &n.to_string(), 5_000_000);
        }
        assert!(!guard.is_new("a", "1", 5010));
    }
}
