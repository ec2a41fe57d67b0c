//! Connections to servers that are more than Pingora's own: those that begin with a [`Preface`], and those that homing
//! can end while Pingora has them.
//!
//! They are kept and used again as all others. Pingora calls this a custom L4 connector, and what it hands on with
//! each use of a connection a proxy digest.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Shutdown},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    connectors::l4::{BindTo, Connect},
    protocols::{
        Digest, GetProxyDigest,
        l4::{ext, socket::SocketAddr, stream::Stream},
    },
    upstreams::peer::HttpPeer,
};
use tokio::net::TcpStream;

use super::{exchange::Ctx, to_server::Link};
use crate::{
    clock::Clock,
    config::{Connections, Pool},
    listen::{carried, carrying},
    preface::Preface,
};

/// Has a peer's connections come from an address of this machine, and be used by nobody who wants another.
pub(super) fn come_from(source: IpAddr, peer: &mut HttpPeer) {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    peer.group_key ^= hasher.finish();
    let mut bind_to = BindTo::default();
    bind_to.addr = Some((source, 0).into());
    peer.options.bind_to = Some(bind_to);
}

/// How a connection is made.
#[derive(Debug)]
pub(super) struct Dial {
    preface: Option<Preface>,
    /// It may have to be ended; by this clock it ages.
    held: Option<Clock>,
    source: Option<BindTo>,
}

/// Whether homing may have to end the connections of a pool.
pub(super) fn are_held(pool: &Pool) -> bool {
    pool.patience.ends() || pool.connections.end()
}

impl Dial {
    /// From where the peer says.
    pub fn new(preface: Option<Preface>, held: Option<Clock>) -> Self {
        Self { preface, held, source: None }
    }

    /// Has a peer's new connections made so, and kept apart from others to the same server.
    pub fn apply(mut self, peer: &mut HttpPeer) {
        self.source = peer.options.bind_to.clone();
        let mut hasher = DefaultHasher::new();
        (self.held.is_some(), self.preface.as_ref().map(Preface::fingerprint)).hash(&mut hasher);
        peer.group_key ^= hasher.finish();
        if self.preface.is_some() {
            // When its client is gone nobody has a use for it.
            let idle = peer.options.idle_timeout.map_or(OF_ONE_CLIENT, |idle| idle.min(OF_ONE_CLIENT));
            peer.options.idle_timeout = Some(idle);
        }
        peer.options.custom_l4 = Some(Arc::new(self));
    }
}

#[async_trait]
impl Connect for Dial {
    async fn connect(&self, server: &SocketAddr) -> Result<Stream> {
        let tcp = connect(server, self.source.as_ref(), self.preface.as_ref()).await?;
        let held = self.held.as_ref().and_then(|clock| Held::of(&tcp, clock));
        let mut stream = Stream::from(tcp);
        if let Some(held) = held {
            stream.set_proxy_digest(carrying(Arc::new(held)));
        }
        Ok(stream)
    }
}

/// A new connection, on which the preface was written.
pub(super) async fn connect(
    server: &SocketAddr,
    source: Option<&BindTo>,
    preface: Option<&Preface>,
) -> Result<TcpStream> {
    let server = server.as_inet().expect("servers have IP addresses");
    let mut tcp = ext::connect(server, source).await?;
    if let Some(preface) = preface {
        let written = preface.write(&mut tcp).await;
        written.map_err(|error| Error::because(ErrorType::ConnectError, "no PROXY header written", error))?;
    }
    Ok(tcp)
}

/// A second hand on the socket of a connection that Pingora has.
#[derive(Debug)]
pub(super) struct Held {
    socket: OwnedFd,
    clock: Clock,
    since: Instant,
    requests: AtomicU32,
}

impl Held {
    /// `None`: there are no file descriptors left.
    fn of(socket: &TcpStream, clock: &Clock) -> Option<Self> {
        let socket = socket.as_fd().try_clone_to_owned().ok()?;
        Some(Self { socket, clock: clock.clone(), since: clock.now(), requests: AtomicU32::new(0) })
    }

    /// The one of a connection that was made here.
    pub fn behind(digest: Option<&Digest>) -> Option<Arc<Self>> {
        match Link::behind(digest) {
            Some(link) => link.held().cloned(),
            None => carried::<Arc<Self>>(digest?.proxy_digest.as_deref()?).cloned(),
        }
    }

    /// Ends the connection: who reads from it finds its end, who writes fails.
    pub fn end(&self) {
        // It is over already if this fails.
        let _ = socket2::SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    /// Counts a request. Whether it was the connection's last.
    fn is_worn_out(&self, connections: &Connections) -> bool {
        let requests = self.requests.fetch_add(1, Relaxed) + 1;
        let age = || self.clock.now().saturating_duration_since(self.since);
        connections.max_requests.is_some_and(|most| requests >= most)
            || connections.max_age.is_some_and(|most| age() >= most)
    }
}

/// The answer is whole: parts with a connection that has served enough, before another request gets it.
pub(super) fn used(ctx: &mut Ctx) {
    let Some(attempt) = &mut ctx.attempt else { return };
    let connections = &attempt.pool.config().connections;
    if let Some(held) = attempt.held.take()
        && connections.end()
        && held.is_worn_out(connections)
    {
        held.end();
    }
}

/// How long an unused connection of one client is kept at most.
const OF_ONE_CLIENT: Duration = Duration::from_secs(10);
