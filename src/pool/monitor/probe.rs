//! One probe of one server, whatever the monitor's type, and why it failed.

use std::{sync::Arc, time::Duration};

use pingora::{Error, ErrorType, connectors::http::v1::Connector};
use rand::Rng;

use super::{connect::Connect, ping::Ping};
use crate::{
    clock::Clock,
    config::{self, HealthMonitor, MonitorType},
    limits,
    pool::Pool,
    tls::{PeerRefusal, handshake_failure},
};

/// A monitor, made ready for one server.
pub(super) enum Probe {
    Connect(Box<Connect>),
    Ping(Box<Ping>),
}

impl Probe {
    pub fn new(
        connector: &Arc<Connector>,
        pool: &Pool,
        server: &config::Server,
        monitor: &HealthMonitor,
        clock: &Clock,
        rng: &mut impl Rng,
    ) -> Self {
        match monitor.kind {
            MonitorType::Ping => {
                let ip = server.addr.ip();
                let ping = Ping::new(ip, monitor.receive_timeout, rng);
                Self::Ping(Box::new(ping.from(pool.config().sources.of(ip, 0))))
            }
            _ => Self::Connect(Box::new(Connect::new(connector, pool, server, monitor, clock))),
        }
    }

    /// Probes once. Dropping the future ends the probe, and its connection if it has one.
    pub async fn run(&mut self) -> Result<(), Failure> {
        match self {
            Self::Connect(connect) => connect.run().await,
            Self::Ping(ping) => ping.run().await,
        }
    }
}

/// Why a probe failed, in words for an operator. Nothing that the server sent is repeated.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection within {}", humantime::format_duration(*.0))]
    NoConnection(Duration),
    #[error("no answer within {}", humantime::format_duration(*.0))]
    NoAnswer(Duration),
    #[error("answered {0}")]
    Status(u16),
    /// It is there, and wants no new sessions.
    #[error("answered {0}, which is for maintenance")]
    Maintenance(u16),
    #[error("no echo reply within {}", humantime::format_duration(*.0))]
    NoReply(Duration),
    /// With ICMP's word for what cannot be reached.
    #[error("destination unreachable: {0}")]
    Unreachable(String),
    #[error("echo request not sent: {0}")]
    Unsent(String),
    #[error("connection refused")]
    Refused,
    #[error("no route to the server")]
    NoRoute,
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// `None`: OpenSSL has not told why.
    #[error("{}", .0.as_deref().unwrap_or(REFUSED))]
    Certificate(Option<String>),
    #[error(transparent)]
    Peer(#[from] PeerRefusal),
    #[error("connection closed before the end of the answer")]
    Closed,
    #[error("the answer is not HTTP")]
    NotHttp,
    /// It is no failure of the server: this process, or the machine, has run out of something.
    #[error("{error}")]
    Ours { error: String, help: &'static str },
    /// Pingora's name of an error that is none of the above.
    #[error("failed with {0}")]
    Other(&'static str),
}

impl From<Box<Error>> for Failure {
    fn from(error: Box<Error>) -> Self {
        if let Some(help) = limits::shortage(error.root_cause()) {
            return Self::Ours { error: error.root_cause().to_string(), help };
        }
        match error.etype() {
            ErrorType::ConnectRefused => Self::Refused,
            ErrorType::ConnectNoRoute => Self::NoRoute,
            ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => {
                let context = error.context.as_ref().map_or("", |context| context.as_str());
                Self::Tls(handshake_failure(context).to_owned())
            }
            ErrorType::InvalidCert => Self::Certificate(None),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Self::Closed,
            ErrorType::InvalidHTTPHeader | ErrorType::H1Error => Self::NotHttp,
            other => Self::Other(other.as_str()),
        }
    }
}

const REFUSED: &str = "certificate refused: out of its time, for another name, or of an unknown authority";
