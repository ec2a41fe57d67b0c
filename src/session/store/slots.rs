//! The slots of a group, and who of them leaves a full table.
//!
//! Of the next [`SAMPLE`] sessions that a hand meets on its way round the group, the one that was used longest ago
//! leaves; the hand goes on from there, so that everyone is met as often as everyone else. That is nearly the
//! least recently used of all: of those that leave, half are among the twentieth that was used longest ago, and
//! 99 of 100 among the fifth; a session that is used again before half the table has been filled anew stays. A
//! session in use leaves only if the hand met [`IN_USE`] in a row and all were in use.

use std::{ops::Range, sync::Arc};

use hashbrown::HashTable;

use super::{Entry, SessionKey};
use crate::session::entry::Standing;

#[derive(Default)]
pub(super) struct Slots {
    table: HashTable<Slot>,
    /// Where the hand is: a bucket of the hash table.
    hand: usize,
}

/// A key of the table, and the entry that it names.
#[derive(Clone)]
pub(super) struct Slot {
    pub key: SessionKey,
    pub entry: Arc<Entry>,
}

impl Slots {
    pub fn get(&self, key: &SessionKey) -> Option<&Arc<Entry>> {
        self.table.find(hash(key), |slot| slot.key == *key).map(|slot| &slot.entry)
    }

    /// The entry of the key whose hash this is, in the table of that number.
    pub fn hashed(&self, hash: u64, table: u16) -> Option<&Arc<Entry>> {
        let found = |slot: &Slot| slot.key.hash() == hash && slot.key.table() == table;
        self.table.find(placed(hash), found).map(|slot| &slot.entry)
    }

    pub fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Arc<Entry>> {
        self.table.find_mut(hash(key), |slot| slot.key == *key).map(|slot| &mut slot.entry)
    }

    /// Adds a key that is not there yet.
    pub fn insert(&mut self, slot: Slot) {
        self.table.insert_unique(hash(&slot.key), slot, |slot| hash(&slot.key));
    }

    pub fn remove_if(
        &mut self,
        key: &SessionKey,
        unwanted: impl FnOnce(&Arc<Entry>) -> bool,
    ) -> Option<Slot> {
        let found = self.table.find_entry(hash(key), |slot| slot.key == *key).ok()?;
        if unwanted(&found.get().entry) { Some(found.remove().0) } else { None }
    }

    /// Lets one go, if `leaves` agrees: it is told how the hand found it.
    pub fn let_one_go(&mut self, leaves: impl FnOnce(&Entry, Standing) -> bool) -> Option<Slot> {
        let (at, standing) = self.longest_unused()?;
        let found = self.table.get_bucket_entry(at).ok()?;
        if leaves(&found.get().entry, standing) { Some(found.remove().0) } else { None }
    }

    fn longest_unused(&mut self) -> Option<(usize, Standing)> {
        let mut least: Option<(usize, Standing)> = None;
        let mut met = 0;
        for _ in 0..self.table.num_buckets() {
            self.hand = (self.hand + 1) % self.table.num_buckets();
            let Some(slot) = self.table.get_bucket(self.hand) else { continue };
            met += 1;
            let standing = slot.entry.standing();
            if least.is_none_or(|(_, least)| standing < least) {
                least = Some((self.hand, standing));
            }
            let enough = if least.is_some_and(|(_, least)| least.in_use) { IN_USE } else { SAMPLE };
            if met >= enough {
                break;
            }
        }
        least
    }

    /// Where slots may be: who has much to do goes by parts of it, and gives the lock back in between.
    pub fn places(&self) -> Range<usize> {
        0..self.table.num_buckets()
    }

    pub fn slots(&self, places: Range<usize>) -> impl Iterator<Item = &Slot> {
        places.filter_map(|at| self.table.get_bucket(at))
    }

    /// Removes what `over` names.
    pub fn remove_all(&mut self, places: Range<usize>, mut over: impl FnMut(&Entry) -> bool) -> Vec<Slot> {
        let over = |at: &usize| self.table.get_bucket(*at).is_some_and(|slot| over(&slot.entry));
        let over: Vec<usize> = places.filter(over).collect();
        over.into_iter().filter_map(|at| Some(self.table.get_bucket_entry(at).ok()?.remove().0)).collect()
    }

    /// Gives memory back when most of it is free.
    pub fn shrink(&mut self) {
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to(2 * self.table.len(), |slot| hash(&slot.key));
        }
    }
}

/// The upper half of a key's hash chose the group, so that its upper bits are alike here; what the hash table
/// looks at is both ends.
fn placed(hash: u64) -> u64 {
    hash.rotate_left(32)
}

fn hash(key: &SessionKey) -> u64 {
    placed(key.hash())
}

pub(super) const SAMPLE: usize = 32;

/// So many in use are met before one of them has to leave.
const IN_USE: usize = 1024;
