//! One request and its answer, as the rules of its virtual service know it.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    RuleError,
    connection::{ConnectionState, TlsView},
    decisions::Decisions,
    forwarded::Introduction,
    request_id::RequestId,
    services::Services,
    state::State,
};
use crate::{
    clone::DropReason,
    names::{PoolName, VsName},
    pool::Pool,
    session::{Assigned, How},
};

/// What rules decided about one request, and what they may ask about it at any event.
pub struct Exchange {
    pub(crate) connection: Arc<ConnectionState>,
    pub(crate) services: Arc<Services>,
    pub(crate) request_id: RequestId,
    /// Servers are told the id.
    pub(crate) tells_request_id: bool,
    /// The client's address; a proven peer site may have told another than the connection's.
    pub(crate) client: IpAddr,
    /// Whether the client speaks TLS, here or at the site where it came in.
    pub(crate) secure: bool,
    /// A proxy in front, whom the configuration trusts, has told of the client.
    pub(crate) client_is_told: bool,
    /// By `X-Forwarded-For`: what else such fields say is its word too.
    pub(crate) keeps_x_forwarded: bool,
    /// What a peer site said of the client's TLS session, where the request came over the hop.
    pub(crate) carried_session: Option<Vec<u8>>,
    pub(crate) destination: Destination,
    /// Where it goes if the server that only a rule knows cannot have it.
    pub(crate) fallback: Destination,
    pub(crate) persist_none: bool,
    /// The server that the session had last.
    pub(crate) preferred: Option<Preferred>,
    /// The hash of what a rule said the balancer shall go by.
    pub(crate) custom_hash: Option<u64>,
    pub(crate) clones: Vec<CloneOrder>,
    pub(crate) clones_refused: bool,
    /// Copies that were wanted and could not be ordered, which rules are still to hear of.
    pub(crate) never_ordered: Vec<(PoolName, DropReason)>,
    pub(crate) reply: Option<Reply>,
    /// Servers that failed this request.
    pub(crate) failures: usize,
    pub(crate) state: State,
    /// What rules decide, where there is an access log to tell.
    pub(crate) decisions: Option<Box<Decisions>>,
}

/// A server that a request gets if it may be had.
#[derive(Clone, Debug)]
pub(crate) struct Preferred {
    /// `None`: the virtual service's own pool.
    pub pool: Option<PoolName>,
    pub server: SocketAddr,
    /// Also while it is down.
    pub even_down: bool,
}

/// Where a request goes.
#[derive(Clone, Default)]
pub enum Destination {
    /// The virtual service's own pool.
    #[default]
    Default,
    /// A named pool.
    Pool(PoolName),
    /// One server of a named pool, as iRules' `pool … member …`.
    Server(PoolName, SocketAddr),
    /// One server of a pool that has no name for users: the SP pool.
    Handle(Arc<Pool>, SocketAddr),
}

impl Exchange {
    /// A request that starts from what the connection's rules decided.
    pub fn new(connection: Arc<ConnectionState>, services: Arc<Services>, request_id: RequestId) -> Self {
        let decided = connection.decided();
        let destination = decided.destination.clone();
        let persist_none = decided.persist_none;
        let clones = decided.clones.clone();
        let clones_refused = decided.clones_refused;
        drop(decided);
        Self {
            services,
            request_id,
            tells_request_id: false,
            client: connection.client().ip(),
            secure: connection.tls().is_some(),
            client_is_told: false,
            keeps_x_forwarded: false,
            carried_session: None,
            destination,
            fallback: Destination::Default,
            persist_none,
            preferred: None,
            custom_hash: None,
            clones,
            clones_refused,
            never_ordered: Vec::new(),
            reply: None,
            failures: 0,
            state: State::default(),
            decisions: None,
            connection,
        }
    }

    /// The virtual service of this request.
    pub fn virtual_service(&self) -> &VsName {
        self.connection.virtual_service()
    }

    /// The client's address: the connection's, or the one that a proven peer site or a trusted proxy told.
    pub fn client_ip(&self) -> IpAddr {
        self.client
    }

    /// The connection's remote address.
    pub fn client_addr(&self) -> SocketAddr {
        self.connection.client()
    }

    /// The address that the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.connection.local()
    }

    /// What servers are told of the client; made once for a connection, and for each request that a peer site sent.
    pub(crate) fn introduction(&self) -> Introduction {
        let connection = &self.connection;
        match self.client == connection.client().ip() && self.secure == connection.tls().is_some() {
            true => connection.introduction().clone(),
            false => Introduction::of(self.client, self.secure),
        }
    }

    /// Whether the client came over TLS, here or at the site where it came in.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// TLS facts of this connection.
    pub fn ssl(&self) -> Option<TlsView<'_>> {
        self.connection.tls().map(TlsView::new)
    }

    /// The identity of the client's TLS session: this connection's, or the one that a peer site carried over.
    pub fn tls_session_id(&self) -> Option<&[u8]> {
        match &self.carried_session {
            Some(id) => Some(id),
            None => self.ssl().map(|ssl| ssl.session_id()),
        }
    }

    /// The id of this request, in logs, copies and on the hop.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// Keeps a value for later events of this request; one per type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.state.insert(value);
    }

    /// A value that an earlier event of this request kept.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.state.get()
    }

    /// The same, to change it.
    pub fn get_mut<T: Send + Sync + 'static>(&mut self) -> Option<&mut T> {
        self.state.get_mut()
    }

    /// The same, made if no event kept one.
    pub fn get_or_insert<T: Send + Sync + 'static>(&mut self, value: T) -> &mut T {
        self.state.get_or_insert(value)
    }

    /// Changes a value that the connection keeps, for all its requests; made by default.
    pub fn with_connection_value<T: Clone + Default + Send + Sync + 'static, R>(
        &self,
        change: impl FnOnce(&mut T) -> R,
    ) -> R {
        // Not under the lock: what `change` does may ask for it.
        let mut value = self.connection_value().unwrap_or_default();
        let result = change(&mut value);
        self.connection.decided().state.insert(value);
        result
    }

    /// A value that an event of the connection kept.
    pub fn connection_value<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.decided().state.get().cloned()
    }

    /// Whether copies of this request are wanted: no rule refused them, and it is not on its way to another site,
    /// which copies it itself.
    pub fn clones_allowed(&self) -> bool {
        !self.clones_refused && !self.goes_elsewhere()
    }

    /// Whether the request goes to a server that only a rule knows: another site.
    pub fn goes_elsewhere(&self) -> bool {
        matches!(self.destination, Destination::Handle(..))
    }

    /// Whether the request goes to a server of this pool, by [`Request::server_of`](super::Request::server_of).
    pub fn goes_to(&self, pool: &Arc<Pool>) -> bool {
        matches!(&self.destination, Destination::Handle(chosen, _) if Arc::ptr_eq(chosen, pool))
    }

    /// The pool in which the request's session may have a server: `own`, the virtual service's, unless a rule named
    /// another. `None`: a rule chose the very server, or said [`persist_none`](super::Request::persist_none).
    pub fn persistent_pool<'a>(&'a self, own: Option<&'a PoolName>) -> Option<&'a PoolName> {
        match &self.destination {
            _ if self.persist_none => None,
            Destination::Default => own,
            Destination::Pool(pool) => Some(pool),
            Destination::Server(..) | Destination::Handle(..) => None,
        }
    }

    /// The server of this pool that was preferred, `own`: it is the virtual service's.
    pub(crate) fn preferred_in(&self, pool: &PoolName, own: bool) -> Option<&Preferred> {
        let preferred = self.preferred.as_ref().filter(|_| !self.persist_none)?;
        let is_of_pool = preferred.pool.as_ref().map_or(own, |of| of == pool);
        is_of_pool.then_some(preferred)
    }

    /// Whether a party that proved itself told who the client is: the connection is not the client's own.
    pub fn is_carried(&self) -> bool {
        self.carried_session.is_some()
    }

    /// Lets rules hear, by `clone_dropped`, of a copy that was wanted and that no server could have.
    pub fn clone_never_ordered(&mut self, pool: &PoolName, reason: DropReason) {
        self.never_ordered.push((pool.clone(), reason));
    }

    /// Back from another site's server to where this site would have sent the request.
    pub(super) fn come_home(&mut self) {
        if matches!(self.destination, Destination::Handle(..)) {
            self.destination = std::mem::take(&mut self.fallback);
        }
    }

    /// The copies that were ordered so far.
    pub fn clones(&self) -> &[CloneOrder] {
        &self.clones
    }

    /// Adds a word to what the access log says of the rule that is running, where there is a log. It should be one of few.
    pub fn note(&mut self, word: &str) {
        if let Some(decisions) = &mut self.decisions {
            decisions.add(word.to_owned());
        }
    }

    /// A rule that is running decided something.
    pub(super) fn decided(&mut self, decision: &'static str) {
        if let Some(decisions) = &mut self.decisions {
            decisions.add(decision);
        }
    }

    /// The rule at this place of the chain is about to run.
    pub(super) fn runs(&mut self, rule: usize) {
        if let Some(decisions) = &mut self.decisions {
            decisions.runs(rule);
        }
    }

    pub(crate) fn set_pool(&mut self, name: &str) -> Result<(), RuleError> {
        self.destination = Destination::Pool(self.services.named_pool(name)?.name().clone());
        self.decided("pool");
        Ok(())
    }
}

impl Deref for Exchange {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// A copy of a request, ordered by a rule.
#[derive(Clone, Debug)]
pub struct CloneOrder {
    pub(crate) pool: PoolName,
    pub(crate) server: SocketAddr,
    pub(crate) session: u64,
    pub(crate) seq: u64,
    pub(crate) how: Option<How>,
}

impl CloneOrder {
    /// A copy to this member, outside any session.
    pub fn new(pool: PoolName, server: SocketAddr) -> Self {
        Self { pool, server, session: 0, seq: 0, how: None }
    }

    /// A copy to the member that a session has.
    pub fn assigned(pool: PoolName, to: &Assigned) -> Self {
        Self { pool, server: to.server, session: to.session, seq: to.seq, how: Some(to.how) }
    }

    /// Marks the copy with its session and its number within the session, for analysers.
    pub fn in_session(mut self, session: u64, seq: u64) -> Self {
        self.session = session;
        self.seq = seq;
        self
    }

    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }
}

/// An answer that homing gives by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// The virtual service's error page may stand in the body's place.
    pub(crate) is_replaceable: bool,
}

impl Reply {
    /// An answer without a body; a status outside 200 to 599 becomes 500.
    pub fn new(status: u16) -> Self {
        let status = if (200..600).contains(&status) { status } else { 500 };
        Self { status, headers: Vec::new(), body: Bytes::new(), is_replaceable: true }
    }

    /// Adds a header.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, RuleError> {
        self.headers.push((name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?));
        Ok(self)
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.is_replaceable = false;
        self
    }

    /// A body that the virtual service's error page, if it has one for the status, stands in the place of.
    pub fn fallback_body(self, body: impl Into<Bytes>) -> Self {
        Self { is_replaceable: true, ..self.body(body) }
    }

    pub fn status(&self) -> u16 {
        self.status
    }
}
