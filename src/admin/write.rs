//! What holds for every request that changes something: a browser sends it from no other page, and it is logged.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::{access::domain_name, api::failure};

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer(Arc<str>);

impl Peer {
    pub(super) fn tcp(addr: SocketAddr) -> Self {
        Self(addr.to_string().into())
    }

    /// The user of a process that came by the Unix socket.
    pub(super) fn user(uid: Option<u32>) -> Self {
        Self(uid.map_or("a local user".into(), |uid| format!("uid {uid}")).into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets requests that only read pass. Of the others, those are refused that a browser sends for a page that is not
/// ours; all are logged, with what became of them.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<Peer>().cloned();
    let response = match is_of_another_page(request.headers()) {
        true => failure(
            StatusCode::FORBIDDEN,
            "a browser sends this for another page; use the homing command or curl",
        ),
        false => next.run(request).await,
    };
    let client = peer.as_ref().map_or("unknown", |peer| &*peer.0);
    tracing::info!(%method, path, client, status = response.status().as_u16(), "admin write");
    response
}

/// Browsers say in `Sec-Fetch-Site` and `Origin` whose page it is that sends a request. A page that came by a name
/// which its owner has since pointed at us would be of our own origin: so a name alone does not count, an address
/// does, and so does a token, which such a page does not have.
fn is_of_another_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return true;
    }
    let Some(origin) = text("origin") else { return false };
    let own = origin.split_once("://").map(|(_, authority)| authority);
    let host = text("host").unwrap_or_default();
    own != Some(host) || (domain_name(host).is_some() && !headers.contains_key(header::AUTHORIZATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_sends_for_another_page_is_told() {
        let own = ("host", "127.0.0.1:9901");
        for (fields, refused) in [
            (vec![own], false),
            (vec![own, ("origin", "http://127.0.0.1:9901")], false),
            (vec![own, ("origin", "http://127.0.0.1:9901"), ("sec-fetch-site", "same-origin")], false),
            (vec![("host", "localhost:9901"), ("origin", "http://localhost:9901")], false),
            (vec![("host", "[::1]:9901"), ("origin", "http://[::1]:9901")], false),
            (vec![own, ("sec-fetch-site", "none")], false),
            (vec![own, ("sec-fetch-site", "cross-site")], true),
            (vec![own, ("sec-fetch-site", "same-site")], true),
            (vec![own, ("origin", "http://evil.example")], true),
            (vec![own, ("origin", "http://127.0.0.1:8080")], true),
            (vec![own, ("origin", "null")], true),
            (vec![("host", "evil.example:9901"), ("origin", "http://evil.example:9901")], true),
            (
                vec![
                    ("host", "homing.example:9901"),
                    ("origin", "http://homing.example:9901"),
                    ("authorization", "Bearer x"),
                ],
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.insert(*name, value.parse().expect("a value"));
            }
            assert_eq!(is_of_another_page(&headers), refused, "{fields:?}");
        }
    }
}
