//! A request as rules compare it and as variables quote it.

use std::fmt::Write;

use super::super::location::escape;
use crate::prelude::*;

/// What rules look at, taken apart once.
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request<'a>,
    /// As it was sent, without its port.
    pub(super) host: &'a str,
    /// Of the host, if one was named.
    pub(super) named_port: Option<u16>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn of(request: &'a Request<'a>) -> Self {
        let whole = request.host();
        let (host, named_port) = match whole.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port.parse().ok()),
            _ => (whole, None),
        };
        Self { request, host, named_port, path: request.path(), query: request.query().unwrap_or_default() }
    }

    pub(super) fn fits(&self, matches: &HttpMatch) -> bool {
        let request = self.request;
        let HttpMatch { ports, secure, methods, clients, host, path, query, .. } = matches;
        // The port of a hop is not its client's.
        ports.as_ref().is_none_or(|ports| !request.is_carried() && ports.fits(|port| *port == self.port()))
            && secure.is_none_or(|secure| secure == request.is_secure())
            && methods.as_ref().is_none_or(|methods| methods.fits(|method| method == request.method()))
            && clients.as_ref().is_none_or(|clients| clients.fits(|net| net.contains(&request.client_ip())))
            && host.as_ref().is_none_or(|host| host.fits(self.host))
            && path.as_ref().is_none_or(|path| path.fits(self.path))
            && query.as_ref().is_none_or(|query| query.fits(self.query))
            && self.fields_fit(matches)
    }

    fn fields_fit(&self, matches: &HttpMatch) -> bool {
        let header = |it: &FieldMatch<HeaderName>| {
            let values = self.request.headers().get_all(&it.name).iter();
            let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            it.texts.fit(values.iter().map(|value| &**value))
        };
        let parameter = |it: &FieldMatch<String>| {
            let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            it.texts.fit(pairs.filter(|(name, _)| *name == it.name).map(|(_, value)| value))
        };
        let cookie = |it: &FieldMatch<String>| it.texts.fit(self.request.cookies(&it.name));
        matches.headers.iter().all(header)
            && matches.parameters.iter().all(parameter)
            && matches.cookies.iter().all(cookie)
    }

    pub(super) fn port(&self) -> u16 {
        self.request.local_addr().port()
    }

    /// A text with its variables filled in; `matched` is what the rule's match says of the path.
    pub(super) fn text(&self, template: &Template, matched: Option<&Texts>) -> String {
        let mut text = String::new();
        template.fill(&mut text, |variable, text| self.say(variable, matched, text));
        text
    }

    /// The same as path and query, in which what no target may have is escaped.
    pub(super) fn target(&self, path: &Template, keep_query: bool, matched: Option<&Texts>) -> String {
        let mut target = String::new();
        path.fill(&mut target, |variable, target| {
            let mut said = String::new();
            self.say(variable, matched, &mut said);
            escape(&said, target);
        });
        if keep_query && !self.query.is_empty() {
            target.push(if target.contains('?') { '&' } else { '?' });
            escape(self.query, &mut target);
        }
        target
    }

    fn say(&self, variable: Variable, matched: Option<&Texts>, text: &mut String) {
        let request = self.request;
        let shown = || request.ssl().and_then(|ssl| ssl.peer_certificate());
        let group = |group| matched.and_then(|texts| texts.group(self.path, group)).unwrap_or_default();
        // Writing to a text cannot fail.
        let _ = match variable {
            Variable::Scheme => text.write_str(if request.is_secure() { "https" } else { "http" }),
            Variable::Host => text.write_str(self.host),
            Variable::Port => write!(text, "{}", self.port()),
            Variable::Path => text.write_str(self.path),
            Variable::Query => text.write_str(self.query),
            Variable::Method => text.write_str(request.method().as_str()),
            Variable::ClientIp => write!(text, "{}", request.client_ip()),
            Variable::RequestId => write!(text, "{}", request.request_id()),
            Variable::CertSubject => text.write_str(shown().map_or("", |it| &it.subject)),
            Variable::CertIssuer => text.write_str(shown().map_or("", |it| &it.issuer)),
            Variable::CertSerial => text.write_str(shown().map_or("", |it| &it.serial)),
            Variable::CertFingerprint => text.write_str(shown().map_or("", |it| &it.fingerprint)),
            Variable::Rest => {
                text.write_str(matched.and_then(|texts| texts.rest(self.path)).unwrap_or_default())
            }
            Variable::Group(n) => text.write_str(group(n)),
        };
    }
}
