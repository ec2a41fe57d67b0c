//! How a server goes that a reload has disabled: its sessions go on for a while, and no new ones begin.
//!
//! As a [`Ramp`](super::ramp::Ramp) it begins with the first look after the reload, so that who asks for a server has to know
//! no time. Avi says graceful disable, HAProxy drain.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Of a server that is disabled in the configuration; kept over reloads that leave it so.
#[derive(Default)]
pub(super) struct Parting {
    lasts: AtomicBool,
    begun: Mutex<Option<Instant>>,
}

impl Parting {
    /// Of a server that was enabled until now.
    pub fn begin() -> Self {
        Self { lasts: AtomicBool::new(true), begun: Mutex::default() }
    }

    /// Whether the server still has its sessions.
    pub fn lasts(&self) -> bool {
        self.lasts.load(Relaxed)
    }

    /// Time has passed; `whole` is what the server is given. Says whether it has just ended.
    pub fn advance(&self, whole: Duration, now: Instant) -> bool {
        if !self.lasts() {
            return false;
        }
        let since = now.saturating_duration_since(*self.begun.lock().get_or_insert(now));
        since >= whole && self.lasts.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use super::*;
    use crate::{
        config::{self, LbAlgorithm},
        metrics::Metrics,
        pool::{Pool, State, fixture},
    };

    /// The pool after a reload with these servers enabled.
    fn reloaded(before: Option<&Pool>, enabled: [bool; 2], grace: u64) -> Arc<Pool> {
        let mut config = fixture::config(LbAlgorithm::RoundRobin, &[1, 1]);
        config.lifecycle.graceful_disable = Duration::from_secs(grace);
        for (server, enabled) in config.servers.iter_mut().zip(enabled) {
            server.enabled = enabled;
        }
        Pool::new(&Arc::new(config::Pool { ..config }), &Metrics::new(), before, UNIX_EPOCH)
    }

    #[test]
    fn a_server_that_a_reload_disables_keeps_its_sessions_for_its_time_over_other_reloads() {
        let start = Instant::now();
        let at = |pool: &Pool, seconds| pool.advance(start + Duration::from_secs(seconds), UNIX_EPOCH);
        let standing = |pool: &Pool| {
            let server = &pool.servers()[0];
            (server.is_up(), server.takes_new(), server.status().state == State::Disabled)
        };
        let before = reloaded(None, [true; 2], 60);
        let mut pool = reloaded(Some(&before), [false, true], 60);
        assert_eq!(standing(&pool), (true, false, true), "at once");
        for seconds in [0, 30, 59] {
            at(&pool, seconds);
            assert_eq!(standing(&pool), (true, false, true), "after {seconds} s");
            pool = reloaded(Some(&pool), [false, true], 60);
        }
        at(&pool, 60);
        assert_eq!(standing(&pool), (false, false, true));
        pool = reloaded(Some(&pool), [false, true], 60);
        at(&pool, 61);
        assert_eq!(standing(&pool), (false, false, true), "it is over");
        pool = reloaded(Some(&pool), [true; 2], 60);
        assert_eq!(standing(&pool), (true, true, false));
        assert_eq!(
            standing(&reloaded(Some(&pool), [false, true], 0)),
            (false, false, true),
            "no time is given"
        );
        assert_eq!(
            standing(&reloaded(None, [false, true], 60)),
            (false, false, true),
            "it never had sessions"
        );
    }
}
