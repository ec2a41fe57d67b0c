//! Which requests of a virtual service get a line, and which of these have header fields.
//!
//! The sample goes by the request's id alone, so that of a request which two sites saw, both have a line or none.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::config::{AnalyticsPolicy, FullClientLogs};

/// The policy of one virtual service, at work. One that stays as it is keeps its counts and its time over a reload.
pub struct Analytics {
    policy: AnalyticsPolicy,
    lines: Throttle,
    full: Throttle,
    /// When it was put in force.
    since: Instant,
}

impl Analytics {
    pub fn new(policy: &AnalyticsPolicy, now: Instant) -> Self {
        Self {
            lines: Throttle::new(policy.throttle, now),
            full: Throttle::new(policy.full_client_logs.throttle, now),
            policy: policy.clone(),
            since: now,
        }
    }

    pub fn policy(&self) -> &AnalyticsPolicy {
        &self.policy
    }

    /// Whether a request that begins now is to have its header fields in its line.
    pub fn takes_headers(&self, now: Instant) -> bool {
        let FullClientLogs { enabled, duration, .. } = self.policy.full_client_logs;
        let for_ever = duration == Duration::ZERO;
        enabled && (for_ever || now.saturating_duration_since(self.since) < duration) && self.full.admits(now)
    }

    /// Whether a request that is not significant gets a line. `id`: the request's, or a hash of it.
    pub fn takes_line(&self, id: u64, now: Instant) -> bool {
        id % 1000 < u64::from(self.policy.sample_permille) && self.lines.admits(now)
    }

    /// Whether a server that took so long to begin its answer makes a request significant.
    pub fn is_slow(&self, first_byte: Duration) -> bool {
        first_byte > self.policy.slow_request
    }
}

/// At most so many in each second.
struct Throttle {
    most: u32,
    begun: Instant,
    /// The second that is counted in, and how many there were: in one word, so that nobody waits for anybody.
    counted: AtomicU64,
}

impl Throttle {
    fn new(most: u32, begun: Instant) -> Self {
        Self { most, begun, counted: AtomicU64::new(0) }
    }

    fn admits(&self, now: Instant) -> bool {
        if self.most == 0 {
            return true;
        }
        let second = now.saturating_duration_since(self.begun).as_secs() << 32;
        let count = |counted: u64| {
            let so_far = if counted & SECONDS == second & SECONDS { counted & !SECONDS } else { 0 };
            (so_far < u64::from(self.most)).then_some(second & SECONDS | (so_far + 1))
        };
        self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }
}

const SECONDS: u64 = 0xffff_ffff_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_lines_are_taken_in_each_second() {
        let begun = Instant::now();
        let analytics =
            |throttle| Analytics::new(&AnalyticsPolicy { throttle, ..AnalyticsPolicy::default() }, begun);
        for (throttle, taken) in [(0, 100), (1, 1), (7, 7)] {
            let analytics = analytics(throttle);
            for second in [0, 1, 2, 1000] {
                let at = begun + SECOND * second;
                let took = (0..100).filter(|_| analytics.takes_line(0, at)).count();
                assert_eq!(took, taken, "throttle {throttle}, second {second}");
            }
        }
    }

    #[test]
    fn a_sample_is_the_same_requests_whoever_takes_it() {
        let begun = Instant::now();
        for (sample_permille, least, most) in [(0, 0, 0), (1, 1, 1), (500, 500, 500), (1000, 1000, 1000)] {
            let analytics =
                Analytics::new(&AnalyticsPolicy { sample_permille, ..AnalyticsPolicy::default() }, begun);
            let took = (0..1000).filter(|id| analytics.takes_line(id * 7919, begun)).count();
            assert!((least..=most).contains(&took), "{sample_permille}: {took}");
        }
    }

    #[test]
    fn header_fields_are_taken_for_a_while_and_so_many_times_a_second() {
        let begun = Instant::now();
        for (enabled, duration, throttle, at, taken) in [
            (false, 60, 0, 0, 0),
            (true, 60, 0, 59, 20),
            (true, 60, 0, 60, 0),
            (true, 0, 0, 100_000, 20),
            (true, 60, 3, 1, 3),
        ] {
            let full_client_logs = FullClientLogs { enabled, duration: SECOND * duration, throttle };
            let policy = AnalyticsPolicy { full_client_logs, ..AnalyticsPolicy::default() };
            let analytics = Analytics::new(&policy, begun);
            let took = (0..20).filter(|_| analytics.takes_headers(begun + SECOND * at)).count();
            assert_eq!(took, taken, "{policy:?} at {at}");
        }
    }
}
