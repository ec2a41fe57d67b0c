//! Whether a request's body comes too slowly. Only time counts in which there was nothing to read: a server that takes
//! the body slowly is not the client's fault.
//!
//! Known elsewhere as: Apache's `MinRate`. A limit of silence alone lets a client send a byte now and then for ever.

use std::time::Duration;

use tokio::time::Instant;

/// The least that a body is to come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastPace {
    /// Bytes in a second.
    pub rate: u32,
    /// Before so much waiting nothing is too slow.
    pub patience: Duration,
}

/// One body, from the moment on that it was first waited for.
#[derive(Debug)]
pub(super) struct Pace {
    least: LeastPace,
    since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub fn new(least: LeastPace) -> Self {
        Self { least, since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// There is nothing to read.
    pub fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Nobody wants to read now.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// So much was read. Says whether that makes the whole too slow.
    pub fn is_too_slow(&mut self, bytes: usize, now: Instant) -> bool {
        self.pause(now);
        self.bytes += bytes as u64;
        let due = self.waited.as_secs_f64() * f64::from(self.least.rate);
        self.waited > self.least.patience && (self.bytes as f64) < due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that come each after some milliseconds of waiting: whether any is too slow.
    fn is_too_slow(arrivals: &[(u64, usize)]) -> bool {
        let mut pace = Pace::new(LeastPace { rate: 100, patience: Duration::from_secs(2) });
        let mut now = Instant::now();
        arrivals.iter().any(|(wait, bytes)| {
            pace.wait(now);
            now += Duration::from_millis(*wait);
            // Looked for once more in between.
            pace.wait(now);
            pace.is_too_slow(*bytes, now)
        })
    }

    #[test]
    fn a_drip_is_too_slow_once_patience_is_over() {
        assert!(is_too_slow(&[(500, 1); 5]));
        assert!(!is_too_slow(&[(500, 1); 4]), "within the patience");
        assert!(!is_too_slow(&[(500, 50); 100]), "just fast enough");
        assert!(is_too_slow(&[(500, 49); 100]));
        assert!(!is_too_slow(&[(10, 1000), (5000, 1)]), "what came early counts");
        assert!(is_too_slow(&[(10, 100), (5000, 1)]));
    }

    #[test]
    fn time_in_which_nobody_reads_does_not_count() {
        let mut pace = Pace::new(LeastPace { rate: 100, patience: Duration::from_secs(2) });
        let mut now = Instant::now();
        for _ in 0..100 {
            now += Duration::from_secs(60);
            assert!(!pace.is_too_slow(1, now));
        }
    }
}
