//! Who leaves a full table: of the next [`SAMPLE`] sessions that a hand meets on its way round the table, the
//! one that was used longest ago. The hand goes on from there, so that everyone is met as often as everyone else.
//!
//! That is nearly the least recently used of all: of those that leave, half are among the twentieth that was used
//! longest ago, and 99 of 100 among the fifth; a session that is used again before half the table has been filled
//! anew stays. A session in use leaves only if the hand met [`IN_USE`] in a row and all were in use.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{BUCKETS, Store};
use crate::session::{
    SessionKey,
    entry::{Entry, Standing},
};

/// Where the next search begins: a bucket, counted over all groups.
#[derive(Default)]
pub(super) struct Hand(AtomicUsize);

/// Who should leave, as it was when the hand met it.
pub(super) struct Leaves {
    pub key: SessionKey,
    pub standing: Standing,
    entry: Arc<Entry>,
}

impl Hand {
    /// Who should leave next; `None`: there is nobody.
    pub fn next(&self, store: &Store) -> Option<Leaves> {
        let buckets = store.numbers as usize * BUCKETS;
        let mut leaves: Option<Leaves> = None;
        let mut met = 0;
        for _ in 0..buckets {
            let at = self.0.fetch_add(1, Ordering::Relaxed) % buckets;
            let Some(group) = store.groups.get(&((at / BUCKETS) as u32)) else { continue };
            for slot in group.buckets[at % BUCKETS].lock().iter() {
                met += 1;
                let standing = slot.entry.standing();
                if leaves.as_ref().is_none_or(|best| standing < best.standing) {
                    leaves = Some(Leaves { key: slot.key, standing, entry: slot.entry.clone() });
                }
            }
            let in_use = leaves.as_ref().is_some_and(|best| best.standing.in_use);
            if met >= if in_use { IN_USE } else { SAMPLE } {
                break;
            }
        }
        leaves
    }
}

impl Leaves {
    /// Whether this is its entry.
    pub fn is(&self, entry: &Arc<Entry>) -> bool {
        Arc::ptr_eq(&self.entry, entry)
    }
}

pub(super) const SAMPLE: usize = 32;

/// So many in use are met before one of them has to leave.
const IN_USE: usize = 1024;
