//! Our stream around Pingora's: what Pingora reads and writes a server's HTTP/1 connection through, above TLS.
//!
//! It lets pass what [`Answers`] finds good, as it came and where it lies, and fails at the first byte that is not. What
//! of an answer is good until then its client may get; the rest it never does, and the connection is not used again.

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
    raw_connect::ProxyDigest,
    tls::{SslDigest, TlsRef},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::message::{Answers, Request};

/// A server's connection as Pingora sees it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    answers: Answers,
    /// What is written belongs to the request that was begun last.
    in_request: bool,
}

impl Wire {
    pub fn new(stream: Stream) -> Self {
        Self { stream, answers: Answers::default(), in_request: false }
    }

    fn begin_request(&mut self, head: &[u8]) {
        self.in_request = true;
        // Pingora writes a head at once.
        self.answers.asked(if head.starts_with(b"HEAD ") { Request::Head } else { Request::Other });
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
        if let Some(error) = self.failed() {
            return Poll::Ready(Err(error));
        }
        // Behind an answer's end Pingora looks only when it is about to keep the connection: a request that was
        // answered early is over then too.
        self.in_request &= !self.answers.are_over();
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
        if !self.in_request {
            self.begin_request(bytes);
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.in_request {
            self.begin_request(bytes.first().map_or(&[], |first| first));
        }
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
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

/// Not offered: nobody looks at a server's bytes without taking them.
impl Peek for Wire {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::message::Fault;

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
    async fn what_is_left_of_an_answered_request_is_no_new_one() {
        let (mut wire, mut server) = wire();
        wire.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        server.write_all(b"HTTP/1.1 204 None\r\n\r\n").await.unwrap();
        read(&mut wire).await.unwrap();
        wire.write_all(b"all of it").await.unwrap();
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await.unwrap();
        assert!(!may_be_kept(&mut wire).await);
    }
}
