//! Requests that wait while every server that they may have is full.
//!
//! First come, first served: a place that becomes free is handed to the first who can use it, and a request that comes
//! while others wait gets in line. A place changes hands without ever being free, so that nobody can jump in. The
//! lock is held for as long as it takes to look along the line, never while somebody waits.
//!
//! Avi says request queue, HAProxy queue with `maxconn` and `timeout queue`, Envoy pending requests.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::{Lease, Pool};

/// One for a pool, before and after reloads. Who waits has the servers of the pool that it came to.
#[derive(Default)]
pub(super) struct Queue {
    line: Mutex<VecDeque<Waiter>>,
    length: AtomicUsize,
    tickets: AtomicU64,
}

struct Waiter {
    ticket: u64,
    pool: Arc<Pool>,
    wants: Wants,
    place: oneshot::Sender<Lease>,
}

/// Which servers a request may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Any that takes what is new, but for those that were tried.
    AnyBut(Vec<SocketAddr>),
    /// Its session's own.
    This(SocketAddr),
}

/// Why a request that had to wait got no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    #[error("every server is full")]
    NoQueue,
    #[error("every server is full, and so is the queue")]
    QueueFull,
    #[error("no server had a place in time")]
    TimedOut,
    #[error("no server had a place before the request's own time was over")]
    RequestLate,
    #[error("the session's server went away")]
    ServerGone,
}

/// A place in the line, given up when it is dropped.
pub struct Waiting {
    pool: Arc<Pool>,
    ticket: u64,
    place: oneshot::Receiver<Lease>,
    timeout: Duration,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.length.load(SeqCst) == 0
    }

    pub fn len(&self) -> usize {
        self.length.load(SeqCst)
    }

    /// Gets in line, where there is one and it is not too long.
    pub fn join(&self, pool: &Arc<Pool>, wants: Wants) -> Result<Waiting, NotServed> {
        let queue = pool.config().lifecycle.queue.as_ref().ok_or(NotServed::NoQueue)?;
        let ticket = self.tickets.fetch_add(1, SeqCst);
        let (place, given) = oneshot::channel();
        {
            let mut line = self.line.lock();
            if line.len() >= queue.depth.get() as usize {
                return Err(NotServed::QueueFull);
            }
            line.push_back(Waiter { ticket, pool: pool.clone(), wants, place });
            self.length.store(line.len(), SeqCst);
        }
        // A place may have become free between the look that found none and this.
        for server in pool.servers() {
            self.offer(server.addr());
        }
        Ok(Waiting { pool: pool.clone(), ticket, place: given, timeout: queue.timeout })
    }

    /// A server may have a place: the first who can use it gets it. Says whether there was one.
    pub fn offer(&self, server: SocketAddr) -> bool {
        if self.is_empty() {
            return false;
        }
        let Some((place, lease)) = self.next(server) else { return false };
        // Of one who has just gone away it comes back, and is offered to the next.
        drop(place.send(lease));
        true
    }

    /// A server is there for who waits, with all its places.
    pub fn offer_all(&self, server: SocketAddr) {
        while self.offer(server) {}
    }

    /// A server is not there any more for those who wait for it alone.
    pub fn dismiss(&self, server: SocketAddr) {
        if self.is_empty() {
            return;
        }
        let mut line = self.line.lock();
        line.retain(|waiter| waiter.wants != Wants::This(server));
        self.length.store(line.len(), SeqCst);
    }

    fn next(&self, server: SocketAddr) -> Option<(oneshot::Sender<Lease>, Lease)> {
        let mut line = self.line.lock();
        let first = line.iter().position(|waiter| waiter.may_have(server))?;
        let lease = line[first].pool.server(server)?.try_lease()?;
        let waiter = line.remove(first)?;
        self.length.store(line.len(), SeqCst);
        Some((waiter.place, lease))
    }

    fn leave(&self, ticket: u64) {
        let mut line = self.line.lock();
        // Tickets are drawn before the line is entered, and may be a little out of order.
        line.retain(|waiter| waiter.ticket != ticket);
        self.length.store(line.len(), SeqCst);
    }
}

impl Waiter {
    fn may_have(&self, server: SocketAddr) -> bool {
        self.pool.server(server).is_some_and(|server| match &self.wants {
            Wants::AnyBut(tried) => self.pool.may_get(server, tried),
            Wants::This(own) => *own == server.addr() && server.is_up(),
        })
    }
}

impl Waiting {
    /// Until there is a place, the pool's timeout is over, or what is left of the request's own time.
    pub async fn place(mut self, left: Option<Duration>) -> Result<Lease, NotServed> {
        let left = left.filter(|left| *left < self.timeout);
        match timeout(left.unwrap_or(self.timeout), &mut self.place).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) => Err(NotServed::ServerGone),
            Err(_) if left.is_some() => Err(NotServed::RequestLate),
            Err(_) => Err(NotServed::TimedOut),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.place.close();
        match self.place.try_recv() {
            // It was given, and nobody has taken it.
            Ok(lease) => drop(lease),
            Err(_) => self.pool.queue().leave(self.ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU32, NonZeroU64},
        time::UNIX_EPOCH,
    };

    use super::*;
    use crate::{
        config::{self, LbAlgorithm, RequestQueue},
        metrics::Metrics,
        pool::{
            AdminState, Asking, Health,
            fixture::{addr, config, down},
        },
    };

    fn limited(ratios: &[u16], most: u64, depth: u32) -> config::Pool {
        let mut config = config(LbAlgorithm::LeastConnections, ratios);
        let timeout = Duration::from_secs(10);
        let depth = NonZeroU32::new(depth).expect("it is not 0");
        config.lifecycle.queue = Some(RequestQueue { depth, timeout });
        config.lifecycle.most_per_server = NonZeroU64::new(most);
        config
    }

    fn pool(ratios: &[u16], most: u64, depth: u32) -> Arc<Pool> {
        crate::pool::fixture::build(limited(ratios, most, depth))
    }

    fn reloaded(pool: &Pool, config: config::Pool) -> Arc<Pool> {
        Pool::new(&Arc::new(config), &Metrics::new(), Some(pool), UNIX_EPOCH)
    }

    fn pick(pool: &Pool) -> Option<Lease> {
        pool.pick(&mut rand::rng(), &[])
    }

    fn any() -> Wants {
        Wants::AnyBut(Vec::new())
    }

    fn join(pool: &Arc<Pool>, wants: Wants) -> Waiting {
        pool.join_queue(wants).unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// The place of one to whom it must have been given.
    async fn given(waiting: Waiting) -> Lease {
        let at_once = timeout(Duration::ZERO, waiting.place(None)).await.expect("it is there");
        at_once.unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn a_server_has_no_more_in_flight_than_its_places_whoever_grasps_for_them() {
        let pool = pool(&[1, 1], 5, 1);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let lease = pool.pick_for(&mut rand::rng(), &Asking::default());
                        let inflight = lease.as_ref().map_or(0, |lease| lease.inflight());
                        assert!(inflight <= 5, "{inflight}");
                    }
                });
            }
        });
        let held: Vec<_> = std::iter::from_fn(|| pick(&pool)).collect();
        assert_eq!(held.len(), 10);
        assert!(pool.is_full(&[]) && !pool.is_full(&[addr(1), addr(2)]));
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_the_order_of_arrival() {
        let pool = pool(&[1, 1], 1, 100);
        let (first, second) = (pick(&pool).expect("a place"), pick(&pool).expect("a place"));
        let mut line: VecDeque<_> = (0..50).map(|_| join(&pool, any())).collect();
        assert_eq!(pool.queue_length(), 50);
        let mut held = VecDeque::from([first, second]);
        while let Some(next) = line.pop_front() {
            let freed = held.pop_front().map(|lease| lease.addr());
            let lease = given(next).await;
            assert_eq!((Some(lease.addr()), pool.queue_length()), (freed, line.len()));
            assert!(pick(&pool).is_none(), "who comes now finds every server full");
            held.push_back(lease);
        }
        drop(held);
        assert_eq!(pool.servers().iter().map(|server| server.inflight()).sum::<u64>(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_others_wait_gets_in_line() {
        let pool = pool(&[1], 1, 2);
        let lease = pick(&pool).expect("a place");
        let (first, second) = (join(&pool, any()), join(&pool, any()));
        assert_eq!(pool.join_queue(any()).err(), Some(NotServed::QueueFull));
        drop(lease);
        assert!(pick(&pool).is_none(), "the place is the first one's");
        let lease = given(first).await;
        drop(second);
        assert_eq!(pool.queue_length(), 0);
        drop(lease);
        assert!(pick(&pool).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_gives_up_his_place_in_line_and_the_one_that_he_was_given() {
        let pool = pool(&[1], 1, 10);
        let lease = pick(&pool).expect("a place");
        let (gone, given_and_gone, stays) = (join(&pool, any()), join(&pool, any()), join(&pool, any()));
        drop(gone);
        assert_eq!(pool.queue_length(), 2);
        drop(lease);
        drop(given_and_gone);
        assert_eq!(given(stays).await.inflight(), 1);
        assert_eq!(pool.servers()[0].inflight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_has_an_end() {
        let pool = pool(&[1], 1, 10);
        let _lease = pick(&pool).expect("a place");
        for (left, waited, why) in [
            (None, 10, NotServed::TimedOut),
            (Some(20), 10, NotServed::TimedOut),
            (Some(10), 10, NotServed::TimedOut),
            (Some(3), 3, NotServed::RequestLate),
            (Some(0), 0, NotServed::RequestLate),
        ] {
            let begun = tokio::time::Instant::now();
            let left = left.map(Duration::from_secs);
            assert_eq!(join(&pool, any()).place(left).await.err(), Some(why), "{left:?}");
            assert_eq!((begun.elapsed().as_secs(), pool.queue_length()), (waited, 0), "{left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_waits_for_its_own_server_and_holds_up_nobody_else() {
        let pool = pool(&[1, 1], 1, 10);
        let (_one, two) = (pool.servers()[0].lease(), pool.servers()[1].lease());
        let (own, other) = (join(&pool, Wants::This(addr(1))), join(&pool, any()));
        drop(two);
        assert_eq!(given(other).await.addr(), addr(2));
        pool.servers()[0].set_health(down(), UNIX_EPOCH);
        assert_eq!(own.place(None).await.err(), Some(NotServed::ServerGone));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_returns_has_all_its_places_for_those_who_wait() {
        let pool = pool(&[1, 1], 2, 10);
        pool.servers()[1].set_health(down(), UNIX_EPOCH);
        let _held: Vec<_> = std::iter::from_fn(|| pick(&pool)).collect();
        let line: Vec<_> = (0..3).map(|_| join(&pool, any())).collect();
        pool.servers()[1].set_health(Health::Up, UNIX_EPOCH);
        assert_eq!((pool.servers()[1].inflight(), pool.queue_length()), (2, 1));
        let draining = pool.servers()[1].clone();
        draining.order(AdminState::Draining, "uid 0", UNIX_EPOCH);
        drop(line);
        assert_eq!(draining.inflight(), 0, "nobody took them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_the_line_and_a_server_that_it_adds_serves_who_comes_then() {
        let old = pool(&[1], 1, 10);
        let lease = pick(&old).expect("a place");
        let waits = join(&old, any());
        let new = reloaded(&old, limited(&[1, 1], 1, 10));
        assert!(pick(&new).is_none(), "one waits already");
        assert_eq!(given(join(&new, any())).await.addr(), addr(2));
        drop(lease);
        assert_eq!(given(waits).await.addr(), addr(1));
    }
}
