//! Troubles that come and go, told once.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A trouble that is worth one line when it begins and one when it is over, however often it comes and goes between.
#[derive(Debug, Default)]
pub struct Episode {
    last_seen: Mutex<Option<Instant>>,
}

impl Episode {
    /// The trouble is here. Says whether that is news.
    pub fn seen(&self, now: Instant) -> bool {
        let before = self.last_seen.lock().replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= QUIET)
    }

    /// The trouble was here all the time.
    pub fn lasted(&self, now: Instant) {
        self.last_seen.lock().replace(now);
    }

    /// All is well at the moment. Says, once, whether it has been so for long enough to call the trouble over.
    pub fn is_over(&self, now: Instant) -> bool {
        let over = |last: &mut Instant| now.saturating_duration_since(*last) >= QUIET;
        self.last_seen.lock().take_if(over).is_some()
    }
}

/// How long nothing must have happened.
const QUIET: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_told_when_it_begins_and_when_it_has_been_quiet() {
        let (episode, start) = (Episode::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!episode.is_over(at(0)), "nothing has begun");
        assert!(episode.seen(at(1)));
        assert!(!episode.seen(at(2)));
        assert!(!episode.is_over(at(8)), "it may come back");
        assert!(!episode.seen(at(9)), "it did");
        assert!(!episode.is_over(at(18)));
        assert!(episode.is_over(at(19)));
        assert!(!episode.is_over(at(20)), "once");
        assert!(episode.seen(at(21)), "another one");
        assert!(episode.seen(at(31)), "nobody has asked whether that one was over");
        episode.lasted(at(50));
        assert!(!episode.seen(at(51)), "it was the same");
    }
}
