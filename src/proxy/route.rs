//! From a request's head to its virtual service, and through the rules' `http_request`.

use std::{borrow::Cow, net::Ipv6Addr, sync::Arc};

use http::{HeaderValue, Version, header};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, authority::raw_target_authority},
    proxy::Session,
};

use super::{
    connection, copies,
    exchange::{Ctx, Routed},
    fields::{self, Survey},
    limits,
    notes::Notes,
    request_id, strict, trusted,
};
use crate::{
    listen::Connection,
    rule::{ConnectionState, Decisions, Exchange, Request},
    snapshot::{Live, VirtualService},
};

/// Routes by listener and Host: 400 for a missing or malformed Host, 421 (RFC 9110, 15.5.20) for one that
/// nobody here serves.
pub(super) async fn find_virtual_service(
    live: &Arc<Live>,
    session: &mut Session,
    ctx: &mut Ctx,
) -> Result<()> {
    let connection = Connection::of(session.digest()).cloned().ok_or_else(|| {
        Error::explain(ErrorType::InternalError, "the request's connection is not one of our listeners'")
    })?;
    if session.req_header().version == Version::HTTP_10 {
        name_host(session.req_header_mut(), &connection)?;
    }
    let head = session.req_header();
    let survey = Survey::of(&head.headers);
    strict::request(session, &survey)?;
    // Pingora has looked at one of them.
    let closes = survey.connections > 1
        && fields::connection_options(&head.headers).any(|option| option.eq_ignore_ascii_case(b"close"));
    // In the common case the host is where it was in the connection's last request, and says the same.
    let field = survey.host.filter(|_| survey.hosts == 1 && head.uri.authority().is_none());
    let (vs, state) = match field.and_then(|field| connection::last_route(live, &connection, field)) {
        Some(known) => known,
        // Boxed, because this is the first request's affair and the others should not carry it about.
        None => {
            let host = request_host(head, &survey)?;
            let found = Box::pin(route(live, &connection, &host, field)).await?;
            found.ok_or_else(|| limits::full(ctx))?
        }
    };
    let Survey { cookies, marked, .. } = survey;
    if closes {
        session.set_keepalive(None);
    }
    let head = session.req_header_mut();
    strict::to_origin_form(head)?;
    let is_logged = live.access_log.is_on();
    let notes = is_logged.then(|| Box::new(Notes::of(head, vs.analytics.takes_headers(ctx.started))));
    if cookies > 1 {
        join_cookies(head)?;
    }
    if marked {
        copies::remove_forged_mark(head, &vs.marks);
    }
    if state.is_rejected() {
        return Error::e_explain(ErrorType::ConnectionClosed, "a rule rejected the connection");
    }
    let (id, tells) = request_id::of(head, &vs, &connection, is_logged)?;
    let mut exchange = Exchange::new(state, vs.services.clone(), id);
    exchange.tells_request_id = tells;
    trusted::believe(&head.headers, &vs.config.profile.trusted_proxies, &mut exchange);
    exchange.decisions = is_logged.then(Box::<Decisions>::default);
    ctx.routed = Some(Box::new(Routed { vs, exchange, notes }));
    Ok(())
}

/// The virtual service of a host, and the state that the connection has for it. `None`: it is full.
async fn route(
    live: &Arc<Live>,
    connection: &Arc<Connection>,
    host: &str,
    field: Option<&HeaderValue>,
) -> Result<Option<(Arc<VirtualService>, Arc<ConnectionState>)>> {
    let snapshot = live.snapshot();
    let vs = live
        .route(&snapshot, &connection.listener, host)
        .ok_or_else(|| Error::explain(ErrorType::HTTPStatus(421), "no virtual service here has this Host"))?;
    if !connection::is_certified(connection, &vs) {
        // It was asked for another name in its handshake.
        let why =
            "the virtual service requires a client certificate, and this connection has not shown one to it";
        return Error::e_explain(ErrorType::HTTPStatus(421), why);
    }
    let Some(state) = connection::state_for(connection, &vs).await else { return Ok(None) };
    if let Some(field) = field {
        connection::remember_route(connection, &snapshot, field, &vs, &state);
    }
    Ok(Some((vs, state)))
}

/// Runs `http_request`.
pub(super) async fn run_rules(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    let Routed { vs, exchange, .. } = ctx.routed();
    if vs.chain.is_empty() {
        return Ok(());
    }
    let mut request = Request::new(session.req_header_mut(), exchange);
    vs.chain.http_request(&mut request).await.map_err(|_| rule_failed_closed())
}

pub(super) fn rule_failed_closed() -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(500), "a rule failed and is configured to fail closed")
}

/// A request of HTTP/1.0 without `Host`, such as balancers in front send to see whether there is somebody, is for the
/// address that it came to (RFC 9112, 3.3). Servers get it as HTTP/1.1, where it has to say so.
fn name_host(head: &mut RequestHeader, connection: &Connection) -> Result<()> {
    if fields::has(&head.headers, &header::HOST) {
        return Ok(());
    }
    let host = match raw_target_authority(head.raw_path()).authority() {
        Some(authority) => authority.to_vec(),
        None => connection.local.to_string().into_bytes(),
    };
    head.insert_header(header::HOST, host)
}

/// The host of a request, lower case and without its port and trailing dot.
fn request_host<'a>(head: &'a RequestHeader, survey: &Survey<'a>) -> Result<Cow<'a, str>> {
    if survey.hosts > 1 {
        return Error::e_explain(ErrorType::HTTPStatus(400), "the request has several Host fields");
    }
    let authority = match (head.uri.authority(), survey.host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(field)) => field.to_str().unwrap_or_default(),
        (None, None) => return Error::e_explain(ErrorType::HTTPStatus(400), "the request has no Host"),
    };
    normal_host(authority)
        .ok_or_else(|| Error::explain(ErrorType::HTTPStatus(400), "the request's Host is malformed"))
}

/// `A.com:80` → `a.com`; `None` if it is not `uri-host [":" port]` of RFC 9110, 7.2.
fn normal_host(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (
                &authority[..end],
                authority[end..].strip_prefix(':').or(authority[end..].is_empty().then_some(""))?,
            )
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let host_ok = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => is_literal(literal),
        None => is_registered_name(host),
    };
    if !host_ok || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let host = host.strip_suffix('.').filter(|host| !host.is_empty()).unwrap_or(host);
    Some(match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    })
}

/// An address between brackets, or one of a kind that is still to come (RFC 3986, 3.2.2).
fn is_literal(inside: &str) -> bool {
    match inside.strip_prefix(['v', 'V']) {
        Some(future) => future.bytes().all(|byte| byte == b':' || is_name_byte(byte)),
        None => inside.parse::<Ipv6Addr>().is_ok(),
    }
}

fn is_registered_name(host: &str) -> bool {
    let bytes = host.as_bytes();
    let encoded =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    !bytes.is_empty()
        && bytes.iter().enumerate().all(|(at, byte)| match byte {
            b'%' => encoded(at),
            _ => is_name_byte(*byte),
        })
}

/// `unreserved` and `sub-delims`.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// Browsers split `Cookie` over several fields in HTTP/2; whoever reads it next wants one (RFC 9113, 8.2.3).
fn join_cookies(head: &mut RequestHeader) -> Result<()> {
    let mut fields = head.headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (fields.next(), fields.next()) else { return Ok(()) };
    let mut joined = first.as_bytes().to_vec();
    for field in std::iter::once(second).chain(fields) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(field.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined)
        .map_err(|_| Error::explain(ErrorType::HTTPStatus(400), "the request's Cookie is malformed"))?;
    head.insert_header(header::COOKIE, joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_case_port_and_trailing_dot() {
        for (authority, host) in [
            ("a.com", Some("a.com")),
            ("A.Com:8080", Some("a.com")),
            ("a.com.", Some("a.com")),
            ("a.com:", Some("a.com")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("[v1.x:y]", Some("[v1.x:y]")),
            ("a%2db", Some("a%2db")),
            ("a,b;c", Some("a,b;c")),
            ("", None),
            (":80", None),
            ("a.com/x", None),
            ("a com", None),
            ("user@a.com", None),
            ("a.com:http", None),
            ("a.com:123456", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::g]", None),
            ("[]", None),
            ("[a.com]", None),
            ("[v1/x]", None),
            ("a%2", None),
            ("a%zz", None),
            ("a:b:80", None),
        ] {
            assert_eq!(normal_host(authority).as_deref(), host, "{authority}");
        }
    }

    #[test]
    fn cookie_fields_are_joined_in_order() {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a valid head");
        for cookie in ["a=1", "b=2; c=3", "d=4"] {
            head.append_header("cookie", cookie).expect("a valid header");
        }
        join_cookies(&mut head).expect("cookies that can be joined");
        let fields: Vec<_> = head.headers.get_all("cookie").iter().collect();
        assert_eq!(fields, ["a=1; b=2; c=3; d=4"]);
    }
}
