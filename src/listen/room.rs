//! How many clients there is room for, and what the log hears when there is no more.
//!
//! Where all listeners together have as many connections as there is room for, none accepts: new clients wait in the
//! kernel's queue, those that are there are served, and what is left of the open files is for servers and the admin
//! API. HAProxy does so at its `maxconn`.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use crate::{
    clock::Episode,
    limits::{self, OpenFiles},
};

/// The room for client connections, shared by all listeners of an instance.
pub struct Room {
    files: OpenFiles,
    /// What was configured, if that is less than the files allow.
    configured: AtomicUsize,
    full: Episode,
    failing: Episode,
}

impl Room {
    /// For so many at most, as configured; never for more than the files allow.
    pub fn new(files: OpenFiles, most: Option<usize>) -> Self {
        let configured = AtomicUsize::new(most.unwrap_or(usize::MAX));
        Self { files, configured, full: Episode::default(), failing: Episode::default() }
    }

    /// Takes over what is configured from now on.
    pub(super) fn limit(&self, most: Option<usize>) {
        self.configured.store(most.unwrap_or(usize::MAX), Relaxed);
    }

    /// How many clients there is room for.
    pub fn clients(&self) -> usize {
        self.files.clients().min(self.configured.load(Relaxed))
    }

    /// Whether so many connections are all there is room for.
    pub(super) fn is_full(&self, open: usize) -> bool {
        open >= self.clients()
    }

    /// A listener waits for room.
    pub(super) fn filled(&self, now: Instant) {
        if self.full.seen(now) {
            let help = match self.clients() < self.files.clients() {
                true => "raise `max_connections`",
                false => "raise the limit of open files (LimitNOFILE= of the unit, `ulimit -Hn`)",
            };
            tracing::warn!(
                clients = self.clients(),
                open_files = self.files.shown(),
                "no room for more client connections; new ones wait until others end; {help}"
            );
        }
    }

    /// A listener waits no more.
    pub(super) fn emptied(&self, now: Instant) {
        self.full.lasted(now);
    }

    /// A listener cannot accept.
    pub(super) fn failed(&self, error: &io::Error, now: Instant) {
        if self.failing.seen(now) {
            let help = limits::shortage(error).unwrap_or("the system says no more than this");
            tracing::error!(%error, "cannot accept connections, and goes on trying; {help}");
        }
    }

    /// A listener has accepted.
    pub(super) fn accepted(&self, now: Instant) {
        if self.full.is_over(now) {
            tracing::info!("room for client connections again");
        }
        if self.failing.is_over(now) {
            tracing::info!("connections can be accepted again");
        }
    }
}
