//! The composition root: the only file that knows every part. It builds an instance from a configuration, binds
//! its sockets, starts it on the runtime that is current, and ends it.
//!
//! Nothing here is global: several instances can live in one process, as in `homing demo`.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::HttpServerOptions,
    protocols::{Stream, l4::stream::Stream as L4Stream},
    proxy::HttpProxy,
    server::configuration::ServerConf,
    time::fast_timeout::set_fast_timeout_to_tokio_threshold,
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    admin::{self, AdminListener},
    clock::Clock,
    config::{self, Config},
    gslb::KeyWatch,
    listen::{self, Handshake, ListenerSettings, ListenerSpec, Listeners},
    metrics::Metrics,
    proxy::Proxy,
    rule::{Registry, Rule, RuleError, Setup},
    session::SessionTable,
    site_cookie::ReplayGuard,
    snapshot::{self, BuildError, Live, Parts, Snapshot},
    tls::{
        Acceptor, AcceptorError, CertificateError, CertificateStore, CertifiedKey, PeerVerifier, TicketKeys,
    },
};

/// An instance that is configured but does not run yet.
pub struct Homing {
    live: Arc<Live>,
}

/// Collects the rules that configurations may name, then builds instances.
#[derive(Clone, Default)]
pub struct Builder {
    registry: Registry,
}

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("listener {0}")]
    Bind(#[from] listen::BindError),
    #[error("listener {name}: {source}")]
    Listener { name: String, source: std::io::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Acceptor(#[from] AcceptorError),
    #[error("openssl refuses the `ca_certs` of the federated PKI profile: {0}")]
    Authorities(openssl::error::ErrorStack),
    #[error(transparent)]
    AdminBind(#[from] admin::BindError),
    #[error(transparent)]
    AdminToken(#[from] admin::TokenError),
}

impl Homing {
    /// Starts with no rules but homing's own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Binds every socket, then serves. Needs a tokio runtime; everything runs on it.
    ///
    /// # Errors
    /// A socket cannot be had, or a certificate does not load. Nothing was served then.
    pub async fn start(self) -> Result<Running, StartError> {
        let live = self.live;
        let snapshot = live.snapshot();
        let mut specs = Vec::new();
        for (name, listener) in &snapshot.listeners {
            let socket = listen::bind(listener.addr)?;
            let peers = peer_verifier(&snapshot.config, &live.clock)?;
            let settings = settings(listener, &live.ticket_keys, peers)?;
            specs.push((ListenerSpec { name: name.clone(), socket, settings }, describe(name, listener)));
        }
        let admin = AdminListener::bind(&snapshot.config.admin.listen).await?;
        let token = snapshot.config.admin.token_file.as_deref().map(admin::Token::read).transpose()?;

        let stop = CancellationToken::new();
        snapshot.start_monitors(&live.clock);
        tokio::spawn(sweep_sessions(live.clone(), stop.clone()));
        tokio::spawn(watch_keys(live.clone(), stop.clone()));
        let (app, events) = app(&live, snapshot.config.threads);
        let listeners = Arc::new(Listeners::new(app, events, live.clock.clone()));
        let mut addresses = Vec::new();
        for (spec, description) in specs {
            let name = spec.name.to_string();
            let addr = listeners.add(spec).map_err(|source| StartError::Listener { name, source })?;
            tracing::info!("{description}");
            addresses.push(addr);
        }
        let admin_url = admin.as_ref().map(AdminListener::url);
        let admin = admin.map(|admin| {
            tracing::info!("admin {}", admin.url());
            let (accepting, due) = (listeners.clone(), addresses.len());
            let waiting = move || {
                let missing = due.saturating_sub(accepting.addresses().len());
                (missing > 0)
                    .then(|| format!("{missing} of {due} listeners do not accept"))
                    .into_iter()
                    .collect()
            };
            let source = Arc::new(admin::LiveSource::new(live.clone(), waiting));
            tokio::spawn(admin::serve(admin, source, token, stop.clone()))
        });
        Ok(Running { live, listeners, addresses, admin, admin_url, stop: stop.drop_guard() })
    }
}

impl Builder {
    /// Registers a rule under the name that configurations use for it.
    pub fn rule(mut self, name: &str, rule: impl Rule) -> Self {
        self.registry.rule(name, rule);
        self
    }

    /// Registers a rule that is made anew for each virtual service that names it, with its `config`.
    pub fn rule_factory(
        mut self,
        name: &str,
        factory: impl Fn(&Setup<'_>) -> Result<Arc<dyn Rule>, RuleError> + Send + Sync + 'static,
    ) -> Self {
        self.registry.factory(name, factory);
        self
    }

    /// Loads a configuration that may name the registered rules.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, file: &Path) -> Result<config::Loaded, config::Problems> {
        config::load(file, &self.registry.names())
    }

    /// Builds an instance.
    ///
    /// # Errors
    /// A rule refuses its configuration.
    pub fn build(&self, config: Config) -> Result<Homing, BuildError> {
        let metrics = Metrics::new();
        let clock = Clock::system();
        let capacity = config.session_entries;
        let sessions = Arc::new(SessionTable::new(capacity, rand::random(), &metrics, clock.now()));
        let ticket_keys = TicketKeys::random().map_err(BuildError::Chance)?;
        let replay = Arc::new(ReplayGuard::new());
        let parts = Parts { metrics, clock, sessions, ticket_keys, replay, mark_key: rand::random() };
        let snapshot = Snapshot::build(Arc::new(config), &self.registry, &parts)?;
        Ok(Homing { live: Arc::new(Live::new(snapshot, parts)) })
    }
}

/// An instance that serves. Dropped without [`Running::shutdown`], it stops being administered and monitored.
pub struct Running {
    live: Arc<Live>,
    listeners: Arc<Listeners<HttpProxy<Proxy>>>,
    addresses: Vec<SocketAddr>,
    admin: Option<JoinHandle<()>>,
    admin_url: Option<String>,
    stop: DropGuard,
}

impl Running {
    /// Where it listens, in no order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What `--admin` takes to reach it.
    pub fn admin_url(&self) -> Option<&str> {
        self.admin_url.as_deref()
    }

    /// How long a shutdown may take, as configured.
    pub fn grace_period(&self) -> Duration {
        self.live.snapshot().config.grace_period
    }

    /// Stops accepting, and ends as soon as nothing is in flight, at the latest after `grace`. Says how many
    /// connections were cut.
    pub async fn shutdown(self, grace: Duration) -> usize {
        let cut = self.listeners.shutdown(grace).await;
        drop(self.stop);
        if let Some(admin) = self.admin {
            // It ends soon: a Unix socket's file is to be gone before the process is.
            let _ = admin.await;
        }
        cut
    }
}

/// The proxy as Pingora's HTTP app, and as the one who hears of connections.
fn app(live: &Arc<Live>, threads: usize) -> (Arc<HttpProxy<Proxy>>, Arc<Proxy>) {
    let conf = ServerConf {
        threads,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS_PER_THREAD * threads,
        ..ServerConf::default()
    };
    // Pingora keeps a timer that is not needed any more until it would have fired; tokio forgets it at once.
    set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
    let mut http = HttpProxy::new(Proxy::new(live.clone()), Arc::new(conf));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(H2_IDLE_TIMEOUT);
    http.server_options = Some(options);
    http.handle_init_modules();
    (Arc::new(http), Arc::new(Proxy::new(live.clone())))
}

/// Asks peer sites for their certificates, where this site has one of the federated PKI profile.
fn peer_verifier(config: &Config, clock: &Clock) -> Result<Option<Arc<PeerVerifier>>, StartError> {
    let site_tls = config.gslb.as_ref().and_then(|gslb| gslb.site_tls.as_ref());
    let verifier = site_tls.map(|site| PeerVerifier::new(site, clock.clone())).transpose();
    verifier.map_err(StartError::Authorities)
}

fn settings(
    listener: &snapshot::Listener,
    tickets: &TicketKeys,
    peers: Option<Arc<PeerVerifier>>,
) -> Result<ListenerSettings, StartError> {
    let tls: Option<Arc<dyn Handshake>> = match listener.tls.first() {
        None => None,
        Some((first, _)) => {
            let mut certificates = CertificateStore::new(Arc::new(CertifiedKey::load(&first.certificate)?));
            for (tls, names) in &listener.tls {
                certificates.add(Arc::new(CertifiedKey::load(&tls.certificate)?), names);
            }
            let acceptor = Acceptor::new(&first.profile, certificates, tickets)?;
            Some(Arc::new(TlsHandshake(acceptor.verifying_peers(peers))))
        }
    };
    Ok(ListenerSettings {
        tls,
        address_lists: listener.address_lists.clone(),
        client_header_timeout: listener.profile.client_header_timeout,
        keepalive_timeout: listener.profile.keepalive_timeout,
    })
}

/// Connects the listening side with the TLS side, which do not know each other.
struct TlsHandshake(Acceptor);

#[async_trait]
impl Handshake for TlsHandshake {
    async fn accept(&self, socket: L4Stream) -> Result<Stream, String> {
        match self.0.accept(socket).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn describe(name: &str, listener: &snapshot::Listener) -> String {
    let names: Vec<_> = listener.virtual_services().map(|vs| vs.name().as_str()).collect();
    let scheme = if listener.tls.is_empty() { "http" } else { "https" };
    format!("listening on {scheme}://{name} for {}", names.join(", "))
}

async fn sweep_sessions(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let (sessions, now) = (live.sessions.clone(), live.clock.now());
        // It walks the whole table, which requests must not wait for.
        if tokio::task::spawn_blocking(move || sessions.sweep(now)).await.is_err() {
            tracing::error!("the sweep of the session table panicked");
        }
    }
}

async fn watch_keys(live: Arc<Live>, stop: CancellationToken) {
    let mut watch = KeyWatch::default();
    let mut every = tokio::time::interval(KEY_WATCH_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        watch.look(live.snapshot().config.gslb.as_deref(), &live.metrics, live.clock.wall());
    }
}

/// HTTP/2 connections without a stream; the same as HTTP/1's `keepalive_timeout` by default.
const H2_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

const KEY_WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Idle connections to servers that are kept for reuse.
const KEPT_CONNECTIONS_PER_THREAD: usize = 1024;
