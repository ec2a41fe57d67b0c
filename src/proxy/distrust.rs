//! TLS with a server fails, and requests with it: the log is told once in a while, with the reason, which Pingora does
//! not pass on where a certificate is refused. So that is looked up beside the requests, and told when it is known.

use std::{sync::Arc, time::SystemTime};

use pingora::{Error, ErrorType, upstreams::peer::HttpPeer};
use tokio::time::timeout;

use crate::{
    clock::Clock,
    pool::{Pool, Server},
    preface::{self, Preface},
    snapshot::Live,
    tls::{handshake_failure, why_refused},
};

/// A request did not reach a server for this. Says why as far as it is known now, if it was TLS.
pub(super) fn met(
    live: &Live,
    pool: &Arc<Pool>,
    server: &Arc<Server>,
    peer: &HttpPeer,
    error: &Error,
) -> Option<Arc<str>> {
    let context = error.context.as_ref().map_or("", |context| context.as_str());
    let is_known = match error.etype() {
        // What homing itself has found to be wrong.
        ErrorType::InvalidCert if !context.contains(PINGORAS) => Some(context.to_owned()),
        ErrorType::InvalidCert => None,
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => {
            Some(format!("TLS handshake failed: {}", handshake_failure(context)))
        }
        _ => return None,
    };
    if server.tls_failed(live.clock.now()) {
        match is_known {
            Some(why) => tell(pool, server, error.etype(), &why, live.clock.wall()),
            None => look_up(pool, server, peer, live.clock.clone()),
        }
    }
    Some(server.tls_failure().unwrap_or_else(|| REFUSED.into()))
}

/// Nobody waits for what comes of it.
fn look_up(pool: &Arc<Pool>, server: &Arc<Server>, peer: &HttpPeer, clock: Clock) {
    let (pool, server, peer) = (pool.clone(), server.clone(), peer.clone());
    tokio::spawn(async move {
        let config = pool.config();
        let preface = config.connections.proxy_protocol.map(Preface::of_no_client);
        let source = peer.options.bind_to.as_ref().and_then(|bind_to| bind_to.addr);
        let why = async {
            let source = source.map(|addr| addr.ip());
            let connection = preface::connect(source, server.addr(), preface.as_ref()).await.ok()?;
            why_refused(config, &peer, connection).await
        };
        let why = timeout(config.connect_timeout, why).await.ok().flatten();
        tell(&pool, &server, &ErrorType::InvalidCert, why.as_deref().unwrap_or(REFUSED), clock.wall());
    });
}

fn tell(pool: &Pool, server: &Server, what: &ErrorType, why: &str, now: SystemTime) {
    server.explain_tls_failure(why, now);
    let (pool, server) = (pool.name(), server.addr());
    match what {
        ErrorType::InvalidCert => tracing::warn!(
            %pool,
            %server,
            reason = why,
            "the certificate of a server is refused and requests fail; `openssl s_client -connect {server}` shows it"
        ),
        _ => tracing::warn!(%pool, %server, reason = why, "there is no TLS with a server and requests fail"),
    }
}

/// With this Pingora begins what it says of a handshake.
const PINGORAS: &str = "TLS connect() failed";

/// Until it is known why.
const REFUSED: &str = "certificate refused";
