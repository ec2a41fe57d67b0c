//! Keeps the session table in its file, again and again.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::{sync::Mutex, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{keys::Keys, session_file};
use crate::snapshot::Live;

/// Writes `session_snapshot`, where the configuration in force has one.
pub(super) struct Keeper {
    live: Arc<Live>,
    /// Whether another process writes the file from now on. Held while it is written.
    ended: Mutex<bool>,
    failing: AtomicBool,
}

impl Keeper {
    pub fn new(live: Arc<Live>) -> Self {
        Self { live, ended: Mutex::new(false), failing: AtomicBool::new(false) }
    }

    /// Writes every `session_snapshot_interval`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let interval = self.live.snapshot().config.session_snapshot_interval;
            if stop.run_until_cancelled(sleep(interval)).await.is_none() {
                return;
            }
            self.keep().await;
        }
    }

    /// Writes now.
    pub async fn keep(&self) {
        let ended = self.ended.lock().await;
        let Some(path) = self.live.snapshot().config.session_snapshot.clone() else { return };
        if *ended {
            return;
        }
        let live = self.live.clone();
        let written = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                let keys = Keys::of(*live.sessions.seed(), live.mark_key, &live.ticket_keys);
                session_file::write(&path, keys, &live.sessions, &live.clock)
            }
        });
        self.tell(&path, written.await.unwrap_or_else(|panic| Err(io::Error::other(panic))));
    }

    /// No more is written while the guard is held; nor later, if it is set.
    pub async fn pause(&self) -> tokio::sync::MutexGuard<'_, bool> {
        self.ended.lock().await
    }

    /// The log hears of the first failure, and of its end.
    fn tell(&self, path: &Path, written: io::Result<()>) {
        let path = path.display();
        match written {
            Ok(()) if self.failing.swap(false, Relaxed) => {
                tracing::info!("session_snapshot {path} can be written again");
            }
            Ok(()) => {}
            Err(error) if !self.failing.swap(true, Relaxed) => tracing::warn!(
                "session_snapshot {path} cannot be written: {error}; what was written before stays, and a restart \
                 goes back to that; trying on"
            ),
            Err(_) => {}
        }
    }
}
