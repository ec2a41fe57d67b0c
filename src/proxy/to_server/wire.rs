//! Our stream around Pingora's: what Pingora reads and writes a server's HTTP/1 connection through, above TLS.
//!
//! It lets pass what [`Answers`] finds good, as it came and where it lies, and fails at the first byte that is not. What
//! of an answer is good until then its client may get; the rest it never does, and the connection is not used again.
//!
//! It knows when the connection waits for a request, and counts it among its server's then. And before a request that
//! could not be sent twice it looks whether the server has closed meanwhile.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
    l4::ext,
    raw_connect::ProxyDigest,
    tls::{SslDigest, TlsRef},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use crate::{
    listen::carrying,
    message::{Answers, Request},
    pool::Counted,
};

/// A server's connection as Pingora sees it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    answers: Answers,
    phase: Phase,
    link: Arc<Link>,
    digest: Arc<ProxyDigest>,
    /// Among its server's connections.
    counted: Option<Counted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    /// What is written belongs to the request that was begun last.
    InRequest,
    /// Its last request was answered before its end: who sends that much too early may say more.
    Overtaken,
    /// Its last request is over.
    Kept,
}

/// The server had closed the connection before anything of the request was sent.
#[derive(Debug, thiserror::Error)]
#[error("the server has closed the kept connection")]
pub(super) struct Unsent;

impl Wire {
    pub fn new(stream: Stream) -> Self {
        let link = Arc::new(Link::of(&stream));
        let digest = Arc::new(carrying(link.clone()));
        Self { stream, answers: Answers::default(), phase: Phase::New, link, digest, counted: None }
    }

    /// Something is about to be written: of a new request if the last one is over. Pingora writes a head at once.
    fn writes(&mut self, head: &[u8]) -> io::Result<()> {
        match self.phase {
            Phase::InRequest if self.answers.are_over() => self.phase = Phase::Overtaken,
            Phase::InRequest | Phase::Overtaken => {}
            Phase::New | Phase::Kept => self.begins(head)?,
        }
        Ok(())
    }

    fn begins(&mut self, head: &[u8]) -> io::Result<()> {
        if self.phase == Phase::Kept && !is_repeatable(head) && is_closed(self.stream.id()) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, Unsent));
        }
        self.phase = Phase::InRequest;
        self.answers.asked(if head.starts_with(b"HEAD ") { Request::Head } else { Request::Other });
        match (&mut self.counted, self.link.among()) {
            (Some(counted), _) => counted.is_used(),
            (counted, Some(among)) => *counted = Some(among.count()),
            _ => {}
        }
        Ok(())
    }

    /// Something is about to be read: behind an answer's end only when Pingora is to keep the connection.
    fn reads(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed() {
            return Err(error);
        }
        match self.phase {
            Phase::InRequest if self.answers.are_over() => {
                self.phase = Phase::Kept;
                if self.counted.as_mut().is_some_and(|counted| !counted.may_rest()) {
                    return Err(io::Error::other("enough connections to the server are idle"));
                }
            }
            Phase::Overtaken => return Err(io::Error::other("the answer overtook its request")),
            _ => {}
        }
        Ok(())
    }

    fn failed(&self) -> Option<io::Error> {
        self.answers.fault().map(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads()?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let good = self.answers.read(read);
        if good == read.len() {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before + good);
        match self.failed() {
            Some(error) if good == 0 => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes(bytes)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes(bytes.first().map_or(&[], |first| first))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Wire {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Wire {
    /// Nobody asks when the connection was made; Pingora would have a list made for each request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

/// Not offered: nobody looks at a server's bytes without taking them.
impl Peek for Wire {}

/// Whether a request may be sent twice (RFC 9110, 9.2.2): it is, if its kept connection turns out closed.
fn is_repeatable(head: &[u8]) -> bool {
    IDEMPOTENT.iter().any(|method| head.starts_with(method))
}

/// Whether the other side has closed, by what the kernel knows at this moment. The runtime hears of it later.
fn is_closed(socket: UniqueIDType) -> bool {
    ext::get_tcp_info(socket).is_ok_and(|info| info.tcpi_state != ESTABLISHED)
}

const IDEMPOTENT: [&[u8]; 6] = [b"GET ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"TRACE "];
/// `TCP_ESTABLISHED` of Linux.
const ESTABLISHED: u8 = 1;

#[cfg(test)]
mod tests {
    use pingora::protocols::l4::stream::Stream as L4Stream;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{message::Fault, pool::Connected};

    fn wire() -> (Wire, DuplexStream) {
        let (ours, servers) = duplex(1 << 16);
        (Wire::new(Box::new(ours)), servers)
    }

    async fn read(wire: &mut Wire) -> Result<String, Fault> {
        let mut space = [0; 1000];
        match wire.read(&mut space).await {
            Ok(read) => Ok(String::from_utf8_lossy(&space[..read]).into_owned()),
            Err(error) => {
                let fault = error.get_ref().and_then(|fault| fault.downcast_ref::<Fault>());
                Err(*fault.expect("it is one of ours"))
            }
        }
    }

    /// As Pingora does before it keeps a connection.
    async fn may_be_kept(wire: &mut Wire) -> bool {
        let mut byte = [0];
        let mut read = Box::pin(wire.read(&mut byte));
        std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn good_bytes_pass_and_the_first_bad_one_is_an_error_for_good() {
        let (mut wire, mut server) = wire();
        wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let good = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
        server.write_all(good.as_bytes()).await.unwrap();
        server.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut wire).await.as_deref(), Ok(good));
        for _ in 0..2 {
            assert_eq!(read(&mut wire).await, Err(Fault::Chunks));
        }
        assert!(!may_be_kept(&mut wire).await);
    }

    #[tokio::test]
    async fn requests_follow_one_another_and_each_has_its_own_answer() {
        let (mut wire, mut server) = wire();
        for (head, answer) in [
            ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("HEADS / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ] {
            wire.write_all(head.as_bytes()).await.unwrap();
            server.write_all(answer.as_bytes()).await.unwrap();
            assert_eq!(read(&mut wire).await.as_deref(), Ok(answer));
            assert!(may_be_kept(&mut wire).await);
        }
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(!may_be_kept(&mut wire).await);
        wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut wire).await, Err(Fault::Unasked));
    }

    #[tokio::test]
    async fn a_request_that_may_not_be_sent_twice_is_not_sent_on_a_connection_that_is_closed() {
        let answer = b"HTTP/1.1 204 None\r\n\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (head, is_sent) in [("POST / HTTP/1.1\r\n\r\n", false), ("GET / HTTP/1.1\r\n\r\n", true)] {
            let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let mut wire = Wire::new(Box::new(L4Stream::from(ours)));
            for _ in 0..2 {
                wire.write_all(head.as_bytes()).await.unwrap();
                server.read_exact(&mut vec![0; head.len()]).await.unwrap();
                server.write_all(answer).await.unwrap();
                read(&mut wire).await.unwrap();
                assert!(may_be_kept(&mut wire).await, "it is open");
            }
            drop(server);
            // The kernel knows, and this task has not let the runtime ask it.
            while !is_closed(wire.id()) {
                std::thread::yield_now();
            }
            let sent = wire.write_all(head.as_bytes()).await;
            assert_eq!(sent.is_ok(), is_sent, "{head:?}");
            let unsent = |error: io::Error| error.get_ref().is_some_and(|why| why.is::<Unsent>());
            assert_eq!(sent.is_err_and(unsent), !is_sent, "{head:?}");
        }
    }

    #[tokio::test]
    async fn it_counts_as_idle_between_two_requests_if_there_is_room() {
        let among = Arc::<Connected>::default();
        let (mut wire, mut server) = wire();
        wire.link.is_among(&among);
        for _ in 0..2 {
            wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!((among.open(), among.idle()), (1, 0));
            server.write_all(b"HTTP/1.1 204 None\r\n\r\n").await.unwrap();
            read(&mut wire).await.unwrap();
            assert!(may_be_kept(&mut wire).await);
            assert_eq!((among.open(), among.idle()), (1, 1));
        }
        drop(wire);
        assert_eq!((among.open(), among.idle()), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_whose_request_was_answered_before_its_end_is_not_kept() {
        let (mut wire, mut server) = wire();
        wire.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        server.write_all(b"HTTP/1.1 204 None\r\n\r\n").await.unwrap();
        read(&mut wire).await.unwrap();
        wire.write_all(b"all of it").await.unwrap();
        assert!(!may_be_kept(&mut wire).await);
    }
}
