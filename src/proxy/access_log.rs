//! The end of a request: taps, counters, `http_finished`, and its line in the access log.

use std::{net::SocketAddr, time::Duration};

use http::Version;
use pingora::{Error, proxy::Session};

use super::{
    exchange::{Attempt, Ctx, Routed},
    notes::{Asked, CopyEnd, CopyNote},
    reason,
};
use crate::{
    access_log::{
        AccessLog, Client, CloneOutcome, Headers, Line, Reason, RuleDecision, SiteOutcome, Timings, Tls,
        readable, without_query,
    },
    gslb::Ending,
    listen::{Connection, RefusedHead},
    metrics::Answered,
    rule::Finished,
    session::How,
    snapshot::Live,
    tls::TlsFacts,
};

/// Ends a request, whatever became of it.
pub(super) fn finished(live: &Live, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
    if let Some(routed) = &mut ctx.routed {
        ctx.copies.finish(error, |order, reason| routed.clone_dropped(order, reason));
    }
    let duration = live.clock.now().saturating_duration_since(ctx.started);
    let body_bytes_sent = session.body_bytes_sent();
    let attempt = ctx.attempt.take();
    let server = attempt.as_ref().map(|attempt| attempt.server());
    let status = ctx.status;
    let request = Answered {
        status,
        took: duration,
        version: session.req_header().version,
        bytes_received: session.body_bytes_read() as u64,
        bytes_sent: body_bytes_sent as u64,
    };
    if let Some(routed) = &mut ctx.routed {
        let pool = attempt.as_ref().map(|attempt| attempt.pool.name());
        routed.vs.count(pool, &request);
        let mut finished =
            Finished { status, body_bytes_sent, duration, server, exchange: &mut routed.exchange };
        routed.vs.chain.http_finished(&mut finished);
    } else {
        live.unrouted.count(&request);
    }
    // How a tunnel ends is its own affair.
    let failed = || error.filter(|_| status != SWITCHED).map(reason::of);
    let reason = ctx.reason.filter(|_| status != SWITCHED).or_else(failed);
    if let Some(reason) = reason.filter(|reason| reason.is_refusal()) {
        let vs = ctx.routed.as_ref().map_or("-", |routed| routed.vs.name().as_str());
        live.metrics.requests_refused.with_label_values(&[vs, reason.as_str()]).inc();
    }
    if let Some(log) = live.access_log.load() {
        Over { live, session, ctx, attempt: attempt.as_ref(), duration, reason }.log(&log);
    }
}

/// Ends what was refused before it was a request. Of its line only what can be read of the first one is known.
pub(super) fn head_refused(live: &Live, connection: &Connection, head: RefusedHead<'_>) {
    let (reason, status) = (reason::of_head(head.refusal), head.refusal.status());
    live.metrics.requests_refused.with_label_values(&["-", reason.as_str()]).inc();
    live.unrouted.count(&Answered {
        status,
        took: head.took,
        version: Version::HTTP_11,
        bytes_received: 0,
        bytes_sent: 0,
    });
    let Some(log) = live.access_log.load() else { return };
    let (method, target) = request_line(head.bytes);
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(readable(&target[at + 1..]))),
        None => (target, None),
    };
    let (method, path) = (readable(method), readable(path));
    let time = live.clock.wall() - head.took;
    let unread = Line::unread(time, Client::Here(connection.client), head.took);
    log.write(&Line {
        method: &method,
        path: &path,
        query: query.as_deref().filter(|_| log.config().query),
        status,
        reason: Some(reason),
        tls: tls(connection),
        ..unread
    });
}

/// Method and target, each as far as it is there; a target that is too long is cut.
fn request_line(head: &[u8]) -> (&[u8], &[u8]) {
    let line = head.trim_ascii_start();
    let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len()).min(LONGEST_UNREAD)];
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).unwrap_or(b"-");
    (word(), word())
}

/// A request that is over.
struct Over<'a> {
    live: &'a Live,
    session: &'a Session,
    ctx: &'a Ctx,
    attempt: Option<&'a Attempt>,
    duration: Duration,
    reason: Option<Reason>,
}

impl Over<'_> {
    /// Writes its line, if it is to have one.
    fn log(&self, log: &AccessLog) {
        let routed = self.ctx.routed.as_deref();
        let notes = routed.and_then(|routed| routed.notes.as_deref());
        let first_byte = notes.and_then(|notes| notes.first_byte);
        let significant = self.is_significant(routed, first_byte);
        let takes_line = |routed: &Routed| {
            let now = self.ctx.started + self.duration;
            routed.vs.analytics.takes_line(routed.exchange.request_id().number(), now)
        };
        if !significant && !routed.is_none_or(takes_line) {
            return;
        }
        // Before a request is routed, nobody has changed its head.
        let unnoted = notes.is_none().then(|| Asked::of(self.session.req_header()));
        let Some(asked) = notes.map(|notes| &notes.asked).or(unnoted.as_ref()) else { return };
        let with_query = log.config().query;
        let (path, query) = asked.target();
        let (path, query) = (readable(path), query.filter(|_| with_query).map(readable));
        let host = readable(asked.host());
        let user_agent = asked.user_agent.as_ref().map(|field| readable(field.as_bytes()));
        let referer = asked.referer.as_ref().map(|field| readable(field.as_bytes()));
        let connection = Connection::of(self.session.digest());
        let mut digits = Default::default();
        let headers = |fields| Headers { fields, query: with_query };
        let line = Line {
            time: self.live.clock.wall() - self.duration,
            vs: routed.map_or("-", |routed| routed.vs.name().as_str()),
            client: self.client(connection.map(|connection| connection.client)),
            method: asked.method.as_str(),
            host: &host,
            path: &path,
            query: query.as_deref(),
            protocol: asked.protocol(),
            status: self.ctx.status,
            bytes_received: self.session.body_bytes_read() as u64,
            bytes_sent: self.session.body_bytes_sent() as u64,
            timings: Timings {
                queue: notes.and_then(|notes| notes.queue),
                connect: notes.and_then(|notes| notes.connect),
                first_byte,
                total: self.duration,
            },
            request_id: routed.map_or("-", |routed| routed.exchange.request_id().text(&mut digits)),
            significant,
            reason: self.reason,
            reason_detail: self.ctx.tls_failure.as_deref().filter(|_| self.reason == Some(Reason::TlsFailed)),
            trace_id: asked.trace_id(),
            peer: routed
                .map(|routed| &routed.exchange)
                .filter(|it| it.is_carried() || it.client_is_told)
                .map(|it| it.client_addr()),
            pool: self.attempt.map(|attempt| attempt.pool.name().as_str()),
            server: self.attempt.map(Attempt::server),
            server_connection_reused: notes.and_then(|notes| notes.reused),
            retries: self.ctx.retries,
            servers_tried: &self.ctx.tried,
            persistence: routed.and_then(|routed| self.persistence(routed)),
            tls: connection.and_then(|connection| tls(connection)),
            site: routed.and_then(site),
            clones: notes.map(|notes| notes.copies.iter().map(clone).collect()).unwrap_or_default(),
            rules: routed.map(rules).unwrap_or_default(),
            user_agent: user_agent.as_deref(),
            referer: referer.as_deref().map(|url| if with_query { url } else { without_query(url) }),
            request_headers: notes.and_then(|notes| notes.headers.as_ref()).map(headers),
            response_headers: notes.and_then(|notes| notes.answer_headers.as_ref()).map(headers),
        };
        log.write(&line);
    }

    fn is_significant(&self, routed: Option<&Routed>, first_byte: Option<Duration>) -> bool {
        let status = self.ctx.status;
        let is_slow = |routed: &Routed| routed.vs.analytics.is_slow(first_byte.unwrap_or(self.duration));
        status >= 500
            || self.reason.is_some_and(Reason::is_significant)
            || (self.reason.is_none() && routed.is_some_and(is_slow))
    }

    fn client(&self, here: Option<SocketAddr>) -> Client {
        match &self.ctx.routed {
            Some(routed) if routed.exchange.is_carried() || routed.exchange.client_is_told => {
                Client::Told(routed.exchange.client_ip())
            }
            Some(routed) => Client::Here(routed.exchange.client_addr()),
            None => Client::Here(here.unwrap_or(UNKNOWN)),
        }
    }

    /// What became of the session's server, where it had one.
    fn persistence(&self, routed: &Routed) -> Option<&'static str> {
        let preferred = routed.exchange.preferred.as_ref()?.server;
        let server = self.attempt?.server();
        Some(if server == preferred { "kept" } else { "moved" })
    }
}

fn tls(connection: &Connection) -> Option<Tls<'_>> {
    let facts = TlsFacts::of(connection.tls.as_deref()?)?;
    let TlsFacts { version, cipher, sni, resumed, client_certificate, .. } = facts;
    let client_subject = client_certificate.as_ref().map(|certificate| &*certificate.subject);
    Some(Tls { version, cipher, sni: sni.as_deref(), resumed: *resumed, client_subject })
}

fn site(routed: &Routed) -> Option<SiteOutcome<'_>> {
    let Ending { outcome, decision, home } = routed.exchange.get()?;
    let home = home.as_ref().map(|home| home.as_str());
    Some(SiteOutcome { outcome: outcome.as_str(), decision: decision.as_str(), home })
}

fn clone(note: &CopyNote) -> CloneOutcome<'_> {
    let CopyNote { pool, server, session, seq, how, end } = note;
    let (outcome, reason) = match end {
        CopyEnd::Sent => ("sent", None),
        CopyEnd::Dropped(reason) => ("dropped", Some(reason.as_str())),
        CopyEnd::Skipped(reason) => ("skipped", Some(reason.as_str())),
    };
    let assigned = how.map(|how| match how {
        How::New => "new",
        How::Kept => "kept",
        How::Moved => "moved",
    });
    CloneOutcome {
        pool: pool.as_str(),
        server: *server,
        session: *session,
        seq: *seq,
        assigned,
        outcome,
        reason,
    }
}

fn rules(routed: &Routed) -> Vec<RuleDecision<'_>> {
    let decisions = routed.vs.chain.decisions(&routed.exchange);
    decisions.map(|(rule, decision)| RuleDecision { rule: rule.as_str(), decision }).collect()
}

const SWITCHED: u16 = 101;
/// Of the first line of a head that was refused.
const LONGEST_UNREAD: usize = 1024;
/// Every listener knows who connects.
const UNKNOWN: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
