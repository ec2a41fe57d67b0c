//! The clone sections of a virtual service.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::names::PoolName;

/// One entry of a virtual service's `clone`: which pool gets copies, and how sessions are told apart.
#[derive(Clone, Debug)]
pub struct CloneSection {
    pub pool: PoolName,
    /// The first token that a request has names its session.
    pub tokens: Vec<Token>,
    /// Idle timeout of a session's entry; default 300 s.
    pub timeout: Duration,
    /// The longest life of an entry, however busy.
    pub lifetime: Option<Duration>,
    pub selection: CloneSelection,
    /// Share of sessions that are copied, in thousandths; 1000 is all.
    pub sample_permille: u16,
    /// Headers that copies do not carry, beyond hop-by-hop ones; default `authorization`, `proxy-authorization`.
    pub strip_headers: BTreeSet<String>,
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
