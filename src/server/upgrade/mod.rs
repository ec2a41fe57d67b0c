//! A new process takes the place of this one under load: its listening sockets, its sessions, what it knows of
//! servers.
//!
//! The old process listens on `upgrade_sock`. A new one that finds it there asks for its keys, builds itself with them,
//! and waits. SIGQUIT has the old one hand over; SIGUSR2 has it start the new one itself before:
//!
//! ```text
//! old                                          new
//!  │ begins a journal of the sessions it uses   │
//!  ├── sockets, state of servers, all sessions ─▶ loads certificates, binds what it lacks, accepts
//!  ◀──────────────────────────────── "serving" ─┤
//!  │ accepts no more; each connection ends with │ (both served from the same queues: nobody is refused)
//!  │ its next answer, all with the grace period │
//!  ├── its journal, all the while ──────────────▶ learns of sessions what the old one still does
//!  ├── "bye" ───────────────────────────────────▶ alone
//! ```
//!
//! Until "serving" the old one serves as ever, and goes on if the new one fails or dies. While both serve, a session
//! that both meet as new is given its clone member by rendezvous in either, so that they agree; of a session's copies
//! two may then have the same number, where its requests ran in both at once. A session that ends in one process
//! while both serve, by a rule or an operator, may go on in the other.
//!
//! Known elsewhere as: nginx's and Pingora's upgrade, HAProxy's `-x`, Envoy's hot restart.

mod link;
mod new;
mod old;
mod state;

pub use link::LinkError;
pub(super) use new::{Predecessor, Taken};
pub use old::HandedOver;
pub(super) use old::Successors;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{keys::Keys, saved::Part};
use crate::listen;
use state::State;

/// What the two processes say.
#[derive(Serialize, Deserialize)]
enum Message {
    /// Old: to a process that has just come.
    Keys(Keys),
    /// Old: for the reason given it takes nothing over.
    Refused(String),
    /// Old: so many listening sockets come with this.
    Sockets(u32),
    /// Old.
    State(State),
    /// Old.
    Table(Part),
    /// Old: this was all; what follows is what happens meanwhile.
    Complete,
    /// New: it accepts.
    Serving,
    /// Old: its last connection is gone.
    Bye,
}

/// Why a new process does not take over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error("upgrade_sock {path}: {source}")]
    Link { path: PathBuf, source: LinkError },
    #[error("upgrade_sock {path}: the running process says: {reason}")]
    Refused { path: PathBuf, reason: String },
    #[error("upgrade_sock {0}: the hand-over broke off, and the running process serves on; its log says why")]
    BrokenOff(PathBuf),
}

/// Why this process did not hand over; it serves on.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    #[error(
        "there is no `upgrade_sock` in the configuration that homing was started with; add it and restart"
    )]
    NotConfigured,
    #[error("no process waits on upgrade_sock {0}; start one with `homing run --upgrade` first")]
    Nobody(PathBuf),
    #[error("its listening sockets cannot be duplicated: {0}; allow the process more open files")]
    Sockets(#[source] std::io::Error),
    #[error("the new process failed: {0}; its log says why")]
    Failed(#[from] LinkError),
    #[error("the new process did not serve within {} s", SERVING_TIMEOUT.as_secs())]
    TooLate,
    #[error("the hand-over panicked")]
    Panic,
}

/// An `upgrade_sock` that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("upgrade_sock {0}")]
pub struct SocketError(#[from] listen::UnixBindError);

/// From the last session that is handed over until the new process serves: it loads certificates and binds.
const SERVING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
