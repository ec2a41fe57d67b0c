//! The end of a request: taps, counters, `http_finished`, and the access line.

use pingora::{Error, proxy::Session};

use super::exchange::Ctx;
use crate::{gslb::Outcome, metrics::Answered, rule::Finished, snapshot::Live};

/// Ends a request, whatever became of it.
pub(super) fn finished(live: &Live, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
    if let Some(routed) = &mut ctx.routed {
        ctx.copies.finish(error, |order, reason| routed.clone_dropped(order, reason));
    }
    let duration = live.clock.now().saturating_duration_since(ctx.started);
    let body_bytes_sent = session.body_bytes_sent();
    let attempt = ctx.attempt.take();
    let server = attempt.as_ref().map(|attempt| attempt.server());
    let status = ctx.status;
    let request = Answered {
        status,
        took: duration,
        version: session.req_header().version,
        bytes_received: session.body_bytes_read() as u64,
        bytes_sent: body_bytes_sent as u64,
    };
    if let Some(routed) = &mut ctx.routed {
        let pool = attempt.as_ref().map(|attempt| attempt.pool.name());
        routed.vs.count(pool, &request);
        let mut finished =
            Finished { status, body_bytes_sent, duration, server, exchange: &mut routed.exchange };
        routed.vs.chain.http_finished(&mut finished);
    } else {
        live.unrouted.count(&request);
    }
    tracing::debug!(
        target: "homing::access",
        vs = ctx.routed.as_ref().map(|routed| routed.vs.name().as_str()),
        client = ctx.routed.as_ref().map(|routed| tracing::field::display(routed.exchange.client_ip())),
        id = ctx.routed.as_ref().map(|routed| tracing::field::display(routed.exchange.request_id())),
        method = %session.req_header().method,
        path = session.req_header().uri.path(),
        status,
        body_bytes_sent,
        duration_us = duration.as_micros() as u64,
        server = server.map(tracing::field::display),
        site_persistence = ctx.routed.as_ref().and_then(|routed| routed.exchange.get::<Outcome>()).map(|it| it.as_str()),
        retries = ctx.retries,
        error = error.map(tracing::field::display),
    );
}
