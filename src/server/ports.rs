//! The listeners of an instance, with the TLS side of each: what a new configuration asks of them is prepared as a
//! whole, and only then applied.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::protocols::l4::stream::Stream as L4Stream;
use tokio::task::JoinHandle;

use super::StartError;
use crate::{
    clock::Clock,
    config::{Config, SslProfile},
    listen::{
        self, Handshake, HandshakeFailure, Inherited, ListenerSettings, ListenerSpec, Listeners, Prepared,
        Secured,
    },
    metrics::ConfigMetrics,
    proxy::App,
    snapshot::{Listener, Live, Snapshot},
    tls::{
        Acceptor, CertificateStore, CertifiedKey, ClientVerifier, ClientVerifiers, PeerVerifier,
        chain_not_after,
    },
};

pub(super) struct Ports {
    listeners: Listeners<App>,
    /// The TLS side of each listener that has one.
    tls: Mutex<HashMap<SocketAddr, Tls>>,
    /// How many listeners there should be.
    due: AtomicUsize,
    metrics: ConfigMetrics,
}

/// The acceptor of a listener, and the profile that it was made for. It stays as long as that does, because it
/// remembers the sessions that have no ticket.
#[derive(Clone)]
struct Tls {
    profile: Arc<SslProfile>,
    acceptor: Arc<TlsHandshake>,
}

/// All that can fail about a change, done.
pub(super) struct Sockets {
    new: Vec<(Prepared, String)>,
    settings: Vec<(SocketAddr, ListenerSettings)>,
    /// For acceptors that stay.
    certificates: Vec<(Arc<TlsHandshake>, CertificateStore)>,
    tls: HashMap<SocketAddr, Tls>,
    /// When the certificates expire, in seconds since 1970.
    expiry: BTreeMap<String, i64>,
    /// Who is asked for a certificate, for each acceptor.
    clients: Vec<(Arc<TlsHandshake>, ClientVerifiers)>,
    /// For all acceptors; `None`: this site has no certificate for its peers.
    peers: Option<Arc<PeerVerifier>>,
}

impl Ports {
    pub fn new(listeners: Listeners<App>, metrics: ConfigMetrics) -> Self {
        Self { listeners, tls: Mutex::default(), due: AtomicUsize::new(0), metrics }
    }

    /// Loads certificates and binds the sockets that are not there yet; those in `inherited` are taken out of it.
    ///
    /// # Errors
    /// A socket cannot be had, or a certificate does not load. Nothing has changed then.
    pub fn prepare(
        &self,
        live: &Live,
        snapshot: &Snapshot,
        inherited: &mut Inherited,
    ) -> Result<Sockets, StartError> {
        let listeners = &snapshot.listeners;
        let open = self.addresses();
        let known = self.tls.lock().clone();
        let mut sockets = Sockets {
            new: Vec::new(),
            settings: Vec::new(),
            certificates: Vec::new(),
            clients: Vec::new(),
            tls: HashMap::new(),
            expiry: site_expiry(&snapshot.config),
            peers: peer_verifier(&snapshot.config, &live.clock)?,
        };
        for (name, listener) in listeners {
            let addr = listener.addr;
            let certificates = certificates(listener)?;
            if let Some((_, store)) = &certificates {
                let ends = store.certificates().filter_map(|it| Some((it.name.clone(), it.not_after()?)));
                sockets.expiry.extend(ends);
            }
            let tls = match (certificates, known.get(&addr)) {
                (None, _) => None,
                (Some((profile, store)), Some(known)) if known.profile == *profile => {
                    sockets.certificates.push((known.acceptor.clone(), store));
                    Some(known.clone())
                }
                (Some((profile, store)), _) => {
                    let acceptor = Acceptor::new(profile, store, &live.ticket_keys)?;
                    Some(Tls { profile: profile.clone(), acceptor: Arc::new(TlsHandshake(acceptor)) })
                }
            };
            if let Some(tls) = &tls {
                sockets.clients.push((tls.acceptor.clone(), client_verifiers(listener, &live.clock)?));
            }
            let settings = settings(listener, tls.as_ref());
            sockets.tls.extend(tls.map(|tls| (addr, tls)));
            if open.contains(&addr) {
                sockets.settings.push((addr, settings));
                continue;
            }
            let bind = if snapshot.config.so_reuseport { listen::bind_shared } else { listen::bind };
            let socket = match inherited.tcp(addr) {
                Some(socket) => socket,
                None => bind(addr).map_err(|error| overlap(error, addr, &open, listeners))?,
            };
            let spec = ListenerSpec { name: name.clone(), socket, settings };
            let prepared = self
                .listeners
                .prepare(spec)
                .map_err(|source| StartError::Listener { name: name.to_string(), source })?;
            sockets.new.push((prepared, describe(name, listener)));
        }
        Ok(sockets)
    }

    /// Puts a change in force for connections that come from now on.
    pub fn apply(&self, sockets: Sockets) {
        let Sockets { new, settings, certificates, clients, tls, expiry, peers } = sockets;
        self.metrics.certificates(&expiry);
        self.due.store(new.len() + settings.len(), Relaxed);
        for (acceptor, store) in certificates {
            acceptor.0.set_certificates(store);
        }
        for (acceptor, verifiers) in clients {
            acceptor.0.verify_clients(verifiers);
        }
        for tls in tls.values() {
            tls.acceptor.0.verify_peers(peers.clone());
        }
        *self.tls.lock() = tls;
        for (addr, settings) in settings {
            self.listeners.update(addr, settings);
        }
        for (prepared, description) in new {
            self.listeners.add(prepared);
            tracing::info!("{description}");
        }
    }

    /// Ends the connections that a listener has now; it goes on listening.
    pub fn end_connections(&self, addr: SocketAddr) {
        self.listeners.end_connections(addr);
    }

    /// Has a listener pause, or listen again. Says whether that changed anything.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub async fn set_paused(
        &self,
        addr: SocketAddr,
        pause: bool,
        is_shared: bool,
    ) -> Result<bool, StartError> {
        if self.listeners.pauses(addr) == pause || !self.addresses().contains(&addr) {
            return Ok(false);
        }
        match pause {
            true => self.listeners.pause(addr).await,
            false => {
                let socket = if is_shared { listen::bind_shared(addr)? } else { listen::bind(addr)? };
                let name = addr.to_string();
                self.listeners
                    .resume(addr, socket)
                    .map_err(|source| StartError::Listener { name, source })?;
            }
        }
        Ok(true)
    }

    /// Takes over how many clients there may be. Says how many there is room for.
    pub fn limit_clients(&self, most: Option<usize>) -> usize {
        self.listeners.limit_clients(most)
    }

    /// Stops listening there; what ends with the last connection is given back.
    pub async fn remove(&self, addr: SocketAddr, grace: Duration) -> Option<JoinHandle<()>> {
        tracing::info!("no longer listening on {addr}");
        self.listeners.remove(addr, grace).await
    }

    /// Listeners that should accept and do not.
    pub fn missing(&self) -> Option<String> {
        let due = self.due.load(Relaxed);
        let missing = due.saturating_sub(self.listeners.addresses().len());
        (missing > 0).then(|| format!("{missing} of {due} listeners do not accept"))
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// The listening sockets, for another process to accept from too.
    pub fn sockets(&self) -> Vec<Arc<tokio::net::TcpListener>> {
        self.listeners.sockets()
    }

    /// Ends when another process accepts from the same sockets.
    pub async fn retire(&self, grace: Duration) -> usize {
        self.listeners.retire(grace).await
    }

    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.listeners.shutdown(grace).await
    }
}

/// The certificates of a listener with TLS, and its profile.
fn certificates(listener: &Listener) -> Result<Option<(&Arc<SslProfile>, CertificateStore)>, StartError> {
    let Some((first, _)) = listener.tls.first() else { return Ok(None) };
    let mut certificates = CertificateStore::new(Arc::new(CertifiedKey::load(&first.certificate)?));
    for (tls, names) in &listener.tls {
        certificates.add(Arc::new(CertifiedKey::load(&tls.certificate)?), names);
    }
    Ok(Some((&first.profile, certificates)))
}

/// Asks clients for their certificates, by the virtual service that they ask for. One alone is meant whatever the name.
fn client_verifiers(listener: &Listener, clock: &Clock) -> Result<ClientVerifiers, StartError> {
    let mut verifiers = ClientVerifiers::default();
    let alone = listener.virtual_services().count() == 1;
    for vs in listener.virtual_services() {
        let clients = vs.config.profile.clients.as_ref();
        let verifier = clients.map(|clients| ClientVerifier::new(clients, clock.clone())).transpose();
        let verifier = verifier.map_err(StartError::Authorities)?;
        match alone {
            true => verifiers.set_default(verifier),
            false => verifiers.add(&vs.config.domain_names, verifier),
        }
    }
    Ok(verifiers)
}

/// Asks peer sites for their certificates, where this site has one of the federated PKI profile.
fn peer_verifier(config: &Config, clock: &Clock) -> Result<Option<Arc<PeerVerifier>>, StartError> {
    let site_tls = config.gslb.as_ref().and_then(|gslb| gslb.site_tls.as_ref());
    let verifier = site_tls.map(|site| PeerVerifier::new(site, clock.clone())).transpose();
    verifier.map_err(StartError::Authorities)
}

/// The end of this site's certificate for its peers, under the name that they ask for.
fn site_expiry(config: &Config) -> BTreeMap<String, i64> {
    let site_tls = config.gslb.as_ref().and_then(|gslb| gslb.site_tls.as_ref());
    let end = site_tls.and_then(|site| Some((site.server_name.clone(), chain_not_after(&site.chain)?)));
    end.into_iter().collect()
}

fn settings(listener: &Listener, tls: Option<&Tls>) -> ListenerSettings {
    ListenerSettings {
        tls: tls.map(|tls| tls.acceptor.clone() as Arc<dyn Handshake>),
        address_lists: listener.address_lists.clone(),
        proxy_peers: listener.proxy_peers.clone(),
        client_header_timeout: listener.profile.client_header_timeout,
        keepalive_timeout: listener.profile.keepalive_timeout,
        http2: listener.profile.http2.clone(),
        handshake_timeout: tls.map_or(Duration::MAX, |tls| tls.profile.handshake_timeout),
        head_limits: listener.profile.limits.head,
        client_caps: listener.client_caps.clone(),
    }
}

/// A port that is taken by a listener of our own, which the same change removes, is no other program's.
fn overlap(
    error: listen::BindError,
    wanted: SocketAddr,
    open: &[SocketAddr],
    listeners: &BTreeMap<Arc<str>, Arc<Listener>>,
) -> StartError {
    let stays = |addr: &SocketAddr| listeners.values().any(|listener| listener.addr == *addr);
    let overlaps = |addr: &&SocketAddr| {
        addr.port() == wanted.port() && (addr.ip().is_unspecified() || wanted.ip().is_unspecified())
    };
    match (&error, open.iter().filter(|addr| !stays(addr)).find(overlaps)) {
        (listen::BindError::InUse(_), Some(&in_use)) => StartError::Overlap { wanted, in_use },
        _ => error.into(),
    }
}

/// Connects the listening side with the TLS side, which do not know each other.
struct TlsHandshake(Acceptor);

#[async_trait]
impl Handshake for TlsHandshake {
    async fn accept(&self, socket: L4Stream) -> Result<Secured, HandshakeFailure> {
        match self.0.accept(socket).await {
            Ok(stream) => {
                let (version, resumed) = (stream.ssl().version_str(), stream.ssl().session_reused());
                Ok(Secured { stream: Box::new(stream), version, resumed })
            }
            Err(error) => Err(HandshakeFailure { reason: error.reason.as_str(), message: error.to_string() }),
        }
    }
}

fn describe(name: &str, listener: &Listener) -> String {
    let names: Vec<_> = listener.virtual_services().map(|vs| vs.name().as_str()).collect();
    let scheme = if listener.tls.is_empty() { "http" } else { "https" };
    format!("listening on {scheme}://{name} for {}", names.join(", "))
}
