//! `http_to_https` as a rule: plain requests are redirected to the virtual service's TLS port.
//!
//! Avi's application profile has the switch under the same name. A request that came over the hop counts as its
//! client came, so site persistence looks at the hop first and asks here itself.

use std::sync::Arc;

use super::location::location;
use crate::prelude::*;

/// Redirects what is not over TLS.
pub struct HttpsRedirect {
    /// The virtual service's TLS port.
    port: u16,
}

impl HttpsRedirect {
    /// The redirect of a virtual service, if its profile asks for it.
    pub(super) fn of(setup: &Setup<'_>) -> Option<Self> {
        let vs = setup.virtual_service;
        let tls = vs.services.iter().find(|service| service.tls.is_some());
        vs.profile.http_to_https.then(|| Self { port: tls.map_or(443, |service| service.addr.port()) })
    }

    /// The rule, where site persistence does not do it.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        Self::of(setup).filter(|_| setup.site.is_none()).map(Rule::into_rule)
    }

    /// The redirect of a request; `None`: it is over TLS.
    pub(super) fn reply(&self, request: &Request<'_>) -> Result<Option<Reply>, RuleError> {
        if request.is_secure() {
            return Ok(None);
        }
        let host = request.host();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        let location = location(&format!("https://{name}{port}"), request)?;
        // 308 keeps the method and the body of those that have them (RFC 9110, 15.4.9).
        let status = if matches!(request.method().as_str(), "GET" | "HEAD") { 301 } else { 308 };
        Reply::new(status).header("Location", &location).map(Some)
    }
}

#[async_trait]
impl Rule for HttpsRedirect {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        if let Some(reply) = self.reply(request)? {
            request.respond(reply);
        }
        Ok(())
    }
}
