//! HTTP rules of a virtual service: what is done with requests that match, without a line of code.
//!
//! The shape is that of a rule of Avi's HTTP policy sets: a `match` and actions. nginx has `location`, `rewrite` and
//! `return` for it, HAProxy `http-request` with ACLs, Envoy routes. A rule whose match is ports alone, and whose only
//! action is the way to HTTPS, is a [`PortRedirect`].

mod action;
mod matching;
mod port_redirect;
mod template;
mod texts;

pub use action::{CloneChoice, FieldEdit, HeaderAction, HttpAction, HttpAnswer, Redirect, Rewrite};
pub use matching::{FieldMatch, HttpMatch, OneOf};
pub use port_redirect::PortRedirect;
pub use template::{Template, Variable};
pub use texts::Texts;

use super::{
    Service,
    problem::shown,
    read::{Object, Reference},
};
use crate::names::PoolName;

/// A match and what is done with the requests that it fits.
///
/// All rules look at the request as the client sent it. Of several that fit, the first one with an action of a kind
/// (rewriting, pool, copies) decides on that, and header actions add up. A redirect or an answer ends the list.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    pub name: String,
    /// Empty: every request.
    pub matches: HttpMatch,
    pub action: HttpAction,
}

/// What a virtual service's rules may refer to.
pub(super) struct Scope<'a> {
    pub(super) vs: &'a str,
    pub(super) services: &'a [Service],
    /// The pools of its clone sections.
    pub(super) clones: Vec<PoolName>,
    pub(super) resolve_pool: &'a dyn Fn(&Reference) -> Option<PoolName>,
}

/// The rules of a virtual service by what they are.
#[derive(Default)]
pub(super) struct HttpRules {
    pub(super) redirects: Vec<PortRedirect>,
    pub(super) rules: Vec<HttpRule>,
}

impl HttpRules {
    pub(super) fn read(o: &mut Object<'_>, scope: &Scope<'_>) -> Self {
        let mut all = Self::default();
        o.objects("http_rules", |o| {
            let name = o.name();
            let known = |name: &String| {
                all.rules.iter().any(|rule| rule.name == *name)
                    || all.redirects.iter().any(|redirect| redirect.name == *name)
            };
            if name.as_ref().is_some_and(known) {
                let what =
                    format!("http rule {} is defined twice", shown(name.as_deref().unwrap_or_default()));
                o.wrong("name", what, "choose another name, or leave one of them out");
            }
            if PortRedirect::is_meant(o) {
                let redirect = PortRedirect::read(o, name, scope.vs, scope.services)?;
                redirect.check_beside(&all.redirects, o);
                all.redirects.push(redirect);
            } else {
                let matches = o.object("match", |o| HttpMatch::read(o, scope)).unwrap_or_default();
                let action = HttpAction::read(o, scope, &matches);
                all.rules.push(HttpRule { name: name?, matches, action });
            }
            Some(())
        });
        all
    }

    /// Whether one of them could choose a pool or answer.
    pub(super) fn may_serve(&self) -> bool {
        self.rules.iter().any(|rule| rule.action.pool.is_some() || rule.action.answer.is_some())
    }
}

#[cfg(test)]
mod tests;
