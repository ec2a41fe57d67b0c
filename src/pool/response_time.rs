//! What a server's answers take: an average that a slow answer raises at once and faster ones lower by and by.
//!
//! Averages fade by time, not by number of answers, so that they mean the same for a busy server and a quiet one. What
//! is known of a server fades too: the longer it was not asked, the more it counts as typical of its pool. So one that
//! was slow once is asked again, and one of which nothing is known is neither favoured nor avoided.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Of one server, as pools with `fastest_response` see it.
#[derive(Default)]
pub(super) struct ResponseTime(Mutex<Option<Average>>);

/// Of all servers of a pool.
#[derive(Default)]
pub(super) struct TypicalTime(Mutex<Option<Average>>);

#[derive(Clone, Copy)]
struct Average {
    seconds: f64,
    at: Instant,
}

impl ResponseTime {
    pub(super) fn observe(&self, took: Duration, now: Instant) {
        let mut average = self.0.lock();
        let took = took.as_secs_f64();
        let faster = average.filter(|before| took < before.seconds);
        let seconds = faster.map_or(took, |before| before.mixed_with(took, now));
        *average = Some(Average { seconds, at: now });
    }

    /// In seconds, where `typical` is what the pool's answers take. Without a time, what was known last.
    pub(super) fn estimate(&self, typical: Option<f64>, now: Option<Instant>) -> f64 {
        match (*self.0.lock(), typical, now) {
            (Some(average), Some(typical), Some(now)) => average.mixed_with(typical, now),
            (Some(average), ..) => average.seconds,
            (None, typical, _) => typical.unwrap_or_default(),
        }
    }

    /// What was known last.
    pub(super) fn last(&self) -> Option<Duration> {
        self.0.lock().map(|average| Duration::from_secs_f64(average.seconds))
    }
}

impl TypicalTime {
    pub(super) fn observe(&self, took: Duration, now: Instant) {
        let mut average = self.0.lock();
        let took = took.as_secs_f64();
        let seconds = average.map_or(took, |before| before.mixed_with(took, now));
        *average = Some(Average { seconds, at: now });
    }

    /// `None` before the first answer.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.0.lock().map(|average| average.seconds)
    }
}

impl Average {
    /// The average, replaced by another as far as it has faded.
    fn mixed_with(self, other: f64, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        other + (self.seconds - other) * (-age / FADES_IN).exp()
    }
}

/// Seconds after which an average counts for a third.
const FADES_IN: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn slower_counts_at_once_and_faster_by_and_by() {
        let (time, now) = (ResponseTime::default(), Instant::now());
        let estimate = |now| time.estimate(None, Some(now));
        time.observe(seconds(1), now);
        time.observe(seconds(4), now);
        assert_eq!(estimate(now), 4.0);
        time.observe(seconds(1), now);
        assert_eq!(estimate(now), 4.0);
        time.observe(seconds(1), now + seconds(10));
        assert!((estimate(now) - 2.1).abs() < 0.01, "{}", estimate(now));
    }

    #[test]
    fn a_server_that_is_not_asked_becomes_typical() {
        let (time, now) = (ResponseTime::default(), Instant::now());
        assert_eq!(time.estimate(Some(0.5), Some(now)), 0.5);
        assert_eq!(time.estimate(None, Some(now)), 0.0);
        time.observe(seconds(9), now);
        let later = |after| time.estimate(Some(0.5), Some(now + seconds(after)));
        assert_eq!(later(0), 9.0);
        assert!(later(10) < 4.0 && later(100) < 0.51, "{} {}", later(10), later(100));
        assert_eq!(time.estimate(Some(0.5), None), 9.0);
    }

    #[test]
    fn the_typical_time_follows_answers_either_way() {
        let (typical, now) = (TypicalTime::default(), Instant::now());
        assert_eq!(typical.seconds(), None);
        typical.observe(seconds(1), now);
        typical.observe(seconds(3), now + seconds(10));
        let risen = typical.seconds().expect("there were answers");
        typical.observe(seconds(1), now + seconds(20));
        assert!(risen > 2.0 && typical.seconds() < Some(risen));
    }
}
