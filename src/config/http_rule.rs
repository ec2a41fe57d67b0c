//! HTTP rules of a virtual service: which of its plain ports is redirected to which HTTPS port.
//!
//! The shape is that of a rule of Avi's HTTP policy sets, of which it has the match on the port and the redirect.
//! `http_to_https` alone needs no such rule where there is one HTTPS port.

use super::{Service, problem::shown, read::Object, units, words};

/// Redirects plain requests by the port at which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
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

impl HttpRule {
    /// Reads the rules of the virtual service `vs`, which has these services.
    pub(super) fn read_all(o: &mut Object<'_>, vs: &str, services: &[Service]) -> Vec<Self> {
        let mut rules: Vec<Self> = Vec::new();
        o.objects("http_rules", |o| {
            let rule = Self::read(o, vs, services)?;
            for (other, port) in
                rules.iter().flat_map(|other| other.ports.iter().map(move |port| (other, port)))
            {
                if rule.ports.contains(port) {
                    let (one, two) = (shown(&other.name), shown(&rule.name));
                    let what = format!("http rules {one} and {two} both redirect port {port}");
                    o.wrong("match", what, "leave it out of one");
                }
            }
            rules.push(rule);
            Some(())
        });
        rules
    }

    fn read(o: &mut Object<'_>, vs: &str, services: &[Service]) -> Option<Self> {
        let criteria = [("is_in", "IS_IN", Criteria::IsIn), ("is_not_in", "IS_NOT_IN", Criteria::IsNotIn)];
        let protocols = [("https", "HTTPS", ())];
        let name = o.name();
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
fn check_target(o: &Object<'_>, vs: &str, services: &[Service], port: u16) {
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

fn has(services: &[Service], port: u16, tls: bool) -> bool {
    services.iter().any(|service| service.addr.port() == port && service.tls.is_some() == tls)
}
