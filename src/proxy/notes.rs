//! What the access log will want to know of a request, noted while it is under way. Without an access log there are
//! no notes, and each of these functions is a test of one pointer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::exchange::Ctx;
use crate::{
    clone::{DropReason, SkipReason},
    names::PoolName,
    rule::CloneOrder,
    session::How,
    snapshot::Live,
};

/// Notes about one request.
pub(super) struct Notes {
    pub asked: Asked,
    /// Its fields, where the line is to have them,
    pub headers: Option<HeaderMap>,
    /// and those of the answer.
    pub answer_headers: Option<HeaderMap>,
    choosing_since: Option<Instant>,
    pub queue: Option<Duration>,
    pub connect: Option<Duration>,
    pub reused: Option<bool>,
    pub first_byte: Option<Duration>,
    pub copies: Vec<CopyNote>,
}

/// A request as the client sent it; rules and homing itself change its head.
pub(super) struct Asked {
    pub method: Method,
    pub version: Version,
    uri: Uri,
    /// The target, where it is not UTF-8.
    raw: Option<Vec<u8>>,
    host: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
    pub referer: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

/// What became of a copy, as far as the request sees it.
pub(super) struct CopyNote {
    pub pool: PoolName,
    pub server: Option<SocketAddr>,
    pub session: u64,
    pub seq: u64,
    pub how: Option<How>,
    pub end: CopyEnd,
}

#[derive(Clone, Copy)]
pub(super) enum CopyEnd {
    Sent,
    Dropped(DropReason),
    Skipped(SkipReason),
}

impl Notes {
    pub fn of(head: &RequestHeader, with_headers: bool) -> Self {
        Self {
            asked: Asked::of(head),
            headers: with_headers.then(|| head.headers.clone()),
            answer_headers: None,
            choosing_since: None,
            queue: None,
            connect: None,
            reused: None,
            first_byte: None,
            copies: Vec::new(),
        }
    }

    /// A copy that was ordered.
    pub fn copied(&mut self, order: &CloneOrder, end: CopyEnd) {
        let known = |note: &&mut CopyNote| note.server == Some(order.server) && note.pool == order.pool;
        match self.copies.iter_mut().find(known) {
            Some(note) => note.end = end,
            None => self.copies.push(CopyNote {
                pool: order.pool.clone(),
                server: Some(order.server),
                session: order.session,
                seq: order.seq,
                how: order.how,
                end,
            }),
        }
    }

    /// A copy that no member could have.
    pub fn not_copied(&mut self, pool: &PoolName, reason: DropReason) {
        let (pool, end) = (pool.clone(), CopyEnd::Dropped(reason));
        self.copies.push(CopyNote { pool, server: None, session: 0, seq: 0, how: None, end });
    }

    /// The head that the client gets.
    pub fn answer(&mut self, head: &ResponseHeader) {
        if self.headers.is_some() {
            self.answer_headers = Some(head.headers.clone());
        }
    }
}

/// A server is about to be chosen.
pub(super) fn choosing(live: &Live, ctx: &mut Ctx) {
    if let Some(notes) = ctx.notes() {
        notes.choosing_since = Some(live.clock.now());
    }
}

/// A server has been chosen, and is about to be connected to.
pub(super) fn chosen(ctx: &mut Ctx) {
    let chosen = ctx.attempt.as_ref().map(|attempt| attempt.begun);
    if let (Some(notes), Some(chosen)) = (ctx.notes(), chosen) {
        let waited = notes.choosing_since.map(|since| chosen.saturating_duration_since(since));
        notes.queue = Some(notes.queue.unwrap_or_default() + waited.unwrap_or_default());
    }
}

/// There is a connection to the server.
pub(super) fn connected(live: &Live, ctx: &mut Ctx, reused: bool) {
    let chosen = ctx.attempt.as_ref().map(|attempt| attempt.begun);
    if let Some(notes) = ctx.notes() {
        notes.connect = chosen.map(|chosen| live.clock.now().saturating_duration_since(chosen));
        notes.reused = Some(reused);
    }
}

/// The head of an answer is there.
pub(super) fn answered(live: &Live, ctx: &mut Ctx) {
    let started = ctx.started;
    if let Some(notes) = ctx.notes() {
        notes.first_byte = Some(live.clock.now().saturating_duration_since(started));
    }
}

impl Asked {
    pub fn of(head: &RequestHeader) -> Self {
        let mut asked = Self {
            method: head.method.clone(),
            version: head.version,
            uri: head.uri.clone(),
            raw: (!head.raw_path_is_utf8()).then(|| head.raw_path().to_vec()),
            host: None,
            user_agent: None,
            referer: None,
            traceparent: None,
        };
        let mut traces = 0;
        for (name, value) in &head.headers {
            match *name {
                header::HOST => asked.host = Some(value.clone()),
                header::USER_AGENT => asked.user_agent = Some(value.clone()),
                header::REFERER => asked.referer = Some(value.clone()),
                _ if name.as_str() == "traceparent" => {
                    traces += 1;
                    asked.traceparent = Some(value.clone());
                }
                _ => {}
            }
        }
        asked.traceparent = asked.traceparent.filter(|_| traces == 1);
        asked
    }

    /// With its port, if it names one.
    pub fn host(&self) -> &[u8] {
        let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        authority.or(self.host.as_ref().map(HeaderValue::as_bytes)).unwrap_or_default()
    }

    /// Path, and query without `?`.
    pub fn target(&self) -> (&[u8], Option<&[u8]>) {
        let Some(raw) = &self.raw else {
            return (self.uri.path().as_bytes(), self.uri.query().map(str::as_bytes));
        };
        match raw.iter().position(|byte| *byte == b'?') {
            Some(at) => (&raw[..at], Some(&raw[at + 1..])),
            None => (raw, None),
        }
    }

    pub fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_09 => "HTTP/0.9",
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        }
    }

    pub fn trace_id(&self) -> Option<&str> {
        trace_id(self.traceparent.as_ref()?.to_str().ok()?)
    }
}

/// The trace id of a `traceparent` (W3C Trace Context, 3.2). homing takes no part in traces: this field and
/// `tracestate` go on as they came, whatever they say.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let mut hex = |length| {
        let is_hex = |part: &&str| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        parts.next().filter(is_hex)
    };
    let (version, trace, parent, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let valid = version != "ff" && !is_zero(trace) && !is_zero(parent);
    // Later versions may have more at the end.
    (valid && (version != "00" || parts.next().is_none())).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_from_a_valid_traceparent_alone() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const PARENT: &str = "00f067aa0ba902b7";
        for (text, valid) in [
            (format!("00-{TRACE}-{PARENT}-01"), true),
            (format!("01-{TRACE}-{PARENT}-01-more"), true),
            (format!("00-{TRACE}-{PARENT}-01-more"), false),
            (format!("ff-{TRACE}-{PARENT}-01"), false),
            (format!("00-{}-{PARENT}-01", TRACE.to_uppercase()), false),
            (format!("00-{}-{PARENT}-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
            (format!("00-{TRACE}-{PARENT}"), false),
            (format!("00-{TRACE}-{PARENT}-1"), false),
            (String::new(), false),
        ] {
            assert_eq!(trace_id(&text), valid.then_some(TRACE), "{text}");
        }
    }

    #[test]
    fn a_target_is_told_in_the_bytes_that_were_sent() {
        for (sent, path, query) in [
            (&b"/a?b=1?2"[..], &b"/a"[..], Some(&b"b=1?2"[..])),
            (b"/caf\xe9?\xff", b"/caf\xe9", Some(b"\xff")),
            (b"/", b"/", None),
        ] {
            let head = RequestHeader::build("GET", sent, None).expect("a valid head");
            assert_eq!(Asked::of(&head).target(), (path, query), "{}", sent.escape_ascii());
        }
    }
}
