//! HTTP/2: streams are accepted until the client, the app or a flood ends the connection.
//!
//! Pingora's own loop knows one idle time for all listeners, drops an idle connection without a word, and has no end
//! for a client that floods it with frames.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use pingora::{
    apps::HttpServerApp,
    protocols::{
        Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream,
        http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake},
    },
    server::ShutdownWatch,
};
use tokio::{sync::watch, time::sleep};

use super::{Connection, Wire, upload};
use crate::config::Http2;

/// Serves streams until the connection ends. The streams may go on for a while after that.
pub(super) async fn serve<A>(
    app: &Arc<A>,
    wire: Box<Wire>,
    limits: &Http2,
    idle_timeout: Duration,
    shutdown: &ShutdownWatch,
) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let connection = wire.connection().clone();
    let digest = Arc::new(Digest {
        ssl_digest: wire.get_ssl_digest(),
        timing_digest: wire.get_timing_digest(),
        proxy_digest: wire.get_proxy_digest(),
        socket_digest: wire.get_socket_digest(),
    });
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list_size)
        .max_local_error_reset_streams(Some(MOST_RESETS))
        .max_send_buffer_size(MOST_UNSENT)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let Ok(mut http2) = handshake(wire, Some(options)).await else { return End::Closed };
    let end = accept(app, &mut http2, &digest, &connection, idle_timeout, shutdown).await;
    match end {
        End::Closed => return end,
        End::Idle => http2.abrupt_shutdown(h2::Reason::NO_ERROR),
        End::Flooded | End::Malformed => http2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
    }
    let goodbye = poll_fn(|cx| http2.poll_closed(cx));
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    end
}

pub(super) use super::frames::PREFACE;

/// Why there are no more streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Idle,
    /// Too many frames that are neither a request nor its body.
    Flooded,
    /// Too many requests that are none.
    Malformed,
}

impl End {
    /// A word for metrics, where we have ended it.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Idle => Some("idle"),
            Self::Flooded => Some("flood"),
            Self::Malformed => Some("malformed"),
        }
    }
}

async fn accept<A>(
    app: &Arc<A>,
    http2: &mut h2::server::Connection<Stream, Bytes>,
    digest: &Arc<Digest>,
    connection: &Arc<Connection>,
    idle_timeout: Duration,
    shutdown: &ShutdownWatch,
) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let (streams, mut malformed) = (watch::Sender::new(0_usize), 0);
    let mut ending = shutdown.clone();
    let mut is_ending = false;
    loop {
        let mut open = streams.subscribe();
        let idle = async {
            // The sender is ours: it cannot be gone.
            let _ = open.wait_for(|open| *open == 0).await;
            sleep(idle_timeout).await;
        };
        let accepted = tokio::select! {
            biased;
            changed = ending.changed(), if !is_ending => {
                is_ending = true;
                if changed.is_ok() {
                    http2.graceful_shutdown();
                }
                continue;
            }
            accepted = next(http2, digest, connection) => accepted,
            () = idle => return End::Idle,
        };
        match accepted {
            Next::Stream(stream) => {
                connection.serves_stream();
                let guard = Open::new(streams.clone());
                let (app, shutdown) = (app.clone(), shutdown.clone());
                tokio::spawn(async move {
                    app.process_new_http(upload::session(stream), &shutdown).await;
                    drop(guard);
                });
            }
            Next::Rejected => {
                malformed += 1;
                if malformed == MOST_MALFORMED {
                    return End::Malformed;
                }
            }
            Next::Flooded => return End::Flooded,
            Next::Closed => return End::Closed,
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Next {
    Stream(HttpSession),
    Rejected,
    Flooded,
    Closed,
}

/// What comes next. It drives the whole connection, and may be dropped and called again.
async fn next(
    http2: &mut h2::server::Connection<Stream, Bytes>,
    digest: &Arc<Digest>,
    connection: &Connection,
) -> Next {
    let mut accepted = pin!(HttpSession::from_h2_conn(http2, digest.clone()));
    poll_fn(|cx| match accepted.as_mut().poll(cx) {
        // The wire has seen it while it was read from just now.
        _ if connection.is_flooded() => Poll::Ready(Next::Flooded),
        Poll::Ready(Ok(Some(H2Accept::Session(session)))) => Poll::Ready(Next::Stream(session)),
        Poll::Ready(Ok(Some(H2Accept::Rejected))) => Poll::Ready(Next::Rejected),
        Poll::Ready(Ok(None) | Err(_)) => Poll::Ready(Next::Closed),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// One of the streams that are open, until it is dropped: at its end, and on a panic.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(streams: watch::Sender<usize>) -> Self {
        streams.send_modify(|open| *open += 1);
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// What a client, a peer site too, may send ahead of an app that reads slowly, on all streams together.
const WINDOW: u32 = 256 << 10;
/// Of a stream's answer, what waits for the client's window and socket.
const MOST_UNSENT: usize = 64 << 10;
/// Streams that the client's own errors had homing reset.
const MOST_RESETS: usize = 128;
/// Requests that Pingora refuses before they are any.
const MOST_MALFORMED: usize = 32;
/// For the last words to a client that may not read them.
const GOODBYE: Duration = Duration::from_secs(1);
