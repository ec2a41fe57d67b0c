//! How much a virtual service takes of a request. The head of an HTTP/1 request was measured before anybody parsed it
//! (see [`crate::listen`]); what is left is the head of an HTTP/2 request, and every body.

use http::{HeaderName, Version, header};
use pingora::{Error, ErrorType, Result, http::RequestHeader, proxy::Session};

use super::{copies::content_length, exchange::Ctx, fields, forward::asks_for_tunnel, reply::page};
use crate::{
    access_log::Reason,
    config::{HeadLimits, RateAction, RequestLimits},
    listen::{Connection, LeastPace},
    rule::Reply,
    site_cookie::HOP_HEADER,
    snapshot::{Live, OverRate},
};

/// Refuses a head that is too large or announces too large a body, and says how its body has to come.
pub(super) fn head(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    let limits = &ctx.routed().vs.config.profile.limits;
    let head = session.req_header();
    let is_http2 = head.version == Version::HTTP_2;
    if is_http2 {
        http2_head(head, &limits.head)?;
    }
    if session.is_body_empty() || asks_for_tunnel(session.req_header()) {
        return Ok(());
    }
    let announced = content_length(&session.req_header().headers);
    if announced.is_some_and(|length| is_too_large(length, limits)) {
        return body_too_large();
    }
    session.set_read_timeout(Some(limits.client_body_timeout));
    let pace = LeastPace { rate: limits.client_body_min_rate, patience: limits.client_body_timeout };
    if is_http2 {
        // The streams of a connection have each its own.
        session.req_header_mut().extensions_mut().insert(pace);
    } else if let Some(connection) = Connection::of(session.digest()) {
        connection.demand_pace(pace);
    }
    Ok(())
}

/// Counts the request against the rates of its virtual service, before any rule sees it. One that is over a rate is
/// answered, or its connection is closed. What says that it comes from a peer site waits for [`count_hop`].
pub(super) fn is_within_rate(live: &Live, session: &Session, ctx: &mut Ctx) -> Result<bool> {
    if ctx.routed().vs.request_limiters.is_empty() {
        return Ok(true);
    }
    ctx.is_uncounted = fields::has(&session.req_header().headers, &HOP);
    match ctx.is_uncounted {
        true => Ok(true),
        false => count(live, session, ctx),
    }
}

/// Counts what said that it comes from a peer site: by the client that the site tells, where that has proven itself.
pub(super) fn count_hop(live: &Live, session: &Session, ctx: &mut Ctx) -> Result<()> {
    if std::mem::take(&mut ctx.is_uncounted) {
        count(live, session, ctx)?;
    }
    Ok(())
}

fn count(live: &Live, session: &Session, ctx: &mut Ctx) -> Result<bool> {
    let routed = ctx.routed();
    let (now, client) = (live.clock.now(), routed.exchange.client_ip());
    let headers = &session.req_header().headers;
    let counted = routed.vs.request_limiters.iter().try_for_each(|rate| rate.count(client, headers, now));
    let Err(OverRate { action, wait }) = counted else { return Ok(true) };
    match action {
        RateAction::Close => {
            ctx.reason = Some(Reason::RateLimited);
            Error::e_explain(ErrorType::ConnectionClosed, "requests come more often than they may")
        }
        RateAction::Respond(status) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let reply =
                Reply::new(status).fallback_body(page(status)).header("Retry-After", &seconds.to_string());
            routed.exchange.reply = Some(reply.map_err(|_| Error::new(ErrorType::InternalError))?);
            ctx.reason = Some(Reason::RateLimited);
            Ok(false)
        }
    }
}

/// The virtual service has as many connections as it may.
pub(super) fn full(ctx: &mut Ctx) -> Box<Error> {
    ctx.reason = Some(Reason::TooManyConnections);
    Error::explain(ErrorType::HTTPStatus(503), "the virtual service has as many connections as it may")
}

/// Refuses a body that turns out to be too large.
pub(super) fn body_so_far(session: &Session, ctx: &mut Ctx) -> Result<()> {
    let limits = &ctx.routed().vs.config.profile.limits;
    if limits.client_max_body_size.is_some() && is_too_large(session.body_bytes_read() as u64, limits) {
        return body_too_large();
    }
    Ok(())
}

fn is_too_large(bytes: u64, limits: &RequestLimits) -> bool {
    limits.client_max_body_size.is_some_and(|most| bytes > most)
}

fn body_too_large() -> Result<()> {
    Error::e_explain(ErrorType::HTTPStatus(413), "the request's body is too large")
}

/// As HTTP/1 would have it: a line has its name, its value and four bytes more. Browsers cut `Cookie` into many fields,
/// which count as one.
fn http2_head(head: &RequestHeader, limits: &HeadLimits) -> Result<()> {
    let target = head.raw_path().len();
    if target > limits.client_max_uri_size {
        return Error::e_explain(ErrorType::HTTPStatus(414), "the request's target is too long");
    }
    let (mut longest, mut fields, mut cookies, mut whole) = (0, 0, 0, target);
    for (name, value) in &head.headers {
        let line = name.as_str().len() + value.len() + LINE_OVERHEAD;
        whole += line;
        match *name == header::COOKIE {
            true => cookies += line,
            false => {
                longest = longest.max(line);
                fields += 1;
            }
        }
    }
    let too_large = longest.max(cookies) > limits.client_max_header_size
        || fields + usize::from(cookies > 0) > limits.max_header_count
        || whole > limits.client_max_request_size;
    if too_large {
        return Error::e_explain(ErrorType::HTTPStatus(431), "the request's head is too large");
    }
    Ok(())
}

const HOP: HeaderName = HeaderName::from_static(HOP_HEADER);
/// `: ` and CR LF.
const LINE_OVERHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_http2_have_the_bounds_of_others() {
        let limits = HeadLimits {
            client_max_uri_size: 20,
            client_max_header_size: 24,
            max_header_count: 3,
            client_max_request_size: 90,
        };
        let status = |target: usize, fields: &[(&'static str, usize)]| {
            let target = format!("/{}", "u".repeat(target - 1));
            let mut head = RequestHeader::build("GET", target.as_bytes(), None).expect("a valid head");
            for (name, line) in fields {
                let value = "v".repeat(line - name.len() - LINE_OVERHEAD);
                head.append_header(*name, value).expect("a valid field");
            }
            match http2_head(&head, &limits).map_err(|error| error.etype().clone()) {
                Ok(()) => 200,
                Err(ErrorType::HTTPStatus(status)) => status,
                Err(other) => panic!("{other:?}"),
            }
        };
        for (target, fields, expected) in [
            (20, &[("a", 24), ("b", 20), ("c", 20)][..], 200),
            (21, &[], 414),
            (1, &[("a", 25)], 431),
            (1, &[("a", 9), ("b", 9), ("c", 9), ("d", 9)], 431),
            (1, &[("a", 9), ("b", 9), ("cookie", 12), ("cookie", 12)], 200),
            (1, &[("cookie", 12), ("cookie", 13)], 431),
            (20, &[("a", 24), ("b", 23), ("c", 24)], 431),
        ] {
            assert_eq!(status(target, fields), expected, "{target} {fields:?}");
        }
    }
}
