//! Where entries are found. moka finds a group of some thousand sessions by its number; a hash table in it, under a
//! lock of its own, finds the session.
//!
//! moka spends some 230 bytes on whatever it holds, more than a session needs, so it holds groups. It never lets
//! one go: those that a group holds were used at all sorts of times, and with it would go sessions in regular
//! use. Who leaves a full table is decided session by session, in [`slots`]. Nothing else in this crate knows
//! moka.
//!
//! Locks are taken in this order: a group's, an entry's, a table's.

mod slots;

use std::{
    hash::{BuildHasher, Hasher},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use moka::sync::Cache;
use parking_lot::Mutex;
use slots::{Slot, Slots};

use super::{Entry, SessionKey, tables::Tables};

pub(super) struct Store {
    groups: Cache<u32, Arc<Group>, ByNumber>,
    /// Groups are numbered from 0 to here.
    numbers: u32,
    capacity: usize,
    /// Keys that are there, and room that was taken for others.
    len: AtomicUsize,
    /// Whose turn it is to make room.
    turn: AtomicU32,
    tables: Arc<Tables>,
}

type Group = Mutex<Slots>;

/// Why a key leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Another needs its room.
    ForRoom,
    /// It is over, deleted, or names another entry now.
    Unwanted,
}

/// Room for one key, given back when it is dropped.
struct Room<'a>(&'a Store);

impl Store {
    /// `tables` count the keys that leave.
    pub fn new(capacity: u64, tables: Arc<Tables>) -> Self {
        let numbers = capacity.div_ceil(PER_GROUP).clamp(1, u64::from(u32::MAX));
        Self {
            groups: Cache::builder().build_with_hasher(ByNumber),
            numbers: u32::try_from(numbers).expect("the number was clamped"),
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX).max(1),
            len: AtomicUsize::new(0),
            turn: AtomicU32::new(0),
            tables,
        }
    }

    pub fn get(&self, key: &SessionKey) -> Option<Arc<Entry>> {
        self.groups.get(&self.number(key))?.lock().get(key).cloned()
    }

    /// Of simultaneous callers one makes the entry, and all get it.
    pub fn get_or_insert(&self, key: &SessionKey, make: impl FnOnce() -> Arc<Entry>) -> Arc<Entry> {
        let group = self.group(key);
        let mut room: Option<Room<'_>> = None;
        loop {
            let mut slots = group.lock();
            if let Some(known) = slots.get(key) {
                return known.clone();
            }
            if let Some(room) = room.take() {
                let entry = make();
                slots.insert(Slot { key: *key, entry: entry.clone() });
                room.fill();
                return entry;
            }
            drop(slots);
            room = Some(self.take_room());
        }
    }

    /// Puts an entry under a key if `free` says so of what is there; nobody changes the key in between.
    pub fn put_if(
        &self,
        key: &SessionKey,
        entry: &Arc<Entry>,
        free: impl FnOnce(Option<&Arc<Entry>>) -> bool,
    ) {
        let group = self.group(key);
        let mut room: Option<Room<'_>> = None;
        loop {
            let mut slots = group.lock();
            if let Some(known) = slots.get_mut(key) {
                let replaced = free(Some(known)).then(|| std::mem::replace(known, entry.clone()));
                drop(slots);
                if let Some(replaced) = replaced {
                    self.left(key, &replaced, Leaving::Unwanted);
                }
                return;
            }
            if let Some(room) = room.take() {
                if free(None) {
                    slots.insert(Slot { key: *key, entry: entry.clone() });
                    room.fill();
                }
                return;
            }
            drop(slots);
            room = Some(self.take_room());
        }
    }

    /// Removes a key if its entry is one that `unwanted` names; nobody changes the key in between.
    pub fn remove_if(&self, key: &SessionKey, unwanted: impl FnOnce(&Arc<Entry>) -> bool) -> bool {
        let Some(group) = self.groups.get(&self.number(key)) else { return false };
        let slot = group.lock().remove_if(key, unwanted);
        if let Some(slot) = &slot {
            self.gone(slot, Leaving::Unwanted);
        }
        slot.is_some()
    }

    /// Removes every key whose entry `over` names. How many they were.
    pub fn remove_all(&self, mut over: impl FnMut(&Entry) -> bool) -> usize {
        let mut removed = 0;
        for (_, group) in &self.groups {
            for places in parts(&group) {
                let leaving = group.lock().remove_all(places, &mut over);
                removed += leaving.len();
                for slot in leaving {
                    self.gone(&slot, Leaving::Unwanted);
                }
            }
            group.lock().shrink();
        }
        removed
    }

    /// Walks the table without using its entries. What comes or goes meanwhile may be missed, or met twice.
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, Arc<Entry>)> {
        let groups = self.groups.iter().map(|(_, group)| group);
        let slots = |group: Arc<Group>| {
            parts(&group).flat_map(move |places| group.lock().slots(places).cloned().collect::<Vec<_>>())
        };
        groups.flat_map(slots).map(|slot| (slot.key, slot.entry))
    }

    /// Walks the table by whole groups, each under its lock, so that no key is missed that was there when the walk
    /// began and stays.
    pub fn groups(&self) -> impl Iterator<Item = Vec<(SessionKey, Arc<Entry>)>> {
        let all = |group: Arc<Group>| {
            let slots = group.lock();
            slots.slots(slots.places()).map(|slot| (slot.key, slot.entry.clone())).collect()
        };
        self.groups.iter().map(move |(_, group)| all(group))
    }

    /// The entry of the key with this hash, in the table of that number.
    pub fn hashed(&self, hash: u64, table: u16) -> Option<Arc<Entry>> {
        let group = self.groups.get(&self.number_of(hash))?;
        group.lock().hashed(hash, table).cloned()
    }

    /// How many keys there are; a moment's more where one is on its way in.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Takes room for one key; in a full table others leave for it.
    fn take_room(&self) -> Room<'_> {
        let more = |len| (len < self.capacity).then_some(len + 1);
        while self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            let number = self.turn.fetch_add(1, Ordering::Relaxed) % self.numbers;
            let Some(group) = self.groups.get(&number) else { continue };
            let left = group.lock().let_one_go(|entry, found| entry.leave(found, &self.tables));
            if let Some(slot) = left {
                self.gone(&slot, Leaving::ForRoom);
            }
        }
        Room(self)
    }

    /// A slot was emptied.
    fn gone(&self, slot: &Slot, why: Leaving) {
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.left(&slot.key, &slot.entry, why);
    }

    /// A key names this entry no more.
    fn left(&self, key: &SessionKey, entry: &Entry, why: Leaving) {
        let table = self.tables.of(key);
        table.entries.dec();
        if why == Leaving::ForRoom {
            table.evictions.inc();
        }
        entry.lose_key(&self.tables);
    }

    /// The group of a key, made if there is none.
    fn group(&self, key: &SessionKey) -> Arc<Group> {
        let number = self.number(key);
        let known = self.groups.get(&number);
        known.unwrap_or_else(|| self.groups.get_with(number, Arc::<Group>::default))
    }

    /// The number of a key's group, by the upper half of its hash.
    fn number(&self, key: &SessionKey) -> u32 {
        self.number_of(key.hash())
    }

    fn number_of(&self, hash: u64) -> u32 {
        (((hash >> 32) * u64::from(self.numbers)) >> 32) as u32
    }
}

/// The places of a group in parts that are short enough to hold its lock for.
fn parts(group: &Group) -> impl Iterator<Item = Range<usize>> + use<> {
    let all = group.lock().places();
    all.clone().step_by(PART).map(move |from| from..all.end.min(from + PART))
}

impl Room<'_> {
    /// A key is there now.
    fn fill(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.len.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Spreads the numbers of groups over a hash's bits; whose sessions are where is hashed with a key already.
#[derive(Clone, Copy, Default)]
struct ByNumber;

struct Spread(u64);

impl BuildHasher for ByNumber {
    type Hasher = Spread;

    fn build_hasher(&self) -> Spread {
        Spread(0)
    }
}

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(GOLDEN);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(GOLDEN);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Sessions of a group in a full table, on average: so many that moka's part is small and its groups fit into the
/// processor's caches, and so few that the hash table of 4096 places, which takes 3584, is hardly ever too small.
const PER_GROUP: u64 = 3200;

/// Places of a group that are gone through under one lock.
const PART: usize = 256;

#[cfg(test)]
mod tests;
