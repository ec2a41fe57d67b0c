//! The context of the balancer's events: `lb_selected` and `lb_failed`.

use std::net::SocketAddr;

use http::{HeaderMap, Method};
use pingora::http::RequestHeader;

use super::{
    RuleError,
    exchange::{CloneOrder, Exchange, Preferred, Reply},
};
use crate::names::PoolName;

holds_exchange!(LbEvent);

/// Context of `lb_selected` and `lb_failed`.
pub struct LbEvent<'a> {
    head: &'a RequestHeader,
    exchange: &'a mut Exchange,
    phase: LbPhase<'a>,
    reselect: Option<Reselect>,
}

/// What is chosen from again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reselect {
    /// All but the server that was chosen.
    Others,
    /// A server that is preferred; else all.
    Preferred,
}

/// What the balancer reports.
#[derive(Clone, Copy, Debug)]
pub enum LbPhase<'a> {
    /// This server of this pool was chosen.
    Selected { pool: &'a PoolName, server: SocketAddr },
    /// The server could not be reached, or `server` is `None` and none could be chosen.
    Failed {
        pool: &'a PoolName,
        server: Option<SocketAddr>,
        reason: &'a str,
        /// Nothing of the request's body is lost, so that it may go to another server.
        resendable: bool,
    },
}

impl<'a> LbEvent<'a> {
    pub(crate) fn new(head: &'a RequestHeader, exchange: &'a mut Exchange, phase: LbPhase<'a>) -> Self {
        Self { head, exchange, phase, reselect: None }
    }

    /// The pool that was chosen from.
    pub fn pool(&self) -> &PoolName {
        match &self.phase {
            LbPhase::Selected { pool, .. } | LbPhase::Failed { pool, .. } => pool,
        }
    }

    /// The server, if one was chosen.
    pub fn server(&self) -> Option<SocketAddr> {
        match self.phase {
            LbPhase::Selected { server, .. } => Some(server),
            LbPhase::Failed { server, .. } => server,
        }
    }

    /// Why it failed, in a few words.
    pub fn reason(&self) -> Option<&str> {
        match self.phase {
            LbPhase::Selected { .. } => None,
            LbPhase::Failed { reason, .. } => Some(reason),
        }
    }

    /// Whether the request can still be sent elsewhere.
    pub fn is_resendable(&self) -> bool {
        matches!(self.phase, LbPhase::Selected { .. } | LbPhase::Failed { resendable: true, .. })
    }

    /// How often a server failed this request, this time included.
    pub fn failures(&self) -> usize {
        self.exchange.failures
    }

    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Path and query.
    pub fn path_and_query(&self) -> &str {
        self.head.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// The query, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// Chooses again, from the same pool: iRules' `LB::reselect`.
    pub fn reselect(&mut self) {
        self.exchange.decided("reselect");
        self.reselect = Some(Reselect::Others);
    }

    /// Chooses again, this server of the same pool if it may be had. Nothing is held against the one that was chosen.
    pub fn reselect_server(&mut self, server: SocketAddr) {
        let pool = Some(self.pool().clone());
        self.exchange.decided("reselect");
        self.exchange.preferred = Some(Preferred { pool, server, even_down: false });
        self.reselect = Some(Reselect::Preferred);
    }

    /// Chooses again, from this pool.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn reselect_from(&mut self, pool: &str) -> Result<(), RuleError> {
        self.exchange.set_pool(pool)?;
        self.reselect = Some(Reselect::Others);
        Ok(())
    }

    /// Chooses again, from where the request would have gone without [`Request::server_of`](super::Request::server_of).
    pub fn reselect_here(&mut self) {
        self.exchange.decided("reselect");
        self.exchange.come_home();
        self.reselect = Some(Reselect::Others);
    }

    /// Orders a copy, for a request of which none was wanted before.
    pub fn order_clone(&mut self, order: CloneOrder) {
        self.exchange.clones.push(order);
    }

    /// Answers without a server.
    pub fn respond(&mut self, reply: Reply) {
        self.exchange.decided("respond");
        self.exchange.reply = Some(reply);
    }

    pub(crate) fn wants_reselect(&self) -> Option<Reselect> {
        self.reselect
    }
}
