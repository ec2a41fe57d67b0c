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

/// There was no connection.
pub(super) fn not_reached(live: &Live, error: &Error, ctx: &mut Ctx) {
    if let Some(attempt) = watched(ctx)
        && let Some(failed) = servers_failure(error)
    {
        tell(live, attempt, failed);
    }
}

/// What a connection that was not made says of the server: nothing where this machine lacked something.
fn servers_failure(error: &Error) -> Option<Outcome> {
    let reason = reason::of_connecting(error.etype());
    (reason != "local").then_some(Outcome::Failed(reason))
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

#[cfg(test)]
mod tests {
    use pingora::{connectors::TransportConnector, upstreams::peer::HttpPeer};

    use super::*;
    use crate::{
        clock::Clock,
        limits,
        proxy::dial::{self, Dial},
    };

    /// Why there is no connection to a server that does not listen, by Pingora's own connector or by ours.
    async fn failed(source: &str, held: Option<Clock>) -> Box<Error> {
        let mut peer = HttpPeer::new("127.0.0.1:0", false, String::new());
        dial::come_from(source.parse().unwrap(), &mut peer);
        if held.is_some() {
            Dial::new(None, held).apply(&mut peer);
        }
        let mut error = TransportConnector::new(None).new_stream(&peer).await.expect_err("nobody listens");
        reason::own_up(&mut error);
        error
    }

    #[tokio::test]
    async fn what_this_machine_lacks_for_a_connection_is_no_failure_of_the_server() {
        for held in [None, Some(Clock::default())] {
            let lost = failed("192.0.2.1", held.clone()).await;
            assert_eq!(servers_failure(&lost), None, "{lost}");
            assert!(limits::shortage(lost.root_cause()).is_some(), "{lost}");
            let refused = failed("127.0.0.2", held).await;
            assert_eq!(servers_failure(&refused), Some(Outcome::Failed("refused")), "{refused}");
        }
    }
}
