//! What the proxy itself keeps of one request.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pingora::ErrorType;

use super::{
    copies::Copies,
    deadline::Timer,
    dial::Held,
    notes::{CopyEnd, Notes},
};
use crate::{
    access_log::Reason,
    clone::DropReason,
    pool::{Lease, Outcome, Pool, Retry},
    rule::{CloneEvent, CloneOrder, Exchange},
    snapshot::VirtualService,
};

/// Pingora's per-request context.
pub struct Ctx {
    pub(super) started: Instant,
    /// When it is given up, by its pool.
    pub(super) deadline: Option<Instant>,
    /// Set once the request is routed.
    pub(super) routed: Option<Box<Routed>>,
    pub(super) attempt: Option<Attempt>,
    /// Servers that could not be reached.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) copies: Copies,
    /// The status that the client got; 0: none.
    pub(super) status: u16,
    /// A rule asked for another try after an answer.
    pub(super) retry_asked: bool,
    pub(super) retries: u32,
    /// Its rate is counted when the rules have found out whose it is.
    pub(super) is_uncounted: bool,
    /// Its place among the pool's retries, where they are counted.
    pub(super) retry: Option<Retry>,
    /// Why the last server that was tried in vain could not be reached.
    pub(super) unreached: Option<ErrorType>,
    /// What was wrong with its TLS, if it was that.
    pub(super) tls_failure: Option<Arc<str>>,
    /// A server did not agree to HTTP/2: no other one is asked.
    pub(super) http2_declined: bool,
    /// Interim answers that servers gave to it.
    pub(super) interims: u8,
    /// Why it was not answered by a server, or not whole, where something other than an error says so.
    pub(super) reason: Option<Reason>,
    /// When a client that is refused may come again.
    pub(super) retry_after: Option<Duration>,
}

/// A request with its virtual service.
pub struct Routed {
    pub(super) vs: Arc<VirtualService>,
    pub(super) exchange: Exchange,
    /// For the access log, where there is one.
    pub(super) notes: Option<Box<Notes>>,
}

impl Routed {
    /// A copy was dropped: rules hear of it.
    pub(super) fn clone_dropped(&mut self, order: &CloneOrder, reason: DropReason) {
        if let Some(notes) = &mut self.notes {
            notes.copied(order, CopyEnd::Dropped(reason));
        }
        self.vs.chain.clone_dropped(&mut CloneEvent::dropped(&mut self.exchange, order, reason));
    }
}

/// The server that is being asked.
pub struct Attempt {
    pub(super) pool: Arc<Pool>,
    pub(super) lease: Lease,
    /// When the server was chosen.
    pub(super) begun: Instant,
    /// When it had the whole request, where its pool wants to know; else when it was chosen.
    pub(super) asked: Instant,
    /// The connection, where homing may have to end it,
    pub(super) held: Option<Arc<Held>>,
    /// and what will.
    pub(super) timer: Option<Timer>,
    /// In a handshake in which the server may decline.
    pub(super) asks_for_http2: bool,
    pub(super) met: Met,
}

/// What an attempt has met with so far, where its pool wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Nothing,
    /// With the head of an answer.
    Answer(Outcome),
    /// The pool knows.
    Told,
}

impl Attempt {
    pub(super) fn server(&self) -> SocketAddr {
        self.lease.server().addr()
    }
}

impl Ctx {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            deadline: None,
            routed: None,
            attempt: None,
            tried: Vec::new(),
            copies: Copies::default(),
            status: 0,
            retry_asked: false,
            retries: 0,
            is_uncounted: false,
            retry: None,
            unreached: None,
            tls_failure: None,
            http2_declined: false,
            interims: 0,
            reason: None,
            retry_after: None,
        }
    }

    pub(super) fn notes(&mut self) -> Option<&mut Notes> {
        self.routed.as_mut()?.notes.as_deref_mut()
    }

    pub(super) fn routed(&mut self) -> &mut Routed {
        self.routed.as_mut().expect("phases after request_filter run for routed requests only")
    }
}
