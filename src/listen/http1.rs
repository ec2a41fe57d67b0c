//! HTTP/1 keep-alive: one request after another on a connection, with nothing but the socket held in between.
//!
//! Pingora's own loop keeps a request's buffers and futures for as long as the client is idle, some 25 KiB. This
//! one waits for the first bytes of a request, then makes Pingora's session, lets the app process it, and takes the
//! stream back. Pingora never waits for a client between requests, so its keep-alive timer has nothing to do.
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

use super::Wire;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Without any byte, before the first request and between two.
    pub idle: Duration,
}

/// Serves requests until the client or the app ends the connection, the client is idle for too long, or `hang_up` is
/// cancelled. A request that has begun is always finished. `shutdown` is for the app: the answer that comes next
/// should be the last.
pub(super) async fn serve<A>(
    app: &Arc<A>,
    mut wire: Box<Wire>,
    timeouts: Timeouts,
    shutdown: &ShutdownWatch,
    hang_up: &CancellationToken,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let going = pin!(hang_up.cancelled());
    let mut endings = Endings { hang_up, going, idle: IdleTimer::new(timeouts.idle), watching: None };
    let mut settings = None;
    loop {
        endings.idle.restart();
        let readable = poll_fn(|cx| {
            // A request that has arrived is answered, whatever else is the case.
            if let Poll::Ready(readable) = wire.poll_readable(cx) {
                return Poll::Ready(readable.unwrap_or(false));
            }
            endings.poll(cx).map(|()| false)
        });
        if !readable.await {
            let _ = tokio::time::timeout(GOODBYE, wire.shutdown()).await;
            return;
        }
        wire.begin_request(timeouts.head);
        let Some(reused) = request(app, wire, settings.take(), shutdown).await else { return };
        let (stream, persistent) = reused.consume();
        let Ok(same) = stream.into_any().downcast::<Wire>() else { return };
        wire = same;
        settings = persistent;
    }
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
    idle: IdleTimer,
    /// Whom the two wake.
    watching: Option<Waker>,
}

impl Endings<'_, '_> {
    /// Ready when the connection is to end. Both are polled in full only where that can change something: between any
    /// two requests there is nothing new about them, and to poll them costs more than to look.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let watching = self.watching.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if watching && !self.hang_up.is_cancelled() && !self.idle.timer.is_elapsed() {
            return Poll::Pending;
        }
        if !watching {
            self.watching = Some(cx.waker().clone());
        }
        match self.going.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.idle.poll(cx),
        }
    }
}

/// Tells when a connection has been idle for too long. Its timer is set once and looks, when it fires, whether the
/// connection was busy meanwhile: cheaper than one set anew between any two requests.
struct IdleTimer {
    timeout: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl IdleTimer {
    fn new(timeout: Duration) -> Self {
        Self { timeout, since: Instant::now(), timer: Box::pin(tokio::time::sleep(timeout)) }
    }

    /// The connection is idle from now on.
    fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when the connection has been idle for the timeout.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let end = self.since + self.timeout;
            if self.timer.deadline() >= end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
    }
}

/// For the TLS goodbye to a client that may not read it.
const GOODBYE: Duration = Duration::from_secs(1);
