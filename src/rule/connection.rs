//! A client's connection as rules see it.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use prometheus::IntGauge;
use tokio::sync::OnceCell;

use super::{
    Chain, RuleError,
    exchange::{CloneOrder, Destination},
    forwarded::Introduction,
    services::Services,
    state::State,
};
use crate::{
    metrics::Held,
    names::{PoolName, VsName},
    tls::{ClientCertificate, TlsFacts},
};

/// What the rules of one virtual service know of one client connection, and decided for all its requests.
pub struct ConnectionState {
    pub(crate) vs: VsName,
    pub(crate) services: Arc<Services>,
    client: SocketAddr,
    local: SocketAddr,
    tls: Option<TlsFacts>,
    introduction: Introduction,
    decided: Mutex<Decided>,
    accepted: OnceCell<()>,
    _open: Held,
}

/// Decisions at `client_accepted` and `clientssl_handshake`; requests start from them.
#[derive(Default)]
pub(crate) struct Decided {
    pub(crate) destination: Destination,
    pub(crate) persist_none: bool,
    pub(crate) clones: Vec<CloneOrder>,
    pub(crate) clones_refused: bool,
    pub(crate) rejected: bool,
    pub(crate) state: State,
}

impl ConnectionState {
    /// State of a new connection; `open` counts it until it ends.
    pub fn new(
        vs: VsName,
        services: Arc<Services>,
        client: SocketAddr,
        local: SocketAddr,
        tls: Option<TlsFacts>,
        open: IntGauge,
    ) -> Self {
        let introduction = Introduction::of(client.ip(), tls.is_some());
        Self {
            vs,
            services,
            client,
            local,
            tls,
            introduction,
            decided: Mutex::default(),
            accepted: OnceCell::new(),
            _open: Held::new(open),
        }
    }

    /// The virtual service whose rules this state belongs to.
    pub fn virtual_service(&self) -> &VsName {
        &self.vs
    }

    /// Runs `client_accepted`, once however many ask; all wait until it is over. A rule that fails closed rejects.
    pub async fn accept(&self, chain: &Chain) {
        let run = || async {
            if chain.client_accepted(self).await.is_err() {
                self.reject();
            }
        };
        self.accepted.get_or_init(run).await;
    }

    /// Whether a rule rejected the connection.
    pub fn is_rejected(&self) -> bool {
        self.decided.lock().rejected
    }

    pub(crate) fn reject(&self) {
        self.decided.lock().rejected = true;
    }

    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    pub(crate) fn introduction(&self) -> &Introduction {
        &self.introduction
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    pub(crate) fn decided(&self) -> MutexGuard<'_, Decided> {
        self.decided.lock()
    }
}

/// Context of `client_accepted`, `clientssl_handshake` and `client_closed`.
pub struct ClientConn<'a> {
    connection: &'a ConnectionState,
}

impl<'a> ClientConn<'a> {
    pub(crate) fn new(connection: &'a ConnectionState) -> Self {
        Self { connection }
    }

    /// The virtual service that the client connected to.
    pub fn virtual_service(&self) -> &VsName {
        &self.connection.vs
    }

    /// The client's address.
    pub fn client_addr(&self) -> SocketAddr {
        self.connection.client
    }

    /// The client's address without its port.
    pub fn client_ip(&self) -> IpAddr {
        self.connection.client.ip()
    }

    /// The address that the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.connection.local
    }

    /// TLS facts: iRules' `SSL::` commands. `None` on a plain port.
    pub fn ssl(&self) -> Option<TlsView<'a>> {
        self.connection.tls.as_ref().map(TlsView)
    }

    /// Sends the requests of this connection to this pool: iRules' `pool`.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn pool(&mut self, name: &str) -> Result<(), RuleError> {
        let pool = self.named_pool(name)?.name().clone();
        self.connection.decided().destination = Destination::Pool(pool);
        Ok(())
    }

    /// App persistence is not applied to this connection's requests: iRules' `persist none`.
    pub fn persist_none(&mut self) {
        self.connection.decided().persist_none = true;
    }

    /// Closes the connection without an answer: iRules' `reject`.
    pub fn reject(&mut self) {
        self.connection.reject();
    }

    /// Copies every request of this connection to this member: iRules' `clone pool … member …`. It stands in
    /// place of the choice that a clone section of the same pool would make.
    ///
    /// # Errors
    /// There is no such pool, or it has no such server.
    pub fn clone_to(&mut self, pool: &str, server: SocketAddr) -> Result<(), RuleError> {
        let pool: PoolName = self.named_member(pool, server)?;
        self.connection.decided().clones.push(CloneOrder::new(pool, server));
        Ok(())
    }

    /// No copies of this connection's requests, whoever ordered or orders them.
    pub fn clone_none(&mut self) {
        self.connection.decided().clones_refused = true;
    }

    /// Keeps a value for later events of this connection; one per type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.connection.decided().state.insert(value);
    }

    /// A value that an earlier event kept.
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.decided().state.get().cloned()
    }
}

impl Deref for ClientConn<'_> {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.connection.services
    }
}

/// TLS facts of a connection.
#[derive(Clone, Copy)]
pub struct TlsView<'a>(&'a TlsFacts);

impl<'a> TlsView<'a> {
    pub(crate) fn new(facts: &'a TlsFacts) -> Self {
        Self(facts)
    }

    /// The identity of the TLS session, the same when the session is resumed: iRules' `SSL::sessionid`, but
    /// also under TLS 1.3 and with session tickets. A full handshake makes a new one.
    pub fn session_id(&self) -> &'a [u8] {
        &self.0.session_id
    }

    /// The server name that the client asked for.
    pub fn sni(&self) -> Option<&'a str> {
        self.0.sni.as_deref()
    }

    /// The cipher suite, OpenSSL's name.
    pub fn cipher(&self) -> &'a str {
        self.0.cipher
    }

    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'a str {
        self.0.version
    }

    /// The cluster of a peer site that has proven itself by its certificate.
    pub fn site(&self) -> Option<&'a str> {
        self.0.site.as_deref()
    }

    /// The certificate that the client has shown, where the virtual service asks for one: iRules' `SSL::cert`.
    pub fn peer_certificate(&self) -> Option<&'a ClientCertificate> {
        self.0.client_certificate.as_deref()
    }

    /// Whether the client resumed an earlier session.
    pub fn resumed(&self) -> bool {
        self.0.resumed
    }
}
