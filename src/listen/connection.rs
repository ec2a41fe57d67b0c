//! One client connection: its facts, the events at its two ends, and the few words that the proxy and the
//! [`Wire`](super::Wire) exchange about the request that is on it.
//!
//! Pingora hands filters a `Digest` of the connection; [`Connection::of`] finds ours in it, for HTTP/1 and for
//! every stream of an HTTP/2 connection. The events are BIG-IP's `CLIENT_ACCEPTED` and `CLIENT_CLOSED`.

use std::{
    any::Any,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::{
    protocols::{Digest, raw_connect::ProxyDigest, tls::SslDigest},
    server::ShutdownWatch,
};
use tokio::sync::watch;

use super::{
    HandshakeFailure, LeastPace, RefusedHead, Tunnel,
    carried::{carried, carrying},
    client_caps::Guest,
    framing::Framing,
};
use crate::metrics::Held;

/// A client connection, from the end of its handshake until its last request is gone.
pub struct Connection {
    /// Counts up within one instance.
    pub id: u64,
    /// The name of the listener that accepted it.
    pub listener: Arc<str>,
    /// Where the client is; an IPv4 client of an IPv6 socket has its IPv4 address.
    pub client: SocketAddr,
    /// The address and port that the client connected to.
    pub local: SocketAddr,
    /// What the TLS handshake settled, on TLS ports.
    pub tls: Option<Arc<SslDigest>>,
    pub accepted_at: Instant,
    state: OnceLock<Box<dyn Any + Send + Sync>>,
    shutdown: ShutdownWatch,
    phase: AtomicU8,
    tunnel: Mutex<Option<Arc<Tunnel>>>,
    framing: AtomicU8,
    /// HTTP/2 requests that were accepted and that the wire has not heard of yet.
    http2_served: AtomicU32,
    http2_flooded: AtomicBool,
    /// 0: not read yet, or not well formed.
    head_length: AtomicU32,
    /// What [`Connection::least_pace`] says: bytes in a second, and milliseconds.
    least_rate: AtomicU32,
    patience: AtomicU32,
    _open: Open,
}

impl Connection {
    /// The connection that a Pingora session is on. `None` for sessions that no listener of ours made.
    pub fn of(digest: Option<&Digest>) -> Option<&Arc<Self>> {
        carried(digest?.proxy_digest.as_deref()?)
    }

    /// Keeps the app's own state with the connection, once. Says whether it was the first.
    pub fn set_state<T: Any + Send + Sync>(&self, state: T) -> bool {
        self.state.set(Box::new(state)).is_ok()
    }

    /// The app's state, if one of this type was set.
    pub fn state<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.state.get()?.downcast_ref()
    }

    /// The listener is going away: the answer being made should be the connection's last.
    pub fn draining(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// To be called when the request has been read to its end, with or without a body, unless it asks for an
    /// upgrade. What the client sends from then on is its next request and waits until this one is answered;
    /// without the call, Pingora takes an early next request for an error of this one.
    pub fn request_done(&self) {
        self.set_phase(Phase::Done);
    }

    /// To be called when the request asks for a tunnel and is about to go to a server: what the client sends from then
    /// on waits for the answer. With a `tunnel` the client may end its direction before the server does.
    pub fn ask_for_tunnel(&self, tunnel: Option<Arc<Tunnel>>) {
        *self.tunnel.lock() = tunnel;
        self.set_phase(Phase::TunnelAsked);
    }

    /// To be called when a tunnel that was asked for is opened or refused, before the answer is written. It means
    /// nothing of other requests.
    pub fn answer_tunnel(&self, opened: bool) {
        match self.phase() {
            Phase::TunnelAsked if opened => self.set_phase(Phase::TunnelOpen),
            Phase::TunnelAsked => {
                *self.tunnel.lock() = None;
                self.set_phase(Phase::Reading);
            }
            _ => {}
        }
    }

    /// What the bytes read so far say about the chunk framing of an HTTP/1 request's body. It means something
    /// only for a request whose body is chunked: for any other, the same bytes are read as if it were.
    pub fn framing(&self) -> Framing {
        Framing::from_word(self.framing.load(Ordering::Acquire))
    }

    /// How many bytes the head of the HTTP/1 request had as the client sent it, empty lines before it included. `None`
    /// where it is not over, or one of its lines does not end in CR LF.
    pub fn head_length(&self) -> Option<usize> {
        match self.head_length.load(Ordering::Acquire) {
            0 => None,
            length => Some(length as usize),
        }
    }

    pub(super) fn set_head_length(&self, length: Option<u32>) {
        self.head_length.store(length.unwrap_or(0), Ordering::Release);
    }

    /// Says how fast the body of the HTTP/1 request has to come: else reading it fails.
    pub fn demand_pace(&self, least: LeastPace) {
        let patience = u32::try_from(least.patience.as_millis()).unwrap_or(u32::MAX);
        self.patience.store(patience, Ordering::Release);
        self.least_rate.store(least.rate, Ordering::Release);
    }

    pub(super) fn least_pace(&self) -> Option<LeastPace> {
        let rate = self.least_rate.load(Ordering::Acquire);
        let patience = || Duration::from_millis(self.patience.load(Ordering::Acquire).into());
        (rate > 0).then(|| LeastPace { rate, patience: patience() })
    }

    pub(super) fn phase(&self) -> Phase {
        [Phase::Reading, Phase::Done, Phase::TunnelAsked, Phase::TunnelOpen]
            [usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The tunnel that is open, for the one who reads from the client.
    pub(super) fn take_tunnel(&self) -> Option<Arc<Tunnel>> {
        self.tunnel.lock().take()
    }

    pub(super) fn set_framing(&self, framing: Framing) {
        self.framing.store(framing.word(), Ordering::Release);
    }

    /// An HTTP/2 request was accepted.
    pub(super) fn serves_stream(&self) {
        self.http2_served.fetch_add(1, Ordering::Relaxed);
    }

    /// How many HTTP/2 requests were accepted since this was asked last.
    pub(super) fn take_served(&self) -> u32 {
        self.http2_served.swap(0, Ordering::Relaxed)
    }

    /// The client sends too many frames that are neither a request nor its body.
    pub(super) fn set_flooded(&self) {
        self.http2_flooded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.http2_flooded.load(Ordering::Relaxed)
    }

    /// A new HTTP/1 request begins: nothing of the last one holds any more.
    pub(super) fn begin_request(&self) {
        self.set_phase(Phase::Reading);
        self.set_framing(Framing::Unfinished);
        self.least_rate.store(0, Ordering::Release);
    }

    /// What [`Connection::of`] looks for. Pingora copies it from the stream into every session's digest.
    pub(super) fn digest(self: &Arc<Self>) -> Arc<ProxyDigest> {
        Arc::new(carrying(self.clone()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("listener", &self.listener)
            .field("client", &self.client)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// How far the request on a connection is. What the client sends means something else in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is part of the request.
    Reading,
    /// It is the next request's.
    Done,
    /// It is for the server, if that agrees to a tunnel.
    TunnelAsked,
    /// It is the tunnel's.
    TunnelOpen,
}

/// What the app is told about connections.
#[async_trait]
pub trait ConnectionEvents: Send + Sync + 'static {
    /// A client connected; on a TLS port, after the handshake. Once per connection, before its first request.
    async fn accepted(&self, connection: &Arc<Connection>) -> Verdict;

    /// The connection has ended, in whatever way: once for every one that was `accepted`, also after a refusal
    /// and a panic. Streams of an HTTP/2 connection may still be running. It must not panic.
    fn closed(&self, connection: &Arc<Connection>);

    /// The head of a request was refused; the connection ends with it.
    fn head_refused(&self, connection: &Connection, head: RefusedHead<'_>);

    /// A client was turned away before `accepted`.
    fn refused(&self, listener: &str, client: SocketAddr, reason: &Refusal);
}

/// Whether a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    /// A rule rejects it.
    Refuse,
    /// Its virtual service has as many as it takes.
    Full,
}

/// Why a client was turned away before anything was known about it but its address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its address is in `deny`, or not in `allow`")]
    Address,
    #[error("it speaks for clients by the PROXY protocol and is not in `proxy_protocol_peers`")]
    ProxyPeer,
    #[error("{0}")]
    ProxyHeader(String),
    #[error("its PROXY header took too long")]
    ProxyTimeout,
    #[error("its client has as many connections as it may")]
    ClientConnections,
    #[error("its client connects more often than it may")]
    ClientRate,
    #[error("the tls handshake failed: {0}")]
    Handshake(HandshakeFailure),
    #[error("the tls handshake took too long")]
    HandshakeTimeout,
}

impl Refusal {
    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::ProxyPeer => "proxy_peer",
            Self::ProxyHeader(_) => "proxy_header",
            Self::ProxyTimeout => "proxy_timeout",
            Self::ClientConnections => "client_connections",
            Self::ClientRate => "client_rate",
            Self::Handshake(_) => "tls_handshake",
            Self::HandshakeTimeout => "tls_handshake_timeout",
        }
    }
}

/// What a listener knows of a connection when it makes one.
pub(super) struct Facts {
    pub id: u64,
    pub listener: Arc<str>,
    pub client: SocketAddr,
    pub local: SocketAddr,
    pub tls: Option<Arc<SslDigest>>,
    pub accepted_at: Instant,
    pub shutdown: ShutdownWatch,
    pub open: Open,
}

impl From<Facts> for Connection {
    fn from(facts: Facts) -> Self {
        Self {
            id: facts.id,
            listener: facts.listener,
            client: facts.client,
            local: facts.local,
            tls: facts.tls,
            accepted_at: facts.accepted_at,
            state: OnceLock::new(),
            shutdown: facts.shutdown,
            phase: AtomicU8::new(Phase::Reading as u8),
            tunnel: Mutex::default(),
            http2_served: AtomicU32::new(0),
            http2_flooded: AtomicBool::new(false),
            framing: AtomicU8::new(Framing::Unfinished.word()),
            head_length: AtomicU32::new(0),
            least_rate: AtomicU32::new(0),
            patience: AtomicU32::new(0),
            _open: facts.open,
        }
    }
}

/// One of the connections that are open, counted until it is dropped. It lives in the [`Connection`], so that
/// HTTP/2 streams that outlive their connection are waited for too.
pub(super) struct Open {
    count: Arc<watch::Sender<usize>>,
    _gauge: Held,
    _guest: Option<Guest>,
}

impl Open {
    pub fn new(count: &Arc<watch::Sender<usize>>, gauge: Held, guest: Option<Guest>) -> Self {
        count.send_modify(|open| *open += 1);
        Self { count: count.clone(), _gauge: gauge, _guest: guest }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.send_modify(|open| *open -= 1);
    }
}

/// Tells `closed` when it is dropped: at the end, on a panic, and when the task is cut short.
pub(super) struct Closing<'a> {
    pub events: &'a dyn ConnectionEvents,
    pub connection: &'a Arc<Connection>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.events.closed(self.connection);
    }
}
