//! The description of what is probed of a member from here: a pool of one server that serves nothing.
//!
//! It is one server, so that a reload that changes one member leaves the probes of all others alone; and it is named
//! by what is probed, so that services with the same member and monitors share it.

use std::{net::SocketAddr, sync::Arc};

use crate::config::{GslbMember, GslbService, HmScope, MonitorType, Pool, Server};

/// The pool of a member; `None`: it is not probed. `min_up`: how many monitors have to pass; `None`: all.
pub fn probe_pool(service: &GslbService, member: &GslbMember, min_up: Option<u32>) -> Option<Pool> {
    let in_scope = service.monitor_scope == HmScope::AllMembers || member.is_third_party();
    if service.monitors.is_empty() || !in_scope {
        return None;
    }
    let secure = service.monitors.iter().any(|monitor| matches!(monitor.kind, MonitorType::Https { .. }));
    let port = member.services.iter().find(|port| port.enable_ssl == secure).or(member.services.first())?;
    let addr = SocketAddr::new(member.ip?, port.port);
    // The name matters to TLS alone.
    let plain = || service.domain_names.iter().find(|name| !name.starts_with('*')).cloned();
    let hostname = secure.then(|| member.fqdn.clone().or_else(plain)).flatten();
    let monitors: Vec<_> = service.monitors.iter().map(|monitor| monitor.name.as_str()).collect();
    let name = [
        addr.to_string(),
        monitors.join(","),
        min_up.map_or_else(String::new, |min| min.to_string()),
        hostname.clone().unwrap_or_default(),
    ];
    let server = Server { hostname, ..Server::at(addr) };
    Some(Pool {
        servers: vec![server],
        monitors: service.monitors.iter().map(Arc::clone).collect(),
        min_health_monitors_up: min_up,
        ..Pool::of(format!("gslb {}", name.join(" ").trim_end()).into(), [])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gslb::fixtures;

    #[test]
    fn members_in_the_scope_of_monitors_are_probed_and_share_by_name() {
        let gslb = fixtures::gslb();
        let service = &*gslb.services[0];
        let member = &service.groups[0].members[0];
        let pool = probe_pool(service, member, None).expect("it is in scope");
        assert_eq!(pool.name.as_str(), "gslb 127.0.0.11:18100 ghm-ping");
        assert_eq!(pool.monitors, service.monitors);
        let limited = probe_pool(service, member, Some(1)).expect("it is in scope");
        assert_eq!(limited.name.as_str(), "gslb 127.0.0.11:18100 ghm-ping 1");
        let others = GslbService { monitor_scope: HmScope::OnlyNonAviMembers, ..service.clone() };
        assert!(probe_pool(&others, member, None).is_none());
        let third = GslbMember { cluster_uuid: "".into(), ..member.clone() };
        assert!(probe_pool(&others, &third, None).is_some());
        assert!(
            probe_pool(service, &GslbMember { ip: None, ..third }, None).is_none(),
            "nothing to connect to"
        );
        assert!(probe_pool(&GslbService { monitors: vec![], ..service.clone() }, member, None).is_none());
    }
}
