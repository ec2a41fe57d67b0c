//! How a pool's connections to its servers begin, and how long they are used.

use std::time::Duration;

use super::{
    Patience,
    read::Object,
    units::{self, days, seconds},
    words,
};

/// What a pool says about connections beyond their idle time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Servers are told by it who the client is; such a connection is for one client alone.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// A connection that is older at the end of an answer is not used again.
    pub max_age: Option<Duration>,
    /// After so many requests it is not used again.
    pub max_requests: Option<u32>,
    /// So many of HTTP/1 are kept unused for each server, by all threads together.
    pub most_idle: Option<u32>,
    /// Requests at once on one connection of HTTP/2; default 1.
    pub http2_streams: usize,
}

/// The header that a proxy writes before anything else, of haproxy.org's PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Default for Connections {
    fn default() -> Self {
        Self { proxy_protocol: None, max_age: None, max_requests: None, most_idle: None, http2_streams: 1 }
    }
}

impl Connections {
    /// Whether it says when to part with a connection.
    pub fn end(&self) -> bool {
        self.max_age.is_some() || self.max_requests.is_some()
    }

    pub(super) fn read(o: &mut Object<'_>, patience: &Patience) -> Self {
        let connections = Self {
            proxy_protocol: o.field("proxy_protocol", words::choice(&VERSIONS)),
            max_age: o.field("max_connection_age", units::duration(seconds(1)..=days(7))),
            max_requests: o.field("max_requests_per_connection", units::whole(1..=1_000_000_000)),
            most_idle: o.field("max_idle_connections_per_server", units::whole(1..=1_000_000)),
            http2_streams: o.field(STREAMS, units::whole(1..=1000)).unwrap_or(1),
        };
        let shared = connections.http2_streams > 1;
        if shared && (patience.ends() || connections.end()) {
            let what = "a connection of several requests, which `server_response_timeout`, `request_timeout`, \
                        `max_connection_age` or `max_requests_per_connection` would end for all of them";
            o.wrong(STREAMS, what, "leave it out, or leave those out");
        }
        connections
    }
}

impl ProxyProtocol {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&VERSIONS, self)
    }
}

const VERSIONS: [(&str, &str, ProxyProtocol); 2] =
    [("v1", "", ProxyProtocol::V1), ("v2", "", ProxyProtocol::V2)];
const STREAMS: &str = "http2_max_concurrent_streams";
