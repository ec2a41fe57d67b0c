//! Virtual services, as the admin API shows them.

use std::collections::HashMap;

use super::{
    pools::pool_status,
    profiles::{self, networks},
    view::{self, OperState, OperStatus, Span},
};
use crate::{
    config::{self, RateAction, written_share},
    snapshot::{Live, Snapshot},
};

/// Every virtual service, also one that is switched off.
pub(super) fn virtual_services(live: &Live) -> Vec<view::VirtualService> {
    let snapshot = live.snapshot();
    let sessions = live.sessions.tables().into_iter().collect();
    let shown = |config| virtual_service(config, &snapshot, &sessions);
    snapshot.config.virtual_services.iter().map(|config| shown(config)).collect()
}

fn virtual_service(
    config: &config::VirtualService,
    snapshot: &Snapshot,
    sessions: &HashMap<String, u64>,
) -> view::VirtualService {
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
        services: config.services.iter().map(service).collect(),
        pool_ref: config.pool.as_ref().map(|pool| pool.to_string()),
        application_persistence_profile_ref: live
            .and_then(|vs| vs.pool.as_ref()?.config().persistence.as_ref())
            .map(|profile| profile.name.clone()),
        application_profile_ref: config.profile.name.clone(),
        http_rules: http_rules(config),
        clone: config
            .clones
            .iter()
            .map(|section| clone_section(section, sessions.get(&section.table(&config.name)).copied()))
            .collect(),
        rule_refs: config.rules.iter().map(|rule| rule.name.to_string()).collect(),
        sp_pool_refs: live
            .and_then(|vs| vs.site.as_ref())
            .map(|site| site.sp_pool.name().to_string())
            .into_iter()
            .collect(),
        oper_status,
        runtime: live.map(|vs| view::VsRuntime {
            connections_open: vs.connections_open.get().try_into().unwrap_or_default(),
        }),
        error_page_profile_ref: config.error_pages.as_ref().map(|pages| pages.name.clone()),
        allow: networks(&config.address_lists.allow),
        deny: networks(&config.address_lists.deny),
        remove_listening_port_on_vs_down: config.remove_listening_port_on_vs_down,
        close_client_conn_on_config_update: config.close_client_conn_on_config_update,
        max_concurrent_connections_per_client: config.client_limits.max_concurrent_connections_per_client,
        max_cps_per_client: config.client_limits.max_cps_per_client,
        performance_limits: config
            .max_concurrent_connections
            .map(|most| view::PerformanceLimits { max_concurrent_connections: most }),
        requests_rate_limit: config.request_rates.iter().map(request_rate).collect(),
        analytics_policy: analytics_policy(&config.analytics),
        application_profile: profiles::application(&config.profile, snapshot.config.access_log.is_some()),
    }
}

fn service(service: &config::Service) -> view::Service {
    let tls = service.tls.as_ref();
    view::Service {
        address: Some(service.addr.ip()),
        port: service.addr.port(),
        enable_ssl: tls.is_some(),
        security: Some(view::ServiceSecurity {
            ssl_key_and_certificate_ref: tls.map(|tls| tls.certificate.name.clone()),
            ssl_profile: tls.map(|tls| profiles::ssl(&tls.profile)),
            enable_proxy_protocol: service.proxy_peers.is_some(),
            proxy_protocol_peers: service.proxy_peers.as_deref().map(networks).unwrap_or_default(),
        }),
    }
}

fn request_rate(limit: &config::RequestRate) -> view::RequestRate {
    view::RequestRate {
        per: limit.per.to_string(),
        rate_limiter: view::RateLimiter {
            count: limit.rate.count,
            period: limit.rate.period.into(),
            burst_sz: limit.rate.burst,
        },
        action: limit.action.as_str().to_owned(),
        status_code: match limit.action {
            RateAction::Respond(status) => Some(status),
            RateAction::Close => None,
        },
    }
}

fn analytics_policy(policy: &config::AnalyticsPolicy) -> view::AnalyticsPolicy {
    let full = &policy.full_client_logs;
    view::AnalyticsPolicy {
        sample: written_share(policy.sample_permille),
        throttle: policy.throttle,
        slow_request: policy.slow_request.into(),
        full_client_logs: view::FullClientLogs {
            enabled: full.enabled,
            duration: full.duration.into(),
            throttle: full.throttle,
        },
    }
}

/// `sessions`: that have a member.
fn clone_section(section: &config::CloneSection, sessions: Option<u64>) -> view::CloneSection {
    let copied = &section.copied;
    view::CloneSection {
        pool_ref: section.pool.to_string(),
        tokens: texts(&section.tokens),
        timeout: section.timeout.into(),
        lifetime: section.lifetime.map(Span),
        refresh: section.refresh.as_str().to_owned(),
        clone_selection: section.selection.as_str().to_owned(),
        sample: written_share(section.sample_permille),
        methods: texts(&copied.methods),
        paths: texts(&copied.paths),
        headers_only: copied.headers_only,
        max_body_bytes: copied.max_body_bytes.map(|bytes| bytes as u64),
        rewrite_path_prefix: copied
            .rewrite_path_prefix
            .as_ref()
            .map(|prefix| view::PathPrefix { from: prefix.from.clone(), to: prefix.to.clone() }),
        strip_headers: section.strip_headers.iter().cloned().collect(),
        set_headers: section.set_headers.iter().map(|(name, _)| name.to_string()).collect(),
        max_buffered_bytes: section.max_buffered_bytes as u64,
        inline_body: section.inline_body_bytes as u64,
        connections_per_server: section.connections_per_server.get() as u32,
        pipeline_depth: section.pipeline_depth.get() as u32,
        on_overflow: section.on_overflow.as_str().to_owned(),
        http2: section.http2,
        retry_lost: section.retry_lost,
        sessions,
    }
}

fn texts(words: &[impl ToString]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Redirects between ports, which come first, and the rules that follow.
fn http_rules(config: &config::VirtualService) -> Vec<view::HttpRule> {
    let redirects = config.port_redirects.iter().map(|redirect| view::HttpRule {
        name: redirect.name.clone(),
        vs_port: redirect.ports.clone(),
        redirect_port: Some(redirect.https_port),
        matches: Vec::new(),
        actions: Vec::new(),
    });
    let rules = config.http_rules.iter().map(|rule| view::HttpRule {
        name: rule.name.clone(),
        vs_port: Vec::new(),
        redirect_port: None,
        matches: rule.matches.words().map(str::to_owned).collect(),
        actions: rule.action.words().map(str::to_owned).collect(),
    });
    redirects.chain(rules).collect()
}
