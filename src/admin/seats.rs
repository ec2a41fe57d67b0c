//! Seats for the connections of the admin API: so many at a time, and none for long to who wants nothing.
//!
//! When all are taken a newcomer gets the seat of the connection that has been without a request for the longest time,
//! be it kept alive, silent, or slow to say what it wants. So a flood cannot shut out a health check, for want of which
//! a supervisor would restart a homing that serves.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub(super) struct Seats {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Seat>>>,
}

/// A connection's seat, until it is dropped.
pub(super) struct Seat {
    /// Since when there is no request under way; `None`: there is one.
    idle_since: Mutex<Option<Instant>>,
    wanted: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    pub fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(SEATS as usize)), taken: Mutex::default() }
    }

    /// A seat, for which another connection may have to go.
    pub async fn take(&self) -> Arc<Seat> {
        let place = loop {
            match self.free.clone().try_acquire_owned() {
                Ok(place) => break place,
                Err(_) => self.want_one(),
            }
            // Where all have requests under way, one that has ended soon makes room.
            if let Ok(place) = timeout(LOOK_AGAIN, self.free.clone().acquire_owned()).await {
                break place.expect("the semaphore is never closed");
            }
        };
        let seat = Seat {
            idle_since: Mutex::new(Some(Instant::now())),
            wanted: CancellationToken::new(),
            _place: place,
        };
        let seat = Arc::new(seat);
        self.taken.lock().push(Arc::downgrade(&seat));
        seat
    }

    fn want_one(&self) {
        let mut taken = self.taken.lock();
        taken.retain(|seat| seat.strong_count() > 0);
        let seats = taken.iter().filter_map(Weak::upgrade).filter(|seat| !seat.wanted.is_cancelled());
        let idle = seats.filter_map(|seat| {
            let since = *seat.idle_since.lock();
            Some((since?, seat))
        });
        if let Some((_, seat)) = idle.min_by_key(|(since, _)| *since) {
            seat.wanted.cancel();
        }
    }

    /// Completes when every connection has ended.
    pub async fn all_free(&self) {
        let _all = self.free.acquire_many(SEATS).await;
    }
}

impl Seat {
    /// A request is under way until what is returned is dropped.
    pub fn begin_request(self: &Arc<Self>) -> Busy {
        *self.idle_since.lock() = None;
        Busy(self.clone())
    }

    /// Completes when another connection is to have it.
    pub async fn wanted(&self) {
        self.wanted.cancelled().await;
    }
}

/// A request is under way.
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle_since.lock() = Some(Instant::now());
    }
}

const SEATS: u32 = 64;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wanted(seat: &Seat) -> bool {
        seat.wanted.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_wanted_nothing_for_the_longest_time_makes_room() {
        let seats = Seats::new();
        let mut taken = Vec::new();
        for _ in 0..SEATS {
            taken.push(seats.take().await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(!taken.iter().any(|seat| is_wanted(seat)), "there was room for all");
        let _request = taken[0].begin_request();
        drop(taken[1].begin_request());
        let mut newcomer = Box::pin(seats.take());
        assert!(timeout(Duration::ZERO, &mut newcomer).await.is_err(), "nobody has left yet");
        assert!(is_wanted(&taken[2]), "the first has a request under way, the second had one just now");
        drop(taken.remove(2));
        newcomer.await;
        assert_eq!(taken.iter().filter(|seat| is_wanted(seat)).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_busy_a_newcomer_waits_for_the_first_who_is_done() {
        let seats = Seats::new();
        let mut taken = Vec::new();
        for _ in 0..SEATS {
            let seat = seats.take().await;
            taken.push((seat.begin_request(), seat));
        }
        let leaves = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            let (request, seat) = taken.pop().expect("there are many");
            drop(request);
            seat.wanted().await;
        };
        tokio::join!(seats.take(), leaves);
    }
}
