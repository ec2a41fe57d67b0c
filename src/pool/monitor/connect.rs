//! Probes that connect: for `http` and `https` they ask and read the answer, all within `receive_timeout`.
//!
//! Connections are Pingora's and are not reused, so that each probe goes the way of a new client. At most
//! [`BODY_LIMIT`] bytes of an answer's body are read, so a health page that never ends does no harm.
//! Pingora's own `HttpHealthCheck` is not used: each holds two TLS contexts with all certificates of the
//! system, reads bodies of any length and takes an interim answer (1xx) for the answer.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use http::header;
use pingora::{
    Error, ErrorType,
    connectors::{
        http::v1::Connector,
        l4::{self, BindTo},
    },
    http::RequestHeader,
    protocols::{
        http::v1::client::HttpSession,
        l4::{ext, socket, stream::Stream},
    },
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::time::{Instant, timeout_at};

use super::probe::Failure;
use crate::{
    clock::Clock,
    config::{self, HealthMonitor, HttpRequest, Maintenance, MonitorType, ResponseCodes},
    pool::Pool,
    preface::{self, Preface},
    tls::{PeerTls, ServerTls, why_refused},
};

/// A monitor that connects, made ready for one server. Where requests begin with a PROXY header it does, too, but not on
/// a port of its own.
pub(super) struct Connect {
    connector: Arc<Connector>,
    peer: HttpPeer,
    /// Verifies what OpenSSL does not.
    peer_tls: Option<Arc<PeerTls>>,
    server_tls: Option<Arc<ServerTls>>,
    pool: Arc<config::Pool>,
    preface: Option<Preface>,
    clock: Clock,
    /// What to ask once connected; nothing for `tcp`.
    question: Option<Question>,
    receive_timeout: Duration,
}

struct Question {
    request: RequestHeader,
    accepted: ResponseCodes,
    maintenance: Maintenance,
}

impl Connect {
    /// An `https` probe trusts as the pool's requests do. To a server that is a site it proves itself as they do.
    pub fn new(
        connector: &Arc<Connector>,
        pool: &Pool,
        server: &config::Server,
        monitor: &HealthMonitor,
        clock: &Clock,
    ) -> Self {
        let mut addr = server.addr;
        addr.set_port(monitor.monitor_port.unwrap_or(addr.port()));
        let (tls, question) = match &monitor.kind {
            MonitorType::Tcp | MonitorType::Ping => (false, None),
            MonitorType::Http { request, codes } => (false, Some((request, codes))),
            MonitorType::Https { request, codes } => (true, Some((request, codes))),
        };
        let config = pool.config();
        let verify = tls && monitor.verify && config.enable_ssl && config.verify;
        let name = config.sni.clone();
        let name = name.or_else(|| question.and_then(|(request, _)| server_name(request, server)));
        let is_named = name.is_some();
        // Without a name Pingora would verify nothing. An address is not sent in SNI.
        let address = || if verify { addr.ip().to_string() } else { String::new() };
        let mut peer = HttpPeer::new(addr, tls, name.unwrap_or_else(address));
        peer.options.verify_cert = verify;
        // Requests are verified by the Host that clients send, which no probe knows.
        peer.options.verify_hostname = verify && is_named;
        peer.options.bind_to = config.sources.of(addr.ip(), 0).map(|source| {
            let mut bind_to = BindTo::default();
            bind_to.addr = Some((source, 0).into());
            bind_to
        });
        let own_port = addr == server.addr;
        let preface = config.connections.proxy_protocol.filter(|_| own_port).map(Preface::of_no_client);
        if let Some(preface) = &preface {
            let source = peer.options.bind_to.clone();
            peer.options.custom_l4 = Some(Arc::new(Introduced { source, preface: preface.clone() }));
        }
        let peer_tls = pool.peer_tls().filter(|peer_tls| tls && (verify || peer_tls.is_mutual())).cloned();
        if let Some(peer_tls) = &peer_tls {
            peer_tls.apply(&mut peer, server);
        }
        let server_tls = pool.server_tls().filter(|_| tls);
        if let Some(server_tls) = server_tls {
            server_tls.apply(&mut peer);
        }
        if is_named && !config.tls.sni {
            // What is not sent is verified all the same.
            peer.options.alternative_cn = Some(mem::replace(&mut peer.sni, addr.ip().to_string()));
        }
        Self {
            connector: connector.clone(),
            peer,
            peer_tls,
            server_tls: server_tls.filter(|_| verify).cloned(),
            pool: config.clone(),
            preface,
            clock: clock.clone(),
            question: question.map(|(request, accepted)| Question {
                request: request_head(request, addr),
                accepted: accepted.clone(),
                maintenance: monitor.maintenance.clone(),
            }),
            receive_timeout: monitor.receive_timeout,
        }
    }

    /// Probes once. Dropping the future ends the probe and its connection.
    pub async fn run(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.receive_timeout;
        let session = timeout_at(deadline, self.connector.get_http_session(&self.peer))
            .await
            .map_err(|_| Failure::NoConnection(self.receive_timeout))?;
        let session = match session.map_err(Failure::from) {
            Ok((session, _)) => session,
            Err(Failure::Certificate(_)) => {
                let reason = timeout_at(deadline, self.why_refused()).await;
                return Err(Failure::Certificate(reason.ok().flatten()));
            }
            Err(failure) => return Err(failure),
        };
        let digest = session.digest().ssl_digest.as_deref();
        if let Some(peer_tls) = &self.peer_tls {
            peer_tls.check(digest, self.clock.wall())?;
        }
        if let Some(server_tls) = &self.server_tls {
            server_tls.check(digest, self.clock.wall())?;
        }
        match &self.question {
            None => Ok(()),
            Some(question) => timeout_at(deadline, question.ask(session))
                .await
                .map_err(|_| Failure::NoAnswer(self.receive_timeout))?,
        }
    }
}

impl Connect {
    /// Looks at a certificate again that was refused.
    async fn why_refused(&self) -> Option<String> {
        let addr = *self.peer.address().as_inet()?;
        let source = self.pool.sources.of(addr.ip(), 0);
        let server = preface::connect(source, addr, self.preface.as_ref()).await.ok()?;
        why_refused(&self.pool, &self.peer, server).await
    }
}

/// Connections to servers that want to be told first, by the PROXY protocol, for whom they are.
#[derive(Debug)]
struct Introduced {
    source: Option<BindTo>,
    preface: Preface,
}

#[async_trait]
impl l4::Connect for Introduced {
    async fn connect(&self, server: &socket::SocketAddr) -> pingora::Result<Stream> {
        let server = server.as_inet().expect("servers have IP addresses");
        let mut tcp = ext::connect(server, self.source.as_ref()).await?;
        let written = self.preface.write(&mut tcp).await;
        written.map_err(|error| Error::because(ErrorType::WriteError, "no PROXY header written", error))?;
        Ok(tcp.into())
    }
}

impl Question {
    async fn ask(&self, mut session: HttpSession) -> Result<(), Failure> {
        session.write_request_header(Box::new(self.request.clone())).await?;
        session.finish_body().await?;
        let status = loop {
            let status = session.read_resp_header_parts().await?.status;
            if !status.is_informational() || status == http::StatusCode::SWITCHING_PROTOCOLS {
                break status;
            }
        };
        let status = status.as_u16();
        if self.maintenance.codes.contains(status) {
            return Err(Failure::Maintenance(status));
        }
        if let Some(text) = &self.maintenance.text {
            let mut body = Vec::new();
            while body.len() < BODY_LIMIT
                && let Some(piece) = session.read_body_ref().await?
            {
                body.extend_from_slice(piece);
            }
            if memchr::memmem::find(&body, text.as_bytes()).is_some() {
                return Err(Failure::Maintenance(status));
            }
        }
        if !self.accepted.contains(status) {
            return Err(Failure::Status(status));
        }
        while session.body_bytes_received() < BODY_LIMIT && session.read_body_ref().await?.is_some() {}
        Ok(())
    }
}

/// The request as it is sent: what the monitor does not set is filled in.
fn request_head(request: &HttpRequest, addr: SocketAddr) -> RequestHeader {
    let mut head = RequestHeader::build(request.method.clone(), request.target.as_bytes(), None)
        .expect("the configuration holds only targets that a request can have");
    for (name, value) in &request.headers {
        head.append_header(name.clone(), value.clone()).expect("a typed name and value make a header");
    }
    let addr = addr.to_string();
    for (name, value) in
        [(header::HOST, &*addr), (header::USER_AGENT, "homing-monitor"), (header::CONNECTION, "close")]
    {
        if !head.headers.contains_key(&name) {
            head.insert_header(name, value).expect("an address and fixed words make headers");
        }
    }
    head
}

/// The name for SNI: the `Host` that is asked for, else the server's own. Addresses are no names (RFC 6066).
fn server_name(request: &HttpRequest, server: &config::Server) -> Option<String> {
    let host = request.headers.iter().find(|(name, _)| name == header::HOST);
    let host = host.and_then(|(_, value)| value.to_str().ok()).or(server.hostname.as_deref())?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    (!is_address && !name.is_empty()).then(|| name.to_owned())
}

/// How much of an answer's body is read.
const BODY_LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> HttpRequest {
        let header = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        HttpRequest {
            method: http::Method::GET,
            target: "/healthz?deep=1".into(),
            headers: headers.iter().map(header).collect(),
        }
    }

    fn fields(request: &HttpRequest, addr: &str) -> Vec<String> {
        let head = request_head(request, addr.parse().unwrap());
        assert_eq!(head.raw_path(), b"/healthz?deep=1");
        let mut fields: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        fields.sort();
        fields
    }

    #[test]
    fn what_the_monitor_does_not_set_is_filled_in() {
        assert_eq!(
            fields(&request(&[]), "[::1]:8080"),
            ["connection: close", "host: [::1]:8080", "user-agent: homing-monitor"]
        );
        assert_eq!(
            fields(
                &request(&[("Host", "a.com"), ("User-Agent", "me"), ("X-A", "1"), ("X-A", "2")]),
                "10.0.0.1:80"
            ),
            ["connection: close", "host: a.com", "user-agent: me", "x-a: 1", "x-a: 2"]
        );
    }

    #[test]
    fn a_name_is_sent_in_sni_and_an_address_is_not() {
        for (request, hostname, expected) in [
            (request(&[]), None, None),
            (request(&[]), Some("app.a.com"), Some("app.a.com")),
            (request(&[("host", "a.com")]), Some("app.a.com"), Some("a.com")),
            (request(&[("host", "a.com:8443")]), None, Some("a.com")),
            (request(&[("host", "10.0.0.1:443")]), None, None),
            (request(&[("host", "[::1]:443")]), None, None),
        ] {
            let server = config::Server {
                hostname: hostname.map(str::to_owned),
                ..config::Server::at("10.0.0.1:443".parse().unwrap())
            };
            assert_eq!(server_name(&request, &server).as_deref(), expected, "{request:?}");
        }
    }
}
