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

/// The state of this connection for this virtual service, if it has one and its `client_accepted` is over.
pub(super) fn known_state(connection: &Connection, vs: &VirtualService) -> Option<Arc<ConnectionState>> {
    let states = connection.state::<States>()?.lock();
    let (state, _) = states.iter().find(|(state, _)| state.virtual_service() == vs.name())?;
    state.is_accepted().then(|| state.clone())
}

/// The state of this connection for this virtual service, made at first sight, after its `client_accepted`: streams
/// of one HTTP/2 connection may arrive here together, and all wait for it.
pub(super) async fn state_for(
    connection: &Arc<Connection>,
    vs: &Arc<VirtualService>,
) -> Arc<ConnectionState> {
    let state = {
        let states = connection.state::<States>().expect("a connection has its states since it was accepted");
        let mut states = states.lock();
        match states.iter().find(|(state, _)| state.virtual_service() == vs.name()) {
            Some((state, _)) => state.clone(),
            None => {
                let state = Arc::new(ConnectionState::new(
                    vs.name().clone(),
                    vs.services.clone(),
                    connection.client,
                    connection.local,
                    tls_facts(connection).cloned(),
                    vs.connections_open.clone(),
                ));
                states.push((state.clone(), vs.clone()));
                state
            }
        }
    };
    state.accept(&vs.chain).await;
    state
}

fn tls_facts(connection: &Connection) -> Option<&TlsFacts> {
    connection.tls.as_deref().and_then(TlsFacts::of)
}
