//! GSLB services, as this site sees them: their members everywhere, and its own part of their requests.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    pools::{monitor_names, pool_status, server_status},
    sites,
    view::{self, OperState, OperStatus},
};
use crate::{
    config,
    gslb::{MemberId, Outcome},
    names::ClusterUuid,
    rule::SiteSetup,
    snapshot::{Live, Snapshot, VirtualService},
};

/// Every GSLB service, in the order of the federation's file.
pub(super) fn gslb_services(live: &Live) -> Vec<view::GslbRuntime> {
    let snapshot = live.snapshot();
    let Some(gslb) = &snapshot.config.gslb else { return Vec::new() };
    gslb.services.iter().map(|service| gslb_service(service, gslb, &snapshot, live)).collect()
}

fn gslb_service(
    service: &config::GslbService,
    gslb: &config::Gslb,
    snapshot: &Snapshot,
    live: &Live,
) -> view::GslbRuntime {
    let own: Vec<&Arc<VirtualService>> = snapshot
        .virtual_services
        .iter()
        .filter(|vs| vs.site.as_ref().is_some_and(|site| site.membership.service.uuid == service.uuid))
        .collect();
    let mut requests = BTreeMap::new();
    for vs in &own {
        for outcome in Outcome::ALL {
            let labels = [service.name.as_str(), vs.name().as_str(), outcome.as_str()];
            let count = live.metrics.sp_requests.with_label_values(&labels).get();
            *requests.entry(outcome.as_str().to_owned()).or_default() += count;
        }
    }
    view::GslbRuntime {
        uuid: service.uuid.to_string(),
        name: service.name.to_string(),
        configured: Some(view::GslbConfigured {
            domain_names: service.domain_names.clone(),
            enabled: service.enabled,
            site_persistence_enabled: service.site_persistence.is_some(),
            application_persistence_profile_ref: service.site_persistence.as_ref().map(|p| p.name.clone()),
            health_monitor_refs: monitor_names(&service.monitors),
            ttl: service.ttl,
        }),
        groups: service
            .groups
            .iter()
            .map(|group| gslb_group(group, gslb, snapshot, &own, live.clock.unix_seconds()))
            .collect(),
        checksum: Some(gslb.checksum.clone()),
        services_state: None,
        sp_oper_status: sp_oper_status(&own),
        fraction_proxied: view::GslbRuntime::fraction_proxied(&requests),
        requests,
        advice: None,
        sites: Vec::new(),
    }
}

fn gslb_group(
    group: &config::GslbGroup,
    gslb: &config::Gslb,
    snapshot: &Snapshot,
    own: &[&Arc<VirtualService>],
    now: u64,
) -> view::GslbGroup {
    view::GslbGroup {
        name: group.name.clone(),
        priority: Some(group.priority),
        algorithm: Some(group.algorithm.as_str().to_owned()),
        members: group.members.iter().map(|member| gslb_member(member, gslb, snapshot, own, now)).collect(),
    }
}

fn gslb_member(
    member: &config::GslbMember,
    gslb: &config::Gslb,
    snapshot: &Snapshot,
    own: &[&Arc<VirtualService>],
    now: u64,
) -> view::GslbMember {
    let site_name = |uuid: &ClusterUuid| gslb.sites.iter().find(|site| &site.cluster_uuid == uuid);
    let is_own = snapshot.config.site.cluster_uuid.as_ref() == Some(&member.cluster_uuid);
    let vs = own.iter().find(|vs| is_own && vs.config.uuid.as_ref() == Some(&member.vs_uuid));
    let id = MemberId::of(&member.cluster_uuid, &member.vs_uuid);
    // A peer is as up as the SP pool that leads there has found it.
    let peer = own.iter().find_map(|vs| {
        let site = vs.site.as_ref()?;
        site.sp_pool.server(site.membership.peer(&id)?.addr)
    });
    let site = vs.and_then(|vs| vs.site.as_ref());
    let until = site.map(|site| site.membership.own_until(&site.drains)).or_else(|| {
        let site = own.iter().find_map(|vs| vs.site.as_ref())?;
        Some(site.membership.peer_until(site.membership.peer(&id)?, &site.drains))
    });
    let progress = sites::progress(until.flatten(), now);
    view::GslbMember {
        cluster_uuid: member.cluster_uuid.to_string(),
        site_name: site_name(&member.cluster_uuid).map(|site| site.name.to_string()).unwrap_or_default(),
        vs_uuid: member.vs_uuid.to_string(),
        vs_name: vs.map(|vs| vs.name().to_string()),
        ip: member.ip,
        oper_ips: member.ip.into_iter().collect(),
        vip_type: if member.is_third_party() { "NON_AVI_VIP" } else { "AVI_VIP" }.to_owned(),
        services: member
            .services
            .iter()
            .map(|port| view::Service {
                address: None,
                port: port.port,
                enable_ssl: port.enable_ssl,
                security: None,
            })
            .collect(),
        ratio: Some(member.ratio),
        enabled: Some(member.enabled),
        drain_state: progress.map(|(state, _)| state),
        drain_until: progress.map(|(_, until)| until),
        pinned_sessions: site.map(|site| site.census.sessions(now)),
        sp_pools: vs.and_then(|vs| vs.site.as_ref()).map(sp_pool_status).into_iter().collect(),
        controller_status: match (vs, peer) {
            (Some(vs), _) => vs.pool.as_ref().map_or_else(|| OperStatus::new(OperState::OperUp), pool_status),
            (None, Some(peer)) => server_status(peer),
            (None, None) => OperStatus::new(OperState::OperUnknown),
        },
    }
}

fn sp_pool_status(site: &SiteSetup) -> view::SpPoolStatus {
    view::SpPoolStatus {
        uuid: site.sp_pool_uuid.to_string(),
        name: site.sp_pool.name().to_string(),
        num_servers: site.sp_pool.servers().len() as u32,
        num_servers_up: site.sp_pool.up_count() as u32,
    }
}

/// Up while every SP pool of this site has a server up.
fn sp_oper_status(own: &[&Arc<VirtualService>]) -> OperStatus {
    let statuses: Vec<OperStatus> =
        own.iter().filter_map(|vs| vs.site.as_ref()).map(|site| pool_status(&site.sp_pool)).collect();
    let last_changed_time = statuses.iter().filter_map(|status| status.last_changed_time).max();
    let (state, reason) = match statuses.iter().all(|status| status.state == OperState::OperUp) {
        _ if statuses.is_empty() => (OperState::OperUnknown, Some("NO_MEMBER_ON_THIS_SITE")),
        true => (OperState::OperUp, None),
        false => (OperState::OperDown, Some("SP_ALL_SERVERS_DOWN")),
    };
    OperStatus { state, reason: reason.map(str::to_owned), last_changed_time }
}
