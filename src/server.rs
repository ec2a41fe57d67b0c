//! The composition root: the only module that knows every part. It builds an instance from a configuration, binds
//! its sockets, starts it on the runtime that is current, loads its configuration again, and ends it.
//!
//! Nothing here is global: several instances can live in one process, as in `homing demo`.

mod changes;
mod instance;
mod ports;
mod reload;
mod responder;
mod watch;

use std::{net::SocketAddr, num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use pingora::{
    apps::HttpServerOptions, protocols::http::v2::server::default_h2_options, proxy::HttpProxy,
    server::configuration::ServerConf, time::fast_timeout::set_fast_timeout_to_tokio_threshold,
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use crate::limits::OpenFiles;
use crate::{
    access_log,
    admin::{self, AdminListener, view},
    clock::Clock,
    config::{self, Config},
    dns,
    gslb::KeyWatch,
    listen::{self, Workers},
    metrics::Metrics,
    proxy::Proxy,
    rule::{Registry, Rule, RuleError, Setup},
    session::SessionTable,
    site_cookie::ReplayGuard,
    snapshot::{BuildError, Live, Parts, Snapshot},
    tls::{AcceptorError, CertificateError, TicketKeys},
};
use instance::Instance;
pub use reload::Trigger;

/// An instance that is configured but does not run yet.
pub struct Homing {
    live: Arc<Live>,
    builder: Builder,
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
    #[error("dns {0}")]
    Dns(#[from] dns::BindError),
    /// A reload moves a port from all addresses to one, or back.
    #[error(
        "listener {wanted}: {in_use}, which this reload removes, still has the port; remove it in a reload of its own first, or restart"
    )]
    Overlap { wanted: SocketAddr, in_use: SocketAddr },
    #[error("listener {name}: {source}")]
    Listener { name: String, source: std::io::Error },
    #[error("worker threads: {0}; lower `threads`, or allow the process more threads and open files")]
    Threads(std::io::Error),
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
    #[error(transparent)]
    AccessLog(#[from] access_log::OpenError),
}

impl Homing {
    /// Starts with no rules but homing's own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What becomes of a request with this site cookie, as far as the configuration tells; `None`: no virtual service
    /// of this name is enabled.
    pub fn explain(&self, vs: &str, cookie: &str) -> Option<admin::view::Explanation> {
        admin::explain(&self.live, vs, cookie)
    }

    /// Binds every socket, then serves. Needs a tokio runtime: with `threads: 1` everything runs on it, else requests
    /// are served on threads of their own.
    ///
    /// # Errors
    /// A socket cannot be had, or a certificate does not load. Nothing was served then.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self { live, builder } = self;
        let snapshot = live.snapshot();
        let workers = match NonZeroUsize::new(snapshot.config.threads).filter(|threads| threads.get() > 1) {
            Some(threads) => Workers::threads(threads, || app(&live)).map_err(StartError::Threads)?,
            None => Workers::here(app(&live)),
        };
        let instance = Arc::new(Instance::new(live.clone(), builder, workers));
        let sockets = instance.ports.prepare(&live, &snapshot)?;
        let access_log = live.access_log.prepare(snapshot.config.access_log.as_ref(), &live.metrics)?;
        let dns = instance.prepare_dns(&snapshot)?;
        let admin = AdminListener::bind(&snapshot.config.admin.listen).await?;
        instance.token.set(token(&snapshot.config)?);

        let stop = CancellationToken::new();
        live.access_log.set(access_log);
        instance.ports.apply(sockets);
        instance.dns.apply(dns);
        instance.monitors.follow(&snapshot.pools, &mut rand::rng());
        tokio::spawn(sweep_sessions(live.clone(), stop.clone()));
        tokio::spawn(log_clone_losses(live.clone(), stop.clone()));
        tokio::spawn(watch_keys(live.clone(), stop.clone()));
        tokio::spawn(watch::watch(instance.clone(), stop.clone()));
        let admin_url = admin.as_ref().map(AdminListener::url);
        let admin = admin.map(|admin| {
            tracing::info!("admin {}", admin.url());
            let source = Arc::new(admin::LiveSource::new(live, instance.clone()));
            tokio::spawn(admin::serve(admin, source, instance.token.clone(), stop.clone()))
        });
        Ok(Running { instance, admin, admin_url, stop: stop.drop_guard() })
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
        let (drains, censuses) = Default::default();
        let mark_key = rand::random();
        let parts = Parts { metrics, clock, sessions, ticket_keys, replay, drains, censuses, mark_key };
        let snapshot = Snapshot::build(Arc::new(config), &self.registry, &parts, None)?;
        Ok(Homing { live: Arc::new(Live::new(snapshot, parts)), builder: self.clone() })
    }
}

/// An instance that serves. Dropped without [`Running::shutdown`], it stops being administered and monitored.
pub struct Running {
    instance: Arc<Instance>,
    admin: Option<JoinHandle<()>>,
    admin_url: Option<String>,
    stop: DropGuard,
}

impl Running {
    /// Where it listens, in no order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.instance.ports.addresses()
    }

    /// What `--admin` takes to reach it.
    pub fn admin_url(&self) -> Option<&str> {
        self.admin_url.as_deref()
    }

    /// How long a shutdown may take, as configured.
    pub fn grace_period(&self) -> Duration {
        self.instance.live.snapshot().config.grace_period
    }

    /// Loads the configuration again, all of it or nothing, and says what came of it. It goes on to its end also
    /// when nobody waits for it, and one reload begins when the one before has ended.
    pub fn reload(&self, trigger: Trigger) -> impl Future<Output = view::Reload> + Send + 'static {
        let instance = self.instance.clone();
        async move { instance.reload(trigger).await }
    }

    /// Opens the access log again by its name, after a rotation has renamed the file.
    pub fn reopen_access_log(&self) {
        if let Some(log) = self.instance.live.access_log.load() {
            log.reopen();
        }
    }

    /// Stops accepting, and ends as soon as nothing is in flight, at the latest after `grace`. Says how many
    /// connections were cut.
    pub async fn shutdown(self, grace: Duration) -> usize {
        *self.instance.stopping.lock() = true;
        self.instance.dns.close();
        let cut = self.instance.ports.shutdown(grace).await;
        if let Some(log) = self.instance.live.access_log.load() {
            let flushed = tokio::task::spawn_blocking(move || log.flush(LONGEST_FLUSH)).await;
            if !flushed.unwrap_or(false) {
                tracing::warn!("access log not written to its end");
            }
        }
        drop(self.stop);
        if let Some(admin) = self.admin {
            // It ends soon: a Unix socket's file is to be gone before the process is.
            let _ = admin.await;
        }
        cut
    }
}

/// The proxy as Pingora's HTTP app, for one thread: with connections to servers of its own.
fn app(live: &Arc<Live>) -> Arc<HttpProxy<Proxy>> {
    let conf =
        ServerConf { upstream_keepalive_pool_size: KEPT_CONNECTIONS_PER_THREAD, ..ServerConf::default() };
    // Pingora keeps a timer that is not needed any more until it would have fired; tokio forgets it at once.
    set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
    let mut http = HttpProxy::new(Proxy::new(live.clone()), Arc::new(conf));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(H2_IDLE_TIMEOUT);
    http.server_options = Some(options);
    let mut http2 = default_h2_options();
    http2.initial_window_size(H2_WINDOW).initial_connection_window_size(H2_WINDOW);
    http.h2_options = Some(http2);
    http.handle_init_modules();
    Arc::new(http)
}

/// The admin API's token, where the configuration has one.
fn token(config: &Config) -> Result<Option<admin::Token>, admin::TokenError> {
    config.admin.token_file.as_deref().map(admin::Token::read).transpose()
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

/// Copies are lost on the app's path and elsewhere, and many at a time; the log hears of them from here only.
async fn log_clone_losses(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOSS_LOG_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        live.snapshot().virtual_services.iter().for_each(|vs| vs.log_clone_losses(live.clock.now()));
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

/// What an HTTP/2 client, a peer site too, may send ahead of an app that reads slowly, on all streams together.
const H2_WINDOW: u32 = 256 << 10;

/// What is left of the access log may hold the end up so long.
const LONGEST_FLUSH: Duration = Duration::from_secs(1);

const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(1);

const KEY_WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Idle connections to servers that are kept for reuse.
const KEPT_CONNECTIONS_PER_THREAD: usize = 1024;
