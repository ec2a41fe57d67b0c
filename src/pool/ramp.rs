//! Slow start: a server that is new, or back, takes its share by and by.
//!
//! Its share grows in a straight line, from a hundredth to the whole, and with it the places that it has. It begins
//! with the first [`Ramp::advance`] after the server's return and goes on with each further one, so that who chooses a
//! server has to know no time. HAProxy says slowstart, Envoy slow start, Avi connection ramp.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How far a server has come; kept over reloads.
pub(super) struct Ramp {
    /// In thousandths.
    share: AtomicU32,
    begun: Mutex<Option<Instant>>,
}

impl Default for Ramp {
    /// A server that has its whole share.
    fn default() -> Self {
        Self { share: AtomicU32::new(WHOLE), begun: Mutex::new(None) }
    }
}

impl Ramp {
    /// The server is back.
    pub fn begin(&self) {
        *self.begun.lock() = None;
        self.share.store(FIRST, Relaxed);
    }

    /// Its share, in thousandths.
    pub fn share(&self) -> u64 {
        self.share.load(Relaxed).into()
    }

    /// Time has passed; `whole` is what the server is given. Says whether its share has grown.
    pub fn advance(&self, whole: Duration, now: Instant) -> bool {
        if self.share() == u64::from(WHOLE) {
            return false;
        }
        let mut begun = self.begun.lock();
        let since = now.saturating_duration_since(*begun.get_or_insert(now));
        let share = match since < whole {
            true => (f64::from(WHOLE) * since.as_secs_f64() / whole.as_secs_f64()) as u32,
            false => WHOLE,
        };
        self.share.store(share.max(FIRST), Relaxed);
        true
    }
}

/// Never nothing: a server that gets no request is not known to work.
const FIRST: u32 = WHOLE / 100;
const WHOLE: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_in_a_straight_line_from_the_first_look_on() {
        let (ramp, start, whole) = (Ramp::default(), Instant::now(), Duration::from_secs(600));
        assert_eq!((ramp.advance(whole, start), ramp.share()), (false, 1000));
        ramp.begin();
        assert_eq!(ramp.share(), 10);
        for (seconds, share) in [(0, 10), (1, 10), (60, 100), (300, 500), (599, 998), (600, 1000)] {
            assert!(ramp.advance(whole, start + Duration::from_secs(seconds)));
            assert_eq!(ramp.share(), share, "after {seconds} s");
        }
        ramp.begin();
        ramp.advance(whole, start + Duration::from_secs(900));
        assert_eq!(ramp.share(), 10, "it went and came again");
    }
}
