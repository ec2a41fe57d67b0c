//! What real requests say of a server: when it fails too many of them, and for how long it is taken out then.
//!
//! It fails a request by not taking it, not answering it in time or to the end, or answering it with a status that
//! counts as a failure. Failures in a row take it out, and so does too large a share of an interval's requests. Each
//! time that comes soon after the last is twice as long.
//!
//! Envoy calls this outlier detection, Avi inline health monitoring.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::InlineMonitor;

/// What a request met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server's whole answer, with this status.
    Answered(u16),
    /// None, or not a whole one; in one of few words.
    Failed(&'static str),
}

/// Why a server is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    InARow(u32),
    Share { failed: u32, of: u32 },
}

/// Of one server, before and after reloads.
#[derive(Default)]
pub(super) struct Record(Mutex<Tally>);

/// How often a server was taken out in short order, which says for how long the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    pub times: u32,
    /// Since it is back; `None`: it is not.
    good_for: Option<Duration>,
}

#[derive(Default)]
struct Tally {
    in_a_row: u32,
    /// Of the interval.
    since: Option<Instant>,
    requests: u32,
    failed: u32,
    /// How often it was taken out in short order, and when it came back last.
    times: u32,
    back: Option<Instant>,
}

impl Outcome {
    pub fn is_failure(self, monitor: &InlineMonitor) -> bool {
        match self {
            Self::Answered(status) => monitor.failed_codes.contains(status),
            Self::Failed(_) => true,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "answered {status}"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl Cause {
    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InARow(_) => "consecutive_failures",
            Self::Share { .. } => "failure_percent",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow(failures) => write!(f, "{failures} failures in a row"),
            Self::Share { failed, of } => write!(f, "{failed} of {of} requests failed"),
        }
    }
}

impl Record {
    /// Counts a request; says why the server is to be taken out, if it is.
    pub fn observe(&self, failed: bool, monitor: &InlineMonitor, now: Instant) -> Option<Cause> {
        let mut tally = self.0.lock();
        if tally.since.is_none_or(|since| now.saturating_duration_since(since) >= monitor.interval) {
            (tally.since, tally.requests, tally.failed) = (Some(now), 0, 0);
        }
        tally.requests += 1;
        if !failed {
            tally.in_a_row = 0;
            return None;
        }
        tally.failed += 1;
        tally.in_a_row += 1;
        let (in_a_row, failed, of) = (tally.in_a_row, tally.failed, tally.requests);
        let share = u64::from(failed) * 1000 > u64::from(of) * u64::from(monitor.failure_permille);
        let cause = if monitor.consecutive_failures > 0 && in_a_row >= monitor.consecutive_failures {
            Cause::InARow(in_a_row)
        } else if monitor.failure_permille > 0 && of >= monitor.minimum_requests && share {
            Cause::Share { failed, of }
        } else {
            return None;
        };
        // Whether it is taken out or not, what follows is counted anew.
        (tally.in_a_row, tally.since) = (0, None);
        Some(cause)
    }

    /// It is taken out: for how long, and the how manieth time in short order.
    pub fn out(&self, monitor: &InlineMonitor, now: Instant) -> (Duration, u32) {
        let mut tally = self.0.lock();
        let good_since = tally.back.map(|back| now.saturating_duration_since(back));
        if good_since.is_none_or(|good| good > monitor.max_ejection_time) {
            tally.times = 0;
        }
        tally.times += 1;
        let doubled = 1_u32.checked_shl(tally.times - 1).unwrap_or(u32::MAX);
        let time = monitor.ejection_time.saturating_mul(doubled).min(monitor.max_ejection_time);
        (time, tally.times)
    }

    /// Failures in a row that have not taken it out.
    pub fn failures_in_a_row(&self) -> u32 {
        self.0.lock().in_a_row
    }

    /// `None`: it was never taken out.
    pub fn backoff(&self, now: Instant) -> Option<Backoff> {
        let tally = self.0.lock();
        let good_for = tally.back.map(|back| now.saturating_duration_since(back));
        (tally.times > 0).then_some(Backoff { times: tally.times, good_for })
    }

    /// Goes on where another process has left off.
    pub fn adopt(&self, Backoff { times, good_for }: Backoff, now: Instant) {
        let mut tally = self.0.lock();
        (tally.times, tally.back) = (times, good_for.and_then(|good_for| now.checked_sub(good_for)));
    }

    /// It is back.
    pub fn back(&self, now: Instant) {
        let mut tally = self.0.lock();
        (tally.in_a_row, tally.since, tally.back) = (0, None, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;
    use crate::{
        config::LbAlgorithm,
        metrics::Metrics,
        pool::{Pool, State, fixture},
    };

    /// A pool of so many servers, and its time.
    struct Bench {
        pool: Arc<Pool>,
        metrics: Metrics,
        start: Instant,
        seconds: u64,
    }

    impl Bench {
        fn new(servers: usize, change: impl FnOnce(&mut InlineMonitor)) -> Self {
            let mut monitor = InlineMonitor::default();
            change(&mut monitor);
            let mut config = fixture::config(LbAlgorithm::RoundRobin, &vec![1; servers]);
            config.inline = Some(monitor);
            let metrics = Metrics::new();
            let pool = Pool::new(&Arc::new(config), &metrics, None, UNIX_EPOCH);
            Self { pool, metrics, start: Instant::now(), seconds: 0 }
        }

        fn now(&self) -> (Instant, SystemTime) {
            let since = Duration::from_secs(self.seconds);
            (self.start + since, UNIX_EPOCH + since)
        }

        fn at(&mut self, seconds: u64) {
            self.seconds = seconds;
            let (now, wall) = self.now();
            self.pool.advance(now, wall);
        }

        /// So many requests to a server meet with this.
        fn meet(&self, server: usize, outcome: Outcome, times: usize) {
            let (now, wall) = self.now();
            for _ in 0..times {
                self.pool.observed(&self.pool.servers()[server], outcome, now, wall);
            }
        }

        fn up(&self) -> Vec<bool> {
            self.pool.servers().iter().map(|server| server.is_up()).collect()
        }
    }

    const FAILED: Outcome = Outcome::Answered(503);
    const GOOD: Outcome = Outcome::Answered(404);

    #[test]
    fn failures_in_a_row_take_a_server_out_until_its_time_is_over() {
        let mut bench = Bench::new(3, |_| {});
        bench.meet(0, FAILED, 4);
        bench.meet(0, GOOD, 1);
        bench.meet(0, Outcome::Failed("refused"), 4);
        assert_eq!(bench.up(), [true; 3], "a good one begins it anew");
        bench.meet(0, Outcome::Failed("read_timeout"), 1);
        assert_eq!(bench.up(), [false, true, true]);
        let status = bench.pool.servers()[0].status();
        assert_eq!(status.state, State::Down);
        assert_eq!(status.reason, "ejected for 30s: 5 failures in a row, the last: read_timeout");
        bench.at(29);
        assert_eq!(bench.up(), [false, true, true]);
        bench.at(30);
        assert_eq!(bench.up(), [true; 3]);
        let status = bench.pool.servers()[0].status();
        assert_eq!((status.reason.as_str(), status.last_changed), ("back after 30s", bench.now().1));
        let page = bench.metrics.page();
        let count =
            r#"homing_pool_ejections_total{pool="app",reason="consecutive_failures",server="10.0.0.1:80"} 1"#;
        assert!(page.contains(count), "{page}");
    }

    #[test]
    fn each_time_in_short_order_is_twice_as_long_until_the_server_has_been_good_for_long() {
        let mut bench = Bench::new(2, |_| {});
        let mut now = 0;
        for time in [30, 60, 120, 240, 300, 300] {
            bench.meet(0, FAILED, 5);
            bench.at(now + time - 1);
            assert_eq!(bench.up(), [false, true], "out for {time} s");
            now += time;
            bench.at(now);
            assert_eq!(bench.up(), [true, true], "back after {time} s");
        }
        bench.at(now + 301);
        bench.meet(0, FAILED, 5);
        bench.at(now + 331);
        assert_eq!(bench.up(), [true, true]);
    }

    #[test]
    fn a_share_of_failures_takes_a_server_out_when_there_are_enough_requests() {
        let mut bench = Bench::new(2, |monitor| {
            monitor.failure_permille = 300;
            monitor.consecutive_failures = 0;
        });
        let mix = |bench: &Bench, rounds| {
            for _ in 0..rounds {
                bench.meet(0, GOOD, 1);
                bench.meet(0, FAILED, 1);
            }
        };
        mix(&bench, 9);
        bench.at(10);
        mix(&bench, 9);
        assert_eq!(bench.up(), [true, true], "18 in each of two intervals");
        mix(&bench, 1);
        assert_eq!(bench.up(), [false, true]);
        let reason = bench.pool.servers()[0].status().reason;
        assert_eq!(reason, "ejected for 30s: 10 of 20 requests failed, the last: answered 503");
    }

    #[test]
    fn so_many_may_be_out_at_a_time_and_never_the_last() {
        for (servers, permille, out) in
            [(1, 1000, 0), (2, 0, 0), (2, 100, 1), (4, 500, 2), (4, 1000, 3), (10, 290, 2)]
        {
            let bench = Bench::new(servers, |monitor| monitor.max_ejection_permille = permille);
            for server in 0..servers {
                bench.meet(server, FAILED, 5);
            }
            let up = bench.up();
            assert_eq!(up.iter().filter(|up| !**up).count(), out, "{servers} servers, {permille} ‰: {up:?}");
            assert!(bench.pool.pick(&mut rand::rng(), &[]).is_some());
        }
    }

    #[test]
    fn a_server_that_monitors_have_taken_down_leaves_the_others_in() {
        let bench = Bench::new(2, |_| {});
        bench.pool.servers()[1].set_health(fixture::down(), UNIX_EPOCH);
        bench.meet(0, FAILED, 50);
        assert_eq!(bench.up(), [true, false]);
    }
}
