//! What a pool's algorithm is told of a request: what `consistent_hash` goes by before, and for `fastest_response` what
//! the answer took. Pools with other algorithms ask for neither.

use std::net::IpAddr;

use pingora::http::{RequestHeader, ResponseHeader};

use super::{exchange::Ctx, reply::is_final};
use crate::{
    config::HashKey,
    pool::{Pool, hash_of},
    rule::{Exchange, cookies},
    snapshot::Live,
};

/// The hash of what the pool goes by, if it does and the request has it. Rules may have changed the head.
pub(super) fn hash(pool: &Pool, head: &RequestHeader, exchange: &Exchange) -> Option<u64> {
    match pool.hash_key()? {
        HashKey::SourceIp => Some(match exchange.client_ip().to_canonical() {
            IpAddr::V4(ip) => hash_of(&ip.octets()),
            IpAddr::V6(ip) => hash_of(&ip.octets()),
        }),
        HashKey::Uri => {
            let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
            Some(hash_of(target.as_bytes()))
        }
        HashKey::Header(name) => head.headers.get(name).map(|value| hash_of(value.as_bytes())),
        HashKey::Cookie(name) => {
            let cookie = cookies(&head.headers).find(|(known, _)| known == name);
            cookie.map(|(_, value)| hash_of(value.as_bytes()))
        }
        HashKey::CustomString => exchange.custom_hash,
    }
}

/// The whole request is with the server: what a client's upload took is not the server's doing.
pub(super) fn asked(live: &Live, ctx: &mut Ctx) {
    if let Some(attempt) = ctx.attempt.as_mut().filter(|attempt| attempt.pool.times_answers()) {
        attempt.asked = live.clock.now();
    }
}

/// The head of an answer is there.
pub(super) fn answered(live: &Live, head: &ResponseHeader, ctx: &Ctx) {
    if let Some(attempt) = ctx.attempt.as_ref().filter(|attempt| attempt.pool.times_answers())
        && is_final(head)
    {
        let now = live.clock.now();
        let took = now.saturating_duration_since(attempt.asked);
        attempt.pool.answered(attempt.lease.server(), took, now);
    }
}
