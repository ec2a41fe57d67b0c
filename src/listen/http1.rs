//! HTTP/1 keep-alive: one request after another on a connection, with nothing but the socket held in between.
//!
//! Pingora's own loop keeps a request's buffers and futures for as long as the client is idle, some 25 KiB. This
//! one waits for the whole head of a request, then makes Pingora's session, lets the app process it, and takes the
//! stream back. Pingora never waits for a head, so its keep-alive timer has nothing to do, and a client that sends its
//! head byte by byte costs little more than an idle one.
//!
//! Requests that a client sends ahead ("pipelining") wait in the [`Wire`] and are answered in order.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream},
    protocols::{Shutdown, http::ServerSession},
    server::ShutdownWatch,
};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{ConnectionEvents, HeadRefusal, RefusedHead, Wire, wire::Arrival};
use crate::{clock::Clock, config::HeadLimits};

/// What a client may do.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// Without any byte, before the first request and between two.
    pub idle_timeout: Duration,
    pub limits: &'a HeadLimits,
    /// Who is told of a head that was refused.
    pub events: &'a dyn ConnectionEvents,
    pub clock: &'a Clock,
}

/// Serves requests until the client or the app ends the connection, the client is idle for too long, or `hang_up` is
/// cancelled. A request that has begun is always finished. `shutdown` is for the app: the answer that comes next
/// should be the last.
pub(super) async fn serve<A>(
    app: &Arc<A>,
    mut wire: Box<Wire>,
    terms: Terms<'_>,
    shutdown: &ShutdownWatch,
    hang_up: &CancellationToken,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let going = pin!(hang_up.cancelled());
    let mut endings = Endings { hang_up, going, timer: Timer::new(terms.idle_timeout), watching: None };
    let mut settings = None;
    loop {
        wire.next_request();
        endings.timer.begin(Wait::Idle, terms.idle_timeout);
        let arrival = poll_fn(|cx| {
            // A request that has arrived is answered, whatever else is the case.
            if let Poll::Ready(arrival) = wire.poll_head(cx, terms.limits) {
                return Poll::Ready(arrival.unwrap_or(Arrival::Closed));
            }
            if wire.is_in_head() && endings.timer.wait == Wait::Idle {
                endings.timer.begin(Wait::Head, terms.head_timeout);
            }
            endings.poll(cx)
        });
        match arrival.await {
            Arrival::Head => wire.begin_request(),
            Arrival::Closed => {
                let _ = tokio::time::timeout(GOODBYE, wire.shutdown()).await;
                return;
            }
            Arrival::Refused(refusal) => {
                return refuse(wire, refusal, endings.timer.head_took(), terms).await;
            }
        }
        let Some(reused) = request(app, wire, settings.take(), shutdown).await else { return };
        let (stream, persistent) = reused.consume();
        let Ok(same) = stream.into_any().downcast::<Wire>() else { return };
        wire = same;
        settings = persistent;
    }
}

/// Tells the client and the app that a head was refused. Not an `async fn`, see [`request`].
fn refuse<'a>(
    wire: Box<Wire>,
    refusal: HeadRefusal,
    took: Duration,
    terms: Terms<'a>,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    let head = RefusedHead { refusal, bytes: wire.head_so_far(), took };
    terms.events.head_refused(wire.connection(), head);
    Box::pin(wire.end_with(refusal.answer(terms.clock.wall())))
}

/// One request. Not an `async fn`: its future would hold the session, and so would the loop's while it waits.
fn request<'a, A>(
    app: &'a Arc<A>,
    wire: Box<Wire>,
    settings: Option<HttpPersistentSettings>,
    shutdown: &'a ShutdownWatch,
) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut session = ServerSession::new_http1(wire);
    match settings {
        Some(settings) => settings.apply_to_session(&mut session),
        None => {
            let limit = app.server_options().and_then(|options| options.keepalive_request_limit);
            session.set_keepalive_reuses_remaining(limit);
        }
    }
    // To Pingora this is "keep-alive is wanted, and a head may take any time"; the wire has a deadline for it.
    session.set_keepalive(Some(0));
    app.process_new_http(session, shutdown)
}

/// What ends a connection that waits for a request.
struct Endings<'a, 'b> {
    hang_up: &'a CancellationToken,
    going: Pin<&'b mut WaitForCancellationFuture<'a>>,
    timer: Timer,
    /// Whom the two wake.
    watching: Option<Waker>,
}

impl Endings<'_, '_> {
    /// Ready when the connection is to end. Both are polled in full only where that can change something: between any
    /// two requests there is nothing new about them, and to poll them costs more than to look.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        if self.timer.wait == Wait::Head {
            return self.timer.poll(cx).map(|()| Arrival::Refused(HeadRefusal::Late));
        }
        let watching = self.watching.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if watching && !self.hang_up.is_cancelled() && !self.timer.sleep.is_elapsed() {
            return Poll::Pending;
        }
        if !watching {
            self.watching = Some(cx.waker().clone());
        }
        let ended = match self.going.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.timer.poll(cx),
        };
        ended.map(|()| Arrival::Closed)
    }
}

/// Tells when a client has been waited for too long. It is set once and looks, when it fires, whether something else
/// is waited for meanwhile: cheaper than one set anew between any two requests.
struct Timer {
    wait: Wait,
    since: Instant,
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Any byte.
    Idle,
    /// The end of a head.
    Head,
}

impl Timer {
    fn new(timeout: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep(timeout));
        Self { wait: Wait::Idle, since: Instant::now(), timeout, sleep }
    }

    /// This is waited for from now on.
    fn begin(&mut self, wait: Wait, timeout: Duration) {
        (self.wait, self.timeout, self.since) = (wait, timeout, Instant::now());
        // The time for a head is the shorter one; where it is not, the timer fires early and is set again.
        if wait == Wait::Head && self.sleep.deadline() > self.since + timeout {
            self.sleep.as_mut().reset(self.since + timeout);
        }
    }

    /// How long a head has been waited for.
    fn head_took(&self) -> Duration {
        match self.wait {
            Wait::Idle => Duration::ZERO,
            Wait::Head => self.since.elapsed(),
        }
    }

    /// Ready when it has been waited for the timeout.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let end = self.since + self.timeout;
            if self.sleep.deadline() >= end {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(end);
        }
    }
}

/// For the TLS goodbye to a client that may not read it.
const GOODBYE: Duration = Duration::from_secs(1);
