//! Connections as the proxy sees them: their rules' state, and the events that `listen` tells.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::Proxy;
use crate::{
    listen::{Connection, ConnectionEvents, Refusal, Verdict},
    rule::ConnectionState,
    snapshot::VirtualService,
    tls::TlsFacts,
};

/// The state of a connection for each virtual service that it brought requests to: one, but for HTTP/2
/// connections and clients that send several Hosts.
type States = Mutex<Vec<(Arc<ConnectionState>, Arc<VirtualService>)>>;

#[async_trait]
impl ConnectionEvents for Proxy {
    async fn accepted(&self, connection: &Arc<Connection>) -> Verdict {
        connection.set_state(States::default());
        let listener = &*connection.listener;
        let by_sni = || {
            let sni = tls_facts(connection)?.sni.as_deref()?.to_ascii_lowercase();
            self.live.route(listener, &sni)
        };
        let Some(vs) = self.live.only(listener).or_else(by_sni) else { return Verdict::Serve };
        match state_for(connection, &vs).await.is_rejected() {
            true => Verdict::Refuse,
            false => Verdict::Serve,
        }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let Some(states) = connection.state::<States>() else { return };
        let states: Vec<_> = states.lock().drain(..).collect();
        for (state, vs) in states {
            vs.chain.client_closed(&state);
        }
    }

    fn refused(&self, listener: &str, client: SocketAddr, reason: &Refusal) {
        tracing::debug!(listener, %client, %reason, "connection refused");
        self.live.metrics.connections_refused.with_label_values(&[listener, reason.label()]).inc();
    }
}

/// The state of this connection for this virtual service, if it has one.
pub(super) fn known_state(connection: &Connection, vs: &VirtualService) -> Option<Arc<ConnectionState>> {
    let states = connection.state::<States>()?.lock();
    states.iter().find(|(state, _)| state.virtual_service() == vs.name()).map(|(state, _)| state.clone())
}

/// The state of this connection for this virtual service; made, with its `client_accepted`, at first sight.
pub(super) async fn state_for(
    connection: &Arc<Connection>,
    vs: &Arc<VirtualService>,
) -> Arc<ConnectionState> {
    if let Some(state) = known_state(connection, vs) {
        return state;
    }
    let states = connection.state::<States>().expect("a connection has its states since it was accepted");
    let state = Arc::new(ConnectionState::new(
        vs.name().clone(),
        vs.services.clone(),
        connection.client,
        connection.local,
        tls_facts(connection).cloned(),
        vs.connections_open.clone(),
    ));
    {
        // Streams of one HTTP/2 connection may arrive here together: the first one's state counts.
        let mut states = states.lock();
        if let Some((known, _)) = states.iter().find(|(state, _)| state.virtual_service() == vs.name()) {
            return known.clone();
        }
        states.push((state.clone(), vs.clone()));
    }
    if vs.chain.client_accepted(&state).await.is_err() {
        state.reject();
    }
    state
}

fn tls_facts(connection: &Connection) -> Option<&TlsFacts> {
    connection.tls.as_deref().and_then(TlsFacts::of)
}
