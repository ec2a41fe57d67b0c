//! A few sessions that share a lock, searched one by one.

use std::sync::Arc;

use super::{Entry, SessionKey};

#[derive(Default)]
pub(super) struct Bucket {
    /// In the order in which they came.
    slots: Vec<Slot>,
}

/// A key of the table, and the entry that it names.
#[derive(Clone)]
pub(super) struct Slot {
    pub key: SessionKey,
    pub entry: Arc<Entry>,
}

impl Bucket {
    pub fn get(&self, key: &SessionKey) -> Option<&Arc<Entry>> {
        self.slots.iter().find(|slot| slot.key == *key).map(|slot| &slot.entry)
    }

    pub fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Arc<Entry>> {
        self.slots.iter_mut().find(|slot| slot.key == *key).map(|slot| &mut slot.entry)
    }

    /// Adds a key that is not there yet. Grows by a quarter, for there are many buckets.
    pub fn push(&mut self, slot: Slot) {
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len() / 4 + 2);
        }
        self.slots.push(slot);
    }

    pub fn remove_if(
        &mut self,
        key: &SessionKey,
        unwanted: impl FnOnce(&Arc<Entry>) -> bool,
    ) -> Option<Slot> {
        let at = self.slots.iter().position(|slot| slot.key == *key)?;
        unwanted(&self.slots[at].entry).then(|| self.slots.remove(at))
    }

    /// Removes what `over` names; memory goes back when much of it is free.
    pub fn remove_all(&mut self, mut over: impl FnMut(&Entry) -> bool) -> Vec<Slot> {
        let removed: Vec<_> = self.slots.extract_if(.., |slot| over(&slot.entry)).collect();
        if self.slots.len() < self.slots.capacity() / 2 {
            self.slots.shrink_to_fit();
        }
        removed
    }

    pub fn slots(&self) -> Vec<Slot> {
        self.slots.clone()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }
}
