//! Answers of rules: redirects, and what is said here in the place of a server.

use super::{super::location::escape, asked::Asked};
use crate::prelude::*;

impl Asked<'_> {
    /// The answer of a rule that fits; `None`: it would lead to where the request already is.
    pub(super) fn answer(
        &self,
        answer: &HttpAnswer,
        matched: Option<&Texts>,
    ) -> Result<Option<Reply>, RuleError> {
        match answer {
            HttpAnswer::Redirect(redirect) => {
                let Some(location) = self.location(redirect, matched) else { return Ok(None) };
                Reply::new(redirect.status).header("Location", &location).map(Some)
            }
            HttpAnswer::Respond { status, body: None } => Ok(Some(Reply::new(*status))),
            HttpAnswer::Respond { status, body: Some(body) } => {
                let content_type = body.content_type.to_str()?;
                Reply::new(*status)
                    .header("Content-Type", content_type)
                    .map(|it| Some(it.body(body.bytes.clone())))
            }
        }
    }

    /// Always a whole URL: `//x` for a path would be another host.
    fn location(&self, redirect: &Redirect, matched: Option<&Texts>) -> Option<String> {
        let was_secure = self.request.is_secure();
        let secure = redirect.secure.unwrap_or(was_secure);
        let host = redirect.host.as_ref().map(|host| self.text(host, matched));
        // A port that the client named is one of this scheme and host.
        let named = self.named_port.filter(|_| secure == was_secure && host.is_none());
        let target = match &redirect.path {
            Some(path) => self.target(path, redirect.keep_query, matched),
            None if redirect.keep_query => escaped(self.request.path_and_query()),
            None => escaped(self.request.path()),
        };
        let own = escaped(self.request.path_and_query());
        let to = url(secure, host.as_deref().unwrap_or(self.host), redirect.port.or(named), &target);
        (to != url(was_secure, self.host, self.named_port, &own)).then_some(to)
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    escape(text, &mut escaped);
    escaped
}

fn url(secure: bool, host: &str, port: Option<u16>, target: &str) -> String {
    let (scheme, usual) = if secure { ("https", 443) } else { ("http", 80) };
    let port = port.filter(|port| *port != usual).map(|port| format!(":{port}")).unwrap_or_default();
    // `OPTIONS *` must not run into the name.
    let slash = if target.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}{port}{slash}{target}")
}
