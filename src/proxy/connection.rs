//! Connections as the proxy sees them: their rules' state, and the events that `listen` tells.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use http::HeaderValue;
use parking_lot::Mutex;

use super::{Proxy, access_log};
use crate::{
    listen::{Connection, ConnectionEvents, Refusal, RefusedHead, Verdict},
    rule::ConnectionState,
    snapshot::{Live, Place, Snapshot, VirtualService},
    tls::TlsFacts,
};

/// What the proxy keeps with a connection.
#[derive(Default)]
struct States {
    /// For each virtual service that it brought requests to: one, but for HTTP/2 connections and clients that send
    /// several Hosts.
    states: Mutex<Vec<Visit>>,
    last: Mutex<Option<LastRoute>>,
}

/// What a connection is to one virtual service.
struct Visit {
    state: Arc<ConnectionState>,
    vs: Arc<VirtualService>,
    _place: Place,
}

/// Where the last request went, so that the next one with the same Host need not be routed.
struct LastRoute {
    /// Routes are of one snapshot. Weak, because an idle connection should not keep one that was replaced.
    snapshot: Weak<Snapshot>,
    host: HeaderValue,
    vs: Arc<VirtualService>,
    state: Arc<ConnectionState>,
}

#[async_trait]
impl ConnectionEvents for Proxy {
    async fn accepted(&self, connection: &Arc<Connection>) -> Verdict {
        connection.set_state(States::default());
        let listener = &*connection.listener;
        let by_sni = || {
            let sni = tls_facts(connection)?.sni.as_deref()?.to_ascii_lowercase();
            self.live.route(&self.live.snapshot(), listener, &sni)
        };
        let Some(vs) = self.live.only(listener).or_else(by_sni) else { return Verdict::Serve };
        match state_for(connection, &vs).await {
            None => Verdict::Full,
            Some(state) if state.is_rejected() => Verdict::Refuse,
            Some(_) => Verdict::Serve,
        }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let Some(states) = connection.state::<States>() else { return };
        let states: Vec<_> = states.states.lock().drain(..).collect();
        for Visit { state, vs, .. } in states {
            vs.chain.client_closed(&state);
        }
    }

    fn head_refused(&self, connection: &Connection, head: RefusedHead<'_>) {
        access_log::head_refused(&self.live, connection, head);
    }

    fn refused(&self, listener: &str, client: SocketAddr, reason: &Refusal) {
        tracing::debug!(listener, %client, %reason, "connection refused");
    }
}

/// Where the connection's last request went, if that had this Host and nothing was configured anew since.
pub(super) fn last_route(
    live: &Live,
    connection: &Connection,
    host: &HeaderValue,
) -> Option<(Arc<VirtualService>, Arc<ConnectionState>)> {
    let last = connection.state::<States>()?.last.lock();
    let last = last.as_ref().filter(|last| last.host == *host && live.is_current(&last.snapshot))?;
    Some((last.vs.clone(), last.state.clone()))
}

/// Keeps where a request with this Host goes.
pub(super) fn remember_route(
    connection: &Connection,
    snapshot: &Arc<Snapshot>,
    host: &HeaderValue,
    vs: &Arc<VirtualService>,
    state: &Arc<ConnectionState>,
) {
    let Some(states) = connection.state::<States>() else { return };
    *states.last.lock() = Some(LastRoute {
        snapshot: Arc::downgrade(snapshot),
        host: HeaderValue::from_bytes(host.as_bytes()).expect("the bytes are a field's value"),
        vs: vs.clone(),
        state: state.clone(),
    });
}

/// The state of this connection for this virtual service, made at first sight, after its `client_accepted`: streams
/// of one HTTP/2 connection may arrive here together, and all wait for it. `None`: the virtual service has as many
/// connections as it may.
pub(super) async fn state_for(
    connection: &Arc<Connection>,
    vs: &Arc<VirtualService>,
) -> Option<Arc<ConnectionState>> {
    let state = {
        let states = connection.state::<States>().expect("a connection has its states since it was accepted");
        let mut states = states.states.lock();
        match states.iter().find(|visit| visit.state.virtual_service() == vs.name()) {
            Some(visit) => visit.state.clone(),
            None => {
                let _place = vs.places.take(vs.config.max_concurrent_connections)?;
                let state = Arc::new(ConnectionState::new(
                    vs.name().clone(),
                    vs.services.clone(),
                    connection.client,
                    connection.local,
                    facts_for(connection, vs),
                    vs.connections_open.clone(),
                ));
                states.push(Visit { state: state.clone(), vs: vs.clone(), _place });
                state
            }
        }
    };
    state.accept(&vs.chain).await;
    Some(state)
}

/// Whether a virtual service that requires a certificate has it of this connection. A peer site answers for its clients.
pub(super) fn is_certified(connection: &Connection, vs: &VirtualService) -> bool {
    let required = vs.config.profile.clients.as_ref().filter(|clients| clients.required);
    let (Some(clients), Some(facts)) = (required, tls_facts(connection)) else { return true };
    facts.site.is_some() || facts.client_certificate.as_ref().is_some_and(|shown| shown.satisfies(clients))
}

/// The facts that rules of a virtual service see: a certificate that was verified by other authorities than its own is
/// none of them.
fn facts_for(connection: &Connection, vs: &VirtualService) -> Option<TlsFacts> {
    let mut facts = tls_facts(connection)?.clone();
    let clients = vs.config.profile.clients.as_deref();
    facts.client_certificate =
        facts.client_certificate.filter(|shown| clients.is_some_and(|clients| shown.satisfies(clients)));
    Some(facts)
}

fn tls_facts(connection: &Connection) -> Option<&TlsFacts> {
    connection.tls.as_deref().and_then(TlsFacts::of)
}
