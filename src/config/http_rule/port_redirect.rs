//! The way from plain ports to HTTPS: which of a virtual service's plain ports is redirected to which HTTPS port.
//!
//! `http_to_https` alone needs no such rule where there is one HTTPS port.

use crate::config::{Service, problem::shown, read::Object, units, words};

/// Redirects plain requests by the port at which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRedirect {
    pub name: String,
    /// Ports of the virtual service, all of them plain.
    pub ports: Vec<u16>,
    pub https_port: u16,
}

/// Avi's `match_criteria`.
#[derive(Clone, Copy, PartialEq)]
enum Criteria {
    IsIn,
    IsNotIn,
}

impl PortRedirect {
    /// Whether a rule is one: it matches ports alone, and says no more of its redirect than protocol and port.
    pub(super) fn is_meant(o: &Object<'_>) -> bool {
        let only = |keys: Option<Vec<&str>>, known: &[&str]| {
            keys.is_some_and(|keys| keys.iter().all(|key| known.contains(key)))
        };
        only(Some(o.keys()), &["name", "match", "redirect_action"])
            && only(o.keys_of("match"), &["vs_port"])
            && only(o.keys_of("redirect_action"), &["protocol", "port"])
            && o.has("match")
            && o.keys_of("match").is_some_and(|keys| !keys.is_empty())
    }

    pub(super) fn read(
        o: &mut Object<'_>,
        name: Option<String>,
        vs: &str,
        services: &[Service],
    ) -> Option<Self> {
        let criteria = [("is_in", "IS_IN", Criteria::IsIn), ("is_not_in", "IS_NOT_IN", Criteria::IsNotIn)];
        let protocols = [("https", "HTTPS", ())];
        let matched = o.required_object("match", |o| {
            o.required_object("vs_port", |o| {
                let criteria = o.field("match_criteria", words::choice(&criteria)).unwrap_or(Criteria::IsIn);
                let ports = o.required_list("ports", units::port);
                matching(o, vs, services, criteria, ports)
            })
        });
        let https_port = o.required_object("redirect_action", |o| {
            o.required("protocol", words::choice(&protocols));
            let port = o.field("port", units::port).unwrap_or(443);
            check_target(o, vs, services, port);
            port
        });
        Some(Self { name: name?, ports: matched??, https_port: https_port? })
    }

    /// A port has one redirect.
    pub(super) fn check_beside(&self, others: &[Self], o: &Object<'_>) {
        for (other, port) in others.iter().flat_map(|other| other.ports.iter().map(move |port| (other, port)))
        {
            if self.ports.contains(port) {
                let (one, two) = (shown(&other.name), shown(&self.name));
                let what = format!("http rules {one} and {two} both redirect port {port}");
                o.wrong("match", what, "leave it out of one");
            }
        }
    }
}

/// The plain ports that are meant.
fn matching(o: &Object<'_>, vs: &str, services: &[Service], criteria: Criteria, ports: Vec<u16>) -> Vec<u16> {
    for port in &ports {
        let wrong = match (has(services, *port, false), has(services, *port, true)) {
            (false, false) => Some("has no service on"),
            (false, true) if criteria == Criteria::IsIn => Some("has TLS already on"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let what = format!("virtual service {} {wrong} port {port}", shown(vs));
            o.wrong("ports", what, "name ports of its services without `enable_ssl`");
        }
    }
    let plain = services.iter().filter(|service| service.tls.is_none()).map(|service| service.addr.port());
    plain.filter(|port| ports.contains(port) == (criteria == Criteria::IsIn)).collect()
}

/// A redirect to a port that this virtual service does not have may be meant: something in front may map ports.
pub(super) fn check_target(o: &Object<'_>, vs: &str, services: &[Service], port: u16) {
    let help = "name the port of a service with `enable_ssl: true`";
    match (has(services, port, false), has(services, port, true)) {
        (_, true) => {}
        (true, false) => {
            o.wrong("port", format!("virtual service {} has no TLS on port {port}", shown(vs)), help);
        }
        (false, false) => {
            o.dubious("port", format!("virtual service {} has no service on port {port}", shown(vs)), help);
        }
    }
}

pub(super) fn has(services: &[Service], port: u16, tls: bool) -> bool {
    services.iter().any(|service| service.addr.port() == port && service.tls.is_some() == tls)
}
