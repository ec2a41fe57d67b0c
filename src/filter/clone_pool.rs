//! Clone pools with persistence as a rule: every request of a session is copied to one clone member.
//!
//! One rule for each clone section of a virtual service. It names the session by the section's token chain, asks
//! the session table for its member, and orders the copy; the proxy opens the tap. F5's article does the same
//! with an iRule, `session` and `clone pool`.
//!
//! A request that the section's lists, or a rule, exclude is decided on before its session is asked for: it has no
//! number there and starts none, but one that is there lives on, so that a client which does what is not copied for
//! a while does not come back as another. A tunnel is one of its session's requests: its number is missing among
//! the copies. The sample goes by the token alone, so that every node takes the same, and of two sections with the
//! same tokens the larger sample has the smaller; a session that gains a token is sampled by the new one from then on.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::http_rules::OnlyClones;
use crate::prelude::*;

/// The rule of one clone section.
pub struct ClonePools {
    /// The section's place among those of its virtual service.
    index: usize,
    section: CloneSection,
    /// Name of the section's session table.
    table: String,
    hash: StableHash,
    /// Members chosen so far, for those that take turns.
    turn: AtomicU64,
    sampled_out: IntCounter,
    loops: IntCounter,
    no_server: IntCounter,
    proxied: IntCounter,
    filtered: IntCounter,
}

/// The sections that have decided about a request, by index, each with the request's session if it has one. The
/// same for a connection whose TLS session names it. A session is in use as long as this lives.
#[derive(Clone, Default)]
struct Considered(Vec<(usize, Option<Arc<Assigned>>)>);

/// The sections that have assigned a session to a request of this connection.
#[derive(Clone, Default)]
struct Seen(Vec<usize>);

impl ClonePools {
    /// A rule for each clone section.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Vec<Arc<dyn Rule>> {
        let vs = setup.virtual_service;
        let rule = |(index, section): (usize, &CloneSection)| {
            let labels = |reason| [vs.name.as_str(), section.pool.as_str(), reason];
            let skipped =
                |reason: SkipReason| setup.metrics.clone_skipped.with_label_values(&labels(reason.as_str()));
            let dropped =
                |reason: DropReason| setup.metrics.clone_dropped.with_label_values(&labels(reason.as_str()));
            Self {
                index,
                section: section.clone(),
                table: section.table(&vs.name),
                hash: StableHash::new(vs.uuid.as_ref().map_or(vs.name.as_str(), |uuid| uuid.as_str())),
                turn: AtomicU64::new(0),
                sampled_out: skipped(SkipReason::SampledOut),
                loops: skipped(SkipReason::Loop),
                no_server: dropped(DropReason::NoServer),
                proxied: skipped(SkipReason::Proxied),
                filtered: skipped(SkipReason::Filtered),
            }
            .into_rule()
        };
        vs.clones.iter().enumerate().map(rule).collect()
    }

    /// The copy of a request, and its session if a token names one; `None`: none is wanted of this section.
    fn order(&self, exchange: &Exchange, asked: &Asked<'_>) -> Result<Option<Ordered>, DropReason> {
        if self.is_ordered(exchange) {
            return Ok(None); // A rule chose the member.
        }
        if is_copy(asked.headers) {
            self.loops.inc();
            return Ok(None);
        }
        if self.is_passed_over(exchange) || !self.section.copied.includes(asked.method, asked.path) {
            self.filtered.inc();
            self.touch(exchange, asked);
            return Ok(None);
        }
        let found = self.session_key(exchange, asked);
        if found.as_ref().is_some_and(|(_, key)| !self.hash.is_sampled(key, self.section.sample_permille)) {
            self.sampled_out.inc();
            return Ok(None);
        }
        let Ok(pool) = exchange.pools().named(self.section.pool.as_str()) else {
            return Err(DropReason::NoServer);
        };
        let ordered = match found {
            Some((token, key)) => self.in_session(exchange, pool, token, &key),
            None => {
                let server = self.choose(exchange, pool, exchange.request_id().number());
                server.map(|server| Ordered::alone(pool.name(), server, exchange.request_id()))
            }
        };
        ordered.map(Some).ok_or(DropReason::NoServer)
    }

    /// The first token of the chain that the request has, and the key of its session.
    fn session_key(&self, exchange: &Exchange, asked: &Asked<'_>) -> Option<(&Token, Vec<u8>)> {
        let facts = token::Facts {
            tls_session_id: exchange.tls_session_id(),
            headers: asked.headers,
            query: asked.query,
            client: exchange.client_ip(),
        };
        let (token, value) = token::find(&self.section.tokens, &facts)?;
        Some((token, token::key(token, &value)))
    }

    /// A request that is not copied keeps its session alive, where there is one, but has no number in it: to the
    /// analyser, neither is the session cut in two nor anything missing.
    fn touch(&self, exchange: &Exchange, asked: &Asked<'_>) {
        if let Some((_, key)) = self.session_key(exchange, asked) {
            exchange.session().touch(&self.table, &key);
        }
    }

    fn in_session(&self, exchange: &Exchange, pool: &Pool, token: &Token, key: &[u8]) -> Option<Ordered> {
        let refresh = self.refresh(exchange);
        let assign = Assign { timeout: self.section.timeout, lifetime: self.section.lifetime, refresh };
        let is_up = |server| pool.server(server).is_some_and(|server| server.is_up());
        let choose = || self.choose(exchange, pool, self.hash.of(key));
        let assigned = exchange.session().assign(&self.table, key, assign, is_up, choose)?;
        let order = CloneOrder::assigned(pool.name().clone(), &assigned);
        // The connection of a hop is the peer's, and shared by its clients.
        let of_connection = matches!(token, Token::TlsSessionId) && !exchange.is_carried();
        Some(Ordered { order, session: Some(Arc::new(assigned)), of_connection })
    }

    /// What restarts the session's idle timeout. A hop's connection is the peer's: which of them is new to the
    /// client is not known here.
    fn refresh(&self, exchange: &Exchange) -> Refresh {
        if self.section.refresh == CloneRefresh::Request || exchange.is_carried() {
            return Refresh::Request;
        }
        let Seen(sections) = exchange.connection_value().unwrap_or_default();
        let is_new = !sections.contains(&self.index);
        if is_new {
            exchange.with_connection_value(|Seen(sections)| sections.push(self.index));
        }
        Refresh::Connection { is_new }
    }

    /// A member for a new session, among those that are up and do not drain.
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
        let selection = match exchange.session().is_shared() {
            // So that two processes, each of which meets the session as new, choose the same.
            true => CloneSelection::Rendezvous,
            false => self.section.selection,
        };
        exchange.with_rng(|rng| choose(selection, &candidates, turn, session, rng))
    }

    /// What this section has decided about a request: nothing yet, or its session, which may be none.
    fn considered<'a>(&self, exchange: &'a Exchange) -> Option<&'a Option<Arc<Assigned>>> {
        let Considered(sections) = exchange.get()?;
        sections.iter().find(|(index, _)| *index == self.index).map(|(_, session)| session)
    }

    /// Whether an HTTP rule left the request to another section.
    fn is_passed_over(&self, exchange: &Exchange) -> bool {
        exchange.get::<OnlyClones>().is_some_and(|OnlyClones(pool)| *pool != self.section.pool)
    }

    /// Whether a copy for the section's pool is ordered, and not made yet.
    fn is_ordered(&self, exchange: &Exchange) -> bool {
        exchange.clones().iter().any(|order| *order.pool() == self.section.pool)
    }

    /// Takes note of a decision; the order that follows from it.
    fn conclude(
        &self,
        exchange: &mut Exchange,
        decided: Result<Option<Ordered>, DropReason>,
    ) -> Option<CloneOrder> {
        let ordered = decided.unwrap_or_else(|reason| {
            self.no_server.inc();
            exchange.clone_never_ordered(&self.section.pool, reason);
            None
        });
        self.keep(exchange, ordered.as_ref());
        ordered.map(|ordered| ordered.order)
    }

    /// Keeps the decision, and the session in use: until the request ends, or the connection that names it.
    fn keep(&self, exchange: &mut Exchange, ordered: Option<&Ordered>) {
        let session = ordered.and_then(|ordered| ordered.session.clone());
        if ordered.is_some_and(|ordered| ordered.of_connection) {
            exchange.with_connection_value(|Considered(sections)| {
                if sections.iter().all(|(index, _)| *index != self.index) {
                    sections.push((self.index, session.clone()));
                }
            });
        }
        exchange.get_or_insert(Considered::default()).0.push((self.index, session));
    }
}

/// What of a request decides about its copies.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
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
    fn alone(pool: &PoolName, server: SocketAddr, request: &RequestId) -> Self {
        let order = CloneOrder::new(pool.clone(), server).in_session(request.number(), 0);
        Self { order, session: None, of_connection: false }
    }
}

#[async_trait]
impl Rule for ClonePools {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        if request.goes_elsewhere() {
            return Ok(());
        }
        let asked = Asked {
            method: request.method(),
            path: request.path(),
            query: request.query(),
            headers: request.headers(),
        };
        if !request.clones_allowed() {
            self.touch(request, &asked);
            return Ok(());
        }
        let decided = self.order(request, &asked);
        if let Some(order) = self.conclude(request, decided) {
            request.order_clone(order);
        }
        Ok(())
    }

    /// A request that was on its way to its home site may have come to a server of this one after all.
    fn lb_selected(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        if !lb.clones_allowed() || self.considered(lb).is_some() {
            return Ok(());
        }
        let asked = Asked { method: lb.method(), path: lb.path(), query: lb.query(), headers: lb.headers() };
        let decided = self.order(lb, &asked);
        if let Some(order) = self.conclude(lb, decided) {
            lb.order_clone(order);
        }
        Ok(())
    }

    /// A session that gains a token stays whole: the cookie that the answer sets names the same entry.
    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        let Some(Some(session)) = self.considered(response).cloned() else { return Ok(()) };
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

    /// Every request is accounted for, those that are not copied too, and those of which a copy was ordered and
    /// is not wanted any more.
    fn http_finished(&self, finished: &mut Finished<'_>) -> RuleResult {
        if self.considered(finished).is_none() || self.is_ordered(finished) {
            match finished.goes_elsewhere() {
                true => self.proxied.inc(),
                false => self.filtered.inc(),
            }
        }
        Ok(())
    }
}
