//! Virtual services, as the admin API shows them.

use super::{
    pools::pool_status,
    view::{self, OperState, OperStatus},
};
use crate::{
    config,
    snapshot::{Live, Snapshot},
};

/// Every virtual service, also one that is switched off.
pub(super) fn virtual_services(live: &Live) -> Vec<view::VirtualService> {
    let snapshot = live.snapshot();
    snapshot.config.virtual_services.iter().map(|config| virtual_service(config, &snapshot)).collect()
}

fn virtual_service(config: &config::VirtualService, snapshot: &Snapshot) -> view::VirtualService {
    let live = snapshot.virtual_services.iter().find(|vs| vs.name() == &config.name);
    let oper_status = match live {
        None => OperStatus::new(OperState::OperDisabled),
        Some(vs) => vs.pool.as_ref().map_or_else(|| OperStatus::new(OperState::OperUp), pool_status),
    };
    view::VirtualService {
        uuid: config.uuid.as_ref().map(|uuid| uuid.to_string()),
        name: config.name.to_string(),
        enabled: config.enabled,
        domain_names: config.domain_names.clone(),
        services: config
            .services
            .iter()
            .map(|service| view::Service {
                address: Some(service.addr.ip()),
                port: service.addr.port(),
                enable_ssl: service.tls.is_some(),
            })
            .collect(),
        pool_ref: config.pool.as_ref().map(|pool| pool.to_string()),
        application_persistence_profile_ref: live
            .and_then(|vs| vs.pool.as_ref()?.config().persistence.as_ref())
            .map(|profile| profile.name.clone()),
        application_profile_ref: config.profile.name.clone(),
        http_rules: http_rules(config),
        clone: config
            .clones
            .iter()
            .map(|section| view::CloneSection {
                pool_ref: section.pool.to_string(),
                tokens: section.tokens.iter().map(|token| token.to_string()).collect(),
                timeout: section.timeout,
                clone_selection: section.selection.as_str().to_owned(),
            })
            .collect(),
        rule_refs: config.rules.iter().map(|rule| rule.name.to_string()).collect(),
        sp_pool_refs: live
            .and_then(|vs| vs.site.as_ref())
            .map(|site| site.sp_pool.name().to_string())
            .into_iter()
            .collect(),
        oper_status,
    }
}

/// Redirects between ports, which come first, and the rules that follow.
fn http_rules(config: &config::VirtualService) -> Vec<view::HttpRule> {
    let redirects = config.port_redirects.iter().map(|redirect| view::HttpRule {
        name: redirect.name.clone(),
        vs_port: redirect.ports.clone(),
        redirect_port: Some(redirect.https_port),
        actions: Vec::new(),
    });
    let rules = config.http_rules.iter().map(|rule| view::HttpRule {
        name: rule.name.clone(),
        vs_port: Vec::new(),
        redirect_port: None,
        actions: rule.action.words().map(str::to_owned).collect(),
    });
    redirects.chain(rules).collect()
}
