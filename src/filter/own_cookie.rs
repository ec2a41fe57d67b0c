//! The cookies that homing itself gives to clients: read, taken off what servers get, and handed out.

use crate::prelude::*;

/// The `Cookie` fields of a head.
pub(super) fn fields(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.iter().filter(|(name, _)| **name == COOKIE).map(|(_, field)| field.as_bytes())
}

/// Takes a cookie off what a server gets.
pub(super) fn remove(send: &mut RequestSend<'_>, name: &str) -> RuleResult {
    let cookies = fields(send.headers()).next();
    let rest = cookies.map(|cookies| without_cookie(cookies, name).map(|rest| rest.into_owned()));
    match rest {
        Some(Some(rest)) => send.set_header("cookie", rest)?,
        Some(None) => drop(send.pingora().remove_header(&COOKIE)),
        None => {}
    }
    Ok(())
}

/// Gives a cookie to the client, with an answer that no shared cache keeps.
pub(super) fn hand_out(response: &mut Response<'_>, set_cookie: &str) -> RuleResult {
    response.append_header("Set-Cookie", set_cookie)?;
    if let Some(private) = private_cache_control(response.joined("cache-control").as_deref()) {
        response.set_header("Cache-Control", &*private)?;
    }
    Ok(())
}

static COOKIE: HeaderName = HeaderName::from_static("cookie");
