//! How DNS chooses among the members of GSLB services: their configuration, accounts of single choices, and what this
//! site tells the others of its health.

use std::net::IpAddr;

use super::{
    pools::{monitor_names, pool_status},
    view::{self, DrainState, OperState, OperStatus},
};
use crate::{
    config::{self, DownResponse, GslbAlgorithm},
    gslb::choice::{
        Account, Availability, ChoiceAnswer, Client, Family, GroupAccount, MemberAccount, Verdict,
    },
    names::same_name,
    snapshot::{GslbChoice, Live, Source},
};

/// A question to DNS that is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceQuestion {
    pub client: Client,
    /// In lower case, without the dot at the end.
    pub name: String,
    pub family: Family,
}

/// Every GSLB service as it is configured.
pub(super) fn configured(live: &Live) -> Vec<view::GslbServiceConfig> {
    let snapshot = live.snapshot();
    let services = snapshot.config.gslb.iter().flat_map(|gslb| &gslb.services);
    services.map(|service| service_config(service)).collect()
}

fn service_config(service: &config::GslbService) -> view::GslbServiceConfig {
    view::GslbServiceConfig {
        uuid: service.uuid.to_string(),
        name: service.name.to_string(),
        domain_names: service.domain_names.clone(),
        groups: service.groups.iter().map(group_config).collect(),
        health_monitor_refs: monitor_names(&service.monitors),
        controller_health_status_enabled: service.controller_health_status_enabled,
        health_monitor_scope: service.monitor_scope.as_str().into(),
        enabled: service.enabled,
        use_edns_client_subnet: service.use_edns_client_subnet,
        wildcard_match: service.wildcard_match,
        site_persistence_enabled: service.site_persistence.is_some(),
        application_persistence_profile_ref: service.site_persistence.as_ref().map(|it| it.name.clone()),
        pool_algorithm: service.pool_algorithm.as_str().into(),
        min_members: service.min_members,
        num_dns_ip: service.num_dns_ip,
        ttl: service.ttl,
        down_response: down_response(&service.down_response),
        is_federated: true,
        tenant_ref: "admin".into(),
    }
}

fn group_config(group: &config::GslbGroup) -> view::GslbGroupConfig {
    let falls_back = matches!(group.algorithm, GslbAlgorithm::Geo | GslbAlgorithm::Topology);
    let fallback = group.choosing.fallback_algorithm.as_str();
    view::GslbGroupConfig {
        name: group.name.clone(),
        priority: group.priority,
        enabled: group.enabled,
        algorithm: group.algorithm.as_str().into(),
        fallback_algorithm: falls_back.then(|| fallback.into()),
        manual_resume: group.choosing.manual_resume,
        min_health_monitors_up: group.choosing.min_health_monitors_up,
        members: group.members.iter().map(member_config).collect(),
    }
}

fn member_config(member: &config::GslbMember) -> view::GslbMemberConfig {
    let of_a_site = !member.is_third_party();
    view::GslbMemberConfig {
        cluster_uuid: of_a_site.then(|| member.cluster_uuid.to_string()),
        vs_uuid: of_a_site.then(|| member.vs_uuid.to_string()),
        ip: member.ip,
        public_ip: member.public_ip,
        fqdn: member.fqdn.clone(),
        ratio: member.ratio,
        enabled: member.enabled,
    }
}

fn down_response(response: &DownResponse) -> view::DownResponse {
    let mut shown = view::DownResponse {
        kind: response.as_str().into(),
        fallback_ip: None,
        fallback_ip6: None,
        fallback_cname: None,
    };
    match response {
        DownResponse::FallbackIp { v4, v6 } => {
            shown.fallback_ip = v4.map(IpAddr::from);
            shown.fallback_ip6 = v6.map(IpAddr::from);
        }
        DownResponse::Cname(name) => shown.fallback_cname = Some(name.clone()),
        DownResponse::None | DownResponse::AllRecords | DownResponse::Empty => {}
    }
    shown
}

/// How a question is answered right now; `None`: no enabled service has the name. Chance is another one every time.
pub(super) fn explain(live: &Live, question: &ChoiceQuestion) -> Option<view::ChoiceExplanation> {
    let snapshot = live.snapshot();
    let gslb = snapshot.gslb.as_deref()?;
    let service = gslb.directory().find(&question.name)?;
    let ChoiceQuestion { client, name, family } = question;
    let account = service.explain(client, *family, gslb, live.clock.now(), rand::random());
    let location = account.location.map(|at| format!("{:.2}, {:.2}", at.latitude, at.longitude));
    Some(view::ChoiceExplanation {
        gslb_service: service.config().name.to_string(),
        name: name.clone(),
        record_type: if *family == Family::V4 { "A" } else { "AAAA" }.into(),
        client: format!("{}/{}", client.address, client.prefix),
        is_outside: account.is_outside,
        location,
        answer: answer(&account),
        reason: account.choice.reason.as_str().into(),
        member: account.choice.member.map(|member| member.name.to_string()),
        ttl: account.choice.ttl,
        scope: account.choice.scope,
        groups: account.groups.iter().map(|group| explained_group(group, gslb)).collect(),
    })
}

fn answer(account: &Account<'_>) -> String {
    match &account.choice.answer {
        ChoiceAnswer::Addresses(addresses) => {
            addresses.iter().map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
        }
        ChoiceAnswer::Cname(name) => format!("CNAME {name}"),
        ChoiceAnswer::Empty => "no address (NODATA)".into(),
        ChoiceAnswer::Silent => "no answer".into(),
    }
}

fn explained_group(group: &GroupAccount<'_>, gslb: &GslbChoice) -> view::ExplainedGroup {
    let role = match (group.was_needed, group.chose) {
        (_, true) => "its algorithm chose",
        (true, false) => "looked at",
        (false, false) => "not needed",
    };
    view::ExplainedGroup {
        name: group.name.into(),
        priority: group.priority,
        algorithm: group.algorithm.into(),
        role: role.into(),
        members: group.members.iter().map(|told| explained_member(told, gslb)).collect(),
    }
}

fn explained_member(told: &MemberAccount<'_>, gslb: &GslbChoice) -> view::ExplainedMember {
    let known = gslb.member(told.member);
    let says =
        |source| known.opinion(source, told.member).map(|opinion| in_words(opinion.is_up, &opinion.reason));
    let address = told.address.map(|ip| ip.to_string());
    view::ExplainedMember {
        name: told.member.name.to_string(),
        address: address.or_else(|| told.member.fqdn.as_deref().map(|name| format!("CNAME {name}"))),
        verdict: verdict(told.verdict),
        monitors: says(Source::Monitors),
        site: says(Source::Site),
        kilometres: told.kilometres.map(|distance| distance.round() as u32),
    }
}

fn in_words(is_up: bool, reason: &str) -> String {
    format!("{}: {reason}", if is_up { "up" } else { "down" })
}

fn verdict(verdict: Verdict) -> String {
    let excluded = match verdict {
        Verdict::Chosen | Verdict::Eligible => return verdict.reason().into(),
        Verdict::Unavailable(Availability::Down) => "down",
        _ => verdict.reason(),
    };
    format!("excluded: {excluded}")
}

/// Lets members that wait for an operator have clients again; `None`: there is no such service.
pub(super) fn resume(live: &Live, service: &str, member: Option<&str>, by: &str) -> Option<view::Resumed> {
    let snapshot = live.snapshot();
    let gslb = snapshot.gslb.as_deref()?;
    let services = gslb.directory().services();
    let service = services.iter().find(|known| same_name(known.config().name.as_str(), service))?;
    let resumed = gslb.resume(service, member);
    let name = service.config().name.to_string();
    if !resumed.is_empty() {
        tracing::info!(service = name, members = resumed.join(" "), by, "GSLB members get clients again");
    }
    Some(view::Resumed { gslb_service: name, resumed })
}

/// What this site tells the others: whether its virtual services can take new clients.
pub(super) fn site_health(live: &Live) -> view::SiteHealth {
    let snapshot = live.snapshot();
    let site = &snapshot.config.site;
    let is_drained = site.cluster_uuid.as_ref().and_then(|own| live.drains.until(own));
    let drain_state = match is_drained {
        None => DrainState::InService,
        Some(until) if live.clock.unix_seconds() < until => DrainState::Draining,
        Some(_) => DrainState::Drained,
    };
    let services = snapshot.config.gslb.iter().flat_map(|gslb| &gslb.services);
    let members = services.flat_map(|service| &service.groups).flat_map(|group| &group.members);
    let own: std::collections::HashSet<_> = members
        .filter(|member| site.cluster_uuid.as_ref() == Some(&member.cluster_uuid))
        .map(|member| &member.vs_uuid)
        .collect();
    let here = snapshot.virtual_services.iter();
    let virtual_services = here.filter_map(|vs| {
        let uuid = vs.config.uuid.as_ref().filter(|uuid| own.contains(uuid))?;
        Some(view::VsHealth {
            vs_uuid: uuid.to_string(),
            vs_name: vs.name().to_string(),
            oper_status: vs.pool.as_ref().map_or_else(|| OperStatus::new(OperState::OperUp), pool_status),
            sp_pool_status: vs.site.as_ref().map(|site| pool_status(&site.sp_pool)),
        })
    });
    view::SiteHealth {
        site_name: site.name.to_string(),
        cluster_uuid: site.cluster_uuid.as_ref().map(ToString::to_string).unwrap_or_default(),
        drain_state,
        virtual_services: virtual_services.collect(),
    }
}

/// Sets the gauges of the members; called when the page is made.
pub(super) fn set_gauges(live: &Live) {
    let snapshot = live.snapshot();
    let Some(gslb) = &snapshot.gslb else { return };
    for (service, member) in gslb.directory().members() {
        for source in Source::ALL {
            if let Some(opinion) = gslb.member(member).opinion(source, member) {
                let labels = [service.config().name.as_str(), &member.name, source.as_str()];
                live.metrics.gslb_member_up.with_label_values(&labels).set(opinion.is_up.into());
            }
        }
    }
}
