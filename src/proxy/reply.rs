//! What a client gets: servers' answers, homing's own, and errors as statuses. This is the one place where an
//! error becomes a status.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::{
    Error, ErrorSource, ErrorType, Result,
    http::ResponseHeader,
    proxy::{FailToProxy, Session},
};

use super::{
    deadline, exchange::Ctx, fields, forward::asks_for_tunnel, reason, request_id, retry,
    route::rule_failed_closed, strict,
};
use crate::{
    access_log::Reason,
    listen::{Connection, WRITE_TIMEOUT},
    rule::{Reply, Response, ResponseData},
    site_cookie::HOP_REFUSED_HEADER,
};

/// Sets how a client is answered: one that reads or sends slowly is waited for with an end, and HTTP/1.0 knows no
/// interim answers (RFC 9110, 15.2).
pub(super) fn suit_client(session: &mut Session) {
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    match session.req_header().version {
        // A stream waits for its client's window; HTTP/1 waits for the socket, and there the wire sees to it.
        Version::HTTP_2 => session.set_write_timeout(Some(WRITE_TIMEOUT)),
        Version::HTTP_10 => session.set_ignore_info_resp(true),
        _ => {}
    }
}

/// Sends the answer that a rule gave at `http_request`, if one did.
pub(super) async fn answer_by_rule(session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    match ctx.routed().exchange.reply.take() {
        None => Ok(false),
        Some(reply) => {
            ctx.reason.get_or_insert(Reason::RuleAnswered);
            send(session, ctx, reply).await?;
            Ok(true)
        }
    }
}

/// An answer's head, as it came: what no server may say is refused or removed.
pub(super) fn from_server(session: &Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    strict::answer(head)?;
    if !is_final(head) {
        ctx.interims += 1;
        if ctx.interims > MOST_INTERIMS {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "the server sends interim answers only")
                .map_err(|error| error.into_up());
        }
    }
    if head.status == SWITCHED && !(asks_for_tunnel(session.req_header()) && opens_tunnel(head)) {
        return Error::e_explain(
            ErrorType::InvalidHTTPHeader,
            "the server switched to what was not asked for",
        )
        .map_err(|error| error.into_up());
    }
    remove_connection_fields(head);
    Ok(())
}

/// Whether a 101 is to the one protocol that is asked for.
fn opens_tunnel(head: &ResponseHeader) -> bool {
    let mut to = head.headers.get_all(header::UPGRADE).iter();
    to.next().is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) && to.next().is_none()
}

/// Fields that the server's `Connection` names are for its connection with us alone (RFC 9110, 7.6.1).
fn remove_connection_fields(head: &mut ResponseHeader) {
    let usual =
        fields::connection_options(&head.headers).all(|option| option.eq_ignore_ascii_case(b"keep-alive"));
    if usual && !fields::has(&head.headers, &KEEP_ALIVE) {
        return;
    }
    let named: Vec<_> = head.headers.keys().filter(|name| is_connection_field(head, name)).cloned().collect();
    for name in &named {
        head.remove_header(name);
    }
}

fn is_connection_field(head: &ResponseHeader, name: &HeaderName) -> bool {
    *name != header::UPGRADE
        && fields::connection_options(&head.headers)
            .any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// An answer's head on its way to the client.
pub(super) async fn to_client(session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    if !is_final(head) {
        // Rules see one answer, and what they add belongs to that one.
        remove_hop_refused(head);
        return Ok(());
    }
    let resendable = !session.as_ref().retry_buffer_truncated();
    let server = ctx.attempt.as_ref().map(|attempt| attempt.server());
    let routed = ctx.routed();
    let mut response = Response::new(head, &mut routed.exchange, server, resendable);
    routed.vs.chain.http_response(&mut response).await.map_err(|_| rule_failed_closed())?;
    let wants_retry = response.wants_retry();
    remove_hop_refused(head);
    if let Some(reply) = &routed.exchange.reply {
        return Error::e_explain(ErrorType::HTTPStatus(reply.status()), "a rule answers");
    }
    if wants_retry && retry::is_allowed_to(ctx) {
        ctx.retry_asked = true;
        return Error::e_explain(ErrorType::Custom("retry"), "a rule asked for another server");
    }
    let routed = ctx.routed();
    request_id::tell_client(head, routed)?;
    if let Some(notes) = &mut routed.notes {
        notes.answer(head);
    }
    ctx.status = head.status.as_u16();
    let Some(connection) = Connection::of(session.digest()) else { return Ok(()) };
    connection.answer_tunnel(head.status == SWITCHED);
    if connection.draining() {
        session.set_keepalive(None);
    }
    Ok(())
}

/// What a site says to a site is nothing for a client.
fn remove_hop_refused(head: &mut ResponseHeader) {
    if fields::has(&head.headers, &HOP_REFUSED) {
        head.remove_header(&HOP_REFUSED);
    }
}

/// Before a server's answer; more are a flood.
const MOST_INTERIMS: u8 = 32;
const SWITCHED: StatusCode = StatusCode::SWITCHING_PROTOCOLS;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HOP_REFUSED: HeaderName = HeaderName::from_static(HOP_REFUSED_HEADER);

/// A chunk of an answer's body.
pub(super) fn body_chunk(
    session: &mut Session,
    chunk: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Ctx,
) -> Result<Option<Duration>> {
    if session.was_upgraded() {
        return Ok(None);
    }
    if end {
        // The end of a connection may be the end of a body, but not when it is ours.
        deadline::missed(ctx).map_or(Ok(()), |limit| Err(limit.error()))?;
        deadline::over(ctx);
    }
    let routed = ctx.routed();
    let mut data = ResponseData::new(chunk, end, &mut routed.exchange);
    routed.vs.chain.http_response_data(&mut data).map_err(|_| rule_failed_closed())?;
    Ok(None)
}

/// Tells the rules that the body has ended, where trailers follow. What a rule has still to say takes the trailers'
/// place, since Pingora writes one or the other.
pub(super) fn end_before_trailers(session: &mut Session, ctx: &mut Ctx) -> Result<Option<Bytes>> {
    let mut last = None;
    body_chunk(session, &mut last, true, ctx)?;
    Ok(last.filter(|last| !last.is_empty()))
}

/// The request failed: the client gets a rule's answer if there is one, else the error's status.
pub(super) async fn failed(session: &mut Session, ctx: &mut Ctx, error: &Error) -> FailToProxy {
    let reply = ctx.routed.as_mut().and_then(|routed| routed.exchange.reply.take());
    let status = reply.as_ref().map_or_else(|| status_of(error), Reply::status);
    let why = || if reply.is_some() { Reason::RuleAnswered } else { reason::of(error) };
    ctx.reason.get_or_insert_with(why);
    if status != 0 && !has_begun(session) {
        let reply = reply.unwrap_or_else(|| own_reply(status, ctx.retry_after));
        session.set_keepalive(None);
        if let Err(error) = send(session, ctx, reply).await {
            tracing::debug!(%error, "error answer not sent");
        }
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

fn own_reply(status: u16, retry_after: Option<Duration>) -> Reply {
    let mut reply = Reply::new(status).fallback_body(page(status));
    let seconds = retry_after.map(|after| HeaderValue::from(after.as_secs_f64().ceil() as u64));
    reply.headers.extend(seconds.map(|seconds| (header::RETRY_AFTER, seconds)));
    reply
}

/// Whether the client has got the head of an answer, so that no other one can take its place.
pub(super) fn has_begun(session: &Session) -> bool {
    session.response_written().is_some_and(is_final)
}

/// Whether no other answer follows: interim ones (RFC 9110, 15.2) leave the place of the final one free.
pub(super) fn is_final(head: &ResponseHeader) -> bool {
    !head.status.is_informational() || head.status == SWITCHED
}

/// The status of an error; 0 where the client is gone or its answer has begun.
fn status_of(error: &Error) -> u16 {
    use ErrorType::*;
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => *status,
        (ReadTimedout | ReadError, ErrorSource::Downstream) if reason::is_late(error) => 408,
        (WriteError | WriteTimedout | ReadError | ConnectionClosed, ErrorSource::Downstream) => 0,
        (ConnectionClosed, ErrorSource::Unset) => 0,
        (_, ErrorSource::Downstream) => 400,
        (ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout, ErrorSource::Upstream) => 504,
        (_, ErrorSource::Upstream) => 502,
        (_, ErrorSource::Internal | ErrorSource::Unset) => 500,
    }
}

async fn send(session: &mut Session, ctx: &mut Ctx, mut reply: Reply) -> Result<()> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 2))?;
    for (name, value) in std::mem::take(&mut reply.headers) {
        head.append_header(name, value)?;
    }
    let bodyless = reply.status == 204 || reply.status == 304;
    if !bodyless {
        head.insert_header(header::CONTENT_LENGTH, reply.body.len())?;
        if !reply.body.is_empty() && !head.headers.contains_key(header::CONTENT_TYPE) {
            head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
        }
    }
    if let Some(routed) = &mut ctx.routed {
        let body = (reply.is_replaceable && !bodyless).then_some(&mut reply.body);
        let mut response = Response::own(&mut head, &mut routed.exchange, body);
        // An answer of homing's own goes out even if a rule that dresses it fails.
        let _ = routed.vs.chain.http_response(&mut response).await;
        if !bodyless {
            head.insert_header(header::CONTENT_LENGTH, reply.body.len())?;
        }
        request_id::tell_client(&mut head, routed)?;
        if let Some(notes) = &mut routed.notes {
            notes.answer(&head);
        }
    }
    ctx.status = head.status.as_u16();
    let empty = bodyless || reply.body.is_empty() || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), empty).await?;
    if empty {
        // Pingora's head alone does not end an HTTP/2 stream, which would be reset.
        return session.as_mut().finish_body().await;
    }
    session.write_response_body(Some(reply.body), true).await
}

/// The longest wait for the rest of a body that nobody needs any more; after it the connection is closed instead
/// of kept.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// One line that says what happened, and nothing of the inside.
pub(super) fn page(status: u16) -> Bytes {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    Bytes::from(format!("{status} {}\n", reason.unwrap_or("Error")))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_waited_for_with_an_end() {
        let (mut client, ours) = tokio::io::duplex(64);
        let mut session = Session::new_h1(Box::new(ours));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n").await.expect("there is room");
        assert!(session.read_request().await.expect("a request"));
        suit_client(&mut session);
        assert_eq!(session.get_total_drain_timeout(), Some(DRAIN_TIMEOUT));
        let timed_out = Error::new_down(ErrorType::WriteTimedout);
        assert_eq!(status_of(&timed_out), 0, "it would not read an error either");
    }
}
