//! The clone sections of a virtual service.

use std::{collections::BTreeSet, fmt, num::NonZeroUsize, time::Duration};

use http::{HeaderName, HeaderValue, header, uri::Authority};

use super::{
    copied::Copied,
    problem::{Wrong, shown},
    read::{Object, Reference},
    shape::Shape,
    units::{self, days, milliseconds, seconds},
    words,
    yaml::Node,
};
use crate::names::{PoolName, VsName};

/// One entry of a virtual service's `clone`: which pool gets copies, and how sessions are told apart.
#[derive(Clone, Debug, PartialEq)]
pub struct CloneSection {
    pub pool: PoolName,
    /// The first token that a request has names its session.
    pub tokens: Vec<Token>,
    /// Idle timeout of a session's entry; default 300 s.
    pub timeout: Duration,
    /// The longest life of an entry, however busy.
    pub lifetime: Option<Duration>,
    pub refresh: CloneRefresh,
    pub selection: CloneSelection,
    /// Share of sessions that are copied, in thousandths; 1000 is all.
    pub sample_permille: u16,
    /// Which requests are copied, and what of them.
    pub copied: Copied,
    /// Headers that copies do not carry, beyond hop-by-hop ones; default `authorization`, `proxy-authorization`.
    pub strip_headers: BTreeSet<String>,
    /// Headers that every copy carries, in place of the request's; `Host` among them.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes held for the whole pool; default 16 MiB.
    pub max_buffered_bytes: usize,
    /// The largest body that waits in memory and shares a lane; a larger one gets a connection of its own.
    /// Default 64 KiB.
    pub inline_body_bytes: usize,
    /// Long-lived connections per member; default 4.
    pub connections_per_server: NonZeroUsize,
    /// Copies under way on one connection; default 64.
    pub pipeline_depth: NonZeroUsize,
    pub on_overflow: OnOverflow,
    /// Speak HTTP/2 to the members: over TLS where they offer it by ALPN, else with prior knowledge.
    pub http2: bool,
    /// Send once more what was sent whole and not answered when its connection ended.
    pub retry_lost: bool,
}

/// Where a session's name is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    TlsSessionId,
    Cookie(String),
    Header(HeaderName),
    /// A claim of the `Authorization: Bearer` token; its signature is not checked.
    Jwt(String),
    Query(String),
    SourceIp,
}

/// What restarts a session's idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CloneRefresh {
    #[default]
    Request,
    /// The first request of a connection, as in the F5 article.
    Connection,
}

/// How a new session's clone member is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CloneSelection {
    /// As in the F5 article.
    #[default]
    Random,
    RoundRobin,
    LeastSessions,
    Rendezvous,
}

/// What happens to a copy that finds its budget full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnOverflow {
    #[default]
    Drop,
    /// The body is cut, and a header says so.
    Truncate,
}

impl CloneSection {
    /// The name of the session table that it has in this virtual service.
    pub fn table(&self, vs: &VsName) -> String {
        format!("clone:{vs}:{}", self.pool)
    }

    /// Copies to a pool that no section of the virtual service names: what a rule orders, by default settings.
    pub fn of(pool: PoolName) -> Self {
        Self {
            pool,
            tokens: Vec::new(),
            timeout: seconds(300),
            lifetime: None,
            refresh: CloneRefresh::default(),
            selection: CloneSelection::default(),
            sample_permille: 1000,
            copied: Copied::default(),
            strip_headers: default_strip_headers(),
            set_headers: Vec::new(),
            max_buffered_bytes: 16 << 20,
            inline_body_bytes: 64 << 10,
            connections_per_server: NonZeroUsize::new(4).expect("4 is not 0"),
            pipeline_depth: NonZeroUsize::new(64).expect("64 is not 0"),
            on_overflow: OnOverflow::default(),
            http2: false,
            retry_lost: false,
        }
    }

    /// `pool` reports a reference to a pool that is not there.
    pub(super) fn read(o: &mut Object<'_>, pool: impl Fn(&Reference) -> Option<PoolName>) -> Option<Self> {
        let timeouts = || units::duration(milliseconds(1)..=days(365));
        let pool = o.required_reference("pool_ref").and_then(|reference| pool(&reference));
        let default = Self::of(pool.unwrap_or_else(|| "".into()));
        let section = Self {
            pool: default.pool,
            tokens: o.required_list("tokens", Token::parse),
            timeout: o.field("timeout", timeouts()).unwrap_or(default.timeout),
            lifetime: o.field("lifetime", timeouts()),
            refresh: o.field("refresh", words::choice(&REFRESHES)).unwrap_or(default.refresh),
            selection: o.field("clone_selection", words::choice(&SELECTIONS)).unwrap_or(default.selection),
            sample_permille: o.field("sample", units::permille).unwrap_or(default.sample_permille),
            copied: Copied::read(o),
            strip_headers: o
                .list("strip_headers", |node| {
                    Ok(words::header_name(&words::text(node)?)?.as_str().to_string())
                })
                .map_or(default.strip_headers, BTreeSet::from_iter),
            set_headers: read_set_headers(o),
            max_buffered_bytes: o
                .field("max_buffered_bytes", units::size(1..=1 << 40))
                .unwrap_or(default.max_buffered_bytes),
            inline_body_bytes: o
                .field("inline_body", units::size(0..=1 << 30))
                .unwrap_or(default.inline_body_bytes),
            connections_per_server: positive(
                o,
                "connections_per_server",
                default.connections_per_server,
                256,
            ),
            pipeline_depth: positive(o, "pipeline_depth", default.pipeline_depth, 1024),
            on_overflow: o.field("on_overflow", words::choice(&OVERFLOWS)).unwrap_or(default.on_overflow),
            http2: o.field("http2", units::flag).unwrap_or(default.http2),
            retry_lost: o.field("retry_lost", units::flag).unwrap_or(default.retry_lost),
        };
        Some(section)
    }
}

fn positive(o: &mut Object<'_>, key: &'static str, default: NonZeroUsize, most: usize) -> NonZeroUsize {
    o.field(key, units::whole(1..=most)).and_then(NonZeroUsize::new).unwrap_or(default)
}

fn default_strip_headers() -> BTreeSet<String> {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION]
        .iter()
        .map(|name| name.as_str().to_string())
        .collect()
}

/// `set_headers`, and `host`, which is one of them that people look for by this name.
fn read_set_headers(o: &mut Object<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = o.map("set_headers", set_header).unwrap_or_default();
    if let Some(host) = o.field("host", host) {
        if headers.iter().any(|(name, _)| name == header::HOST) {
            o.wrong("host", "`set_headers` sets the host too", "leave one of the two out");
        }
        headers.push((header::HOST, host));
    }
    headers
}

/// A host with or without a port.
fn host(node: &Node) -> Result<HeaderValue, Wrong> {
    let text = words::text(node)?;
    let fits = text.parse::<Authority>().is_ok_and(|host| !host.host().is_empty()) && !text.contains('@');
    HeaderValue::from_str(&text).ok().filter(|_| fits).ok_or_else(|| {
        Wrong::new(
            format!("{} is not a host", shown(&text)),
            "write one such as `shadow.a.com` or `a.com:8080`",
        )
    })
}

/// A header that every copy gets. What frames a message is for the lane to write.
fn set_header(name: &str, value: &Node) -> Result<(HeaderName, HeaderValue), Wrong> {
    let framing = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let name = words::header_name(name)?;
    if framing.contains(&name) {
        return Err(Wrong::new("this header belongs to one connection", "leave it out"));
    }
    let text = value
        .text()
        .ok_or_else(|| Wrong::new("a header's value that is not a text", "put it into quotes"))
        .map_err(|wrong| wrong.expecting(Shape::Matching(r"^[\t -~]*$")))?;
    Ok((name, words::header_value(text)?))
}

impl fmt::Display for Token {
    /// As it is written in YAML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsSessionId => f.write_str("tls_session_id"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Jwt(claim) => write!(f, "jwt:{claim}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::SourceIp => f.write_str("source_ip"),
        }
    }
}

impl Token {
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let text = words::text(node)?;
        let token = match text.split_once(':') {
            None if text == "tls_session_id" => Self::TlsSessionId,
            None if text == "source_ip" => Self::SourceIp,
            Some(("cookie", name)) => Self::Cookie(words::cookie_name(name)?),
            Some(("header", name)) => Self::Header(words::header_name(name)?),
            Some(("jwt", claim)) if !claim.is_empty() => Self::Jwt(claim.into()),
            Some(("query", name)) if !name.is_empty() => Self::Query(name.into()),
            _ => {
                let help = "write tls_session_id, source_ip, `cookie:NAME`, `header:NAME`, `jwt:CLAIM` or `query:NAME`";
                return Err(Wrong::new(format!("{} names no session", shown(&text)), help));
            }
        };
        Ok(token)
    }
}

impl CloneSelection {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&SELECTIONS, self)
    }
}

impl CloneRefresh {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&REFRESHES, self)
    }
}

impl OnOverflow {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&OVERFLOWS, self)
    }
}

const REFRESHES: [(&str, &str, CloneRefresh); 2] =
    [("request", "", CloneRefresh::Request), ("connection", "", CloneRefresh::Connection)];

const SELECTIONS: [(&str, &str, CloneSelection); 4] = [
    ("random", "", CloneSelection::Random),
    ("round_robin", "", CloneSelection::RoundRobin),
    ("least_sessions", "", CloneSelection::LeastSessions),
    ("rendezvous", "", CloneSelection::Rendezvous),
];

const OVERFLOWS: [(&str, &str, OnOverflow); 2] =
    [("drop", "", OnOverflow::Drop), ("truncate", "", OnOverflow::Truncate)];
