//! The places at a server: what it has in flight, and how much it may have.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// One for a server, before and after reloads.
///
/// Who gives a place back looks for waiters after it, and who waits looks for a place after he has got into the queue:
/// the order of these is what [`SeqCst`] is for.
#[derive(Default)]
pub(super) struct Places {
    taken: AtomicU64,
}

impl Places {
    pub fn taken(&self) -> u64 {
        self.taken.load(SeqCst)
    }

    /// Takes one, however many are taken.
    pub fn take(&self) {
        self.taken.fetch_add(1, SeqCst);
    }

    /// Takes one of so many, if one is left.
    pub fn try_take(&self, of: u64) -> bool {
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < of).then_some(taken + 1)).is_ok()
    }

    pub fn give_back(&self) {
        self.taken.fetch_sub(1, SeqCst);
    }
}
