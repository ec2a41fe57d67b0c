//! One listening socket: what it is told, its accept loop, and the way of a connection from `accept` to its end.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use ipnet::IpNet;
use parking_lot::Mutex;
use pingora::{
    apps::HttpServerApp,
    protocols::{
        ALPN, GetSocketDigest, SocketDigest, Stream, l4::socket::SocketAddr as PingoraAddr,
        l4::stream::Stream as L4Stream,
    },
    server::ShutdownWatch,
};
use tokio::{net::TcpStream, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    ClientCaps, Connection, ConnectionEvents, Refusal, Room, Verdict, Wire, Workers,
    client_caps::Guest,
    connection::{Closing, Facts, Open},
    http1::{self, Terms},
    http2,
    proxy_protocol::{self, Introduced},
};
use crate::{
    clock::Clock,
    config::{AddressLists, HeadLimits, Http2},
    metrics::{ListenerMetrics, Metrics},
};

/// Makes a TLS stream of an accepted one. The composition root connects it with the TLS side, which this module
/// does not know.
#[async_trait]
pub trait Handshake: Send + Sync {
    /// The stream after the handshake, or why there is none. It is dropped when it takes too long.
    async fn accept(&self, socket: L4Stream) -> Result<Secured, HandshakeFailure>;
}

/// A stream after its handshake.
pub struct Secured {
    pub stream: Stream,
    /// OpenSSL's name of the protocol version.
    pub version: &'static str,
    pub resumed: bool,
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HandshakeFailure {
    /// One of few words, for metrics.
    pub reason: &'static str,
    pub message: String,
}

/// A listener to be.
pub struct ListenerSpec {
    /// For logs and metrics.
    pub name: Arc<str>,
    /// From [`super::bind`].
    pub socket: TcpListener,
    pub settings: ListenerSettings,
}

/// What may change while a listener runs; connections that are open keep what they began with.
#[derive(Clone)]
pub struct ListenerSettings {
    /// `None`: plain.
    pub tls: Option<Arc<dyn Handshake>>,
    pub address_lists: AddressLists,
    /// Who speaks for clients by the PROXY protocol, and nobody else comes; `None`: clients come themselves.
    pub proxy_peers: Option<Vec<IpNet>>,
    /// From the first byte of a request to the end of its head.
    pub client_header_timeout: Duration,
    /// Without any byte, before the first request and between two.
    pub keepalive_timeout: Duration,
    /// For the whole of a TLS handshake.
    pub handshake_timeout: Duration,
    pub head_limits: HeadLimits,
    /// What one client may have; `None`: whatever it likes.
    pub client_caps: Option<Arc<ClientCaps>>,
    pub http2: Http2,
}

impl ListenerSettings {
    /// Whether somebody may connect: a client, or who speaks for clients, who are looked at later.
    fn admits_peer(&self, peer: SocketAddr) -> Result<(), Refusal> {
        match &self.proxy_peers {
            None => self.admits(peer),
            Some(peers) if peers.iter().any(|net| net.contains(&peer.ip())) => Ok(()),
            Some(_) => Err(Refusal::ProxyPeer),
        }
    }

    fn admits(&self, client: SocketAddr) -> Result<(), Refusal> {
        let lists = &self.address_lists;
        let in_list = |list: &[IpNet]| list.iter().any(|net| net.contains(&client.ip()));
        match !in_list(&lists.deny) && (lists.allow.is_empty() || in_list(&lists.allow)) {
            true => Ok(()),
            false => Err(Refusal::Address),
        }
    }
}

/// What all listeners of an instance have in common.
pub(super) struct Shared<A> {
    pub workers: Workers<A>,
    pub events: Arc<dyn ConnectionEvents>,
    pub clock: Clock,
    pub room: Room,
    pub metrics: Metrics,
    pub open: Arc<watch::Sender<usize>>,
    pub next_id: AtomicU64,
}

/// What ends connections. Those of one time have one, so that they can be ended while others go on.
pub(super) struct Ending {
    /// Closes idle connections.
    pub hang_up: CancellationToken,
    /// Becomes true when every connection's next answer is to be its last. Its copies see the change as new.
    pub shutdown: ShutdownWatch,
    pub tell: watch::Sender<bool>,
}

impl Ending {
    pub fn new(hang_up: CancellationToken) -> Self {
        let (tell, shutdown) = watch::channel(false);
        Self { hang_up, shutdown, tell }
    }
}

/// A listening socket and what its connections need to know.
pub(super) struct Port<A> {
    pub name: Arc<str>,
    pub settings: ArcSwap<ListenerSettings>,
    pub shared: Arc<Shared<A>>,
    pub counts: ListenerMetrics,
    /// What connections that are made now will be ended by.
    pub ending: ArcSwap<Ending>,
    /// Cuts what is still running when the grace period is over.
    pub kill: CancellationToken,
    /// The tasks of open connections, and of some that have ended.
    pub connections: Mutex<JoinSet<()>>,
}

impl<A> Port<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// Accepts until it is stopped, and never waits for a client.
    pub async fn accept(self: Arc<Self>, socket: Arc<tokio::net::TcpListener>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.next(&socket) => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    self.shared.room.accepted(self.shared.clock.now());
                    self.admit(stream, client);
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    self.counts.not_accepted();
                    self.shared.room.failed(&error, self.shared.clock.now());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next client, when there is room for it; until then it waits in the kernel's queue.
    async fn next(&self, socket: &tokio::net::TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let Shared { room, open, clock, .. } = &*self.shared;
        if room.is_full(*open.borrow()) {
            room.filled(clock.now());
            // The sender is ours: it cannot be gone.
            let _ = open.subscribe().wait_for(|open| !room.is_full(*open)).await;
            room.emptied(clock.now());
        }
        socket.accept().await
    }

    fn admit(self: &Arc<Self>, socket: TcpStream, client: SocketAddr) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        self.counts.accepted();
        let settings = self.settings.load_full();
        if let Err(refusal) = settings.admits_peer(client) {
            return self.refuse(client, &refusal);
        }
        let counted = match settings.proxy_peers.is_some() {
            true => Ok(None), // once it is known who it is
            false => self.count(client, &settings),
        };
        let guest = match counted {
            Ok(guest) => guest,
            Err(refusal) => return self.refuse(client, &refusal),
        };
        let open = Open::new(&self.shared.open, self.counts.open(), guest);
        let port = self.clone();
        let mut connections = self.connections.lock();
        while connections.try_join_next().is_some() {}
        self.shared.workers.serve(&mut connections, socket, move |socket, app| async move {
            port.connection(socket, client, &settings, open, &app).await;
        });
    }

    /// Counts a client's connection against what one client may have.
    fn count(&self, client: SocketAddr, settings: &ListenerSettings) -> Result<Option<Guest>, Refusal> {
        let count = |caps: &Arc<ClientCaps>| caps.admit(client.ip(), self.shared.clock.now());
        settings.client_caps.as_ref().map(count).transpose()
    }

    /// Waits until no connection is open.
    pub async fn all_closed(&self) {
        loop {
            {
                let mut connections = self.connections.lock();
                while connections.try_join_next().is_some() {}
                if connections.is_empty() {
                    return;
                }
            }
            tokio::time::sleep(CLOSED_INTERVAL).await;
        }
    }

    /// Waits until what is still running is to be cut, and cuts it. A connection that asked for itself would do so
    /// several times in every request.
    pub async fn cut_when_killed(self: Arc<Self>) {
        self.kill.cancelled().await;
        self.connections.lock().abort_all();
    }

    async fn connection(
        &self,
        mut socket: TcpStream,
        peer: SocketAddr,
        settings: &ListenerSettings,
        open: Open,
        app: &Arc<A>,
    ) {
        // Both fail only for a client that is gone already.
        let Ok(local) = socket.local_addr() else { return };
        let _ = socket.set_nodelay(true);
        let (client, _guest) = match self.client(&mut socket, peer, settings).await {
            Ok(known) => known,
            Err(refusal) => return self.refuse(peer, &refusal),
        };
        let stream = match self.handshake(pingora_stream(socket, client), settings).await {
            Ok(stream) => stream,
            Err(refusal) => return self.refuse(client, &refusal),
        };
        let ending = self.ending.load_full();
        let connection = Arc::new(Connection::from(Facts {
            id: self.shared.next_id.fetch_add(1, Ordering::Relaxed),
            listener: self.name.clone(),
            client,
            local,
            tls: stream.get_ssl_digest(),
            accepted_at: self.shared.clock.now(),
            shutdown: ending.shutdown.clone(),
            open,
        }));
        let events = &*self.shared.events;
        let _closing = Closing { events, connection: &connection };
        match events.accepted(&connection).await {
            Verdict::Serve => {}
            Verdict::Refuse => return self.counts.refused(BY_RULE),
            Verdict::Full => return self.counts.refused(FULL),
        }
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            let wire = Wire::http1(stream, connection.clone());
            // Boxed, so that HTTP/1 connections do not carry about what it takes.
            Box::pin(self.http2(wire, settings, &ending, app)).await;
        } else {
            let terms = Terms {
                head_timeout: settings.client_header_timeout,
                idle_timeout: settings.keepalive_timeout,
                limits: &settings.head_limits,
                events,
                clock: &self.shared.clock,
            };
            let mut wire = Wire::http1(stream, connection.clone());
            if settings.http2.prior_knowledge && settings.tls.is_none() {
                let preface = wire.begins_with(http2::PREFACE);
                match tokio::time::timeout(settings.keepalive_timeout, preface).await {
                    Ok(true) => return Box::pin(self.http2(wire, settings, &ending, app)).await,
                    Ok(false) => {}
                    Err(_) => return,
                }
            }
            http1::serve(app, wire, terms, &ending.shutdown, &ending.hang_up).await;
        }
    }

    /// Who the client is: who connected, or the one that he speaks for, who is counted then.
    async fn client(
        &self,
        socket: &mut TcpStream,
        peer: SocketAddr,
        settings: &ListenerSettings,
    ) -> Result<(SocketAddr, Option<Guest>), Refusal> {
        if settings.proxy_peers.is_none() {
            return Ok((peer, None));
        }
        let introduced = proxy_protocol::introduced(socket);
        let client = match tokio::time::timeout(settings.client_header_timeout, introduced).await {
            Ok(Ok(Introduced::Client(client))) => client,
            Ok(Ok(Introduced::Sender)) => peer,
            Ok(Err(why)) => return Err(Refusal::ProxyHeader(why.to_string())),
            Err(_) => return Err(Refusal::ProxyTimeout),
        };
        settings.admits(client)?;
        Ok((client, self.count(client, settings)?))
    }

    async fn http2(&self, wire: Box<Wire>, settings: &ListenerSettings, ending: &Ending, app: &Arc<A>) {
        let wire = wire.into_http2(settings.client_header_timeout, settings.http2.max_control_frames);
        let end =
            http2::serve(app, wire, &settings.http2, settings.keepalive_timeout, &ending.shutdown).await;
        if let Some(reason) = end.label() {
            self.counts.http2_ended(reason);
        }
    }

    async fn handshake(&self, socket: L4Stream, settings: &ListenerSettings) -> Result<Stream, Refusal> {
        let Some(tls) = &settings.tls else { return Ok(Box::new(socket)) };
        let refusal = match tokio::time::timeout(settings.handshake_timeout, tls.accept(socket)).await {
            Ok(Ok(Secured { stream, version, resumed })) => {
                self.counts.shaken(version, resumed);
                return Ok(stream);
            }
            Ok(Err(failure)) => Refusal::Handshake(failure),
            Err(_) => Refusal::HandshakeTimeout,
        };
        self.counts.handshake_failed(match &refusal {
            Refusal::Handshake(failure) => failure.reason,
            _ => "timeout",
        });
        Err(refusal)
    }

    fn refuse(&self, client: SocketAddr, refusal: &Refusal) {
        self.counts.refused(refusal.label());
        self.shared.events.refused(&self.name, client, refusal);
    }
}

/// Pingora's stream, unbuffered, knowing who is at its ends.
fn pingora_stream(socket: TcpStream, client: SocketAddr) -> L4Stream {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    // It is new, so nobody has set the address before.
    let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(client)));
    let mut stream = L4Stream::from(socket);
    stream.set_socket_digest(digest);
    stream
}

/// Errors of `accept` that concern one client who went away meanwhile, and not us.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut
    )
}

/// A rule's `reject`, beside the labels of [`Refusal`].
const BY_RULE: &str = "rule";
const FULL: &str = "virtual_service_full";
/// After an error such as too many open files, which only time can mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a listener that was removed looks whether its connections are gone.
const CLOSED_INTERVAL: Duration = Duration::from_millis(100);
