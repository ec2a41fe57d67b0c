//! What an instance does once in a while: it looks after what ages, sweeps what is over, and sums up for the log what is
//! too much to be told one by one.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{gslb::KeyWatch, snapshot::Live, tls::CertificateWatch};

/// Begins, until `stop`.
pub(super) fn spawn(live: &Arc<Live>, stop: &CancellationToken) {
    tokio::spawn(sweep_sessions(live.clone(), stop.clone()));
    tokio::spawn(log_clone_losses(live.clone(), stop.clone()));
    tokio::spawn(log_pools(live.clone(), stop.clone()));
    tokio::spawn(advance_pools(live.clone(), stop.clone()));
    tokio::spawn(watch_keys(live.clone(), stop.clone()));
    tokio::spawn(watch_certificates(live.clone(), stop.clone()));
    tokio::spawn(rotate_ticket_keys(live.clone(), stop.clone()));
}

async fn sweep_sessions(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let (sessions, now) = (live.sessions.clone(), live.clock.now());
        // It walks the whole table, which requests must not wait for.
        if tokio::task::spawn_blocking(move || sessions.sweep(now)).await.is_err() {
            tracing::error!("the sweep of the session table panicked");
        }
    }
}

/// Copies are lost on the app's path and elsewhere, and many at a time; the log hears of them from here only.
async fn log_clone_losses(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOSS_LOG_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        live.snapshot().virtual_services.iter().for_each(|vs| vs.log_clone_losses(live.clock.now()));
    }
}

async fn watch_certificates(live: Arc<Live>, stop: CancellationToken) {
    let mut watch = CertificateWatch::default();
    loop {
        {
            let snapshot = live.snapshot();
            let served = snapshot.listeners.values().flat_map(|listener| &listener.tls);
            watch.look(served.map(|(tls, _)| &*tls.certificate), live.clock.wall());
        }
        if stop.run_until_cancelled(tokio::time::sleep(KEY_WATCH_INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// Changes the keys of session tickets by the clock, unless nodes share them.
async fn rotate_ticket_keys(live: Arc<Live>, stop: CancellationToken) {
    let mut rotated = live.clock.now();
    while stop.run_until_cancelled(tokio::time::sleep(KEY_WATCH_INTERVAL)).await.is_some() {
        let (now, snapshot) = (live.clock.now(), live.snapshot());
        let due = now.saturating_duration_since(rotated) >= snapshot.config.session_ticket_rotation;
        if !due || !snapshot.config.session_ticket_secrets.is_empty() {
            continue;
        }
        rotated = now;
        match live.ticket_keys.rotate(now) {
            Ok(()) => tracing::info!("session tickets are sealed with a new key"),
            Err(error) => {
                tracing::error!(%error, "openssl has no random bytes: session tickets keep their key")
            }
        }
    }
}

/// A thousand servers may change at once; the log hears of most of them from here.
async fn log_pools(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(POOL_LOG_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        live.snapshot().pools.iter().for_each(|pool| pool.log_changes());
    }
}

/// Shares of servers that are back grow, and servers that were taken out for a time come back.
async fn advance_pools(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(POOL_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let (now, wall) = (live.clock.now(), live.clock.wall());
        live.snapshot().pools.iter().for_each(|pool| pool.advance(now, wall));
    }
}

async fn watch_keys(live: Arc<Live>, stop: CancellationToken) {
    let mut watch = KeyWatch::default();
    let mut every = tokio::time::interval(KEY_WATCH_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        watch.look(live.snapshot().config.gslb.as_deref(), &live.metrics, live.clock.wall());
    }
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(1);

const POOL_INTERVAL: Duration = Duration::from_millis(250);

const POOL_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Of keys and certificates, which age slowly.
const KEY_WATCH_INTERVAL: Duration = Duration::from_secs(10);
