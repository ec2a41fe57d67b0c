//! What a message's head may not leave open: where the message ends, whom it is for, and which of its fields are for
//! one connection only. A request that two readers could read in two ways is refused with 400 and its connection
//! closed; a server's answer of that kind is a 502, and its connection is not used again.
//!
//! Pingora mends some of these heads instead, and a mended request is one that somebody before homing has read
//! otherwise. The chunks of a body are `listen`'s affair. Paths are not normalised: `/a/../b`, `//` and `%2e` reach
//! servers as they came, because only a server knows what they mean to it.

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::{
    Error, ErrorType, Result,
    http::{
        RequestHeader, ResponseHeader,
        authority::{RawTargetAuthority, raw_target_authority},
    },
    proxy::Session,
};

use super::{
    fields::{self, Survey},
    forward::asks_for_tunnel,
};
use crate::listen::Connection;

/// Whether a request can be read in one way only.
pub(super) fn request(session: &Session, survey: &Survey) -> Result<()> {
    let head = session.req_header();
    as_sent(session, survey)?;
    target(head)?;
    framing(head, survey)?;
    if head.version == Version::HTTP_2 {
        scheme(head)?;
        return names(head);
    }
    connection_options(head, survey)?;
    if head.version == Version::HTTP_11 && survey.hosts == 0 {
        return refuse("the request has no Host");
    }
    Ok(())
}

/// What Pingora has read is what the client sent, line by line: it takes a bare LF for the end of a line, encodes what
/// no target may have, and drops a length beside chunks.
fn as_sent(session: &Session, survey: &Survey) -> Result<()> {
    let Some(http1) = session.as_downstream().as_http1() else { return Ok(()) };
    let Some(sent) = Connection::of(session.digest()).and_then(|connection| connection.head_length()) else {
        return refuse("a line of the request's head ends without CR");
    };
    let raw = http1.get_headers_raw_bytes();
    if raw.len() != sent {
        return refuse("the request's target has bytes that must be percent-encoded");
    }
    // A fragment is for the client's eyes alone; Pingora cuts it off.
    let line = raw.trim_ascii_start();
    let target = memchr::memchr(b' ', line).map_or(line, |end| &line[end..]);
    if memchr::memchr2(b'#', b'\n', target).is_some_and(|at| target[at] == b'#') {
        return refuse("the request's target has a fragment");
    }
    if survey.codings > 0 && has_field(&raw, b"content-length") {
        return refuse("the request has both Content-Length and Transfer-Encoding");
    }
    Ok(())
}

/// An HTTP/2 request's own word for what it wants (RFC 9113, 8.3.1). homing speaks for no other protocol.
fn scheme(head: &RequestHeader) -> Result<()> {
    let scheme = head.uri.scheme_str();
    if scheme.is_some_and(|scheme| !is_http(scheme.as_bytes())) {
        return refuse("the request's scheme is neither http nor https");
    }
    Ok(())
}

/// The HTTP/2 library takes one byte in a name that HTTP/1 has no place for (RFC 9110, 5.6.2).
fn names(head: &RequestHeader) -> Result<()> {
    if head.headers.keys().any(|name| memchr::memchr(b'"', name.as_str().as_bytes()).is_some()) {
        return refuse("a field's name is no token");
    }
    Ok(())
}

/// Whether a head, well formed and as it was sent, has a field.
fn has_field(head: &[u8], name: &[u8]) -> bool {
    let is_it = |line: &[u8]| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && line.get(name.len()) == Some(&b':')
    };
    head.split(|byte| *byte == b'\n').any(is_it)
}

/// Origin-form, absolute-form of HTTP, or the asterisk (RFC 9112, 3.2).
fn target(head: &RequestHeader) -> Result<()> {
    let target = head.raw_path();
    let formed = match target.first() {
        Some(b'/') => true,
        Some(b'*') => target == b"*" && head.method == Method::OPTIONS,
        _ => is_http_url(target),
    };
    if !formed {
        return refuse("the request's target is neither a path nor an http URL");
    }
    Ok(())
}

fn is_http_url(target: &[u8]) -> bool {
    let RawTargetAuthority::Absolute { scheme, .. } = raw_target_authority(target) else { return false };
    is_http(scheme)
}

fn is_http(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

/// One length or one chunked coding, or neither (RFC 9112, 6.3).
fn framing(head: &RequestHeader, survey: &Survey) -> Result<()> {
    if survey.lengths > 1 || survey.length.is_some_and(|length| !is_length(length)) {
        return refuse("the request's Content-Length is not one number");
    }
    if survey.codings > 1 || survey.coding.is_some_and(|coding| !is_chunked(coding)) {
        return refuse("the request's Transfer-Encoding is other than `chunked`");
    }
    let body = survey.codings > 0 || survey.length.is_some_and(|length| *length != "0");
    if body && asks_for_tunnel(head) {
        return refuse("a request to switch protocols has a body");
    }
    Ok(())
}

/// A number of digits alone that servers can reckon with, whatever their integers are.
fn is_length(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(u8::is_ascii_digit)
        && value.to_str().is_ok_and(|digits| digits.parse::<i64>().is_ok())
}

fn is_chunked(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"chunked")
}

/// A field that `Connection` names is removed on the way to the server. Not one that the server relies on: with that,
/// a client would take homing's word, or its own, out of its own request (RFC 9110, 7.6.1).
fn connection_options(head: &RequestHeader, survey: &Survey) -> Result<()> {
    let usual = |value: &HeaderValue| {
        let value = value.as_bytes();
        USUAL_OPTIONS.iter().any(|option| value.eq_ignore_ascii_case(option.as_bytes()))
    };
    match (survey.connections, survey.connection) {
        (0, _) => return Ok(()),
        (1, Some(value)) if usual(value) => return Ok(()),
        _ => {}
    }
    if fields::connection_options(&head.headers).any(is_end_to_end) {
        return refuse("the request's Connection names a field that is not for one connection only");
    }
    Ok(())
}

fn is_end_to_end(option: &[u8]) -> bool {
    let option = option.to_ascii_lowercase();
    END_TO_END.iter().any(|name| option == name.as_bytes()) || is_our_word(&option)
}

/// Whether only homing, or a peer site, says this to servers: who a client is, and where it should be at home.
pub(super) fn is_our_word(name: &[u8]) -> bool {
    matches!(name, b"forwarded" | b"x-real-ip")
        || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Whether a field would pass for another one where servers read `_` as `-`, as CGI and its heirs do, and that other
/// one is homing's to say or frames the request.
pub(super) fn poses(name: &HeaderName) -> bool {
    let name = name.as_str();
    memchr::memchr(b'_', name.as_bytes()).is_some() && {
        let read = name.replace('_', "-");
        is_our_word(read.as_bytes()) || ["content-length", "transfer-encoding", "host"].contains(&&*read)
    }
}

/// Makes a target in absolute-form what a server that is no proxy wants (RFC 9112, 3.2.1 and 3.2.4). `Host` says the
/// same authority, or the request was refused.
pub(super) fn to_origin_form(head: &mut RequestHeader) -> Result<()> {
    if head.raw_path().first() == Some(&b'/') {
        return Ok(());
    }
    let RawTargetAuthority::Absolute { path_and_query, .. } = raw_target_authority(head.raw_path()) else {
        return Ok(());
    };
    let target = match path_and_query.first() {
        Some(b'/') => path_and_query.to_vec(),
        Some(_) => [b"/", path_and_query].concat(),
        None if head.method == Method::OPTIONS => b"*".to_vec(),
        None => b"/".to_vec(),
    };
    head.set_raw_path(&target)
}

/// Whether an answer can be read in one way only, by clients that are not Pingora: it is framed in one
/// way, and one that can have no body announces none.
pub(super) fn answer(head: &mut ResponseHeader) -> Result<()> {
    let (mut lengths, mut codings, mut nothing) = (0, 0, true);
    for (name, value) in &head.headers {
        if *name == header::CONTENT_LENGTH {
            lengths += 1;
            nothing = *value == "0";
            if !is_length(value) {
                return broken("the answer's Content-Length is not a number");
            }
        } else if *name == header::TRANSFER_ENCODING {
            codings += 1;
            if !is_chunked(value) {
                return broken("the answer's Transfer-Encoding is other than `chunked`");
            }
        }
    }
    if lengths > 1 || codings > 1 || (codings == 1 && head.version != Version::HTTP_11) {
        return broken("the answer is framed in two ways");
    }
    if head.status.as_u16() >= 600 {
        return broken("the answer's status is none");
    }
    if lengths + codings > 0 && (head.status.is_informational() || head.status == StatusCode::NO_CONTENT) {
        if codings > 0 || !nothing {
            return broken("an answer that has no body announces one");
        }
        head.remove_header(&header::CONTENT_LENGTH);
    }
    Ok(())
}

fn refuse(why: &'static str) -> Result<()> {
    Error::e_explain(ErrorType::HTTPStatus(400), why)
}

fn broken(why: &'static str) -> Result<()> {
    Error::e_explain(ErrorType::InvalidHTTPHeader, why).map_err(|error| error.into_up())
}

const USUAL_OPTIONS: [&str; 3] = ["keep-alive", "close", "upgrade"];
const OUR_PREFIXES: [&str; 2] = ["x-forwarded-", "homing-"];
const END_TO_END: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "content-range",
    "expect",
    "authorization",
    "cookie",
    "origin",
    "cache-control",
    "via",
    "x-request-id",
];
