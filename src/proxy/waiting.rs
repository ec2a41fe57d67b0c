//! A request whose servers are all full: it waits for a place, for as long as its client does.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Version;
use pingora::{Error, ErrorType, Result, proxy::Session};

use super::{exchange::Ctx, forward::asks_for_tunnel};
use crate::{
    access_log::Reason,
    pool::{Lease, NotServed, Pool, Wants},
    snapshot::Live,
};

/// Gets in line and waits, not beyond the time that the request has.
///
/// # Errors
/// The client has gone. The inner one: there is no place for it, or was none in time.
pub(super) async fn for_place(
    live: &Live,
    session: &mut Session,
    pool: &Arc<Pool>,
    wants: Wants,
    deadline: Option<Instant>,
) -> Result<Result<Lease, NotServed>> {
    let begun = live.clock.now();
    let left = deadline.map(|deadline| deadline.saturating_duration_since(begun));
    let place = match pool.join_queue(wants) {
        Ok(waiting) => tokio::select! {
            biased;
            place = waiting.place(left) => place,
            error = client_gone(session) => {
                pool.waits().not_served("client_gone");
                return Err(error);
            }
        },
        Err(refused) => Err(refused),
    };
    match &place {
        Ok(_) => pool.waits().served(live.clock.now().saturating_duration_since(begun)),
        Err(NotServed::NoQueue) => pool.waits().not_served("no_queue"),
        Err(NotServed::QueueFull) => pool.waits().not_served("queue_full"),
        Err(NotServed::TimedOut) => pool.waits().not_served("timeout"),
        Err(NotServed::RequestLate) => pool.waits().not_served("request_timeout"),
        // It gets in line for another one.
        Err(NotServed::ServerGone) => {}
    }
    Ok(place)
}

/// Fails a request that got no place: 503, and when to come again.
pub(super) fn refused<T>(ctx: &mut Ctx, pool: &Pool, why: NotServed) -> Result<T> {
    ctx.reason = Some(match why {
        NotServed::NoQueue => Reason::ServersFull,
        NotServed::QueueFull => Reason::QueueFull,
        NotServed::TimedOut | NotServed::ServerGone => Reason::QueueTimeout,
        NotServed::RequestLate => Reason::RequestTimeout,
    });
    let queue = pool.config().lifecycle.queue.as_ref();
    ctx.retry_after = Some(queue.map_or(SHORTEST, |queue| queue.timeout.max(SHORTEST)));
    Error::e_explain(ErrorType::HTTPStatus(503), why.to_string())
}

/// Until the client closes its connection, or resets its stream.
async fn client_gone(session: &mut Session) -> Box<Error> {
    let has_body = !session.is_body_empty();
    let head = session.req_header();
    match head.version != Version::HTTP_2 && (has_body || asks_for_tunnel(head)) {
        // To read on would take what the server is to have.
        true => closed(session).await,
        false => match session.as_downstream_mut().read_body_or_idle(true).await {
            Err(error) => error.into_down(),
            Ok(_) => pending().await,
        },
    }
}

/// Looks again and again whether the client's side of the connection is closed.
async fn closed(session: &Session) -> Box<Error> {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let socket = session.digest().and_then(|digest| digest.socket_digest.as_deref());
        let state = socket.and_then(|socket| socket.tcp_info()).map(|tcp| tcp.tcpi_state);
        if state.is_some_and(|state| state != ESTABLISHED) {
            return Error::new_down(ErrorType::ConnectionClosed);
        }
    }
}

/// Of the kernel's `enum` of TCP states.
const ESTABLISHED: u8 = 1;

const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// To come again at once would be to find the same.
const SHORTEST: Duration = Duration::from_secs(1);
