//! Time as an argument: engines are told what time it is, and the parts that must ask hold a [`Clock`].

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

mod episode;

pub use episode::Episode;

/// Where a running instance reads the time. Cheap to clone; clones tell the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    virtual_time: Option<Arc<Mutex<Virtual>>>,
}

#[derive(Debug)]
struct Virtual {
    now: Instant,
    unix: Duration,
}

impl Clock {
    /// The machine's time.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::advance`] moves it, starting at `unix` since 1970.
    pub fn virtual_at(unix: Duration) -> Self {
        let virtual_time = Virtual { now: Instant::now(), unix };
        Self { virtual_time: Some(Arc::new(Mutex::new(virtual_time))) }
    }

    /// Moves a virtual clock on; the machine's clock is not ours to move and ignores it.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.virtual_time {
            let mut time = time.lock();
            time.now += by;
            time.unix += by;
        }
    }

    /// A monotonic instant, for timeouts.
    pub fn now(&self) -> Instant {
        self.virtual_time.as_ref().map_or_else(Instant::now, |time| time.lock().now)
    }

    /// The time of day, for what people read: when a server went down.
    pub fn wall(&self) -> SystemTime {
        match &self.virtual_time {
            Some(time) => UNIX_EPOCH + time.lock().unix,
            None => SystemTime::now(),
        }
    }

    /// Seconds since 1970, for what other machines read: cookies and hop headers.
    pub fn unix_seconds(&self) -> u64 {
        self.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}
