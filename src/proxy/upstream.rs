//! Choosing a server, and what happens when it cannot be reached.

use std::{mem, net::SocketAddr, sync::Arc, time::Instant};

use pingora::{
    Error, ErrorSource, ErrorType, Result, RetryType,
    http::RequestHeader,
    protocols::Digest,
    proxy::Session,
    upstreams::peer::{ALPN, HttpPeer},
};

use super::{
    asking,
    deadline::{self, Limit},
    distrust,
    exchange::{Attempt, Ctx, Met, Routed},
    forward::asks_for_tunnel,
    peer, protocol, reason, reply, retry,
    route::rule_failed_closed,
    to_server::{self, Link},
    waiting,
};
use crate::{
    limits::shortage,
    names::PoolName,
    pool::{Asking, Lease, NotServed, Pool, Server, Wants},
    rule::{Destination, LbEvent, LbPhase, Preferred, Reselect},
    snapshot::Live,
};

/// Picks a server, waits for one where all are full, asks the rules, and describes it to Pingora. With no server up it
/// fails at once, with 503.
pub(super) async fn choose(live: &Live, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    ctx.attempt = None;
    for _ in 0..MAX_RESELECTS {
        let mut begun = live.clock.now();
        let (pool, lease) = match pick(begun, session.req_header(), ctx) {
            Picked::Server(pool, lease) => (pool, lease),
            Picked::Full(pool, wants) => {
                ctx.deadline = deadline_in(&pool, session, ctx);
                // On the heap: most requests have no use for it.
                match Box::pin(waiting::for_place(live, session, &pool, wants, ctx.deadline)).await? {
                    Ok(lease) => {
                        begun = live.clock.now();
                        (pool, lease)
                    }
                    Err(NotServed::ServerGone) => continue,
                    Err(NotServed::RequestLate) => return Err(too_late(ctx)),
                    Err(why) => match report_failure(session, ctx, pool.name(), None, &why.to_string())? {
                        Next::Reselect => continue,
                        Next::GiveUp => return waiting::refused(ctx, &pool, why),
                    },
                }
            }
            Picked::Nobody => {
                let pool = intended_pool(ctx);
                match report_failure(session, ctx, &pool, None, "no server is up")? {
                    Next::Reselect => continue,
                    Next::GiveUp => return no_server(ctx),
                }
            }
        };
        let routed = ctx.routed();
        let phase = LbPhase::Selected { pool: pool.name(), server: lease.server().addr() };
        let mut event = LbEvent::new(session.req_header(), &mut routed.exchange, phase);
        routed.vs.chain.lb_selected(&mut event).map_err(|_| rule_failed_closed())?;
        let reselect = event.wants_reselect();
        if let Some(reply) = &routed.exchange.reply {
            return Error::e_explain(ErrorType::HTTPStatus(reply.status()), "a rule answers");
        }
        if let Some(reselect) = reselect {
            if reselect == Reselect::Others {
                ctx.tried.push(lease.server().addr());
            }
            continue;
        }
        ctx.deadline = deadline_in(&pool, session, ctx);
        if ctx.deadline.is_some_and(|deadline| deadline <= begun) {
            return Err(too_late(ctx));
        }
        let (config, server) = (pool.config(), lease.server());
        let http2 = protocol::may_be_http2(config, server, ctx, begun);
        let mut peer = peer::describe(live, session, &ctx.routed().exchange, &pool, server.config(), http2);
        if let Some(deadline) = ctx.deadline {
            let timeout = pool.config().connect_timeout.min(deadline.saturating_duration_since(begun));
            peer.options.connection_timeout = Some(timeout);
            peer.options.total_connection_timeout = Some(timeout);
        }
        let asks_for_http2 = peer.options.alpn == ALPN::H2H1;
        ctx.attempt = Some(Attempt {
            pool,
            lease,
            begun,
            asked: begun,
            held: None,
            timer: None,
            asks_for_http2,
            met: Met::Nothing,
        });
        return Ok(peer);
    }
    no_server(ctx)
}

/// The server could not be reached: nothing was sent, so another one may have the request.
pub(super) fn not_reached(
    live: &Live,
    session: &mut Session,
    ctx: &mut Ctx,
    peer: &HttpPeer,
    mut error: Box<Error>,
) -> Box<Error> {
    let Some(Attempt { pool, lease, .. }) = ctx.attempt.take() else { return error };
    let server = lease.server().addr();
    ctx.tls_failure = distrust::met(live, &pool, lease.server(), peer, &error);
    drop(lease);
    pool.connections().not_connected(server, reason::of_connecting(error.etype()));
    ctx.tried.push(server);
    ctx.unreached = Some(error.etype().clone());
    let reason = error.etype().as_str().to_owned();
    if let Some(help) = shortage(error.root_cause()) {
        pool.log_shortage(&error.root_cause().to_string(), help, live.clock.now());
    }
    if ctx.deadline.is_some_and(|deadline| deadline <= live.clock.now()) {
        return too_late(ctx);
    }
    let next = match report_failure(session, ctx, pool.name(), Some(server), &reason) {
        Ok(next) => next,
        Err(stopped) => return stopped,
    };
    let exchange = &ctx.routed().exchange;
    let others = matches!(exchange.destination, Destination::Default | Destination::Pool(_));
    let again = matches!(next, Next::Reselect) || (others && exchange.reply.is_none());
    let again = again && retry::is_allowed(&pool, ctx);
    if again {
        ctx.retries += 1;
        pool.connections().retry();
    }
    error.set_retry(again);
    error
}

/// A connection is there, and nothing was sent on it yet. A peer site whose certificate was revoked is as good as
/// not reached.
pub(super) fn reached(
    live: &Live,
    session: &mut Session,
    ctx: &mut Ctx,
    peer: &HttpPeer,
    digest: Option<&Digest>,
) -> Result<()> {
    let Some(Attempt { pool, begun, .. }) = &ctx.attempt else { return Ok(()) };
    pool.connections().connected(live.clock.now().saturating_duration_since(*begun));
    let tls = digest.and_then(|digest| digest.ssl_digest.as_deref());
    let Err(refusal) = pool.believes(tls, live.clock.wall()) else { return Ok(()) };
    let refused = Error::explain(ErrorType::InvalidCert, refusal.to_string());
    Err(not_reached(live, session, ctx, peer, refused))
}

/// A connection counts among those of the server that it was made for first.
pub(super) fn counts(digest: Option<&Digest>, ctx: &Ctx) {
    if let (Some(link), Some(attempt)) = (Link::behind(digest), &ctx.attempt) {
        link.is_among(attempt.lease.server().connected());
    }
}

/// Says of an error whether the answer was to blame, and in the log once in a while how.
pub(super) fn malformed(live: &Live, error: &mut Error, ctx: &Ctx) {
    if let (Some(fault), Some(attempt)) = (to_server::fault(error), &ctx.attempt) {
        attempt.pool.log_malformed_answer(attempt.server(), &fault.to_string(), live.clock.now());
    }
}

/// The connection broke while the request was under way. It is tried again when the server cannot have begun
/// to act on it, and the body is still whole: nothing was sent, or a kept connection turned out to be closed and the method
/// is idempotent (RFC 9110, 9.2.2), or the server says so itself; or when a rule asked for it.
pub(super) fn broke(session: &mut Session, ctx: &mut Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
    let Some(Attempt { pool, lease, .. }) = &ctx.attempt else {
        // It ended before anything was sent, and what follows was decided then.
        return error;
    };
    if let Some(limit) = deadline::missed(ctx) {
        pool.connections().failed(lease.server().addr(), limit.reason().as_str());
        ctx.reason = Some(limit.reason());
        return limit.error();
    }
    let unsent = to_server::is_unsent(&error);
    // An error of a rule or of ours has another source. That a kept connection is closed is nobody's fault.
    let is_servers_fault = *error.esource() == ErrorSource::Upstream && !unsent;
    if is_servers_fault {
        pool.connections().failed(lease.server().addr(), reason::of_request(error.etype()));
    }
    let (pool, whole) = (pool.clone(), !session.as_ref().retry_buffer_truncated());
    let repeatable = whole && session.req_header().method.is_idempotent();
    let asked = mem::take(&mut ctx.retry_asked);
    if unsent {
        // As if it had never been kept: no attempt has been made yet.
        error.set_retry(whole);
        return error;
    }
    if asked {
        error.set_retry(whole);
    } else if repeatable || (whole && is_untouched(&error)) {
        error.retry.decide_reuse(reused);
    } else {
        error.set_retry(false);
    }
    if repeatable && !error.retry() && is_servers_fault && !reply::has_begun(session) {
        match broke_elsewhere(session, ctx, error.etype()) {
            Ok(again) => error.set_retry(again),
            Err(stopped) => return stopped,
        }
    }
    // What a rule asked for was allowed when it did.
    if error.retry() && !asked && !retry::is_allowed(&pool, ctx) {
        error.set_retry(false);
    }
    if error.retry() {
        ctx.retries += 1;
        pool.connections().retry();
    }
    error
}

/// A server that only a rule knows broke off before it answered: the rule says whether to try again, and where.
fn broke_elsewhere(session: &mut Session, ctx: &mut Ctx, reason: &ErrorType) -> Result<bool> {
    let (true, Some(attempt)) = (ctx.routed().exchange.goes_elsewhere(), &ctx.attempt) else {
        return Ok(false);
    };
    let (pool, server) = (attempt.pool.clone(), attempt.server());
    let next = report_failure(session, ctx, pool.name(), Some(server), reason.as_str())?;
    Ok(matches!(next, Next::Reselect))
}

/// Whether an HTTP/2 server has said that it did nothing about the request (RFC 9113, 8.7). Where its frames are
/// malformed Pingora would try again too, but nobody knows what such a server has done. What a server says while the
/// body is still being written, Pingora does not pass on.
fn is_untouched(error: &Error) -> bool {
    matches!(error.retry, RetryType::Decided(true)) && *error.etype() != ErrorType::InvalidH2
}

/// When the request is given up that goes to this pool.
fn deadline_in(pool: &Pool, session: &Session, ctx: &Ctx) -> Option<Instant> {
    let timeout = pool.config().patience.request_timeout;
    timeout.filter(|_| !asks_for_tunnel(session.req_header())).map(|timeout| ctx.started + timeout)
}

/// There is no time left for another attempt.
fn too_late(ctx: &mut Ctx) -> Box<Error> {
    ctx.reason = Some(Limit::WholeRequest.reason());
    Limit::WholeRequest.error()
}

/// What follows a failure.
enum Next {
    Reselect,
    GiveUp,
}

fn report_failure(
    session: &mut Session,
    ctx: &mut Ctx,
    pool: &PoolName,
    server: Option<SocketAddr>,
    reason: &str,
) -> Result<Next> {
    let resendable = !session.as_ref().retry_buffer_truncated();
    let routed = ctx.routed();
    routed.exchange.failures += 1;
    let phase = LbPhase::Failed { pool, server, reason, resendable };
    let mut event = LbEvent::new(session.req_header(), &mut routed.exchange, phase);
    routed.vs.chain.lb_failed(&mut event).map_err(|_| rule_failed_closed())?;
    Ok(if event.wants_reselect().is_some() { Next::Reselect } else { Next::GiveUp })
}

/// Whom a request is for.
enum Picked {
    Server(Arc<Pool>, Lease),
    Full(Arc<Pool>, Wants),
    Nobody,
}

fn pick(now: Instant, head: &RequestHeader, ctx: &mut Ctx) -> Picked {
    pick_or_nobody(now, head, ctx).unwrap_or(Picked::Nobody)
}

fn pick_or_nobody(now: Instant, head: &RequestHeader, ctx: &mut Ctx) -> Option<Picked> {
    let Ctx { routed, tried, .. } = ctx;
    let Routed { vs, exchange, .. } = routed.as_deref_mut()?;
    let (exchange, tried) = (&*exchange, &**tried);
    let balanced = |pool: &Arc<Pool>| {
        let asking = Asking { tried, hash: asking::hash(pool, head, exchange), now: Some(now) };
        match vs.services.with_rng(|mut rng| pool.pick_for(&mut rng, &asking)) {
            Some(lease) => Some(Picked::Server(pool.clone(), lease)),
            None => pool.is_full(tried).then(|| Picked::Full(pool.clone(), Wants::AnyBut(tried.to_vec()))),
        }
    };
    let persistent = |pool: &Arc<Pool>, own: bool| {
        let Preferred { server, even_down, .. } = exchange.preferred_in(pool.name(), own)?;
        let untried = || pool.server(*server).filter(|_| !tried.contains(server));
        let server = if *even_down { untried() } else { named(pool, *server, tried) }?;
        // Nobody waits for a server that is down.
        let at_once = || Picked::Server(pool.clone(), server.lease());
        Some(if server.is_up() { this(pool, server) } else { at_once() })
    };
    match &exchange.destination {
        Destination::Default => {
            let pool = vs.pool.as_ref()?;
            persistent(pool, true).or_else(|| balanced(pool))
        }
        Destination::Pool(name) => {
            let pool = vs.services.pools().named(name.as_str()).ok()?;
            persistent(pool, false).or_else(|| balanced(pool))
        }
        Destination::Server(name, server) => {
            let pool = vs.services.pools().named(name.as_str()).ok()?;
            // A rule's choice is persistence: a server that drains keeps what it has.
            Some(this(pool, named(pool, *server, tried)?))
        }
        // Whoever holds the handle has decided that this server be asked, up or not.
        Destination::Handle(pool, server) => {
            Some(Picked::Server(pool.clone(), pool.server(*server)?.lease()))
        }
    }
}

fn this(pool: &Arc<Pool>, server: &Arc<Server>) -> Picked {
    match server.try_lease() {
        Some(lease) => Picked::Server(pool.clone(), lease),
        None => Picked::Full(pool.clone(), Wants::This(server.addr())),
    }
}

/// A certain server, if it is up and was not tried in vain.
fn named<'a>(pool: &'a Pool, server: SocketAddr, tried: &[SocketAddr]) -> Option<&'a Arc<Server>> {
    pool.server(server).filter(|server| server.is_up() && !tried.contains(&server.addr()))
}

fn intended_pool(ctx: &mut Ctx) -> PoolName {
    let Routed { vs, exchange, .. } = ctx.routed();
    match &exchange.destination {
        Destination::Default => vs.pool.as_ref().map_or_else(|| "-".into(), |pool| pool.name().clone()),
        Destination::Pool(name) | Destination::Server(name, _) => name.clone(),
        Destination::Handle(pool, _) => pool.name().clone(),
    }
}

/// Nobody is left: 503. Where the last one was there and did not answer, or was not who it should be, the client is told
/// that.
fn no_server<T>(ctx: &mut Ctx) -> Result<T> {
    use ErrorType::*;
    match ctx.unreached.take() {
        Some(
            kind @ (ConnectTimedout | TLSHandshakeTimedout | TLSHandshakeFailure | HandshakeError
            | InvalidCert),
        ) => Err(Error::explain(kind, "no other server is up").into_up()),
        _ => Error::e_explain(HTTPStatus(503), "no server is up"),
    }
}

/// More reselections than this are a rule that never agrees.
const MAX_RESELECTS: usize = 16;
