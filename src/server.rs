//! The composition root: the only module that knows every part. It builds an instance from a configuration, binds
//! its sockets, starts it on the runtime that is current, loads its configuration again, and ends it.
//!
//! Nothing here is global: several instances can live in one process, as in `homing demo`.

mod changes;
mod gslb_watch;
mod inheritance;
mod instance;
mod keeper;
mod keys;
mod port_watch;
mod ports;
mod reload;
mod resolving;
mod responder;
mod rounds;
mod saved;
mod session_file;
mod upgrade;
mod watch;

use std::{
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use pingora::{
    proxy::HttpProxy, server::configuration::ServerConf,
    time::fast_timeout::set_fast_timeout_to_tokio_threshold,
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use crate::dns::delegation_signers;
pub use crate::limits::OpenFiles;
pub use crate::snapshot::BuildError;
use crate::{
    access_log,
    admin::{self, AdminListener, view},
    clock::Clock,
    config::{self, AdminListen, Config},
    dns,
    listen::{self, Inherited, Workers},
    metrics::Metrics,
    proxy::Proxy,
    rule::{Registry, Rule, RuleError, Setup},
    session::SessionTable,
    site_cookie::ReplayGuard,
    snapshot::{Live, Parts, Snapshot},
    tls::{AcceptorError, CertificateError, TicketKeys},
};
use inheritance::Legacy;
pub use inheritance::{Inheritance, InheritanceError};
use instance::Instance;
use keeper::Keeper;
pub use reload::Trigger;
use saved::Incoming;
use session_file::SessionFile;
pub use upgrade::{HandOverError, HandedOver, LinkError, SocketError, TakeOverError};
use upgrade::{Successors, Taken};

/// An instance that is configured but does not run yet.
pub struct Homing {
    live: Arc<Live>,
    builder: Builder,
    legacy: Legacy,
}

/// Collects the rules that configurations may name, then builds instances.
#[derive(Clone, Default)]
pub struct Builder {
    registry: Registry,
    after_load: Option<fn()>,
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
    #[error("openssl refuses the `ca_certs` of a PKI profile: {0}")]
    Authorities(openssl::error::ErrorStack),
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error(transparent)]
    UpgradeSocket(#[from] SocketError),
    #[error("a rule panicked while sessions were taken over")]
    Panic,
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

    /// Binds every socket, or takes them over from the process that serves when that hands over, then serves. Needs a tokio runtime: with `threads: 1` everything runs on it, else requests
    /// are served on threads of their own.
    ///
    /// # Errors
    /// A socket cannot be had, or a certificate does not load. Nothing was served then.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self { live, builder, legacy } = self;
        let snapshot = live.snapshot();
        let mut taken = inherit(legacy, &live).await?;
        let mut sockets = taken.as_mut().map(|taken| std::mem::take(&mut taken.sockets)).unwrap_or_default();
        let workers = match NonZeroUsize::new(snapshot.config.threads).filter(|threads| threads.get() > 1) {
            Some(threads) => Workers::threads(threads, || app(&live)).map_err(StartError::Threads)?,
            None => Workers::here(app(&live)),
        };
        let instance = Arc::new(Instance::new(live.clone(), builder, workers));
        resolving::first(&instance).await;
        let snapshot = live.snapshot();
        let ports = instance.ports.prepare(&live, &snapshot, &mut sockets)?;
        let access_log = live.access_log.prepare(snapshot.config.access_log.as_ref(), &live.metrics)?;
        let dns = instance.prepare_dns(&snapshot, &mut sockets)?;
        let stop = CancellationToken::new();
        // Unix sockets have the place of the old process's only once that does not need them any more.
        let (mut admin, mut successors) = (None, None);
        if taken.is_none() {
            successors = listen_for_successors(&live, &stop).await?;
            admin = AdminListener::bind(&snapshot.config.admin).await?;
        } else if let AdminListen::Tcp(addr) = snapshot.config.admin.listen {
            admin = adopt_admin(&snapshot.config.admin, addr, &mut sockets).await?;
        }
        instance.admin.set(admin::Terms::read(&snapshot.config.admin)?);
        // What is left the old process listens on, and this one does not.
        drop(sockets);

        live.access_log.set(access_log);
        gslb_watch::restore(&live);
        instance.ports.apply(ports);
        instance.dns.apply(dns);
        instance.monitors.follow(&snapshot.probed_pools(), &mut rand::rng());
        if let Some(taken) = taken {
            taken.serving()?;
            successors = listen_for_successors(&live, &stop).await.unwrap_or_else(serve_without);
            if let AdminListen::Unix(path) = &snapshot.config.admin.listen {
                let group = snapshot.config.admin.socket_group.as_deref();
                admin = AdminListener::replace(path, group).await.map(Some).unwrap_or_else(serve_without);
            }
        }
        let keeper = Arc::new(Keeper::new(live.clone()));
        tokio::spawn(keeper.clone().run(stop.clone()));
        rounds::spawn(&live, &stop);
        tokio::spawn(gslb_watch::look(live.clone(), stop.clone()));
        tokio::spawn(gslb_watch::ask(live.clone(), stop.clone()));
        tokio::spawn(watch::watch(instance.clone(), stop.clone()));
        tokio::spawn(port_watch::watch(instance.clone(), stop.clone()));
        tokio::spawn(resolving::watch(instance.clone(), stop.clone()));
        let admin_url = admin.as_ref().map(AdminListener::url);
        let admin_handle = admin.as_ref().map(AdminListener::handle);
        let admin = admin.map(|admin| {
            tracing::info!("admin {}", admin.url());
            let source = Arc::new(admin::LiveSource::new(live, instance.clone()));
            tokio::spawn(admin::serve(admin, source, instance.admin.clone(), stop.clone()))
        });
        let stop = stop.drop_guard();
        Ok(Running { instance, admin, admin_url, admin_handle, successors, keeper, stop })
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

    /// What is to be done when a configuration was loaded or reloaded, and the memory that this took is free again.
    pub fn after_load(self, then: fn()) -> Self {
        Self { after_load: Some(then), ..self }
    }

    fn loaded(&self) {
        if let Some(then) = self.after_load {
            then();
        }
    }

    /// Loads a configuration that may name the registered rules.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, file: &Path) -> Result<config::Loaded, config::Problems> {
        config::load(file, &self.registry.names())
    }

    /// Builds an instance that begins with nothing.
    ///
    /// # Errors
    /// A rule refuses its configuration.
    pub fn build(&self, config: Config) -> Result<Homing, BuildError> {
        self.build_heir(config, Inheritance::none()?)
    }

    /// Builds an instance that goes on with what an earlier process left.
    ///
    /// # Errors
    /// A rule refuses its configuration.
    pub fn build_heir(&self, config: Config, inheritance: Inheritance) -> Result<Homing, BuildError> {
        let Inheritance { keys, legacy } = inheritance;
        let metrics = Metrics::new();
        let clock = Clock::system();
        let capacity = config.session_entries;
        let sessions = Arc::new(SessionTable::new(capacity, keys.seed, &metrics, clock.now()));
        let saved = keys.tickets(clock.now());
        let ticket_keys = saved.map_or_else(TicketKeys::random, Ok).map_err(BuildError::Chance)?;
        ticket_keys.follow(&config.session_ticket_secrets, clock.now()).map_err(BuildError::Chance)?;
        let replay = Arc::new(ReplayGuard::new());
        let (drains, censuses) = Default::default();
        let mark_key = keys.mark;
        let (words, memories, server_names, unseen) = Default::default();
        let parts = Parts {
            metrics,
            clock,
            sessions,
            ticket_keys,
            replay,
            drains,
            censuses,
            words,
            memories,
            server_names,
            unseen,
            mark_key,
        };
        let snapshot = Snapshot::build(Arc::new(config), &self.registry, &parts, None)?;
        self.loaded();
        Ok(Homing { live: Arc::new(Live::new(snapshot, parts)), builder: self.clone(), legacy })
    }
}

/// An instance that serves. Dropped without [`Running::shutdown`], it stops being administered and monitored.
pub struct Running {
    instance: Arc<Instance>,
    admin: Option<JoinHandle<()>>,
    admin_url: Option<String>,
    admin_handle: Option<admin::Handle>,
    successors: Option<Arc<Successors>>,
    keeper: Arc<Keeper>,
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

    /// Whether a process could take over: there is an `upgrade_sock`.
    pub fn has_successors(&self) -> bool {
        self.successors.is_some()
    }

    /// Until the process with this id waits to take over; for ever where nobody can.
    pub async fn successor_waits(&self, pid: u32) {
        match &self.successors {
            Some(successors) => successors.waits(pid).await,
            None => std::future::pending().await,
        }
    }

    /// Hands over to the process that waits for it; this one has only to [`Running::retire`] then. No reload begins
    /// meanwhile.
    ///
    /// # Errors
    /// There is none, or it failed. This one serves on.
    pub async fn hand_over(&self) -> Result<HandedOver, HandOverError> {
        let successors = self.successors.clone().ok_or(HandOverError::NotConfigured)?;
        let _no_reload = self.instance.reloading.lock().await;
        let mut kept_by_another = self.keeper.pause().await;
        let sockets = self.sockets().map_err(HandOverError::Sockets)?;
        let handed_over = tokio::task::spawn_blocking(move || successors.hand_over(&sockets)).await;
        let handed_over = handed_over.unwrap_or(Err(HandOverError::Panic))?;
        *kept_by_another = true;
        *self.instance.stopping.lock() = true;
        Ok(handed_over)
    }

    /// Other handles of everything that another process is to listen on too.
    fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let mut tcp = self.instance.ports.sockets();
        tcp.extend(self.admin_handle.as_ref().and_then(admin::Handle::socket));
        let mut sockets = self.instance.dns.sockets()?;
        for socket in tcp {
            sockets.push(socket.as_fd().try_clone_to_owned()?);
        }
        Ok(sockets)
    }

    /// Ends when another process serves in its place: every connection with its next answer, at the latest after
    /// `grace`. Says how many were cut.
    pub async fn retire(self, handed_over: HandedOver, grace: Duration) -> usize {
        self.admin_handle.iter().for_each(admin::Handle::leave);
        self.successors.iter().for_each(|successors| successors.leave());
        drop(self.stop);
        self.instance.dns.close();
        let cut = self.instance.ports.retire(grace).await;
        flush_access_log(&self.instance).await;
        let _ = tokio::task::spawn_blocking(|| handed_over.ended()).await;
        if let Some(admin) = self.admin {
            let _ = admin.await;
        }
        cut
    }

    /// Stops accepting, and ends as soon as nothing is in flight, at the latest after `grace`. Says how many
    /// connections were cut.
    pub async fn shutdown(self, grace: Duration) -> usize {
        *self.instance.stopping.lock() = true;
        self.instance.dns.close();
        let cut = self.instance.ports.shutdown(grace).await;
        flush_access_log(&self.instance).await;
        drop(self.stop);
        self.keeper.keep().await;
        if let Some(admin) = self.admin {
            // It ends soon: a Unix socket's file is to be gone before the process is.
            let _ = admin.await;
        }
        cut
    }
}

async fn flush_access_log(instance: &Instance) {
    if let Some(log) = instance.live.access_log.load() {
        let flushed = tokio::task::spawn_blocking(move || log.flush(LONGEST_FLUSH)).await;
        if !flushed.unwrap_or(false) {
            tracing::warn!("access log not written to its end");
        }
    }
}

/// What an earlier process left, put in its place. With a process that serves still, this waits until it hands over.
async fn inherit(legacy: Legacy, live: &Arc<Live>) -> Result<Option<Taken>, StartError> {
    let live = live.clone();
    let inherit = move || match legacy {
        Legacy::Nothing => Ok(None),
        Legacy::File(file) => {
            restore(&file, &live);
            Ok(None)
        }
        Legacy::Process(predecessor) => {
            let taken = predecessor.take_over(&live)?;
            let file = live.snapshot().config.session_snapshot.clone().filter(|_| taken.is_empty());
            let file = file.and_then(|path| SessionFile::read(&path, &live.clock));
            if let Some(file) = file.filter(|file| file.keys.seed == *live.sessions.seed()) {
                restore(&file, &live);
            }
            Ok(Some(taken))
        }
    };
    tokio::task::spawn_blocking(inherit).await.unwrap_or(Err(StartError::Panic))
}

fn restore(file: &SessionFile, live: &Arc<Live>) {
    let mut incoming = Incoming::into(&live.sessions, &live.snapshot().config, &live.clock);
    let keys = file.restore(&mut incoming, &live.clock);
    tracing::info!(keys, sessions = live.sessions.len(), "sessions restored");
}

async fn listen_for_successors(
    live: &Arc<Live>,
    stop: &CancellationToken,
) -> Result<Option<Arc<Successors>>, SocketError> {
    match &live.snapshot().config.upgrade_sock {
        Some(path) => Ok(Some(Successors::listen(live.clone(), path, stop.clone()).await?)),
        None => Ok(None),
    }
}

async fn adopt_admin(
    admin: &config::Admin,
    addr: SocketAddr,
    sockets: &mut Inherited,
) -> Result<Option<AdminListener>, admin::BindError> {
    match sockets.tcp(addr) {
        Some(socket) => AdminListener::adopt(socket, addr).map(Some),
        None => AdminListener::bind(admin).await,
    }
}

/// The process before has retired: going back is not possible any more.
fn serve_without<T>(error: impl std::fmt::Display) -> Option<T> {
    tracing::error!("{error}; serving without it");
    None
}

/// The proxy as Pingora's HTTP app, for one thread: with connections to servers of its own.
fn app(live: &Arc<Live>) -> Arc<HttpProxy<Proxy>> {
    let conf =
        ServerConf { upstream_keepalive_pool_size: KEPT_CONNECTIONS_PER_THREAD, ..ServerConf::default() };
    // Pingora keeps a timer that is not needed any more until it would have fired; tokio forgets it at once.
    set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
    let mut http = HttpProxy::new(Proxy::new(live.clone()), Arc::new(conf));
    http.handle_init_modules();
    Arc::new(http)
}

/// What is left of the access log may hold the end up so long.
const LONGEST_FLUSH: Duration = Duration::from_secs(2);

/// Idle connections to servers that are kept for reuse.
const KEPT_CONNECTIONS_PER_THREAD: usize = 1024;
