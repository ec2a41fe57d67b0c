//! Where entries are found: moka's concurrent map, with the least recently used entry leaving when it is full,
//! so that a new session is never refused. Nothing else in this crate knows moka.
//!
//! moka calls `on_removal` from whatever call happens to run its housekeeping: never call this file with an
//! entry's lock held.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use moka::{
    ops::compute::{CompResult, Op},
    policy::EvictionPolicy,
    sync::Cache,
};

use super::{Entry, SessionKey};

pub(super) struct Store {
    cache: Cache<SessionKey, Arc<Entry>, PassOn>,
}

impl Store {
    /// `on_removal` is told of every key that left, for whatever reason.
    pub fn new(capacity: u64, on_removal: impl Fn(&SessionKey, Arc<Entry>) + Send + Sync + 'static) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |key: Arc<SessionKey>, entry, _| on_removal(&key, entry))
            .build_with_hasher(PassOn);
        Self { cache }
    }

    pub fn get(&self, key: &SessionKey) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    /// Of simultaneous callers one makes the entry, and all get it.
    pub fn get_or_insert(&self, key: &SessionKey, make: impl FnOnce() -> Arc<Entry>) -> Arc<Entry> {
        self.cache.get(key).unwrap_or_else(|| {
            let result = self.cache.entry(*key).and_compute_with(|known| match known {
                Some(_) => Op::Nop,
                None => Op::Put(make()),
            });
            result.into_entry().expect("the entry was there or was put").into_value()
        })
    }

    /// Removes a key if its entry is one that `unwanted` names; nobody changes the key in between.
    pub fn remove_if(&self, key: &SessionKey, unwanted: impl FnOnce(&Arc<Entry>) -> bool) -> bool {
        let result = self.cache.entry(*key).and_compute_with(|known| match known {
            Some(known) if unwanted(known.value()) => Op::Remove,
            _ => Op::Nop,
        });
        matches!(result, CompResult::Removed(_))
    }

    /// Puts an entry under a key if `free` says so of what is there; nobody changes the key in between.
    pub fn put_if(
        &self,
        key: SessionKey,
        entry: &Arc<Entry>,
        free: impl FnOnce(Option<&Arc<Entry>>) -> bool,
    ) {
        self.cache.entry(key).and_compute_with(|known| {
            if free(known.as_ref().map(|known| known.value())) { Op::Put(entry.clone()) } else { Op::Nop }
        });
    }

    /// Walks the table without using its entries. What comes or goes meanwhile may be missed.
    pub fn entries(&self) -> impl Iterator<Item = (Arc<SessionKey>, Arc<Entry>)> {
        self.cache.iter()
    }

    /// Does now what moka would do with one of the next calls: evict what is over capacity.
    pub fn settle(&self) {
        self.cache.run_pending_tasks();
    }
}

/// Passes on the hash that a [`SessionKey`] is.
#[derive(Clone, Copy, Default)]
struct PassOn;

impl BuildHasher for PassOn {
    type Hasher = Passed;

    fn build_hasher(&self) -> Passed {
        Passed(0)
    }
}

struct Passed(u64);

impl Hasher for Passed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
