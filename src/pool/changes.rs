//! Who is told of changes to a pool's servers: whoever awaits them, and the log.
//!
//! The log has a line for each server that goes down or comes up, as long as they are few. When a rack loses its power
//! it has the first of them, and then their number.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use tokio::sync::{Notify, futures::Notified};
use tracing::{info, warn};

use crate::clock::Episode;

/// One for a pool, before and after reloads.
#[derive(Default)]
pub(super) struct Changes {
    notify: Notify,
    /// Lines since the last summary.
    lines: AtomicUsize,
    /// Servers that had none since.
    down: AtomicUsize,
    up: AtomicUsize,
    malformed_answers: Episode,
    shortages: Episode,
}

impl Changes {
    /// Something has changed.
    pub fn notify(&self) {
        self.notify.notify_waiters();
    }

    /// Completes at the next change after this call.
    pub fn notified(&self) -> Notified<'_> {
        self.notify.notified()
    }

    /// Logs that a server is down.
    pub fn log_down(&self, pool: &str, server: &str, reason: &str) {
        match self.has_line() {
            true => warn!(pool, server, reason, "server is down"),
            false => _ = self.down.fetch_add(1, Relaxed),
        }
    }

    /// Logs that a server wants no new sessions.
    pub fn log_maintenance(&self, pool: &str, server: &str, reason: &str) {
        match self.has_line() {
            true => info!(pool, server, reason, "server is in maintenance"),
            false => _ = self.down.fetch_add(1, Relaxed),
        }
    }

    /// Logs that a server that was down is up.
    pub fn log_up(&self, pool: &str, server: &str) {
        match self.has_line() {
            true => info!(pool, server, "server is up"),
            false => _ = self.up.fetch_add(1, Relaxed),
        }
    }

    /// Logs that a server's answer can be read in two ways: the first time for a long time.
    pub fn log_malformed_answer(&self, pool: &str, server: SocketAddr, reason: &str, now: Instant) {
        if self.malformed_answers.seen(now) {
            warn!(
                pool,
                %server,
                reason,
                "an answer of a server is malformed and was refused or cut: a client could read it otherwise than homing; \
                 the server, or what is between, is to be mended"
            );
        }
    }

    /// Logs that this machine cannot begin a connection: the first time for a long time.
    pub fn log_shortage(&self, pool: &str, reason: &str, help: &str, now: Instant) {
        if self.shortages.seen(now) {
            warn!(
                pool,
                reason, "no connection to a server can begin at this machine and requests fail; {help}"
            );
        }
    }

    /// Logs how many servers had no line of their own since the last call, and allows for lines again.
    pub fn log_rest(&self, pool: &str, up_now: impl FnOnce() -> usize, of: usize) {
        self.lines.store(0, Relaxed);
        let (down, up) = (self.down.swap(0, Relaxed), self.up.swap(0, Relaxed));
        if down > 0 {
            warn!(pool, up = up_now(), of, "{down} more servers went down, and {up} more came up");
        } else if up > 0 {
            info!(pool, up = up_now(), of, "{up} more servers came up");
        }
    }

    fn has_line(&self) -> bool {
        self.lines.fetch_add(1, Relaxed) < LINES
    }
}

/// Between two summaries.
const LINES: usize = 10;
