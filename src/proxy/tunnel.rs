//! Connections to servers for requests that ask for another protocol (`Upgrade`, RFC 9110, 7.8): WebSockets, mostly.
//!
//! Such a request has no body. Pingora sends the end of this empty body the same way as what the client says in the
//! tunnel, and takes by chance either that or the server's answer when both are there. A 101 that is taken first
//! turns the end of the body into the end of the tunnel, which is closed as soon as it is open. So here the answer is
//! never there at first: after homing has spoken, the first look for what the server says finds nothing, and the
//! next one follows at once.
//!
//! And a server without TLS may end its direction before the client does, and the client before the server:
//! [`listen::Tunnel`](crate::listen::Tunnel). Under TLS nobody can count what the tunnel carries here, and there
//! one end is the other's too.
//!
//! Nothing else is different for a tunnel. Pingora calls this a custom L4 connector with a virtual socket.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    Result,
    connectors::l4::{BindTo, Connect},
    protocols::l4::{
        ext,
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
    upstreams::peer::HttpPeer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::dial;
use crate::{
    listen::{AfterHeads, Connection, Side, Tunnel},
    preface::Preface,
};

/// Gives a request that may become a tunnel a connection of its own: none that was kept, and none to be kept where
/// the server declines. The peer's `total_connection_timeout` is the one that holds for it.
pub(super) fn on_its_own_connection(
    peer: &mut HttpPeer,
    client: Option<&Arc<Connection>>,
    preface: Option<Preface>,
) {
    let tunnel = (!peer.is_tls()).then(Arc::<Tunnel>::default);
    peer.group_key ^= TUNNELS;
    peer.options.idle_timeout = Some(AT_ONCE);
    peer.options.custom_l4 =
        Some(Arc::new(Connector { tunnel: tunnel.clone(), source: peer.options.bind_to.clone(), preface }));
    if let Some(client) = client {
        client.ask_for_tunnel(tunnel);
    }
}

#[derive(Debug)]
struct Connector {
    tunnel: Option<Arc<Tunnel>>,
    source: Option<BindTo>,
    preface: Option<Preface>,
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, server: &SocketAddr) -> Result<Stream> {
        let tcp = dial::connect(server, self.source.as_ref(), self.preface.as_ref()).await?;
        let end = self.tunnel.clone().map(TunnelEnd::new);
        let socket = Socket { tcp, spoke: false, turns: TURNS, end };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    /// Something was written since the last read.
    spoke: bool,
    /// How often a read will still be put off.
    turns: u8,
    end: Option<TunnelEnd>,
}

/// The server's end of a tunnel.
#[derive(Debug)]
struct TunnelEnd {
    tunnel: Arc<Tunnel>,
    written: AfterHeads,
    read: AfterHeads,
    ended: bool,
    /// The server was told that nothing more comes.
    told: bool,
}

impl TunnelEnd {
    fn new(tunnel: Arc<Tunnel>) -> Self {
        Self {
            tunnel,
            written: AfterHeads::default(),
            read: AfterHeads::default(),
            ended: false,
            told: false,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.spoke && self.turns > 0 {
            self.spoke = false;
            self.turns -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Socket { tcp, end, .. } = &mut *self;
        let Some(end) = end else { return Pin::new(tcp).poll_read(cx, buf) };
        if !end.told && end.tunnel.is_through(Side::Server) {
            ready!(Pin::new(&mut *tcp).poll_shutdown(cx))?;
            end.told = true;
        }
        if end.ended {
            return if end.tunnel.is_over() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let before = buf.filled().len();
        ready!(Pin::new(tcp).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            end.tunnel.gives(Side::Server, end.read.of(read));
        } else if end.read.are_over() {
            end.ended = true;
            end.tunnel.ends(Side::Server);
            // The client's end is to look, in this same task, and this one to look again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.spoke = true;
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        if let Some(end) = &mut self.end {
            end.tunnel.takes(Side::Server, end.written.of(&bytes[..written]));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for Socket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            VirtualSockOpt::KeepAlive(settings) => {
                ext::set_tcp_keepalive(&self.tcp, &settings).map_err(io::Error::other)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Sets these connections apart from the kept ones of the same server.
const TUNNELS: u64 = 1;

/// Not zero, with which Pingora's timers cannot reckon in the first millisecond after the first of them was made: a
/// build that checks for overflow panics then, and the connection stays open.
const AT_ONCE: Duration = Duration::from_millis(1);
/// The request is homing's fourth turn at most, after those of a TLS handshake; the tunnel's own traffic, which no
/// answer may be put off for, follows.
const TURNS: u8 = 4;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connected() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = SocketAddr::from(listener.local_addr().unwrap());
        let connector = Connector { tunnel: None, source: None, preface: None };
        let (ours, accepted) = tokio::join!(connector.connect(&addr), listener.accept());
        (ours.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn what_a_server_says_is_found_at_the_second_look_after_each_of_the_first_turns() {
        let (mut ours, mut servers) = connected().await;
        for turn in 1..=TURNS + 2 {
            ours.write_all(b"?").await.unwrap();
            ours.flush().await.unwrap();
            servers.write_all(b"!").await.unwrap();
            servers.read_exact(&mut [0]).await.unwrap();
            let (mut looks, mut byte) = (0, [0]);
            let mut read = Box::pin(ours.read_exact(&mut byte));
            std::future::poll_fn(|cx| {
                looks += 1;
                read.as_mut().poll(cx)
            })
            .await
            .unwrap();
            assert_eq!(looks, if turn <= TURNS { 2 } else { 1 }, "turn {turn}");
        }
    }
}
