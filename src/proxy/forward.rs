//! What a server gets: the head as it should see it, and the body.

use std::mem;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, Version, header, request::Parts};
use parking_lot::Mutex;
use pingora::{Error, ErrorType, Result, http::RequestHeader, proxy::Session};

use super::{
    exchange::{Attempt, Ctx},
    fields, limits,
    route::rule_failed_closed,
    strict,
};
use crate::{
    config::HostHeader,
    listen::{Connection, Framing},
    rule::{Exchange, Introduction, RequestData, RequestSend},
};

/// Makes the request's head what any server may have, once, whatever the number of attempts. The client's address
/// and scheme are told by us alone: what came from outside is replaced.
///
/// Pingora keeps each field's name a second time, in the client's spelling, and copies both with every attempt. The
/// second ones are dropped here: servers get names in lower case, as from HTTP/2 clients (RFC 9110, 5.1).
pub(super) fn prepare(session: &mut Session, exchange: &Exchange, spare: &SpareHead) -> Result<()> {
    let head = session.req_header_mut();
    if fields::has(&head.headers, &header::UPGRADE) && !asks_for_tunnel(head) {
        // Pingora would ask the server for what the client did not ask of homing.
        head.remove_header(&header::UPGRADE);
    }
    let parsed = head.uri.path_and_query().map(|target| target.as_str().as_bytes());
    let target = (parsed != Some(head.raw_path())).then(|| head.raw_path().to_vec());
    let mut parts = Parts::from(mem::replace(head, spare.take()?));
    let fields = &mut parts.headers;
    // Looked for in one pass, because nearly no request has any.
    if fields.keys().any(is_clients_word) {
        let stays = |name: &HeaderName| exchange.keeps_x_forwarded && is_proxys_word(name);
        let names = fields.keys().filter(|name| is_clients_word(name) && !stays(name));
        let names: Vec<_> = names.cloned().collect();
        for name in names {
            fields.remove(name);
        }
    }
    fields.reserve(3);
    let Introduction { x_forwarded_for, forwarded } = exchange.introduction();
    fields.insert(FORWARDED_FOR.clone(), x_forwarded_for);
    fields.insert(header::FORWARDED, forwarded);
    let scheme = if exchange.is_secure() { "https" } else { "http" };
    fields.insert(FORWARDED_PROTO.clone(), HeaderValue::from_static(scheme));
    spare.put(mem::replace(head, parts.into()));
    match target {
        Some(target) => head.set_raw_path(&target),
        None => Ok(()),
    }
}

/// A head that says nothing, to stand in the place of one that is taken apart. To make one for each request would
/// cost more than the taking apart.
#[derive(Default)]
pub(super) struct SpareHead(Mutex<Option<RequestHeader>>);

impl SpareHead {
    fn take(&self) -> Result<RequestHeader> {
        let kept = self.0.lock().take();
        kept.map_or_else(|| RequestHeader::build_no_case(Method::GET, b"/", Some(0)), Ok)
    }

    fn put(&self, head: RequestHeader) {
        *self.0.lock() = Some(head);
    }
}

/// Whether the client still stands by a request whose body is over before anything was read of it. Pingora takes an
/// HTTP/2 stream that the client reset, or that was shorter than it said, for a request without a body, and a server
/// would act on it.
pub(super) fn still_meant(session: &mut Session) -> Result<()> {
    if session.req_header().version != Version::HTTP_2 || !session.is_body_empty() {
        return Ok(());
    }
    // Never waits: where there is nothing to read yet, there is no error either.
    let read = session.as_mut().read_request_body().now_or_never();
    read.unwrap_or(Ok(None)).map(drop).map_err(|error| error.into_down())
}

/// Lets the rules change the head of one attempt.
pub(super) fn to_server(head: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    let attempt = ctx.attempt.as_ref().expect("a head is sent after a server was chosen");
    rewrite_host(head, attempt)?;
    let server = attempt.server();
    let routed = ctx.routed();
    if routed.vs.chain.is_empty() {
        return Ok(());
    }
    let mut send = RequestSend::new(head, &mut routed.exchange, server);
    routed.vs.chain.http_request_send(&mut send).map_err(|_| rule_failed_closed())
}

/// Gives the server the `Host` that its pool wants it to have.
fn rewrite_host(head: &mut RequestHeader, attempt: &Attempt) -> Result<()> {
    let (pool, server) = (attempt.pool.config(), attempt.lease.server().config());
    let host = match pool.host_header {
        HostHeader::AsSent => return Ok(()),
        HostHeader::Sni => pool.sni.clone().unwrap_or_default(),
        HostHeader::ServerName => server.hostname.clone().unwrap_or_else(|| server.addr.to_string()),
    };
    head.insert_header(header::HOST, host)
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a client may not say of itself: servers and frameworks believe it. What homing says itself is put in later.
fn is_clients_word(name: &HeaderName) -> bool {
    strict::is_our_word(name.as_str().as_bytes()) || strict::poses(name)
}

/// What a trusted proxy may say of its client beyond what homing says again itself: the host and the port that it was
/// asked for, a certificate that it has seen.
fn is_proxys_word(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-forwarded-")
}

/// Passes a chunk of the body on, to rules and taps too.
pub(super) fn body_chunk(
    session: &mut Session,
    chunk: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Ctx,
) -> Result<()> {
    if session.was_upgraded() {
        return Ok(());
    }
    let chunked = check_framing(session, end)?;
    limits::body_so_far(session, ctx)?;
    end_with_none(chunk, end);
    // Of chunks that had nothing in them Pingora says afterwards that there was no body.
    if end && (chunked || !session.is_body_empty()) {
        tell_request_done(session);
    }
    // The copy is what the client sent, whatever rules make of it: what a retry replays is the same bytes.
    let routed = ctx.routed.as_mut().expect("a body follows a routed head");
    ctx.copies.data(chunk.as_ref(), end, |order, reason| routed.clone_dropped(order, reason));
    let mut data = RequestData::new(chunk, end, &mut routed.exchange);
    routed.vs.chain.http_request_data(&mut data).map_err(|_| rule_failed_closed())?;
    end_with_none(chunk, end);
    Ok(())
}

/// Says "no data" in Pingora's way. `None` is the end of the body to it, so a rule that swallows a chunk must leave
/// an empty one. An empty one at the end, as of HTTP/2, would be written as a last chunk and followed by another,
/// which the server would take for the beginning of a request.
fn end_with_none(chunk: &mut Option<Bytes>, end: bool) {
    if chunk.as_ref().is_none_or(Bytes::is_empty) {
        *chunk = (!end).then(Bytes::new);
    }
}

/// A request without a body has been read to its end already; one with chunks may be known to be malformed.
pub(super) fn body_expected(session: &mut Session) -> Result<()> {
    if session.is_body_empty() {
        tell_request_done(session);
        return Ok(());
    }
    check_framing(session, false).map(drop)
}

/// Whether the body is in chunks. Ones that are not exactly RFC 9112's must not pass for a whole body: 400, and the
/// server never gets the last chunk.
fn check_framing(session: &Session, end: bool) -> Result<bool> {
    let head = session.req_header();
    if head.version == Version::HTTP_2 || !fields::has(&head.headers, &header::TRANSFER_ENCODING) {
        return Ok(false);
    }
    match Connection::of(session.digest()).map(|connection| connection.framing()) {
        Some(Framing::Bad) => malformed(),
        Some(Framing::Unfinished) if end => malformed(),
        _ => Ok(true),
    }
}

/// What the client sends from now on is its next request, or the bytes of a tunnel.
fn tell_request_done(session: &Session) {
    if let Some(connection) =
        Connection::of(session.digest()).filter(|_| !asks_for_tunnel(session.req_header()))
    {
        connection.request_done();
    }
}

/// Whether the request may become a tunnel. Pingora hands on this upgrade alone; a request for any other is served
/// like one without, and so is one whose `Connection` does not say that the field is meant for homing (RFC 9110, 7.8).
pub(super) fn asks_for_tunnel(head: &RequestHeader) -> bool {
    let websocket = |to: &HeaderValue| to.as_bytes().eq_ignore_ascii_case(b"websocket");
    head.version == Version::HTTP_11
        && fields::has(&head.headers, &header::UPGRADE)
        && head.headers.get(header::UPGRADE).is_some_and(websocket)
        && fields::connection_options(&head.headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

fn malformed<T>() -> Result<T> {
    Error::e_explain(ErrorType::HTTPStatus(400), "the body's chunks are malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_body_is_said_without_a_chunk() {
        let (empty, data) = (Some(Bytes::new()), Some(Bytes::from_static(b"data")));
        for (chunk, end, said) in [
            (&None, false, &empty),
            (&empty, false, &empty),
            (&data, false, &data),
            (&None, true, &None),
            (&empty, true, &None),
            (&data, true, &data),
        ] {
            let mut passed = chunk.clone();
            end_with_none(&mut passed, end);
            assert_eq!(passed, *said, "{chunk:?}, end: {end}");
        }
    }

    #[test]
    fn only_http_1_1_with_one_upgrade_to_websocket_that_connection_names_asks_for_a_tunnel() {
        for (version, upgrade, connection, asks) in [
            (Version::HTTP_11, Some("websocket"), &["Upgrade"][..], true),
            (Version::HTTP_11, Some("WebSocket"), &["keep-alive, upgrade"], true),
            (Version::HTTP_11, Some("websocket"), &["keep-alive", "upgrade"], true),
            (Version::HTTP_11, Some("websocket"), &[], false),
            (Version::HTTP_11, Some("websocket"), &["keep-alive"], false),
            (Version::HTTP_11, Some("websocket"), &["upgraded"], false),
            (Version::HTTP_11, Some("h2c"), &["upgrade"], false),
            (Version::HTTP_11, Some("websocket, h2c"), &["upgrade"], false),
            (Version::HTTP_11, None, &["upgrade"], false),
            (Version::HTTP_10, Some("websocket"), &["upgrade"], false),
            (Version::HTTP_2, Some("websocket"), &["upgrade"], false),
        ] {
            let mut head = RequestHeader::build("GET", b"/", None).expect("a valid head");
            head.set_version(version);
            if let Some(upgrade) = upgrade {
                head.insert_header("upgrade", upgrade).expect("a valid header");
            }
            for options in connection {
                head.append_header("connection", *options).expect("a valid header");
            }
            assert_eq!(asks_for_tunnel(&head), asks, "{version:?} {upgrade:?} {connection:?}");
        }
    }
}
