//! How a client gets home, and what redirecting it there asks of a service's members and of its cookie.
//!
//! A redirect leads to the member's own name. So that this is the end of it, one cookie must be seen under every
//! name: the site that has the name finds itself in the cookie, and serves.

use std::collections::HashSet;

use super::{GslbGroup, GslbSitePersistence, problem::shown, read::Object, words};

/// What is done with a client whose home is another site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SitePersistenceMode {
    /// Its requests are sent home.
    #[default]
    Proxy,
    /// It is: 307 to the member's own name.
    Redirect,
}

/// The site persistence of a service, as its members are read.
#[derive(Clone, Copy)]
pub(super) struct Persistent<'a> {
    pub(super) service: &'a str,
    pub(super) mode: SitePersistenceMode,
    pub(super) profile: Option<&'a GslbSitePersistence>,
    /// The names of the service.
    pub(super) domain_names: &'a [String],
}

impl SitePersistenceMode {
    pub(super) fn read(
        o: &mut Object<'_>,
        is_persistent: bool,
        profile: Option<&GslbSitePersistence>,
    ) -> Self {
        let mode = o.field("site_persistence_mode", words::choice(&MODES));
        if mode.is_some() && !is_persistent {
            let help = "add `site_persistence_enabled: true`, or leave it out";
            o.wrong("site_persistence_mode", "no effect without site persistence", help);
        }
        let mode = mode.unwrap_or_default();
        let without_domain = profile.filter(|profile| profile.cookie.domain.is_none());
        if let (Self::Redirect, Some(profile)) = (mode, without_domain) {
            let what = format!(
                "clients are redirected, and the cookie of profile {} has no domain: they would not bring it to \
                 the members' names",
                shown(&profile.name)
            );
            let help =
                "write `domain: …` in its http_cookie_persistence_profile, one that every `fqdn` is below";
            o.wrong("site_persistence_mode", what, help);
        }
        mode
    }
}

/// Reads a member's own name, which a redirect cannot do without.
pub(super) fn read_fqdn(o: &mut Object<'_>, persistent: Option<Persistent<'_>>) -> Option<String> {
    let fqdn = o.field("fqdn", words::host);
    let Some(persistent) = persistent.filter(|it| it.mode == SitePersistenceMode::Redirect) else {
        return fqdn;
    };
    let service = shown(persistent.service);
    let Some(fqdn) = fqdn else {
        if !o.has("fqdn") {
            let what = format!(
                "GSLB service {service} redirects clients, and this member has no name to send them to"
            );
            let help = "write `fqdn: …`, a name that leads to this site alone";
            o.source.report.problem(o.place.clone(), what, help);
        }
        return None;
    };
    if persistent.domain_names.contains(&fqdn) {
        let what =
            format!("{} is a name of GSLB service {service} itself, which leads to any site", shown(&fqdn));
        o.wrong("fqdn", what, "write a name that leads to this site alone");
    }
    let domain = persistent.profile.and_then(|profile| profile.cookie.domain.as_deref());
    if let Some(domain) = domain.filter(|domain| !covers(domain, &fqdn)) {
        let what = format!("the site cookie is for {}, and {} is not below it", shown(domain), shown(&fqdn));
        o.wrong("fqdn", what, "write a name below it, or a shorter `domain` of the cookie");
    }
    Some(fqdn)
}

/// A redirect to a name of two members may lead to the other one.
pub(super) fn check_names(o: &Object<'_>, mode: SitePersistenceMode, groups: &[GslbGroup]) {
    let members =
        groups.iter().flat_map(|group| &group.members).filter(|_| mode == SitePersistenceMode::Redirect);
    let mut seen = HashSet::new();
    for fqdn in members.filter_map(|member| member.fqdn.as_deref()) {
        if !seen.insert(fqdn) {
            let what = format!("two members have the fqdn {}", shown(fqdn));
            o.wrong("groups", what, "give each a name that leads to its site alone");
        }
    }
}

/// Whether browsers bring a cookie of this `Domain` to a host (RFC 6265, 5.1.3).
fn covers(domain: &str, host: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a virtual service with these names serves a host.
pub(super) fn serves(domain_names: &[String], host: &str) -> bool {
    let is_it = |name: &String| match name.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => name == host,
    };
    domain_names.is_empty() || domain_names.iter().any(is_it)
}

const MODES: [(&str, &str, SitePersistenceMode); 2] =
    [("proxy", "", SitePersistenceMode::Proxy), ("redirect", "", SitePersistenceMode::Redirect)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookies_domain_covers_itself_and_what_is_below_it() {
        for (domain, host, covered) in [
            ("a.com", "a.com", true),
            ("a.com", "b.a.com", true),
            ("a.com", "ba.com", false),
            ("b.a.com", "a.com", false),
        ] {
            assert_eq!(covers(domain, host), covered, "{domain} {host}");
        }
    }

    #[test]
    fn a_virtual_service_serves_its_names_or_all() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (domain_names, served) in [
            (&[][..], true),
            (&["b.a.com"], true),
            (&["x.com", "*.a.com"], true),
            (&["a.com"], false),
            (&["*.b.a.com"], false),
        ] {
            assert_eq!(serves(&names(domain_names), "b.a.com"), served, "{domain_names:?}");
        }
    }
}
