//! Servers that requests have taken out for a time: how they go, how they come back, and what a successor of this process
//! is told of them.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Server, inline::Backoff};

/// Requests have taken a server out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub reason: String,
    pub time: Duration,
    pub until: Instant,
    /// The same by the clock on the wall.
    pub ends: SystemTime,
    /// How often it was taken out in short order, this time included.
    pub times: u32,
}

/// What requests have said of a server so far, for a process that takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    backoff: Backoff,
    /// Why it is out, for how long in all, and for how long still.
    out: Option<(String, Duration, Duration)>,
}

impl Server {
    /// Requests take it out for a time.
    pub(super) fn eject(&self, ejection: Ejection, now: SystemTime) {
        let mut facts = self.known.facts.lock();
        let was_there = self.takes_new();
        self.changes.log_down(self.pool.as_str(), &self.name, &ejection.reason);
        (facts.ejection, facts.said) = (Some(ejection), None);
        self.known.changed(&mut facts, self.monitored, now);
        drop(facts);
        self.came_or_went(was_there);
    }

    /// Whether requests have taken it out.
    pub(super) fn is_ejected(&self) -> bool {
        self.known.facts.lock().ejection.is_some()
    }

    /// Why requests have taken it out, and for how long; `None`: they have not.
    pub fn ejection(&self) -> Option<Ejection> {
        self.known.facts.lock().ejection.clone()
    }

    /// Failures in a row that have not taken it out.
    pub fn failures_in_a_row(&self) -> u32 {
        self.record.failures_in_a_row()
    }

    /// Ends an ejection whose time is over.
    pub(super) fn end_ejection(&self, now: Instant, wall: SystemTime) {
        let mut facts = self.known.facts.lock();
        let Some(over) = facts.ejection.take_if(|ejection| ejection.until <= now) else { return };
        let was_there = self.takes_new();
        self.record.back(now);
        self.changes.log_up(self.pool.as_str(), &self.name);
        facts.said = Some(format!("back after {}", humantime::format_duration(over.time)));
        self.known.changed(&mut facts, self.monitored, wall);
        drop(facts);
        self.came_or_went(was_there);
    }

    /// What requests have said of it; `None`: nothing that lasts.
    pub fn judgement(&self, now: Instant) -> Option<Judgement> {
        let backoff = self.record.backoff(now)?;
        let out = self
            .ejection()
            .map(|ejection| (ejection.reason, ejection.time, ejection.until.saturating_duration_since(now)));
        Some(Judgement { backoff, out })
    }

    /// Takes over what another process has found out.
    pub fn adopt(&self, judgement: Judgement, now: Instant, wall: SystemTime) {
        let Judgement { backoff, out } = judgement;
        let times = backoff.times;
        self.record.adopt(backoff, now);
        if let Some((reason, time, left)) = out {
            let since = wall.checked_sub(time.saturating_sub(left)).unwrap_or(wall);
            self.eject(Ejection { reason, time, until: now + left, ends: wall + left, times }, since);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use super::*;
    use crate::{
        config::{InlineMonitor, LbAlgorithm},
        pool::{Outcome, Pool, fixture},
    };

    fn pool() -> Arc<Pool> {
        let mut config = fixture::config(LbAlgorithm::RoundRobin, &[1, 1]);
        config.inline = Some(InlineMonitor::default());
        fixture::build(config)
    }

    fn fails(pool: &Pool, now: Instant) {
        for _ in 0..5 {
            pool.observed(&pool.servers()[0], Outcome::Answered(503), now, UNIX_EPOCH);
        }
    }

    #[test]
    fn a_successor_keeps_a_server_out_for_the_rest_of_its_time_and_longer_the_next_time() {
        let (old, new, start) = (pool(), pool(), Instant::now());
        let seconds = Duration::from_secs;
        assert_eq!(old.servers()[0].judgement(start), None);
        fails(&old, start);
        let told = old.servers()[0].judgement(start + seconds(10)).expect("it is out");
        let bytes = postcard::to_allocvec(&told).expect("it can be written");
        let told: Judgement = postcard::from_bytes(&bytes).expect("it can be read");
        let (now, wall) = (start + seconds(11), UNIX_EPOCH + seconds(1_000_000));
        new.servers()[0].adopt(told, now, wall);
        let status = new.servers()[0].status();
        assert_eq!(status.reason, "ejected for 30s: 5 failures in a row, the last: answered 503");
        assert_eq!(status.last_changed, wall - seconds(10));
        let ejection = new.servers()[0].ejection().expect("it is out here too");
        assert_eq!((ejection.until, ejection.ends), (now + seconds(20), wall + seconds(20)));
        new.advance(now + seconds(19), wall);
        assert!(!new.servers()[0].is_up());
        new.advance(now + seconds(20), wall);
        assert!(new.servers()[0].is_up());
        fails(&new, now + seconds(21));
        let again = new.servers()[0].ejection().expect("it is out again");
        assert_eq!((again.time, again.times), (seconds(60), 2));
    }

    #[test]
    fn a_successor_knows_how_long_a_server_has_been_good_again() {
        let (old, start) = (pool(), Instant::now());
        let seconds = Duration::from_secs;
        fails(&old, start);
        old.advance(start + seconds(30), UNIX_EPOCH);
        for (good, time) in [(seconds(100), 60), (seconds(301), 30)] {
            let told = old.servers()[0].judgement(start + seconds(30) + good).expect("it was out");
            let new = pool();
            new.servers()[0].adopt(told, start, UNIX_EPOCH);
            assert!(new.servers()[0].is_up());
            fails(&new, start);
            assert_eq!(new.servers()[0].ejection().map(|out| out.time), Some(seconds(time)), "{good:?}");
        }
    }
}
