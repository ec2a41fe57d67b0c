//! What a request meets with at its server, told to pools that take servers out by it. Each attempt is told once: a
//! failure when it happens, a success when the answer is whole. For all other pools this is a look at one pointer.

use pingora::{Error, ErrorSource, ErrorType, http::ResponseHeader, proxy::Session};

use super::{
    deadline::{self, Limit},
    exchange::{Attempt, Ctx, Met},
    reason,
    reply::{self, is_final},
};
use crate::{pool::Outcome, snapshot::Live};

/// There was no connection. What this machine lacks says nothing of the server.
pub(super) fn not_reached(live: &Live, error: &Error, ctx: &mut Ctx) {
    let reason = reason::of_connecting(error.etype());
    if let Some(attempt) = watched(ctx).filter(|_| reason != "local") {
        tell(live, attempt, Outcome::Failed(reason));
    }
}

/// The head of an answer is there.
pub(super) fn answered(live: &Live, head: &ResponseHeader, ctx: &mut Ctx) {
    let Some(attempt) = watched(ctx).filter(|_| is_final(head)) else { return };
    let outcome = Outcome::Answered(head.status.as_u16());
    match attempt.pool.config().inline.as_ref().is_some_and(|monitor| outcome.is_failure(monitor)) {
        true => tell(live, attempt, outcome),
        false => attempt.met = Met::Answer(outcome),
    }
}

/// The connection broke while the request was under way. That a kept one was closed meanwhile is no failure.
pub(super) fn broke(live: &Live, session: &Session, error: &Error, reused: bool, ctx: &mut Ctx) {
    let missed = deadline::missed(ctx);
    let Some(attempt) = watched(ctx).filter(|_| *error.esource() == ErrorSource::Upstream) else { return };
    let closed =
        matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
    match missed {
        Some(Limit::FirstByte) => tell(live, attempt, Outcome::Failed("response_timeout")),
        // It may be the client who took so long.
        Some(Limit::WholeRequest) => {}
        None if closed && reused && !reply::has_begun(session) => {}
        None => tell(live, attempt, Outcome::Failed(reason::of_request(error.etype()))),
    }
}

/// The request is over.
pub(super) fn over(live: &Live, ctx: &mut Ctx) {
    if let Some(attempt) = watched(ctx)
        && let Met::Answer(outcome) = attempt.met
    {
        tell(live, attempt, outcome);
    }
}

fn watched(ctx: &mut Ctx) -> Option<&mut Attempt> {
    ctx.attempt.as_mut().filter(|attempt| attempt.pool.config().inline.is_some() && attempt.met != Met::Told)
}

fn tell(live: &Live, attempt: &mut Attempt, outcome: Outcome) {
    attempt.met = Met::Told;
    attempt.pool.observed(attempt.lease.server(), outcome, live.clock.now(), live.clock.wall());
}
