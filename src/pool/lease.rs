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
        server.inflight_gauge().inc();
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
        self.server.inflight_gauge().dec();
    }
}
