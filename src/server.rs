//! The composition root: the only module that knows every part. It builds an instance from a configuration, binds
//! its sockets, starts it on the runtime that is current, loads its configuration again, and ends it.
//!
//! Nothing here is global: several instances can live in one process, as in `homing demo`.

mod app;
mod builder;
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
mod running;
mod saved;
mod session_file;
mod sources;
mod upgrade;
mod watch;

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use crate::dns::delegation_signers;
pub use crate::limits::OpenFiles;
pub use crate::pool::monitor::PingRefused;
pub use crate::snapshot::BuildError;
use crate::{
    access_log,
    admin::{self, AdminListener},
    config::{self, AdminListen},
    dns,
    listen::{self, Inherited, Workers},
    pool::monitor::may_ping,
    snapshot::Live,
    tls::{AcceptorError, CertificateError},
};
use app::Apps;
pub use builder::Builder;
use inheritance::Legacy;
pub use inheritance::{Inheritance, InheritanceError};
use instance::Instance;
use keeper::Keeper;
pub use reload::Trigger;
pub use running::Running;
use saved::Incoming;
use session_file::SessionFile;
pub use sources::SourceError;
pub use upgrade::{HandOverError, HandedOver, LinkError, SocketError, TakeOverError};
use upgrade::{Successors, Taken};

/// An instance that is configured but does not run yet.
pub struct Homing {
    live: Arc<Live>,
    builder: Builder,
    legacy: Legacy,
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
    #[error(transparent)]
    Source(#[from] SourceError),
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
    #[error(transparent)]
    Ping(#[from] PingRefused),
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

    /// Whether the system lets this process send what the monitors send.
    ///
    /// # Errors
    /// It does not: to start would fail.
    pub fn may_probe(&self) -> Result<(), PingRefused> {
        may_ping(&self.live.snapshot().probed_pools())
    }

    /// Binds every socket, or takes them over from the process that serves when that hands over, then serves. Needs a
    /// tokio runtime: with `threads: 1` everything runs on it, else requests are served on threads of their own.
    ///
    /// # Errors
    /// A socket cannot be had, a certificate does not load, or monitors may not do their work. Nothing was served then.
    pub async fn start(self) -> Result<Running, StartError> {
        self.may_probe()?;
        let Self { live, builder, legacy } = self;
        let snapshot = live.snapshot();
        let mut taken = inherit(legacy, &live).await?;
        let mut sockets = taken.as_mut().map(|taken| std::mem::take(&mut taken.sockets)).unwrap_or_default();
        let apps = Apps::new(&live);
        let workers = match NonZeroUsize::new(snapshot.config.threads).filter(|threads| threads.get() > 1) {
            Some(threads) => Workers::threads(threads, || apps.app()).map_err(StartError::Threads)?,
            None => Workers::here(apps.app()),
        };
        let instance = Arc::new(Instance::new(live.clone(), builder, workers));
        resolving::first(&instance).await;
        let snapshot = live.snapshot();
        sources::check(&snapshot.config)?;
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
