//! Checks of virtual services against each other: what shares a name, an address and port, or a host.
//!
//! Virtual services that are not enabled take no part, so that one can stand ready beside the one it replaces.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use super::{
    Admin, AdminListen, Dns,
    problem::{Place, Report, shown},
    virtual_service::{Placed, Service},
};

/// One virtual service's use of a listener.
struct Use<'a> {
    by: &'a Placed,
    service: &'a Service,
    place: &'a Place,
}

/// Who listens beside the virtual services, and shares a port with none.
pub(super) struct Alone<'a> {
    pub(super) admin: (&'a Admin, Option<Place>),
    pub(super) dns: Option<(&'a Dns, Place)>,
}

/// Reports every clash.
pub(super) fn check(services: &[Placed], alone: Alone<'_>, report: &Report) {
    check_uuids(services, report);
    let mut listeners: BTreeMap<SocketAddr, Vec<Use<'_>>> = BTreeMap::new();
    for by in services.iter().filter(|placed| placed.vs.enabled) {
        for (service, place) in by.vs.services.iter().zip(&by.services) {
            listeners.entry(service.addr).or_default().push(Use { by, service, place });
        }
    }
    check_overlaps(&listeners, report);
    check_alone(&listeners, alone, report);
    for (addr, uses) in &listeners {
        check_agreement(*addr, uses, report);
        check_hosts(*addr, uses, report);
    }
}

fn check_alone(listeners: &BTreeMap<SocketAddr, Vec<Use<'_>>>, alone: Alone<'_>, report: &Report) {
    let taken = |addr: &SocketAddr| listeners.get(addr).and_then(|uses| uses.first());
    let help = "choose another port for one of them";
    let admin = match &alone.admin.0.listen {
        AdminListen::Tcp(addr) => Some(*addr),
        AdminListen::Unix(_) | AdminListen::None => None,
    };
    if let Some((addr, Use { by, place, .. })) = admin.and_then(|addr| Some((addr, taken(&addr)?))) {
        let what = format!("the admin API and virtual service {} both listen on {addr}", named(by));
        report.problem(alone.admin.1.unwrap_or((*place).clone()), what, help);
    }
    for (addr, place) in
        alone.dns.iter().flat_map(|(dns, place)| dns.listen.iter().map(move |addr| (addr, place)))
    {
        let other = match taken(addr) {
            Some(Use { by, .. }) => format!("virtual service {}", named(by)),
            None if admin == Some(*addr) => "the admin API".into(),
            None => continue,
        };
        report.problem(place.clone(), format!("the DNS responder and {other} both listen on {addr}"), help);
    }
}

fn named(placed: &Placed) -> String {
    shown(placed.vs.name.as_str())
}

fn check_uuids(services: &[Placed], report: &Report) {
    let mut seen = HashMap::new();
    for placed in services {
        let Some(uuid) = &placed.vs.uuid else { continue };
        if let Some(first) = seen.insert(uuid, placed) {
            let what = format!("virtual service {} has the uuid of {}", named(placed), named(first));
            report.problem(placed.place.clone(), what, "give each virtual service a uuid of its own");
        }
    }
}

/// The kernel refuses a listener on an address where another listens on all addresses of the same port.
fn check_overlaps(listeners: &BTreeMap<SocketAddr, Vec<Use<'_>>>, report: &Report) {
    for (addr, uses) in listeners.iter().filter(|(addr, _)| !addr.ip().is_unspecified()) {
        let everywhere = match addr {
            SocketAddr::V4(_) => "0.0.0.0",
            SocketAddr::V6(_) => "::",
        };
        let everywhere = SocketAddr::new(everywhere.parse().expect("both are addresses"), addr.port());
        let (Some(wide), Some(narrow)) =
            (listeners.get(&everywhere).and_then(|uses| uses.first()), uses.first())
        else {
            continue;
        };
        let what = format!("{addr} is also covered by {everywhere} of virtual service {}", named(wide.by));
        report.problem(narrow.place.clone(), what, "use the same address for both, or different ports");
    }
}

/// What belongs to the listener and not to one virtual service has to be the same for all that share it.
fn check_agreement(addr: SocketAddr, uses: &[Use<'_>], report: &Report) {
    let Some((first, others)) = uses.split_first() else { return };
    for other in others {
        if std::ptr::eq(first.by, other.by) {
            let what = format!("this virtual service already listens on {addr}");
            report.problem(other.place.clone(), what, "leave one of the two out");
            continue;
        }
        let (a, b) = (&first.by.vs, &other.by.vs);
        let disagree = |what: &str, help: &str| {
            let what = format!(
                "virtual services {} and {} share {addr} but {what}",
                shown(a.name.as_str()),
                named(other.by)
            );
            report.problem(other.place.clone(), what, help);
        };
        match (&first.service.tls, &other.service.tls) {
            (Some(one), Some(two)) if one.profile != two.profile => {
                disagree(
                    "have different TLS profiles",
                    "name the same `ssl_profile_ref`, or use another port",
                );
            }
            (Some(_), None) | (None, Some(_)) => {
                disagree("only one has TLS there", "give both `enable_ssl: true`, or use another port");
            }
            _ => {}
        }
        if first.service.proxy_peers != other.service.proxy_peers {
            let help =
                "give both the same `enable_proxy_protocol` and `proxy_protocol_peers`, or use another port";
            disagree("take different PROXY headers", help);
        }
        if a.profile.client_header_timeout != b.profile.client_header_timeout {
            disagree("have different client_header_timeout", "give their application profiles the same one");
        }
        if a.profile.keepalive_timeout != b.profile.keepalive_timeout {
            disagree("have different keepalive_timeout", "give their application profiles the same one");
        }
        if a.profile.limits.head != b.profile.limits.head {
            let help = "give their application profiles the same `client_max_uri_size`, `client_max_header_size`, `max_header_count` and `client_max_request_size`";
            disagree("have different limits of request heads", help);
        }
        if a.client_limits != b.client_limits {
            let help = "clients are counted before it is known which one they want: write the same `max_cps_per_client` and `max_concurrent_connections_per_client`";
            disagree("have different limits of clients", help);
        }
        if a.profile.http2 != b.profile.http2 {
            disagree("have different `http2`", "give their application profiles the same one");
        }
        if a.address_lists != b.address_lists {
            let help = "clients are refused before it is known which one they want: write the same `allow` and `deny`";
            disagree("have different address lists", help);
        }
    }
}

fn check_hosts(addr: SocketAddr, uses: &[Use<'_>], report: &Report) {
    let mut hosts: HashMap<&str, &Placed> = HashMap::new();
    for same in uses.chunk_by(|a, b| std::ptr::eq(a.by, b.by)) {
        let Use { by, place, .. } = &same[0];
        let names = by.vs.domain_names.iter().map(String::as_str).zip(&by.domain_names);
        let any = by.vs.domain_names.is_empty().then_some(("", *place));
        for (host, place) in names.chain(any) {
            let Some(first) = hosts.insert(host, by) else { continue };
            if std::ptr::eq(first, *by) {
                report.problem(
                    place.clone(),
                    format!("the name {} is written twice", shown(host)),
                    "leave one out",
                );
                continue;
            }
            let host =
                if host.is_empty() { "any Host".to_string() } else { format!("the Host {}", shown(host)) };
            let what =
                format!("virtual services {} and {} both claim {host} on {addr}", named(first), named(by));
            report.problem(place.clone(), what, "give each its own `domain_names`, or another port");
        }
    }
}
