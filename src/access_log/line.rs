//! What is known of a request when it is over. To add a field to the log is to add it here, and to fill it in where
//! the proxy ends a request.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{Headers, Reason};

/// One line. Fields that are always there come first; the others are left out where there is nothing to say.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the request's head had arrived.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// `-`: it reached none.
    pub vs: &'a str,
    /// The client's address, with the port where it is this connection's.
    #[serde(serialize_with = "client")]
    pub client: Client,
    pub method: &'a str,
    pub host: &'a str,
    /// As the client sent it, before rules.
    pub path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<&'a str>,
    pub protocol: &'static str,
    /// 0: the client got none.
    pub status: u16,
    /// Of the request's body.
    pub bytes_received: u64,
    /// Of the answer's body. Both are 0 for what a tunnel carries.
    pub bytes_sent: u64,
    #[serde(flatten)]
    pub timings: Timings,
    /// As in `X-Request-Id`, in the marks of copies and at the site that a request was sent on to.
    pub request_id: &'a str,
    /// Failed, or slow: a line that no sample and no throttle leaves out.
    pub significant: bool,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "word")]
    pub reason: Option<Reason>,
    /// What was wrong with the server's TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_detail: Option<&'a str>,
    /// The trace of a valid `traceparent` (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// The site, or the trusted proxy, that passed the request on, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<&'a str>,
    /// The one that was asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// Whether the connection to it had served requests before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_connection_reused: Option<bool>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Servers that could not be reached, or that rules did not want.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub servers_tried: &'a [SocketAddr],
    /// Whether the request's session `kept` the server that it had, or `moved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistence: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteOutcome<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clones: Vec<CloneOutcome<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleDecision<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Headers<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Headers<'a>>,
}

impl Line<'_> {
    /// A request of which nothing is known but its client, and that it took so long.
    pub fn unread(time: SystemTime, client: Client, total: Duration) -> Self {
        Self {
            time,
            vs: "-",
            client,
            method: "-",
            host: "-",
            path: "-",
            query: None,
            protocol: "-",
            status: 0,
            bytes_received: 0,
            bytes_sent: 0,
            timings: Timings { total, ..Timings::default() },
            request_id: "-",
            significant: false,
            reason: None,
            reason_detail: None,
            trace_id: None,
            peer: None,
            pool: None,
            server: None,
            server_connection_reused: None,
            retries: 0,
            servers_tried: &[],
            persistence: None,
            tls: None,
            site: None,
            clones: Vec::new(),
            rules: Vec::new(),
            user_agent: None,
            referer: None,
            request_headers: None,
            response_headers: None,
        }
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// At the other end of the connection.
    Here(SocketAddr),
    /// As a site tells that proved itself, or a proxy that is trusted.
    Told(IpAddr),
}

/// How long it took, in milliseconds with three decimals.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Waiting for a server: choosing it, and its turn.
    #[serde(rename = "queue_ms", serialize_with = "ms", skip_serializing_if = "Option::is_none")]
    pub queue: Option<Duration>,
    /// Connecting to it, TLS included; nearly nothing with a connection that was kept.
    #[serde(rename = "connect_ms", serialize_with = "ms", skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// From the request's head to the head of the server's answer.
    #[serde(rename = "first_byte_ms", serialize_with = "ms", skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// From the request's head to the end.
    #[serde(rename = "total_ms", serialize_with = "whole_ms")]
    pub total: Duration,
}

/// The client's TLS connection.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tls<'a> {
    pub version: &'a str,
    pub cipher: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    pub resumed: bool,
    /// Whose certificate the client has shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_subject: Option<&'a str>,
}

/// What site persistence made of a request.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SiteOutcome<'a> {
    /// As counted in `homing_sp_requests_total`.
    pub outcome: &'static str,
    /// What was done with it.
    pub decision: &'static str,
    /// The site that it was sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<&'a str>,
}

/// A copy, as far as is known when the request ends: what becomes of it on its way to the member is counted in
/// `homing_clone_copies_total`.
#[derive(Clone, Debug, Serialize)]
pub struct CloneOutcome<'a> {
    pub pool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// As in its mark.
    #[serde(serialize_with = "hex")]
    pub session: u64,
    pub seq: u64,
    /// What the session has done: `new`, `kept`, `moved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned: Option<&'static str>,
    /// `sent`, `dropped`, `skipped`,
    pub outcome: &'static str,
    /// and why not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What a rule decided.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RuleDecision<'a> {
    pub rule: &'a str,
    pub decision: &'a str,
}

impl Line<'_> {
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("a line has string keys, and a Vec takes every write");
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(addr) => addr.fmt(f),
            Self::Told(ip) => ip.fmt(f),
        }
    }
}

impl Client {
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Here(addr) => addr.ip(),
            Self::Told(ip) => *ip,
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn client<S: Serializer>(client: &Client, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(client)
}

fn word<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::as_str).serialize(serializer)
}

fn hex<S: Serializer>(session: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{session:016x}"))
}

fn ms<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(milliseconds).serialize(serializer)
}

fn whole_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(milliseconds(*time))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
