//! An instance from its first request to its last: reloads, the hand-over to another process, the end.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use super::{
    instance::Instance,
    keeper::Keeper,
    reload::Trigger,
    upgrade::{HandOverError, HandedOver, Successors},
};
use crate::admin::{self, view};

/// An instance that serves. Dropped without [`Running::shutdown`], it stops being administered and monitored.
pub struct Running {
    pub(super) instance: Arc<Instance>,
    pub(super) admin: Option<JoinHandle<()>>,
    pub(super) admin_url: Option<String>,
    pub(super) admin_handle: Option<admin::Handle>,
    pub(super) successors: Option<Arc<Successors>>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) stop: DropGuard,
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

/// What is left of the access log may hold the end up so long.
const LONGEST_FLUSH: Duration = Duration::from_secs(2);
