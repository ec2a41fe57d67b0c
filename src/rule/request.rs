//! The contexts of a request's way to a server: `http_request`, `http_request_data`, `http_request_send`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use pingora::http::RequestHeader;

use super::{
    RuleError,
    exchange::{CloneOrder, Destination, Exchange, Preferred, Reply},
    request_id::{RequestId, X_REQUEST_ID},
};
use crate::{
    names::PoolName,
    pool::{self, Pool},
};

holds_exchange!(Request, RequestData, RequestSend);
edits_headers!(Request, RequestSend);

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

    /// A cookie's first value: iRules' `HTTP::cookie`.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        cookies(&self.head.headers).find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All values of a cookie, in the order sent.
    pub fn cookies<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        cookies(&self.head.headers).filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Rewrites path and query.
    ///
    /// # Errors
    /// It is not a path of an URI.
    pub fn set_path_and_query(&mut self, target: &str) -> Result<(), RuleError> {
        set_target(self.head, target)
    }

    /// Sends this request to this pool: iRules' `pool`.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn pool(&mut self, name: &str) -> Result<(), RuleError> {
        self.exchange.set_pool(name)
    }

    /// Sends this request to this pool where this site serves it: at once, or if the server that only a rule knows
    /// cannot have it.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn pool_here(&mut self, name: &str) -> Result<(), RuleError> {
        if !self.exchange.goes_elsewhere() {
            return self.pool(name);
        }
        self.exchange.fallback = Destination::Pool(self.named_pool(name)?.name().clone());
        Ok(())
    }

    /// Sends this request to this server of a pool and to no other: iRules' `pool … member …`.
    ///
    /// # Errors
    /// There is no such pool, or it has no such server.
    pub fn server(&mut self, pool: &str, server: SocketAddr) -> Result<(), RuleError> {
        let pool = self.named_member(pool, server)?;
        self.exchange.decided("server");
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

    /// Sends this request to this server of the virtual service's own pool while it is up, else to the one that the
    /// balancer chooses. It counts only where no rule chooses a pool or a server, and none says
    /// [`persist_none`](Self::persist_none).
    #[doc(alias = "persist")]
    pub fn prefer(&mut self, server: SocketAddr) {
        self.exchange.preferred = Some(Preferred { pool: None, server, even_down: false });
    }

    /// The same for a server of a named pool, which counts where the balancer is to choose from that one.
    pub fn prefer_of(&mut self, pool: &PoolName, server: SocketAddr) {
        self.exchange.preferred = Some(Preferred { pool: Some(pool.clone()), server, even_down: false });
    }

    /// The same, also while the server is down.
    pub fn insist_on(&mut self, pool: &PoolName, server: SocketAddr) {
        self.exchange.preferred = Some(Preferred { pool: Some(pool.clone()), server, even_down: true });
    }

    /// Pools with `lb_algorithm_hash: consistent_hash_custom_string` choose the server by this text: requests with the
    /// same text go to the same server.
    #[doc(alias("chash", "hash"))]
    pub fn hash_by(&mut self, key: &str) {
        self.exchange.custom_hash = Some(pool::hash_of(key.as_bytes()));
    }

    /// App persistence is not applied: iRules' `persist none`.
    pub fn persist_none(&mut self) {
        self.exchange.decided("persist_none");
        self.exchange.persist_none = true;
    }

    /// Copies this request to this member: iRules' `clone pool … member …`. It stands in place of the choice that
    /// a clone section of the same pool would make, and that section's lists and sample do not matter.
    ///
    /// # Errors
    /// There is no such pool, or it has no such server.
    pub fn clone_to(&mut self, pool: &str, server: SocketAddr) -> Result<(), RuleError> {
        let pool = self.named_member(pool, server)?;
        self.exchange.decided("clone_to");
        self.exchange.clones.push(CloneOrder::new(pool, server));
        Ok(())
    }

    /// Orders a copy.
    pub fn order_clone(&mut self, order: CloneOrder) {
        self.exchange.clones.push(order);
    }

    /// No copies of this request, whoever ordered or orders them.
    pub fn clone_none(&mut self) {
        self.exchange.decided("clone_none");
        self.exchange.clones_refused = true;
    }

    /// Answers without a server: iRules' `HTTP::respond`. Rules that follow are not asked.
    pub fn respond(&mut self, reply: Reply) {
        self.exchange.decided("respond");
        self.exchange.reply = Some(reply);
    }

    /// Takes another party's word for who the client is: its address, whether it came over TLS, and the
    /// identity of its TLS session. Only for a party that has proven itself.
    pub fn trust_client(&mut self, client: IpAddr, secure: bool, tls_session_id: Option<Vec<u8>>) {
        self.exchange.client = client;
        self.exchange.secure = secure;
        self.exchange.carried_session = Some(tls_session_id.unwrap_or_default());
    }

    /// Takes another party's word for what the request is called, in logs and at servers. Only for a party that has
    /// proven itself.
    pub fn trust_request_id(&mut self, id: RequestId) {
        if self.exchange.tells_request_id {
            // It says what the id was until now; a name and a value that are well formed are taken.
            let _ = self.head.insert_header(X_REQUEST_ID.clone(), id.to_field());
        }
        self.exchange.request_id = id;
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

    /// Whether the body ends with this chunk. A request without a body has one such event where its server is spoken to
    /// in HTTP/1.1, and none in HTTP/2.
    pub fn is_end(&self) -> bool {
        self.end
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

    /// Rewrites path and query.
    ///
    /// # Errors
    /// It is not a path of an URI.
    pub fn set_path_and_query(&mut self, target: &str) -> Result<(), RuleError> {
        set_target(self.head, target)
    }

    /// Has the server see another host, with or without a port.
    ///
    /// # Errors
    /// It is not the authority of an URI.
    pub fn set_host(&mut self, host: &str) -> Result<(), RuleError> {
        let authority: http::uri::Authority = host.parse()?;
        self.head.insert_header(header::HOST, authority.as_str())?;
        if self.head.uri.authority().is_some() {
            let mut parts = self.head.uri.clone().into_parts();
            parts.authority = Some(authority);
            self.head.set_uri(http::Uri::from_parts(parts)?);
        }
        Ok(())
    }

    /// The head as Pingora holds it.
    pub fn pingora(&mut self) -> &mut RequestHeader {
        self.head
    }
}

fn set_target(head: &mut RequestHeader, target: &str) -> Result<(), RuleError> {
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(target.parse()?);
    head.set_uri(http::Uri::from_parts(parts)?);
    Ok(())
}

/// Name and value of each cookie, in order. Junk between semicolons is passed over.
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
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
