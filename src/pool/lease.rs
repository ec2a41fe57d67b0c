//! A request in flight to a server, counted for as long as the [`Lease`] is held.
//!
//! The count is given back when the lease is dropped, so it cannot leak: not when the client leaves, not when a
//! rule panics, not when the request became a tunnel. Whoever owns the request's context owns the lease.

use std::{ops::Deref, sync::Arc};

use super::Server;

/// Holds one of a server's requests in flight.
#[must_use = "the request counts as in flight only while the lease is held"]
pub struct Lease {
    server: Arc<Server>,
}

impl Lease {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        server.places().take();
        Self::of_place_taken(server)
    }

    /// The lease of a place that was taken for it.
    pub(super) fn of_place_taken(server: &Arc<Server>) -> Self {
        Self { server: server.clone() }
    }

    /// The server that was chosen.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.places().give_back();
        self.server.queue().offer(self.server.addr());
    }
}

#[cfg(test)]
mod tests {
    use crate::{config::LbAlgorithm, pool::fixture};

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let pool = fixture::pool(LbAlgorithm::RoundRobin, &[1]);
        let server = &pool.servers()[0];
        let picked = pool.pick(&mut rand::rng(), &[]).unwrap();
        let persistent = server.lease();
        assert_eq!((picked.inflight(), picked.server().name()), (2, "10.0.0.1:80"));
        drop(picked);
        assert_eq!(server.inflight(), 1);
        drop(persistent);
        assert_eq!(server.inflight(), 0);
    }

    #[test]
    fn a_panic_gives_the_count_back() {
        let pool = fixture::pool(LbAlgorithm::RoundRobin, &[1]);
        let server = pool.servers()[0].clone();
        let panicked = std::thread::spawn(move || {
            let lease = server.lease();
            assert_eq!(lease.inflight(), 2);
        });
        assert!(panicked.join().is_err());
        assert_eq!(pool.servers()[0].inflight(), 0);
    }

    #[tokio::test]
    async fn a_cancelled_request_gives_the_count_back() {
        let pool = fixture::pool(LbAlgorithm::RoundRobin, &[1]);
        let lease = pool.pick(&mut rand::rng(), &[]).unwrap();
        let request = tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(lease);
        });
        tokio::task::yield_now().await;
        assert_eq!(pool.servers()[0].inflight(), 1);
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(pool.servers()[0].inflight(), 0);
    }
}
