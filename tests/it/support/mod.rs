//! The fixtures: servers that record and misbehave, a homing process, clients, and the one place where time passes.
//!
//! Everything listens on a loopback address of its own ([`net`]), so tests run side by side without meeting.

pub mod certs;
pub mod client;
pub mod config;
pub mod copies;
pub mod dns;
pub mod frames;
pub mod homing;
pub mod http2;
pub mod lines;
pub mod models;
pub mod net;
pub mod origin;
pub mod raw;
pub mod relay;
pub mod rpc;
pub mod site_cookie;
pub mod tls;
pub mod tls_server;
pub mod wire;

use std::{future::Future, time::Duration};

use tokio::time::Instant;

/// Waits until a condition holds; fails the test with `what` when it does not within ten seconds.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(DEADLINE, what, condition).await;
}

/// [`eventually`] with a deadline of its own.
pub async fn eventually_within(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// The result of something that must happen soon; fails the test with `what` when it does not within ten seconds.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(result) => result,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Lets time pass, for tests of what must *not* happen meanwhile.
pub async fn after(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Generous, because the whole suite shares the machine's cores; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
