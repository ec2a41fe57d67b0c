//! What Pingora is told of the server that a request goes to: how to connect, what to verify, what to speak, and for how
//! long to wait.

use std::{mem, net::SocketAddr, time::Duration};

use pingora::{proxy::Session, upstreams::peer::HttpPeer};

use super::{
    copies::content_length,
    dial::{self, Dial},
    forward::asks_for_tunnel,
    protocol, to_server, tunnel,
};
use crate::{
    config,
    listen::Connection,
    pool::{Pool, hash_of},
    preface::Preface,
    rule::{Exchange, host},
    snapshot::Live,
};

/// Describes a server of a pool for one request; `http2`: it may be asked for HTTP/2.
pub(super) fn describe(
    live: &Live,
    session: &mut Session,
    exchange: &Exchange,
    pool: &Pool,
    server: &config::Server,
    http2: bool,
) -> Box<HttpPeer> {
    let mut peer = verified(pool, server, || host(session.req_header()).to_owned());
    let config = pool.config();
    if config.connections.most_idle.is_some() {
        // Pools with the same server would use one another's, and each has its own number.
        peer.group_key ^= hash_of(config.name.as_str().as_bytes());
    }
    let preface = config.connections.proxy_protocol.map(|version| preface_of(version, exchange));
    if let Some(source) = pool.source_of(server.addr.ip()) {
        dial::come_from(source, &mut peer);
    }
    if asks_for_tunnel(session.req_header()) {
        peer.options.write_timeout = Some(config.read_timeout);
        tunnel::on_its_own_connection(&mut peer, Connection::of(session.digest()), preface);
        return peer;
    }
    if http2 {
        protocol::choose(&mut peer, config, session.req_header());
    }
    // A head alone fits into the socket's buffer, and a timeout that is never needed costs its share of every request.
    if !session.is_body_empty() {
        peer.options.write_timeout = Some(config.read_timeout);
        let upload = longest_upload(content_length(&session.req_header().headers));
        peer.options.read_timeout = Some(config.read_timeout + upload);
    }
    let held = dial::are_held(config).then(|| live.clock.clone());
    if preface.is_some() || held.is_some() {
        Dial::new(preface, held).apply(&mut peer);
    }
    peer
}

/// What a connection for a request's client begins with. One that a peer site has told of has no port.
pub(super) fn preface_of(version: config::ProxyProtocol, exchange: &Exchange) -> Preface {
    let (here, ip) = (exchange.client_addr(), exchange.client_ip());
    let port = if here.ip() == ip { here.port() } else { 0 };
    Preface::of_client(version, SocketAddr::new(ip, port), exchange.local_addr())
}

fn verified(pool: &Pool, server: &config::Server, host: impl FnOnce() -> String) -> Box<HttpPeer> {
    let (peer_tls, server_tls, pool) = (pool.peer_tls(), pool.server_tls(), pool.config());
    let name = match (&pool.sni, pool.enable_ssl) {
        (_, false) => String::new(),
        (Some(sni), true) => sni.clone(),
        (None, true) => {
            let host = host();
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            // Without a name Pingora would verify nothing. An address is not sent in SNI.
            if name.is_empty() { server.addr.ip().to_string() } else { name.to_owned() }
        }
    };
    let mut peer = Box::new(HttpPeer::new(server.addr, pool.enable_ssl, name));
    if !pool.tls.sni {
        // What is not sent is verified all the same.
        peer.options.alternative_cn = Some(mem::replace(&mut peer.sni, server.addr.ip().to_string()));
    }
    peer.options.connection_timeout = Some(pool.connect_timeout);
    peer.options.total_connection_timeout = Some(pool.connect_timeout);
    peer.options.read_timeout = Some(pool.read_timeout);
    peer.options.idle_timeout = Some(pool.idle_timeout);
    peer.options.verify_cert = pool.verify;
    peer.options.verify_hostname = pool.verify;
    if let Some(peer_tls) = peer_tls {
        peer_tls.apply(&mut peer, server);
    }
    if let Some(server_tls) = server_tls {
        server_tls.apply(&mut peer);
    }
    peer.options.alpn = to_server::http1();
    peer
}

/// What a body of this length may take. A server is silent meanwhile, and Pingora waits for its answer from the
/// request's head on.
fn longest_upload(length: Option<u64>) -> Duration {
    length.map_or(UPLOAD_OF_UNKNOWN_LENGTH, |length| Duration::from_secs(length / SLOWEST_UPLOAD))
}

/// Bytes in a second.
const SLOWEST_UPLOAD: u64 = 64 << 10;
const UPLOAD_OF_UNKNOWN_LENGTH: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use openssl::x509::X509;
    use pingora::upstreams::peer::Peer;

    use std::{sync::Arc, time::UNIX_EPOCH};

    use super::*;
    use crate::{config::CaCerts, metrics::Metrics};

    fn of(pool: &config::Pool, host: &str) -> Box<HttpPeer> {
        let pool = Pool::new(&Arc::new(pool.clone()), &Metrics::new(), None, UNIX_EPOCH);
        verified(&pool, pool.servers()[0].config(), || host.to_owned())
    }

    fn pool() -> config::Pool {
        let server = SocketAddr::from(([10, 0, 0, 1], 443));
        config::Pool { enable_ssl: true, verify: true, ..config::Pool::of("p".into(), [server]) }
    }

    #[test]
    fn a_connection_is_not_used_again_where_other_authorities_are_trusted() {
        let with_ca = |name: &str| {
            let made =
                rcgen::generate_simple_self_signed([name.to_owned()]).expect("a name makes a certificate");
            let certificate = X509::from_der(made.cert.der()).expect("it is a certificate");
            config::Pool { ca_certs: CaCerts::new(vec![certificate]), ..pool() }
        };
        let (system, ours, theirs) = (pool(), with_ca("ours"), with_ca("theirs"));
        let key = |pool| of(pool, "a.com").reuse_hash();
        assert_eq!(key(&ours), key(&ours));
        assert_ne!(key(&ours), key(&theirs));
        assert_ne!(key(&ours), key(&system));
    }

    #[test]
    fn there_is_a_name_to_verify_whatever_the_host_is() {
        for (host, name) in
            [("a.com", "a.com"), ("a.com:443", "a.com"), ("", "10.0.0.1"), (":443", "10.0.0.1")]
        {
            let peer = of(&pool(), host);
            assert_eq!(peer.sni, name, "{host:?}");
            assert!(peer.options.verify_cert && peer.options.verify_hostname);
        }
    }
}
