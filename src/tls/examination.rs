//! Why TLS with a server failed, in OpenSSL's words.
//!
//! Pingora tells that a certificate was refused and keeps to itself why. So the server is asked for it once more, on a
//! connection that no request waits for.

use std::sync::Arc;

use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;

use super::{ConnectError, Connector};
use crate::config;

/// Shakes hands with a server of a pool, as `peer` says, and tells why its certificate is refused; `None`: this time it
/// was not, or there was nothing to look at.
pub async fn why_refused(pool: &Arc<config::Pool>, peer: &HttpPeer, server: TcpStream) -> Option<String> {
    let pool = pool.clone();
    // The system's authorities are many.
    let connector = tokio::task::spawn_blocking(move || Connector::new(&pool, b"")).await.ok()?.ok()?;
    let name = peer.options.alternative_cn.as_ref().unwrap_or(&peer.sni);
    let server = connector.verifying_names(peer.options.verify_hostname).server(name).connect(server).await;
    let refusal = server.err()?;
    match refusal {
        ConnectError::Certificate(_) | ConnectError::Revoked(_) => Some(refusal.to_string()),
        ConnectError::Handshake(_) | ConnectError::Setup(_) => None,
    }
}

/// What OpenSSL says of a handshake that failed, out of what Pingora says of it: the reason alone, without numbers,
/// names of functions and lines of its code.
pub fn handshake_failure(context: &str) -> &str {
    let (_, said) = context.split_once("failed: ").unwrap_or(("", context));
    let said = said.rsplit_once(", SNI: ").map_or(said, |(said, _)| said);
    match said.split_once(" routines:") {
        // `error:NUMBER:SSL routines:FUNCTION:REASON:FILE:LINE:`
        Some((_, rest)) => rest.split(':').nth(1).unwrap_or(rest),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_among_what_openssl_says() {
        for (context, reason) in [
            (
                "TLS connect() failed: error:0A00010B:SSL routines:tls_validate_record_header:wrong version \
                 number:ssl/record/methods/tlsany_meth.c:84:, SNI: pay.test",
                "wrong version number",
            ),
            ("TLS connect() failed: unexpected EOF, SNI: ", "unexpected EOF"),
            ("ssl config error: none", "ssl config error: none"),
            ("TLS connect() failed: error:0A:SSL routines:", ""),
            ("", ""),
        ] {
            assert_eq!(handshake_failure(context), reason, "{context}");
        }
    }
}
