//! How a pool's servers come, fill up and go: the slow start, the places at each, and who waits for one.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use super::{
    read::Object,
    units::{self, days, hours, milliseconds, seconds},
};

/// Of a pool. The default: servers have their whole share at once and take any number of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// How many requests and tunnels a server has in flight at most; `None`: any number.
    pub most_per_server: Option<NonZeroU64>,
    /// Where requests wait while every server is full; `None`: they are refused.
    pub queue: Option<RequestQueue>,
    /// How long a server that is new, or back, takes to its full share; zero: it has it at once.
    pub ramp: Duration,
    /// How long a server keeps its sessions when a reload disables it; zero: it loses them at once.
    pub graceful_disable: Duration,
}

/// Requests that wait for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestQueue {
    /// How many may wait.
    pub depth: NonZeroU32,
    /// The longest that one waits.
    pub timeout: Duration,
}

impl Lifecycle {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let most = o.field(MOST, units::whole(0..=1_000_000_u64)).and_then(NonZeroU64::new);
        let ramp = o.field("connection_ramp_duration", units::duration(Duration::ZERO..=days(1)));
        let graceful = o.field("graceful_disable_timeout", units::duration(Duration::ZERO..=days(5)));
        let enabled = o.field("request_queue_enabled", units::flag).unwrap_or(false);
        let depth = o.field("request_queue_depth", units::whole(1..=100_000_u32));
        let timeout = o.field("request_queue_timeout", units::duration(milliseconds(1)..=hours(1)));
        if enabled && most.is_none() {
            o.wrong(
                "request_queue_enabled",
                "no server is ever full, and so no request waits",
                format!("add `{MOST}`, or leave it out"),
            );
        }
        let keys = ["request_queue_depth", "request_queue_timeout"];
        for key in keys.into_iter().filter(|key| o.has(key) && !enabled) {
            o.wrong(
                key,
                "the pool has no request queue",
                "add `request_queue_enabled: true`, or leave it out",
            );
        }
        let queue = RequestQueue {
            depth: depth.and_then(NonZeroU32::new).unwrap_or(RequestQueue::default().depth),
            timeout: timeout.unwrap_or(RequestQueue::default().timeout),
        };
        Self {
            most_per_server: most,
            queue: enabled.then_some(queue),
            ramp: ramp.unwrap_or_default(),
            graceful_disable: graceful.unwrap_or_default(),
        }
    }
}

impl Default for RequestQueue {
    /// As Avi's, whose requests wait for as long as their clients do.
    fn default() -> Self {
        Self { depth: NonZeroU32::new(128).expect("128 is not 0"), timeout: seconds(10) }
    }
}

const MOST: &str = "max_concurrent_connections_per_server";
