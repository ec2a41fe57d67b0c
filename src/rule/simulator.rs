//! Runs rules without sockets: virtual time, pools whose servers go up and down at will, TLS facts, the session
//! table. For tests of rules, ours and users'.
//!
//! ```
//! # use homing::prelude::*;
//! struct Blue;
//!
//! #[async_trait]
//! impl Rule for Blue {
//!     async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
//!         request.pool("blue")
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let simulator = Simulator::new(Blue).pool("blue", ["192.0.2.1:80"]);
//! let simulated = simulator.connect(None).await.get("/").await;
//! assert_eq!(simulated.pool(), Some("blue"));
//! # Ok::<(), std::io::Error>(()) })?;
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pingora::http::{RequestHeader, ResponseHeader};
use prometheus::IntGauge;

use super::{
    Chain, ChainEntry, CloneEvent, CloneOrder, ConnectionState, Destination, Exchange, Reply, Request,
    RequestId, Response, Rule, Services,
};
use crate::{
    clock::Clock,
    clone::DropReason,
    config,
    metrics::Metrics,
    names::PoolName,
    pool::{Health, Pool},
    session::SessionTable,
    tls::TlsFacts,
};

/// A rule, and a world for it.
pub struct Simulator {
    chain: Chain,
    pools: HashMap<PoolName, Arc<Pool>>,
    sessions: Arc<SessionTable>,
    clock: Clock,
    metrics: Metrics,
    drops: Option<DropReason>,
}

impl Simulator {
    /// A world without pools, in which chance is the same at every run.
    pub fn new(rule: impl Rule) -> Self {
        let on_error = config::OnError::FailClosed;
        Self::with_chain(vec![ChainEntry { name: "simulated".into(), rule: Arc::new(rule), on_error }])
    }

    /// The same for several rules.
    pub fn with_chain(entries: Vec<ChainEntry>) -> Self {
        let metrics = Metrics::new();
        let clock = Clock::virtual_at(Duration::from_secs(1_500_000_000));
        Self {
            chain: Chain::new(entries, &metrics),
            pools: HashMap::new(),
            sessions: Arc::new(SessionTable::new(10_000, [7; 16], &metrics, clock.now())),
            clock,
            metrics,
            drops: None,
        }
    }

    /// Adds a pool whose servers are all up.
    ///
    /// # Panics
    /// An address is not `ip:port`.
    pub fn pool<const N: usize>(mut self, name: &str, servers: [&str; N]) -> Self {
        let servers = servers.map(|addr| addr.parse().expect("a server's address is ip:port"));
        let config = config::Pool::of(name.into(), servers);
        self.pools
            .insert(name.into(), Pool::new(&Arc::new(config), &self.metrics, None, SystemTime::UNIX_EPOCH));
        self
    }

    /// Drops every copy for this reason, as soon as its member is selected.
    pub fn dropping_clones(mut self, reason: DropReason) -> Self {
        self.drops = Some(reason);
        self
    }

    /// Takes a server up or down.
    ///
    /// # Panics
    /// There is no such server.
    pub fn set_up(&self, pool: &str, server: &str, up: bool) {
        let addr = server.parse().expect("a server's address is ip:port");
        let server =
            self.pools.get(pool).and_then(|pool| pool.server(addr)).expect("the pool has the server");
        let health = if up { Health::Up } else { Health::Down { reason: "simulated".into() } };
        server.set_health(health, SystemTime::UNIX_EPOCH);
    }

    /// What the rules counted, and what was counted of them.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A client connects, over TLS if facts are given, and the connection's events run.
    pub async fn connect(&self, tls: Option<TlsFacts>) -> SimulatedConnection<'_> {
        let services = Services::new(self.pools.clone(), self.sessions.clone(), self.clock.clone(), Some(1));
        let state = Arc::new(ConnectionState::new(
            "simulated".into(),
            Arc::new(services),
            SocketAddr::from(([192, 0, 2, 99], 50_000)),
            SocketAddr::from(([192, 0, 2, 1], if tls.is_some() { 443 } else { 80 })),
            tls,
            IntGauge::new("simulated", "simulated").expect("a valid name"),
        ));
        state.accept(&self.chain).await;
        SimulatedConnection { simulator: self, state }
    }
}

/// A simulated client's connection.
pub struct SimulatedConnection<'a> {
    simulator: &'a Simulator,
    state: Arc<ConnectionState>,
}

impl SimulatedConnection<'_> {
    /// Whether a rule rejected it.
    pub fn is_rejected(&self) -> bool {
        self.state.is_rejected()
    }

    /// The client goes away.
    pub fn close(self) {
        self.simulator.chain.client_closed(&self.state);
    }

    /// Sends `GET path` with `Host: simulated.test`.
    pub async fn get(&self, path: &str) -> Simulated {
        self.send(path, &[]).await
    }

    /// Sends `GET path` with these headers beside Host. The app answers 200.
    ///
    /// # Panics
    /// A header's name or value has bytes that no header may have.
    pub async fn send(&self, path: &str, headers: &[(&str, &str)]) -> Simulated {
        let mut head = RequestHeader::build("GET", path.as_bytes(), None).expect("a valid path");
        for (name, value) in [("Host", "simulated.test")].iter().chain(headers) {
            head.append_header(name.to_string(), *value).expect("a valid header");
        }
        let services = self.state.services.clone();
        let mut exchange = Exchange::new(self.state.clone(), services, RequestId::new(1));
        let chain = &self.simulator.chain;
        let stopped = chain.http_request(&mut Request::new(&mut head, &mut exchange)).await.is_err();
        let status = match (&exchange.reply, stopped) {
            (_, true) => 500,
            (Some(reply), _) => reply.status(),
            (None, _) => 200,
        };
        if exchange.reply.is_none() && !stopped {
            self.tell_of_clones(&mut exchange);
        }
        let mut answer = ResponseHeader::build(status, None).expect("a valid status");
        let from_app = exchange.reply.is_none();
        let server = from_app.then(|| self.state.local());
        let stopped =
            chain.http_response(&mut Response::new(&mut answer, &mut exchange, server, true)).await.is_err();
        if stopped {
            answer.set_status(500).expect("a valid status");
        }
        Simulated { head, answer, exchange }
    }

    /// The events of the copies that were ordered.
    fn tell_of_clones(&self, exchange: &mut Exchange) {
        if !exchange.clones_allowed() {
            return;
        }
        let chain = &self.simulator.chain;
        for (pool, reason) in std::mem::take(&mut exchange.never_ordered) {
            chain.clone_dropped(&mut CloneEvent::never_ordered(exchange, &pool, reason));
        }
        for order in exchange.clones.clone() {
            chain.clone_selected(&mut CloneEvent::selected(exchange, &order));
            if let Some(reason) = self.simulator.drops {
                chain.clone_dropped(&mut CloneEvent::dropped(exchange, &order, reason));
            }
        }
    }
}

/// What became of a simulated request.
pub struct Simulated {
    head: RequestHeader,
    answer: ResponseHeader,
    exchange: Exchange,
}

impl Simulated {
    /// The pool that a rule chose; `None`: the virtual service's own.
    pub fn pool(&self) -> Option<&str> {
        match &self.exchange.destination {
            Destination::Default => None,
            Destination::Pool(pool) | Destination::Server(pool, _) => Some(pool.as_str()),
            Destination::Handle(pool, _) => Some(pool.name().as_str()),
        }
    }

    /// The copies that rules ordered; none where one refused them.
    pub fn clones(&self) -> &[CloneOrder] {
        if self.exchange.clones_allowed() { &self.exchange.clones } else { &[] }
    }

    /// The answer that a rule gave.
    pub fn reply(&self) -> Option<&Reply> {
        self.exchange.reply.as_ref()
    }

    /// A header of the request as the server would see it.
    pub fn request_header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The status that the client would see.
    pub fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// A header of the answer as the client would see it.
    pub fn response_header(&self, name: &str) -> Option<&str> {
        self.answer.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::rule::RuleResult;

    /// Tells the server the first that is up, and the client the status.
    struct FirstUp;

    #[async_trait]
    impl Rule for FirstUp {
        async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
            match request.pools().active_servers("app")?.first() {
                Some(server) => request.set_header("X-First", server.to_string())?,
                None => request.respond(Reply::new(503)),
            }
            Ok(())
        }

        async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
            response.set_header("X-Status", response.status().to_string())
        }
    }

    #[tokio::test]
    async fn servers_go_up_and_down_and_heads_are_seen_as_they_would_be_sent() {
        let simulator = Simulator::new(FirstUp).pool("app", ["192.0.2.1:80", "192.0.2.2:80"]);
        let connection = simulator.connect(None).await;
        for (up, first, status) in [
            ([true, true], Some("192.0.2.1:80"), "200"),
            ([false, true], Some("192.0.2.2:80"), "200"),
            ([false, false], None, "503"),
            ([true, false], Some("192.0.2.1:80"), "200"),
        ] {
            simulator.set_up("app", "192.0.2.1:80", up[0]);
            simulator.set_up("app", "192.0.2.2:80", up[1]);
            let simulated = connection.get("/").await;
            assert_eq!(simulated.request_header("x-first"), first, "{up:?}");
            assert_eq!(simulated.response_header("x-status"), Some(status), "{up:?}");
        }
    }
}
