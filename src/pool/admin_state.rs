//! What operators say of a server while it runs: to serve, to drain, or to rest.
//!
//! An order is kept beside what monitors find, and outlives a reload for as long as the server's address stays in
//! its pool; a restart forgets it. What the configuration disables no order enables. F5 says enabled, disabled and
//! forced offline, HAProxy ready, drain and maint.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::SystemTime,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a server is to do, in an operator's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum AdminState {
    /// Take requests. So it is until an operator says otherwise.
    #[default]
    Enabled,
    /// Keep the sessions that it has, and get no new ones. A request without a session is a new one.
    Draining,
    /// Get nothing more, as if it were down. What is in flight ends in its own time.
    Disabled,
}

/// What an operator said, who, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub state: AdminState,
    /// The address of the operator's client, or a local user.
    pub by: String,
    pub at: SystemTime,
}

/// The orders for one server, shared by the pools before and after a reload.
#[derive(Default)]
pub(super) struct Orders {
    /// What `pick` reads.
    state: AtomicU8,
    last: Mutex<Option<Order>>,
}

impl AdminState {
    const ALL: [Self; 3] = [Self::Enabled, Self::Draining, Self::Disabled];

    /// `enabled`, `draining`, `disabled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Orders {
    pub fn state(&self) -> AdminState {
        AdminState::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// The last order; `None`: no operator has said anything.
    pub fn last(&self) -> Option<Order> {
        self.last.lock().clone()
    }

    /// Takes an order; the state before it.
    pub fn give(&self, order: Order) -> AdminState {
        let mut last = self.last.lock();
        let before = self.state();
        self.state.store(order.state as u8, Relaxed);
        *last = Some(order);
        before
    }
}
