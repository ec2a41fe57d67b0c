//! Ports that follow their virtual services: nobody listens where all that is behind a port is down, so that a client,
//! or the balancer before this one, goes elsewhere at once; and connections end where what they were made for has
//! changed.
//!
//! Known elsewhere as: Avi's `remove_listening_port_on_vs_down` and `close_client_conn_on_config_update`.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Instance;
use crate::{
    clock::Episode,
    snapshot::{Listener, Snapshot, VirtualService},
};

/// Closes and opens ports as servers go down and come up, until `stop`.
pub(super) async fn watch(instance: Arc<Instance>, stop: CancellationToken) {
    let mut every = tokio::time::interval(INTERVAL);
    let failing = Episode::default();
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        // No reload changes the ports meanwhile.
        let _no_reload = instance.reloading.lock().await;
        if *instance.stopping.lock() {
            return;
        }
        let snapshot = instance.live.snapshot();
        let is_shared = snapshot.config.so_reuseport;
        for listener in snapshot.listeners.values() {
            let (addr, is_down) = (listener.addr, is_down(listener));
            match instance.ports.set_paused(addr, is_down, is_shared).await {
                Ok(false) => {}
                Ok(true) if is_down => {
                    tracing::warn!(listener = %addr, "not listening: no server of its virtual services is up");
                }
                Ok(true) => tracing::info!(listener = %addr, "listening again"),
                Err(error) if failing.seen(instance.live.clock.now()) => {
                    tracing::error!("cannot listen again, and goes on trying: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

/// Whether all virtual services of a listener are down and want it closed then.
fn is_down(listener: &Listener) -> bool {
    let is_down = |vs: &Arc<VirtualService>| {
        let servers = vs.pool.as_ref().map(|pool| pool.servers());
        vs.config.remove_listening_port_on_vs_down
            && servers.is_some_and(|servers| servers.iter().all(|server| !server.is_up()))
    };
    listener.virtual_services().all(is_down)
}

/// Listeners whose connections end with this change: those of virtual services that want it and are other than they
/// were, or have another pool.
pub(super) fn to_be_closed(old: &Snapshot, new: &Snapshot) -> BTreeSet<SocketAddr> {
    let is_changed = |vs: &VirtualService| {
        let before = old.virtual_services.iter().find(|before| before.name() == vs.name());
        let pool = |vs: &VirtualService| vs.pool.as_ref().map(|pool| pool.config().clone());
        before.is_some_and(|before| before.config != vs.config || pool(before) != pool(vs))
    };
    let closing = new.virtual_services.iter().filter(|vs| vs.config.close_client_conn_on_config_update);
    let changed = closing.filter(|vs| is_changed(vs));
    changed.flat_map(|vs| vs.config.services.iter().map(|service| service.addr)).collect()
}

const INTERVAL: Duration = Duration::from_millis(250);
