//! Deadlines of a request: for the beginning of a server's answer, and for all of it.
//!
//! Pingora waits for a server read by read, and anew after each byte. Beside an exchange that has a deadline runs a
//! timer. When it is up, the connection is ended under Pingora's hands, which takes that for the server's doing;
//! [`missed`] knows better. A pool without deadlines has no timers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{StatusCode, header};
use pingora::{Error, ErrorType, http::ResponseHeader, protocols::Digest, proxy::Session};
use tokio::task::AbortHandle;

use super::{
    dial::{self, Held},
    exchange::{Attempt, Ctx},
    forward::asks_for_tunnel,
    reply::is_final,
};
use crate::{access_log::Reason, snapshot::Live};

/// What a request can be too late for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    FirstByte,
    WholeRequest,
}

impl Limit {
    pub fn reason(self) -> Reason {
        match self {
            Self::FirstByte => Reason::FirstByteTimeout,
            Self::WholeRequest => Reason::RequestTimeout,
        }
    }

    /// As the client's error says it: 504.
    pub fn error(self) -> Box<Error> {
        let what = match self {
            Self::FirstByte => "the server did not begin to answer in time",
            Self::WholeRequest => "the request was not answered in time",
        };
        Error::explain(ErrorType::ReadTimedout, what).into_up()
    }
}

/// What runs beside an exchange.
pub(super) struct Timer {
    limit: Limit,
    rang: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Timer {
    fn start(after: Duration, limit: Limit, held: Arc<Held>) -> Self {
        let rang = Arc::new(AtomicBool::new(false));
        let ring = rang.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            ring.store(true, Relaxed);
            held.end();
        });
        Self { limit, rang, task: task.abort_handle() }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// There is a connection to the server: the request goes out. It is held from here on where its pool may end it.
pub(super) fn begin(live: &Live, session: &mut Session, digest: Option<&Digest>, ctx: &mut Ctx) {
    let Some(attempt) = &mut ctx.attempt else { return };
    let patience = &attempt.pool.config().patience;
    if !dial::are_held(attempt.pool.config()) || asks_for_tunnel(session.req_header()) {
        return;
    }
    attempt.held = Held::behind(digest);
    let first = patience.response_timeout.filter(|_| session.is_body_empty());
    wait(live.clock.now(), first, ctx.deadline, attempt);
}

/// The whole request is with the server.
pub(super) fn asked(live: &Live, ctx: &mut Ctx) {
    let Some(attempt) = &mut ctx.attempt else { return };
    if attempt.held.is_some() && attempt.pool.config().patience.response_timeout.is_some() {
        let first = attempt.pool.config().patience.response_timeout;
        wait(live.clock.now(), first, ctx.deadline, attempt);
    }
}

/// The head of an answer is there. A stream of events ends when somebody wants it to.
pub(super) fn answered(live: &Live, session: &Session, head: &ResponseHeader, ctx: &mut Ctx) {
    let Some(attempt) = &mut ctx.attempt else { return };
    if attempt.held.is_none() || !is_final(head) {
        return;
    }
    if !may_have_body(session, head) {
        return over(ctx);
    }
    let deadline = ctx.deadline.filter(|_| !is_event_stream(head));
    wait(live.clock.now(), None, deadline, attempt);
}

/// The answer is whole: its connection may be another's at once.
pub(super) fn over(ctx: &mut Ctx) {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.timer = None;
        dial::used(ctx);
    }
}

/// What the request was too late for, if that is why its connection has ended.
pub(super) fn missed(ctx: &Ctx) -> Option<Limit> {
    let timer = ctx.attempt.as_ref()?.timer.as_ref()?;
    timer.rang.load(Relaxed).then_some(timer.limit)
}

/// Starts the timer for what comes first, in place of the one that runs.
fn wait(now: Instant, first: Option<Duration>, deadline: Option<Instant>, attempt: &mut Attempt) {
    attempt.timer = None;
    let Some(held) = &attempt.held else { return };
    let left = deadline.map(|at| (at.saturating_duration_since(now), Limit::WholeRequest));
    let first = first.map(|timeout| (timeout, Limit::FirstByte));
    let next = [first, left].into_iter().flatten().min_by_key(|(after, _)| *after);
    attempt.timer = next.map(|(after, limit)| Timer::start(after, limit, held.clone()));
}

fn is_event_stream(head: &ResponseHeader) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next());
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

fn may_have_body(session: &Session, head: &ResponseHeader) -> bool {
    let empty = || head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    session.req_header().method != http::Method::HEAD
        && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && !empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_from_other_answers() {
        for (kind, events) in [
            (Some("text/event-stream"), true),
            (Some("Text/Event-Stream ; charset=utf-8"), true),
            (Some("text/event-streams"), false),
            (Some("application/json"), false),
            (None, false),
        ] {
            let mut head = ResponseHeader::build(200, None).expect("a valid head");
            if let Some(kind) = kind {
                head.insert_header("content-type", kind).expect("a valid value");
            }
            assert_eq!(is_event_stream(&head), events, "{kind:?}");
        }
    }
}
