//! `X-Request-Id`: whose it is, and who is told.

use http::HeaderMap;
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};

use super::{exchange::Routed, fields};
use crate::{
    listen::Connection,
    rule::{RequestId, X_REQUEST_ID},
    snapshot::VirtualService,
};

/// The id of a request, and whether servers are told it. A client's word is taken where the profile trusts it, and
/// passed on as any field where servers are told nothing.
pub(super) fn of(
    head: &mut RequestHeader,
    vs: &VirtualService,
    connection: &Connection,
    is_logged: bool,
) -> Result<(RequestId, bool)> {
    let ids = &vs.config.profile.request_ids;
    let client = connection.client.ip();
    let trusted = !ids.trusted.is_empty() && ids.trusted.iter().any(|network| network.contains(&client));
    let given = trusted.then(|| given(&head.headers)).flatten();
    let id = given.unwrap_or_else(|| RequestId::new(vs.services.with_rng(|rng| rng.next_u64())));
    let tells = ids.to_server.unwrap_or(is_logged);
    if tells {
        head.insert_header(X_REQUEST_ID.clone(), id.to_field())?;
    }
    Ok((id, tells))
}

/// The one that the request has.
fn given(headers: &HeaderMap) -> Option<RequestId> {
    let mut values = headers.get_all(&X_REQUEST_ID).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => RequestId::given(only.to_str().ok()?),
        _ => None,
    }
}

/// Tells a client the id with its answer, where that is wanted; else what a server says of it goes on as it came.
pub(super) fn tell_client(head: &mut ResponseHeader, routed: &Routed) -> Result<()> {
    if !routed.vs.config.profile.request_ids.to_client {
        return Ok(());
    }
    if fields::has(&head.headers, &X_REQUEST_ID) {
        head.remove_header(&X_REQUEST_ID);
    }
    head.insert_header(X_REQUEST_ID.clone(), routed.exchange.request_id().to_field())
}
