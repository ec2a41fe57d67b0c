//! The HTTP/1 connections to a server: how many there are, how many of them are idle, and how many of those may be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// One for a server, before and after reloads.
#[derive(Debug)]
pub struct Connected {
    open: AtomicU64,
    idle: AtomicU64,
    /// How many may be idle.
    most_idle: AtomicU64,
}

/// One connection, counted for as long as this is held.
#[derive(Debug)]
pub struct Counted {
    among: Arc<Connected>,
    is_idle: bool,
}

impl Default for Connected {
    fn default() -> Self {
        Self { open: AtomicU64::new(0), idle: AtomicU64::new(0), most_idle: AtomicU64::new(u64::MAX) }
    }
}

impl Connected {
    /// How many may be idle from now on; `None`: any number. Those that are idle already stay.
    pub(super) fn allow_idle(&self, most: Option<u32>) {
        self.most_idle.store(most.map_or(u64::MAX, u64::from), Relaxed);
    }

    /// How many are open.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// How many of them wait for a request.
    pub fn idle(&self) -> u64 {
        self.idle.load(Relaxed)
    }

    /// Counts one more, which is in use.
    pub fn count(self: &Arc<Self>) -> Counted {
        self.open.fetch_add(1, Relaxed);
        Counted { among: self.clone(), is_idle: false }
    }
}

impl Counted {
    /// Its request is over. Whether it may wait for another: else there are enough that do.
    pub fn may_rest(&mut self) -> bool {
        let most = self.among.most_idle.load(Relaxed);
        let one_more = |idle| (idle < most).then_some(idle + 1);
        self.is_idle = self.is_idle || self.among.idle.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        self.is_idle
    }

    /// It gets a request.
    pub fn is_used(&mut self) {
        if self.is_idle {
            self.is_idle = false;
            self.among.idle.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.is_used();
        self.among.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(among: &Connected) -> (u64, u64) {
        (among.open(), among.idle())
    }

    #[test]
    fn connections_are_counted_until_they_are_gone_and_idle_ones_up_to_so_many() {
        let among = Arc::<Connected>::default();
        let [mut one, mut two, mut three] = [among.count(), among.count(), among.count()];
        assert_eq!(counts(&among), (3, 0));
        assert!(one.may_rest() && one.may_rest() && two.may_rest());
        assert_eq!(counts(&among), (3, 2));
        among.allow_idle(Some(2));
        assert!(!three.may_rest());
        drop(three);
        assert_eq!(counts(&among), (2, 2));
        one.is_used();
        assert_eq!(counts(&among), (2, 1));
        drop(two);
        assert_eq!(counts(&among), (1, 0));
        drop(one);
        assert_eq!(counts(&among), (0, 0));
    }

    #[test]
    fn those_that_are_idle_stay_when_fewer_may_be() {
        let among = Arc::<Connected>::default();
        let [mut one, mut two] = [among.count(), among.count()];
        assert!(one.may_rest() && two.may_rest());
        among.allow_idle(Some(1));
        assert_eq!(counts(&among), (2, 2));
        one.is_used();
        assert!(!one.may_rest(), "there is one");
    }
}
