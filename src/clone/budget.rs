//! How many bytes of copies may wait in memory: for a clone section, and for each of its members.
//!
//! A member may hold as much as is still free. So one that does not read gets at most half of the budget, two
//! such get a third each, and there is always room left for those that do read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use prometheus::IntGauge;

/// The budget of a clone section.
pub(super) struct Budget {
    limit: usize,
    held: AtomicUsize,
    gauge: IntGauge,
}

/// A member's part in it.
pub(super) struct Share {
    budget: Arc<Budget>,
    /// No other member needs room.
    alone: bool,
    held: AtomicUsize,
}

impl Budget {
    /// `gauge` is shared with the other sections that copy to the same pool.
    pub fn new(limit: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0), gauge })
    }
}

impl Share {
    pub fn new(budget: &Arc<Budget>, alone: bool) -> Arc<Self> {
        Arc::new(Self { budget: budget.clone(), alone, held: AtomicUsize::new(0) })
    }

    /// Takes room for `bytes`; `false`: there is none.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let total = self.budget.held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let mine = self.held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let fits = match self.budget.limit.checked_sub(total) {
            Some(free) => self.alone || mine <= free + bytes,
            None => false,
        };
        if fits {
            self.budget.gauge.add(bytes as i64);
        } else {
            self.budget.held.fetch_sub(bytes, Relaxed);
            self.held.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Makes room that was taken larger or smaller; `false`: it stays as it was.
    #[must_use]
    pub fn adjust(&self, from: usize, to: usize) -> bool {
        if to > from {
            return self.take(to - from);
        }
        self.give_back(from - to);
        true
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.budget.held.fetch_sub(bytes, Relaxed);
        self.held.fetch_sub(bytes, Relaxed);
        self.budget.gauge.sub(bytes as i64);
    }
}

/// Room that is given back when this is dropped.
pub(super) struct Charge {
    share: Arc<Share>,
    bytes: usize,
}

impl Charge {
    /// `None`: there is no room.
    pub fn take(share: &Arc<Share>, bytes: usize) -> Option<Self> {
        share.take(bytes).then(|| Self { share: share.clone(), bytes })
    }

    /// Sees to it that it is for `bytes` at least; `false`: there is no room, and it stays as it was.
    #[must_use]
    pub fn cover(&mut self, bytes: usize) -> bool {
        let covered = bytes <= self.bytes || self.share.adjust(self.bytes, bytes);
        if covered {
            self.bytes = self.bytes.max(bytes);
        }
        covered
    }

    /// Leaves it to the caller to give the bytes back.
    pub fn hand_over(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> (Arc<Budget>, IntGauge) {
        let gauge = IntGauge::new("held", "bytes").expect("a valid name");
        (Budget::new(limit, gauge.clone()), gauge)
    }

    #[test]
    fn one_member_may_use_it_all_and_never_more() {
        let (budget, gauge) = budget(100);
        let share = Share::new(&budget, true);
        assert!(share.take(60));
        assert!(!share.take(41));
        assert!(share.take(40));
        assert_eq!(gauge.get(), 100);
        share.give_back(100);
        assert!(share.take(100));
        assert!(!share.take(usize::MAX), "no overflow");
    }

    #[test]
    fn a_member_that_does_not_read_leaves_room_for_the_others() {
        let (budget, gauge) = budget(1200);
        let [stuck, other, third] = [(); 3].map(|()| Share::new(&budget, false));
        let fill = |share: &Share| (0..).take_while(|_| share.take(1)).count();
        assert_eq!(fill(&stuck), 600, "half of it");
        assert_eq!(fill(&other), 300, "half of the rest");
        assert!(third.take(150));
        assert_eq!(gauge.get(), 1050);
        stuck.give_back(600);
        other.give_back(300);
        third.give_back(150);
        assert_eq!(gauge.get(), 0);
    }
}
