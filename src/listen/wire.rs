//! Our stream around Pingora's: what Pingora reads and writes a client's connection through.
//!
//! - It gathers an HTTP/1 request's head for the keep-alive loop, which holds nothing else meanwhile, and sees that it
//!   is not too large (see [`super::head`]).
//! - It hands out the head and the chunked body exactly to their ends and keeps what follows for the next request, so
//!   that a client that sends ahead loses nothing: its requests are answered one after another.
//! - It ends an HTTP/1 body that comes too slowly, and an HTTP/2 preface that is late.
//! - It checks chunk framing as it goes by (see [`super::framing`]).
//! - It gathers small writes until a flush, in a buffer that exists only meanwhile.
//! - It ends an HTTP/1 answer whose client has stopped reading.
//! - It follows the frames of an HTTP/2 client ([`super::frames`]), and lets a tunnel's ends end one after the other.
//! - It closes so that an early answer reaches a client that is still sending.
//!
//! Nothing here knows fields, and nothing is kept for a connection that is idle. It is what nginx calls the
//! connection's buffers and Pingora its `Stream`.

use std::{
    fmt, io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
    raw_connect::ProxyDigest,
    tls::{SslDigest, TlsRef},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep},
};

use super::{Connection, HeadRefusal, connection::Phase, frames::Reader, framing::Check, pace::Pace};
use crate::config::HeadLimits;
use tunnel::TunnelEnd;

mod http2;
mod tunnel;

/// A client's connection as Pingora sees it.
pub struct Wire {
    /// Absent only once dropping has begun.
    stream: Option<Stream>,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    mode: Mode,
    /// Read from the stream, not yet handed out.
    ahead: BytesMut,
    /// How much of `ahead`, from its beginning on, has been checked: of the request's head.
    checked: usize,
    check: Check,
    /// Runs until the preface of HTTP/2 is there.
    preface_late: Option<Pin<Box<Sleep>>>,
    /// Of a body that was waited for.
    pace: Option<Box<Pace>>,
    /// Written by Pingora, not yet to the stream; the first `gathered_sent` bytes already are.
    gathered: Vec<u8>,
    gathered_sent: usize,
    /// Runs while the client takes nothing of what is sent.
    stalled: Option<Pin<Box<Sleep>>>,
    answered: bool,
    ended: bool,
    tunnel: Option<TunnelEnd>,
    http2: Option<Box<Reader>>,
}

/// What has come of a client that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The whole head of a request.
    Head,
    Refused(HeadRefusal),
    /// The client has closed.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Http1,
    /// How many bytes of the client's preface have not arrived yet: until then the deadline holds.
    Http2 {
        preface: usize,
    },
}

impl Wire {
    /// A wire for HTTP/1 requests, each of which [`Wire::begin_request`] starts.
    pub(super) fn http1(stream: Stream, connection: Arc<Connection>) -> Box<Self> {
        Box::new(Self {
            digest: connection.digest(),
            stream: Some(stream),
            connection,
            mode: Mode::Http1,
            ahead: BytesMut::new(),
            checked: 0,
            check: Check::default(),
            preface_late: None,
            pace: None,
            gathered: Vec::new(),
            gathered_sent: 0,
            stalled: None,
            answered: false,
            ended: false,
            tunnel: None,
            http2: None,
        })
    }

    /// The last request is over; what is there of the next one has not been looked at.
    pub(super) fn next_request(&mut self) {
        self.check = Check::default();
        self.checked = 0;
        self.pace = None;
        self.answered = false;
    }

    /// Waits for the whole head of the next request with nothing in hand but the socket and what is there of the head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
    ) -> Poll<io::Result<Arrival>> {
        loop {
            if self.checked < self.ahead.len() {
                self.checked += self.check.read(&self.ahead[self.checked..]);
                let head = &self.ahead[..self.checked];
                if let Some(refusal) = self.check.measure.excess(head, limits) {
                    return Poll::Ready(Ok(Arrival::Refused(refusal)));
                }
                if !may_be_http(head) {
                    return Poll::Ready(Ok(Arrival::Refused(HeadRefusal::Malformed)));
                }
                if !self.check.in_head() {
                    return Poll::Ready(Ok(Arrival::Head));
                }
            }
            if !ready!(self.poll_ahead(cx))? {
                return Poll::Ready(Ok(Arrival::Closed));
            }
        }
    }

    /// What has come of the request's head.
    pub(super) fn head_so_far(&self) -> &[u8] {
        &self.ahead[..self.checked]
    }

    /// A head has begun: not only empty lines, which clients of old send after a request.
    pub(super) fn is_in_head(&self) -> bool {
        self.check.in_head() && !self.check.is_before_head()
    }

    /// A new request begins, with the head that [`Wire::poll_head`] found.
    pub(super) fn begin_request(&mut self) {
        self.connection.begin_request();
        self.connection.set_head_length(self.check.head_length());
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Sends something that ends the connection, and closes it so that the client gets it.
    pub(super) async fn end_with(mut self: Box<Self>, last: Vec<u8>) {
        if let Some(stream) = self.stream.take() {
            linger(stream, last).await;
        }
    }

    /// Adds what there is to read to `ahead`. `false` at the end of the stream.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_AHEAD];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self.stream()).poll_read(cx, &mut buf))?;
        self.ended = buf.filled().is_empty();
        match self.ahead.is_empty() {
            true => self.ahead = BytesMut::from(buf.filled()),
            false => self.ahead.extend_from_slice(buf.filled()),
        }
        Poll::Ready(Ok(!self.ended))
    }

    /// Hands out bytes of this request only, and what they mean to the framing check.
    fn poll_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.connection.phase() {
            Phase::Reading => {}
            // That the client has gone matters to a request that is being answered; all else waits for its turn.
            Phase::Done | Phase::TunnelAsked => {
                if self.ahead.is_empty() && !ready!(self.poll_ahead(cx))? {
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
            Phase::TunnelOpen => return self.poll_tunnel(cx, buf),
        }
        if self.ahead.is_empty() {
            let before = buf.filled().len();
            if Pin::new(self.stream()).poll_read(cx, buf)?.is_pending() {
                self.wait_for_body();
                return Poll::Pending;
            }
            let read = &buf.filled()[before..];
            self.ended = read.is_empty() && buf.remaining() > 0;
            let taken = self.check.read(read);
            self.ahead = BytesMut::from(&read[taken..]);
            buf.set_filled(before + taken);
            if self.pace.as_mut().is_some_and(|pace| pace.is_too_slow(taken, Instant::now())) {
                let late = io::Error::new(io::ErrorKind::TimedOut, "the request's body comes too slowly");
                return Poll::Ready(Err(late));
            }
        } else {
            let mut taken = self.ahead.len().min(buf.remaining());
            if self.checked > 0 {
                taken = taken.min(self.checked);
                self.checked -= taken;
            } else {
                taken = self.check.read(&self.ahead[..taken]);
            }
            buf.put_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
        }
        self.connection.set_framing(self.check.verdict());
        Poll::Ready(Ok(()))
    }

    /// The client has nothing more for now: from here on its body is waited for.
    fn wait_for_body(&mut self) {
        let Some(least) = self.connection.least_pace() else { return };
        self.pace.get_or_insert_with(|| Box::new(Pace::new(least))).wait(Instant::now());
    }

    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gathered_sent < self.gathered.len() {
            let stream = self.stream.as_mut().expect(STREAM);
            let written = Pin::new(stream).poll_write(cx, &self.gathered[self.gathered_sent..]);
            match ready!(self.watched(written, cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.gathered_sent += sent,
            }
        }
        self.gathered.clear();
        self.gathered_sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to be sent: small ones together, large ones at once.
    fn poll_gather(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.answered = true;
        if self.gathered.len() + data.len() > WRITE_BUFFER {
            ready!(self.poll_gathered(cx))?;
        }
        if data.len() >= WRITE_BUFFER {
            let written = Pin::new(self.stream()).poll_write(cx, data);
            return self.watched(written, cx);
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(data.len().max(SMALL_ANSWER));
        }
        self.gathered.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    /// What came of a write: one that has been pending for long is an error. HTTP/2 has its own watch over each
    /// stream.
    fn watched(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.mode != Mode::Http1 {
            self.stalled = None;
            return written;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }

    fn stream(&mut self) -> &mut Stream {
        self.stream.as_mut().expect(STREAM)
    }

    fn stream_ref(&self) -> &Stream {
        self.stream.as_ref().expect(STREAM)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.mode {
            Mode::Http1 => {
                // Pingora does not flush the beginning of an answer whose length it knows; when it turns to reading,
                // there is nothing more to send for now.
                if self.poll_gathered(cx)?.is_ready() {
                    self.gathered = Vec::new();
                }
                self.poll_request(cx, buf)
            }
            Mode::Http2 { preface } => self.poll_http2(cx, buf, preface),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll_gather(cx, data))?;
        if let Some(reader) = &mut self.http2 {
            reader.frames.wrote(written);
        }
        if self.connection.phase() == Phase::TunnelOpen {
            self.tunnel_takes(&data[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        self.gathered = Vec::new();
        Pin::new(self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        Pin::new(self.stream()).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    /// A client that is still sending when its answer is complete gets the answer: closing a socket with unread
    /// bytes would reset it, and a reset throws away what the client has not read yet. And of an answer that was cut
    /// it gets what there is.
    fn drop(&mut self) {
        let sending = self.answered && self.connection.phase() != Phase::Done;
        let unsent = self.gathered.split_off(self.gathered_sent);
        if self.mode != Mode::Http1 || self.ended || (!sending && unsent.is_empty()) {
            return;
        }
        if let (Some(stream), Ok(runtime)) = (self.stream.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(linger(stream, unsent));
        }
    }
}

/// Whether these bytes can be the beginning of a request: a TLS handshake cannot.
fn may_be_http(head: &[u8]) -> bool {
    let first = head.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_none_or(|byte| byte.is_ascii_graphic())
}

async fn linger(mut stream: Stream, unsent: Vec<u8>) {
    let drain = async {
        stream.write_all(&unsent).await?;
        AsyncWriteExt::shutdown(&mut stream).await?;
        let mut space = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut space).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // Whether the client closed, sent too much or took too long, the connection is over now.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // A client that is gone needs no goodbye.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.stream_ref().id()
    }
}

impl Ssl for Wire {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream_ref().get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.connection.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream_ref().selected_alpn_proto()
    }
}

impl GetTimingDigest for Wire {
    /// When the connection was made is among its facts; Pingora would have a list made for each request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream_ref().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream_ref().get_write_pending_time()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream_ref().get_socket_digest()
    }
}

/// Not offered: nobody who is handed a wire looks at bytes without taking them.
impl Peek for Wire {}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("connection", &self.connection)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The longest wait for a client to take a piece of an answer. Nothing else ends an answer whose client has stopped
/// reading, and meanwhile it holds the server's connection too.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const STREAM: &str = "a wire has its stream until it is dropped";
/// Most request heads fit in one read of this size; it is on the stack.
const READ_AHEAD: usize = 4096;
/// An answer's head and a small body leave in one write.
const WRITE_BUFFER: usize = 8 * 1024;
/// What the write buffer begins with: most heads and small bodies fit, and so little is soon had.
const SMALL_ANSWER: usize = 1024;
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
