//! `http_to_https` and `http_rules` as a rule: plain requests are redirected to the virtual service's TLS port, or to
//! the one that is paired with the port at which they came.
//!
//! Avi's application profile has the switch under the same name, and its HTTP policy sets have the pairs. A request that came over the hop counts as its
//! client came, so site persistence looks at the hop first and asks here itself.

use std::sync::Arc;

use super::location::location;
use crate::prelude::*;

/// Redirects what is not over TLS.
pub struct HttpsRedirect {
    /// From a plain port to the one with TLS.
    pairs: Vec<(u16, u16)>,
    /// Of all other plain ports, where `http_to_https` is set: the virtual service's first TLS port.
    default: Option<u16>,
}

impl HttpsRedirect {
    /// The redirect of a virtual service, if its profile or its rules ask for it.
    pub(super) fn of(setup: &Setup<'_>) -> Option<Self> {
        let vs = setup.virtual_service;
        let tls = vs.services.iter().find(|service| service.tls.is_some());
        let default = vs.profile.http_to_https.then(|| tls.map_or(443, |service| service.addr.port()));
        let rules = vs.port_redirects.iter();
        let pairs = rules.flat_map(|rule| rule.ports.iter().map(|port| (*port, rule.https_port)));
        let redirect = Self { pairs: pairs.collect(), default };
        (redirect.default.is_some() || !redirect.pairs.is_empty()).then_some(redirect)
    }

    /// The rule, where site persistence does not do it.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        Self::of(setup).filter(|_| setup.site.is_none()).map(Rule::into_rule)
    }

    /// The TLS port for what came at a plain one.
    fn target(&self, port: u16) -> Option<u16> {
        let paired = self.pairs.iter().find(|(from, _)| *from == port).map(|(_, to)| *to);
        paired.or(self.default)
    }

    /// The redirect of a request; `None`: it is over TLS, or may come as it does.
    pub(super) fn reply(&self, request: &Request<'_>) -> Result<Option<Reply>, RuleError> {
        if request.is_secure() {
            return Ok(None);
        }
        let Some(port) = self.target(request.local_addr().port()) else { return Ok(None) };
        let host = request.host();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let port = if port == 443 { String::new() } else { format!(":{port}") };
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
