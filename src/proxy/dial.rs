//! Connections to servers that are more than Pingora's own: those that homing can end while Pingora reads from them.
//!
//! They are kept and used again as all others. Pingora calls this a custom L4 connector, and what it hands on with
//! each use of a connection a proxy digest.

use std::{
    net::Shutdown,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use async_trait::async_trait;
use pingora::{
    Result,
    connectors::l4::Connect,
    http::ResponseHeader,
    protocols::{
        Digest, GetProxyDigest,
        l4::{ext, socket::SocketAddr, stream::Stream},
        raw_connect::ProxyDigest,
    },
    upstreams::peer::HttpPeer,
};
use tokio::net::TcpStream;

/// Has a peer's new connections made here.
pub(super) fn by_homing(peer: &mut HttpPeer) {
    peer.options.custom_l4 = Some(Arc::new(Dial));
    // Those that were made otherwise are not held.
    peer.group_key ^= HELD;
}

#[derive(Debug)]
struct Dial;

#[async_trait]
impl Connect for Dial {
    async fn connect(&self, server: &SocketAddr) -> Result<Stream> {
        let server = server.as_inet().expect("servers have IP addresses");
        let tcp = ext::connect(server, None).await?;
        let held = Held::of(&tcp);
        let mut stream = Stream::from(tcp);
        if let Some(held) = held {
            let nothing = Box::new(ResponseHeader::build(200, Some(0))?);
            stream.set_proxy_digest(ProxyDigest::new(nothing, Some(Box::new(Arc::new(held)))));
        }
        Ok(stream)
    }
}

/// A second hand on the socket of a connection that Pingora has.
#[derive(Debug)]
pub(super) struct Held(OwnedFd);

impl Held {
    /// `None`: there are no file descriptors left.
    fn of(socket: &TcpStream) -> Option<Self> {
        socket.as_fd().try_clone_to_owned().ok().map(Self)
    }

    /// The one of a connection that was made here.
    pub fn behind(digest: Option<&Digest>) -> Option<Arc<Self>> {
        digest?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Self>>().cloned()
    }

    /// Ends the connection: who reads from it finds its end, who writes fails.
    pub fn end(&self) {
        // It is over already if this fails.
        let _ = socket2::SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

/// Sets these connections apart from the others to the same servers.
const HELD: u64 = 4;
