//! The contexts of a request's events. Each dereferences to [`Exchange`], and adds what its event allows.

use std::{
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{
    RuleError,
    exchange::{CloneOrder, Destination, Exchange, Reply},
};
use crate::{names::PoolName, pool::Pool};

/// Lets a context be used as the exchange that it holds.
macro_rules! holds_exchange {
    ($($context:ident),*) => {$(
        impl Deref for $context<'_> {
            type Target = Exchange;

            fn deref(&self) -> &Exchange {
                self.exchange
            }
        }

        impl DerefMut for $context<'_> {
            fn deref_mut(&mut self) -> &mut Exchange {
                self.exchange
            }
        }
    )*};
}

holds_exchange!(Request, RequestData, LbEvent, RequestSend, Response, ResponseData, Finished);

/// Context of `http_request`: the request as the client sent it, with its `Cookie` fields joined.
pub struct Request<'a> {
    head: &'a mut RequestHeader,
    exchange: &'a mut Exchange,
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a mut RequestHeader, exchange: &'a mut Exchange) -> Self {
        Self { head, exchange }
    }

    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path, without the query: iRules' `HTTP::path`.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The query, without `?`: iRules' `HTTP::query`.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// Path and query: iRules' `HTTP::uri`.
    pub fn path_and_query(&self) -> &str {
        self.head.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// The host that the client asked for, with its port if it named one: iRules' `HTTP::host`.
    pub fn host(&self) -> &str {
        host(self.head)
    }

    /// A header's first value, if it is text: iRules' `HTTP::header`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// A cookie's first value: iRules' `HTTP::cookie`.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        cookies(&self.head.headers).find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All values of a cookie, in the order sent.
    pub fn cookies<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        cookies(&self.head.headers).filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Sets a header, replacing all of its values.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), RuleError> {
        let (name, value) = (name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
        self.head.insert_header(name, value).map_err(|error| RuleError::new(error.to_string()))
    }

    /// Removes a header; whether there was one.
    pub fn remove_header(&mut self, name: &str) -> bool {
        self.head.remove_header(name).is_some()
    }

    /// Rewrites path and query.
    ///
    /// # Errors
    /// It is not a path of an URI.
    pub fn set_path_and_query(&mut self, target: &str) -> Result<(), RuleError> {
        let target: http::uri::PathAndQuery = target.parse()?;
        let mut parts = self.head.uri.clone().into_parts();
        parts.path_and_query = Some(target);
        self.head.set_uri(http::Uri::from_parts(parts)?);
        Ok(())
    }

    /// Sends this request to this pool: iRules' `pool`.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn pool(&mut self, name: &str) -> Result<(), RuleError> {
        self.exchange.set_pool(name)
    }

    /// Sends this request to this server of a pool and to no other: iRules' `pool … member …`.
    ///
    /// # Errors
    /// There is no such pool, or it has no such server.
    pub fn server(&mut self, pool: &str, server: SocketAddr) -> Result<(), RuleError> {
        let pool = self.named_member(pool, server)?;
        self.exchange.destination = Destination::Server(pool, server);
        Ok(())
    }

    /// Sends this request to one server of a pool that only its holder knows. A rule that runs later may choose
    /// otherwise, see [`Exchange::goes_to`].
    pub fn server_of(&mut self, pool: &Arc<Pool>, server: SocketAddr) {
        self.exchange.come_home();
        let handle = Destination::Handle(pool.clone(), server);
        self.exchange.fallback = std::mem::replace(&mut self.exchange.destination, handle);
    }

    /// App persistence is not applied: iRules' `persist none`.
    pub fn persist_none(&mut self) {
        self.exchange.persist_none = true;
    }

    /// Copies this request to this member: iRules' `clone pool … member …`.
    ///
    /// # Errors
    /// There is no such pool, or it has no such server.
    pub fn clone_to(&mut self, pool: &str, server: SocketAddr) -> Result<(), RuleError> {
        let pool = self.named_member(pool, server)?;
        self.exchange.clones.push(CloneOrder::new(pool, server));
        Ok(())
    }

    /// Orders a copy.
    pub fn order_clone(&mut self, order: CloneOrder) {
        self.exchange.clones.push(order);
    }

    /// No copies of this request, whoever ordered or orders them.
    pub fn clone_none(&mut self) {
        self.exchange.clones_refused = true;
    }

    /// Answers without a server: iRules' `HTTP::respond`. Rules that follow are not asked.
    pub fn respond(&mut self, reply: Reply) {
        self.exchange.reply = Some(reply);
    }

    /// Takes another party's word for who the client is: its address, whether it came over TLS, and the
    /// identity of its TLS session. Only for a party that has proven itself.
    pub fn trust_client(&mut self, client: IpAddr, secure: bool, tls_session_id: Option<Vec<u8>>) {
        self.exchange.client = client;
        self.exchange.secure = secure;
        self.exchange.carried_session = Some(tls_session_id.unwrap_or_default());
    }

    /// The head as Pingora holds it.
    pub fn pingora(&mut self) -> &mut RequestHeader {
        self.head
    }
}

/// Context of `http_request_data`.
pub struct RequestData<'a> {
    /// The chunk; a rule may put another in its place. `None` at an end without data.
    pub chunk: &'a mut Option<Bytes>,
    end: bool,
    exchange: &'a mut Exchange,
}

impl<'a> RequestData<'a> {
    pub(crate) fn new(chunk: &'a mut Option<Bytes>, end: bool, exchange: &'a mut Exchange) -> Self {
        Self { chunk, end, exchange }
    }

    /// Whether the body ends with this chunk.
    pub fn is_end(&self) -> bool {
        self.end
    }
}

/// Context of `lb_selected` and `lb_failed`.
pub struct LbEvent<'a> {
    head: &'a RequestHeader,
    exchange: &'a mut Exchange,
    phase: LbPhase<'a>,
    reselect: bool,
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
        Self { head, exchange, phase, reselect: false }
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
        self.reselect = true;
    }

    /// Chooses again, from this pool.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn reselect_from(&mut self, pool: &str) -> Result<(), RuleError> {
        self.exchange.set_pool(pool)?;
        self.reselect = true;
        Ok(())
    }

    /// Chooses again, from where the request would have gone without [`Request::server_of`].
    pub fn reselect_here(&mut self) {
        self.exchange.come_home();
        self.reselect = true;
    }

    /// Orders a copy, for a request of which none was wanted before.
    pub fn order_clone(&mut self, order: CloneOrder) {
        self.exchange.clones.push(order);
    }

    /// Answers without a server.
    pub fn respond(&mut self, reply: Reply) {
        self.exchange.reply = Some(reply);
    }

    pub(crate) fn wants_reselect(&self) -> bool {
        self.reselect
    }
}

/// Context of `http_request_send`: the request as the server will see it. Changes are for this attempt only.
pub struct RequestSend<'a> {
    head: &'a mut RequestHeader,
    exchange: &'a mut Exchange,
    server: SocketAddr,
}

impl<'a> RequestSend<'a> {
    pub(crate) fn new(head: &'a mut RequestHeader, exchange: &'a mut Exchange, server: SocketAddr) -> Self {
        Self { head, exchange, server }
    }

    /// The server that it goes to.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    pub fn method(&self) -> &Method {
        &self.head.method
    }

    pub fn host(&self) -> &str {
        host(self.head)
    }

    /// Path and query.
    pub fn path_and_query(&self) -> &str {
        self.head.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Sets a header, replacing all of its values.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), RuleError> {
        let (name, value) = (name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
        self.head.insert_header(name, value).map_err(|error| RuleError::new(error.to_string()))
    }

    /// Sets a header to bytes that need not be text.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn set_header_bytes(&mut self, name: &str, value: &[u8]) -> Result<(), RuleError> {
        let (name, value) = (name.parse::<HeaderName>()?, HeaderValue::from_bytes(value)?);
        self.head.insert_header(name, value).map_err(|error| RuleError::new(error.to_string()))
    }

    /// Adds a value to a header.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn append_header(&mut self, name: &str, value: &str) -> Result<(), RuleError> {
        let (name, value) = (name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
        self.head.append_header(name, value).map_err(|error| RuleError::new(error.to_string()))?;
        Ok(())
    }

    /// Removes a header; whether there was one.
    pub fn remove_header(&mut self, name: &str) -> bool {
        self.head.remove_header(name).is_some()
    }

    /// The head as Pingora holds it.
    pub fn pingora(&mut self) -> &mut RequestHeader {
        self.head
    }
}

/// Context of `http_response`.
pub struct Response<'a> {
    head: &'a mut ResponseHeader,
    exchange: &'a mut Exchange,
    server: Option<SocketAddr>,
    resendable: bool,
    retry: bool,
}

impl<'a> Response<'a> {
    pub(crate) fn new(
        head: &'a mut ResponseHeader,
        exchange: &'a mut Exchange,
        server: Option<SocketAddr>,
        resendable: bool,
    ) -> Self {
        Self { head, exchange, server, resendable, retry: false }
    }

    /// Whether the request could be sent to another server in place of this answer.
    pub fn is_resendable(&self) -> bool {
        self.server.is_some() && self.resendable
    }

    /// Throws this answer away and asks a server from where the request would have gone without
    /// [`Request::server_of`]: iRules' `HTTP::retry`. Without effect if the request is not resendable.
    pub fn retry_here(&mut self) {
        if self.is_resendable() {
            self.exchange.come_home();
            self.retry = true;
        }
    }

    /// Throws this answer away and gives another in its place.
    pub fn respond(&mut self, reply: Reply) {
        self.exchange.reply = Some(reply);
    }

    pub(crate) fn wants_retry(&self) -> bool {
        self.retry
    }

    /// The server that answered; `None`: homing itself.
    pub fn server(&self) -> Option<SocketAddr> {
        self.server
    }

    /// iRules' `HTTP::status`.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// Changes the status.
    ///
    /// # Errors
    /// It is not between 100 and 999.
    pub fn set_status(&mut self, status: u16) -> Result<(), RuleError> {
        self.head.set_status(status).map_err(|error| RuleError::new(error.to_string()))
    }

    /// A header's first value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// All values of a header that is a list, as one (RFC 9110, 5.3). Values that are no text are left out.
    pub fn joined(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Sets a header, replacing all of its values.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), RuleError> {
        let (name, value) = (name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
        self.head.insert_header(name, value).map_err(|error| RuleError::new(error.to_string()))
    }

    /// Adds a value to a header.
    ///
    /// # Errors
    /// The name or the value has bytes that no header may have.
    pub fn append_header(&mut self, name: &str, value: &str) -> Result<(), RuleError> {
        let (name, value) = (name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
        self.head.append_header(name, value).map_err(|error| RuleError::new(error.to_string()))?;
        Ok(())
    }

    /// Removes a header; whether there was one.
    pub fn remove_header(&mut self, name: &str) -> bool {
        self.head.remove_header(name).is_some()
    }

    /// The head as Pingora holds it.
    pub fn pingora(&mut self) -> &mut ResponseHeader {
        self.head
    }
}

/// Context of `http_response_data`.
pub struct ResponseData<'a> {
    /// The chunk; a rule may put another in its place, if the answer's length is not fixed by a header.
    pub chunk: &'a mut Option<Bytes>,
    end: bool,
    exchange: &'a mut Exchange,
}

impl<'a> ResponseData<'a> {
    pub(crate) fn new(chunk: &'a mut Option<Bytes>, end: bool, exchange: &'a mut Exchange) -> Self {
        Self { chunk, end, exchange }
    }

    /// Whether the body ends with this chunk.
    pub fn is_end(&self) -> bool {
        self.end
    }
}

/// Context of `http_finished`.
pub struct Finished<'a> {
    /// The status that the client got; 0 if it went away before.
    pub status: u16,
    /// Bytes of the answer's body.
    pub body_bytes_sent: usize,
    /// From the request's head to the end.
    pub duration: Duration,
    /// The server that was asked last.
    pub server: Option<SocketAddr>,
    pub(crate) exchange: &'a mut Exchange,
}

/// Name and value of each cookie, in order. Junk between semicolons is passed over.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// The request's host: its authority where it has one (HTTP/2, absolute form), else its `Host` field.
pub(crate) fn host(head: &RequestHeader) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}
