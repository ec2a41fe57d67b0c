//! Clone pools with persistence as a rule: every request of a session is copied to one clone member.
//!
//! One rule for each clone section of a virtual service. It names the session by the section's token chain, asks
//! the session table for its member, and orders the copy; the proxy opens the tap. F5's article does the same
//! with an iRule, `session` and `clone pool`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::prelude::*;

/// The rule of one clone section.
pub struct ClonePools {
    section: CloneSection,
    /// Name of the section's session table.
    table: String,
    hash: StableHash,
    /// Members chosen so far, for those that take turns.
    turn: AtomicU64,
    sampled_out: IntCounter,
    loops: IntCounter,
    no_server: IntCounter,
}

/// The sessions of a request, or of a connection; in use as long as this lives.
#[derive(Clone, Default)]
struct InUse(Vec<(PoolName, Arc<Assigned>)>);

impl ClonePools {
    /// A rule for each clone section.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Vec<Arc<dyn Rule>> {
        let vs = setup.virtual_service;
        let rule = |section: &CloneSection| {
            let labels = |reason| [vs.name.as_str(), section.pool.as_str(), reason];
            let skipped =
                |reason: SkipReason| setup.metrics.clone_skipped.with_label_values(&labels(reason.as_str()));
            let dropped =
                |reason: DropReason| setup.metrics.clone_dropped.with_label_values(&labels(reason.as_str()));
            Self {
                section: section.clone(),
                table: format!("clone:{}:{}", vs.name, section.pool),
                hash: StableHash::new(vs.uuid.as_ref().map_or(vs.name.as_str(), |uuid| uuid.as_str())),
                turn: AtomicU64::new(0),
                sampled_out: skipped(SkipReason::SampledOut),
                loops: skipped(SkipReason::Loop),
                no_server: dropped(DropReason::NoServer),
            }
            .into_rule()
        };
        vs.clones.iter().map(rule).collect()
    }

    /// The copy of a request, and its session if a token names one.
    fn order(&self, exchange: &Exchange, headers: &HeaderMap, query: Option<&str>) -> Option<Ordered> {
        if is_copy(headers) {
            self.loops.inc();
            return None;
        }
        let tls_session_id = exchange.tls_session_id();
        let facts = token::Facts { tls_session_id, headers, query, client: exchange.client_ip() };
        let found = token::find(&self.section.tokens, &facts)
            .map(|(token, value)| (token, token::key(token, &value)));
        if found.as_ref().is_some_and(|(_, key)| !self.hash.is_sampled(key, self.section.sample_permille)) {
            self.sampled_out.inc();
            return None;
        }
        let pool = exchange.pools().named(self.section.pool.as_str()).ok()?;
        let ordered = match found {
            Some((token, key)) => self.in_session(exchange, pool, token, &key),
            None => {
                let server = self.choose(exchange, pool, exchange.request_id().0);
                server.map(|server| Ordered::alone(pool.name(), server, exchange.request_id()))
            }
        };
        if ordered.is_none() {
            self.no_server.inc();
        }
        ordered
    }

    fn in_session(&self, exchange: &Exchange, pool: &Pool, token: &Token, key: &[u8]) -> Option<Ordered> {
        let assign = Assign { timeout: self.section.timeout, lifetime: self.section.lifetime };
        let is_up = |server| pool.server(server).is_some_and(|server| server.is_up());
        let choose = || self.choose(exchange, pool, self.hash.of(key));
        let assigned = exchange.session().assign(&self.table, key, assign, is_up, choose)?;
        let order =
            CloneOrder::new(pool.name().clone(), assigned.server).in_session(assigned.session, assigned.seq);
        let of_connection = matches!(token, Token::TlsSessionId);
        Some(Ordered { order, session: Some(Arc::new(assigned)), of_connection })
    }

    /// A member for a new session, among those that are up.
    fn choose(&self, exchange: &Exchange, pool: &Pool, session: u64) -> Option<SocketAddr> {
        let counts_sessions = self.section.selection == CloneSelection::LeastSessions;
        let sessions = match counts_sessions {
            true => exchange.session().per_server(&self.table),
            false => HashMap::new(),
        };
        let candidate = |server: &Arc<Server>| Candidate {
            addr: server.addr(),
            ratio: server.config().ratio,
            sessions: sessions.get(&server.addr()).copied().unwrap_or(0),
        };
        let candidates: Vec<_> = pool.active_servers().map(candidate).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        exchange.with_rng(|rng| choose(self.section.selection, &candidates, turn, session, rng))
    }

    /// The request's session in this section's table.
    fn session_of(&self, exchange: &Exchange) -> Option<Arc<Assigned>> {
        let InUse(sessions) = exchange.get()?;
        sessions.iter().find(|(pool, _)| *pool == self.section.pool).map(|(_, session)| session.clone())
    }

    /// Keeps the session in use: until the request ends, or the connection that it is named by.
    fn hold(&self, exchange: &mut Exchange, ordered: &Ordered) {
        let Some(session) = &ordered.session else { return };
        let held = (self.section.pool.clone(), session.clone());
        if ordered.of_connection {
            exchange.with_connection_value(|InUse(sessions)| {
                if sessions.iter().all(|(pool, _)| *pool != self.section.pool) {
                    sessions.push(held.clone());
                }
            });
        }
        exchange.get_or_insert(InUse::default()).0.push(held);
    }
}

/// A copy that is to be made.
struct Ordered {
    order: CloneOrder,
    session: Option<Arc<Assigned>>,
    /// The session is its connection's: in use as long as that is open.
    of_connection: bool,
}

impl Ordered {
    /// Of a request that no token names: a session of its own, and none in the table.
    fn alone(pool: &PoolName, server: SocketAddr, request: RequestId) -> Self {
        let order = CloneOrder::new(pool.clone(), server).in_session(request.0, 0);
        Self { order, session: None, of_connection: false }
    }
}

#[async_trait]
impl Rule for ClonePools {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        if !request.clones_allowed() {
            return Ok(());
        }
        if let Some(ordered) = self.order(request, request.headers(), request.query()) {
            self.hold(request, &ordered);
            request.order_clone(ordered.order);
        }
        Ok(())
    }

    /// A request whose home is away came to this site's servers after all.
    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        if !lb.came_home() || self.session_of(lb).is_some() {
            return Ok(());
        }
        if let Some(ordered) = self.order(lb, lb.headers(), lb.query()) {
            self.hold(lb, &ordered);
            lb.order_clone(ordered.order);
        }
        Ok(())
    }

    /// A session that gains a token stays whole: the cookie that the answer sets names the same entry.
    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        let Some(session) = self.session_of(response) else { return Ok(()) };
        for field in response.headers().get_all("set-cookie") {
            let pair = field.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
            let names = |token: &&Token| matches!(token, Token::Cookie(known) if known.as_bytes() == name);
            if let Some(token) = self.section.tokens.iter().find(names).filter(|_| !value.is_empty()) {
                response.session().bind(&self.table, &token::key(token, value), &session);
            }
        }
        Ok(())
    }
}
