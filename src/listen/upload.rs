//! An HTTP/2 request that has a body, and how long that is waited for.
//!
//! Pingora waits for the body of a stream for ever. An [`Upload`] is a session to it like any other ("custom" in its
//! words), which hands everything on to Pingora's own session of the stream but for the reading of the body: a client
//! that sends nothing for the session's read timeout, or that falls below its [`LeastPace`], is late. Only time counts
//! in which somebody wants to read and finds nothing, so neither a slow server nor a window that homing keeps shut is
//! the client's fault; and frames without a byte in them are nothing.
//!
//! Once the answer has begun the two may be in conversation, as in gRPC: there is no pace to that, and what is sent to
//! the client ends a silence as well as what it sends itself.
//!
//! Requests without a body are not wrapped.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, header};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{
        Digest,
        http::{
            HttpTask, ServerSession,
            custom::{CustomMessageWrite, server::Session},
            v2::server::HttpSession,
        },
        l4::socket::SocketAddr,
    },
};
use tokio::time::{Instant, Sleep};

use super::{LeastPace, pace::Pace};

/// A stream whose request has been accepted, as Pingora serves it.
pub(super) fn session(mut stream: HttpSession) -> ServerSession {
    if stream.is_body_empty() {
        return ServerSession::new_http2(stream);
    }
    let _ = one_host(stream.req_header_mut());
    ServerSession::new_custom(Box::new(Upload { stream, timeout: None, wait: None }))
}

/// Servers are to hear of the host that counts, in the words of `:authority` (RFC 9113, 8.3.1). Pingora sees to that
/// itself, but not for custom sessions.
fn one_host(head: &mut RequestHeader) -> Result<()> {
    let authority = head.uri.authority().filter(|_| head.headers.contains_key(header::HOST)).cloned();
    authority.map_or(Ok(()), |authority| head.insert_header(header::HOST, authority.as_str()))
}

struct Upload {
    stream: HttpSession,
    /// The longest silence.
    timeout: Option<Duration>,
    /// Since the client was waited for.
    wait: Option<Box<Wait>>,
}

impl Upload {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(timeout) = self.timeout else { return self.stream.read_body_bytes().await };
        let has_begun = self.stream.response_written().is_some();
        let least = self.stream.req_header().extensions.get().filter(|_| !has_begun).copied();
        let mut waiting = Waiting(&mut self.wait);
        let mut reading = pin!(self.stream.read_body_bytes());
        poll_fn(|cx| match reading.as_mut().poll(cx) {
            Poll::Ready(Ok(Some(bytes))) if waiting.is_too_slow(bytes.len()) => {
                Poll::Ready(late("the request's body comes too slowly"))
            }
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => {
                let wait = waiting.0.get_or_insert_with(|| Box::new(Wait::new(timeout, least)));
                wait.poll_end(cx).map(|()| late("nothing more comes of the request's body"))
            }
        })
        .await
    }

    /// Something was sent to the client.
    fn sent(&mut self) {
        if let Some(wait) = &mut self.wait
            && self.stream.response_written().is_some()
        {
            wait.answered();
        }
    }
}

fn late<T>(why: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::ReadTimedout, why).map_err(|error| error.into_down())
}

/// One look for more of a body, which Pingora gives up whenever something else comes first.
struct Waiting<'a>(&'a mut Option<Box<Wait>>);

impl Waiting<'_> {
    fn is_too_slow(&mut self, bytes: usize) -> bool {
        self.0.as_mut().is_some_and(|wait| wait.got(bytes, Instant::now()))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(wait) = self.0 {
            wait.pause(Instant::now());
        }
    }
}

/// The time that one body was waited for.
struct Wait {
    timeout: Duration,
    pace: Option<Pace>,
    /// How much of the silence was waited through before `since`.
    silent: Duration,
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Wait {
    fn new(timeout: Duration, least: Option<LeastPace>) -> Self {
        Self {
            timeout,
            pace: least.map(Pace::new),
            silent: Duration::ZERO,
            since: None,
            timer: Box::pin(tokio::time::sleep(timeout)),
        }
    }

    /// There is nothing to read. Ready when the silence has become too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.timer.as_mut().reset(now + self.timeout.saturating_sub(self.silent));
            if let Some(pace) = &mut self.pace {
                pace.wait(now);
            }
        }
        self.timer.as_mut().poll(cx)
    }

    /// Nobody looks for more now.
    fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.silent += now.saturating_duration_since(since);
        }
        if let Some(pace) = &mut self.pace {
            pace.pause(now);
        }
    }

    /// So much was read. Says whether that makes the whole too slow.
    fn got(&mut self, bytes: usize, now: Instant) -> bool {
        self.pause(now);
        if bytes > 0 {
            self.silent = Duration::ZERO;
        }
        self.pace.as_mut().is_some_and(|pace| pace.is_too_slow(bytes, now))
    }

    fn answered(&mut self) {
        self.silent = Duration::ZERO;
        self.pace = None;
    }
}

#[async_trait]
impl Session for Upload {
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        match no_body_expected || self.stream.is_body_done() {
            true => self.stream.read_body_or_idle(true).await,
            false => self.read().await,
        }
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.stream.drain_request_body().await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let ended = self.stream.response_duplex_vec(tasks).await;
        self.sent();
        ended
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.stream.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.stream.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let written = self.stream.write_body(data, end).await;
        self.sent();
        written
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.stream.write_trailers(trailers)
    }

    async fn finish(&mut self) -> Result<()> {
        self.stream.finish()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.stream.shutdown();
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.stream.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.stream.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.stream.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.stream.get_total_drain_timeout()
    }

    fn req_header(&self) -> &RequestHeader {
        self.stream.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.stream.req_header_mut()
    }

    fn request_summary(&self) -> String {
        self.stream.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.stream.response_written()
    }

    fn is_body_done(&mut self) -> bool {
        self.stream.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.stream.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.stream.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.stream.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.stream.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.stream.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.stream.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.stream.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.stream.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.stream.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.stream.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.stream.get_retry_buffer()
    }

    // Messages beside the body are of protocols other than HTTP.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn wait(rate: u32) -> Wait {
        Wait::new(TIMEOUT, Some(LeastPace { rate, patience: TIMEOUT }))
    }

    /// Looks for more for so long, and stops looking. Says whether the silence has become too long.
    async fn look(wait: &mut Wait, seconds: u64) -> bool {
        let ended = poll_fn(|cx| wait.poll_end(cx));
        let late = tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok();
        wait.pause(Instant::now());
        late
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_somebody_looks_for_more_is_silence() {
        let mut wait = wait(0);
        for _ in 0..3 {
            assert!(!look(&mut wait, 3).await);
            tokio::time::sleep(TIMEOUT * 2).await;
        }
        let begun = Instant::now();
        assert!(look(&mut wait, 3).await);
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_ends_a_silence_and_so_does_an_answer_but_not_an_empty_frame() {
        for (what, late) in [("a byte", false), ("an answer", false), ("an empty frame", true)] {
            let mut wait = wait(0);
            assert!(!look(&mut wait, 8).await);
            match what {
                "a byte" => assert!(!wait.got(1, Instant::now())),
                "an answer" => wait.answered(),
                _ => assert!(!wait.got(0, Instant::now())),
            }
            assert_eq!(look(&mut wait, 8).await, late, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_pace_until_the_answer_begins() {
        let mut wait = wait(100);
        let drip = async |wait: &mut Wait| {
            assert!(!look(wait, 6).await);
            wait.got(1, Instant::now())
        };
        assert!(!drip(&mut wait).await, "within the patience");
        assert!(drip(&mut wait).await);
        wait.answered();
        assert!(!drip(&mut wait).await);
    }
}
