//! Which HTTP a server is spoken to in.
//!
//! HTTP/2 where the pool says so: with TLS if the server agrees to it by ALPN, else by prior knowledge (RFC 9113, 3.3).
//! What Pingora's HTTP/2 cannot carry goes in HTTP/1.1 even so: tunnels, which do not come here, a target that is not
//! UTF-8, and a client that waits for the server's word before it sends its body. Without TLS there is no second protocol
//! to choose, so there such a client hears from homing that it may go on.
//!
//! A server that does not agree to HTTP/2 is asked for HTTP/1.1 from then on, for a while: on a connection that was to be
//! HTTP/2's Pingora would speak HTTP/1.1 without our reading of answers ([`to_server`](super::to_server)).
//!
//! Answers' trailers, which gRPC ends with, pass where both legs are HTTP/2. Pingora's HTTP/1.1 reads and drops a
//! server's and writes none; requests' trailers it passes in neither.

use std::time::Instant;

use http::{HeaderValue, Version, header};
use pingora::{
    Error, ErrorType, Result,
    http::RequestHeader,
    proxy::Session,
    upstreams::peer::{ALPN, HttpPeer},
};

use super::{
    exchange::{Attempt, Ctx},
    fields,
};
use crate::{config, pool::Server, snapshot::Live};

/// Whether a server may be asked for HTTP/2.
pub(super) fn may_be_http2(pool: &config::Pool, server: &Server, ctx: &Ctx, now: Instant) -> bool {
    pool.enable_http2 && !(pool.enable_ssl && (ctx.http2_declined || server.declines_http2(now)))
}

/// Asks the peer for HTTP/2 if this request can cross in it; until now HTTP/1.1 is spoken.
pub(super) fn choose(peer: &mut HttpPeer, pool: &config::Pool, head: &RequestHeader) {
    let needs_http1 = expects_continue(head) || !head.raw_path_is_utf8();
    peer.options.alpn = match pool.enable_ssl {
        true if needs_http1 => return,
        true => ALPN::H2H1,
        false => ALPN::H2,
    };
    // A connection has one request at a time unless its pool wants more: with several, one client that does not read or
    // one server that does not would use up the window that they share.
    peer.options.max_h2_streams = pool.connections.http2_streams;
    peer.options.h2_stream_window_size = Some(WINDOW);
    peer.options.h2_connection_window_size = Some(WINDOW);
    // Else a connection that HTTP/1.1 was asked of would be used again where HTTP/2 may be had.
    peer.group_key ^= HTTP2;
}

/// The request is about to be written: not where it would be HTTP/1.1 and HTTP/2 was asked for. It is tried again at
/// once, whichever server is next, in HTTP/1.1.
pub(super) fn agreed(live: &Live, head: &RequestHeader, ctx: &mut Ctx) -> Result<()> {
    let declined = |attempt: &mut Attempt| attempt.asks_for_http2 && head.version != Version::HTTP_2;
    let Some(attempt) = ctx.attempt.take_if(declined) else { return Ok(()) };
    attempt.lease.server().declined_http2(live.clock.now());
    ctx.http2_declined = true;
    let mut error = Error::explain(ErrorType::H2Downgrade, "the server did not agree to HTTP/2").into_up();
    error.set_retry(true);
    Err(error)
}

/// Lets a client send its body that waits for a word which HTTP/2 will not bring.
pub(super) async fn go_on(session: &mut Session, head: &mut RequestHeader) -> Result<()> {
    if head.version != Version::HTTP_2 || !expects_continue(head) {
        return Ok(());
    }
    head.remove_header(&header::EXPECT);
    session.as_mut().write_continue_response().await
}

/// Tells a server of HTTP/2 what its client of HTTP/2 takes: gRPC relies on `te: trailers`, the one value that passes
/// (RFC 9113, 8.2.2). Pingora drops it where the request has a body.
pub(super) fn takes_trailers(session: &Session, head: &mut RequestHeader) -> Result<()> {
    let client = session.req_header();
    if head.version != Version::HTTP_2 || client.version != Version::HTTP_2 {
        return Ok(());
    }
    match client.headers.get(header::TE) {
        Some(te) if !fields::has(&head.headers, &header::TE) => head.insert_header(header::TE, te),
        _ => Ok(()),
    }
}

/// RFC 9110, 10.1.1.
fn expects_continue(head: &RequestHeader) -> bool {
    let it = |what: &HeaderValue| what.as_bytes().eq_ignore_ascii_case(b"100-continue");
    fields::has(&head.headers, &header::EXPECT) && head.headers.get_all(header::EXPECT).iter().any(it)
}

/// What a server may send ahead of a client that reads slowly: 20 MB/s over 100 ms.
const WINDOW: u32 = 2 << 20;
/// Sets these connections apart from those of the same servers that HTTP/1.1 was asked of.
const HTTP2: u64 = 2;

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use pingora::upstreams::peer::Peer;

    use super::*;
    use crate::{metrics::Metrics, pool::Pool};

    #[test]
    fn http_2_is_asked_for_where_the_request_can_cross_in_it() {
        let head = |target: &[u8], field: Option<(&'static str, &str)>| {
            let mut head = RequestHeader::build("POST", target, None).expect("a valid head");
            head.set_version(Version::HTTP_11);
            if let Some((name, value)) = field {
                head.insert_header(name, value).expect("a valid header");
            }
            head
        };
        let plain = head(b"/", None);
        let waits = head(b"/", Some(("expect", "100-Continue")));
        let binary = head(b"/\xff", None);
        for (enable_ssl, head, alpn) in [
            (true, &plain, ALPN::H2H1),
            (true, &waits, ALPN::H1),
            (true, &binary, ALPN::H1),
            (false, &plain, ALPN::H2),
            (false, &waits, ALPN::H2),
        ] {
            let pool = config::Pool { enable_http2: true, enable_ssl, ..config::Pool::of("p".into(), []) };
            let mut peer = HttpPeer::new(SocketAddr::from(([10, 0, 0, 1], 443)), enable_ssl, String::new());
            peer.options.alpn = ALPN::H1;
            choose(&mut peer, &pool, head);
            assert_eq!(peer.options.alpn, alpn, "TLS: {enable_ssl}, {head:?}");
            let of_http1 = HttpPeer::new(SocketAddr::from(([10, 0, 0, 1], 443)), enable_ssl, String::new());
            let apart = peer.reuse_hash() != of_http1.reuse_hash();
            assert_eq!(apart, alpn != ALPN::H1, "they are kept apart");
        }
    }

    #[test]
    fn who_declined_http_2_under_tls_is_asked_again_after_a_while() {
        let now = Instant::now();
        for (enable_http2, enable_ssl, before, after, much_later) in [
            (false, false, false, false, false),
            (false, true, false, false, false),
            (true, true, true, false, true),
            (true, false, true, true, true),
        ] {
            let server = SocketAddr::from(([10, 0, 0, 1], 443));
            let config = config::Pool { enable_http2, enable_ssl, ..config::Pool::of("p".into(), [server]) };
            let pool = Pool::new(&Arc::new(config.clone()), &Metrics::new(), None, UNIX_EPOCH);
            let (server, mut ctx) = (&pool.servers()[0], Ctx::new(now));
            let may =
                |ctx: &Ctx, seconds| may_be_http2(&config, server, ctx, now + Duration::from_secs(seconds));
            assert_eq!(may(&ctx, 0), before);
            server.declined_http2(now);
            assert_eq!((may(&ctx, 1), may(&ctx, 3600)), (after, much_later), "{enable_http2} {enable_ssl}");
            ctx.http2_declined = true;
            assert_eq!(may(&ctx, 3600), after, "not this request");
        }
    }
}
