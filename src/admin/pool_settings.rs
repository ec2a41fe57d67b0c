//! What pools are configured to do, as the admin API shows it.

use std::sync::Arc;

use super::view::{self, InlineDetails, InlineMonitor, Span};
use crate::{
    config::{self, HashKey, HostHeader, LbAlgorithm, PersistBy, RequestQueue, written_share},
    names::PoolName,
};

/// The settings of a pool, apart from those that a site-persistence pool has of its own.
pub(super) fn settings(pool: &config::Pool) -> view::PoolSettings {
    let span = |duration: Option<_>| duration.map(Span);
    let hash_key = Some(&pool.hash_key).filter(|_| pool.algorithm == LbAlgorithm::ConsistentHash);
    let (hash_header, hash_cookie) = match hash_key {
        Some(HashKey::Header(name)) => (Some(name.to_string()), None),
        Some(HashKey::Cookie(name)) => (None, Some(name.clone())),
        _ => (None, None),
    };
    let queue = pool.lifecycle.queue.clone();
    let request_queue_enabled = queue.is_some();
    let queue: RequestQueue = queue.unwrap_or_default();
    view::PoolSettings {
        min_health_monitors_up: pool.min_health_monitors_up,
        lb_algorithm_hash: hash_key.map(|key| key.as_str().to_owned()),
        lb_algorithm_consistent_hash_hdr: hash_header,
        lb_algorithm_consistent_hash_cookie: hash_cookie,
        min_servers: pool.min_servers,
        max_concurrent_connections_per_server: pool.lifecycle.most_per_server.map_or(0, |most| most.get()),
        request_queue_enabled,
        request_queue_depth: queue.depth.get(),
        request_queue_timeout: queue.timeout.into(),
        graceful_disable_timeout: pool.lifecycle.graceful_disable.into(),
        connection_ramp_duration: pool.lifecycle.ramp.into(),
        inline_health_monitor: pool.inline.as_ref().map_or(InlineMonitor::Is(false), inline),
        connect_timeout: pool.connect_timeout.into(),
        read_timeout: pool.read_timeout.into(),
        idle_timeout: pool.idle_timeout.into(),
        server_response_timeout: span(pool.patience.response_timeout),
        request_timeout: span(pool.patience.request_timeout),
        max_retries: pool.retries.most,
        retry_budget: pool.retries.budget.map(|budget| view::RetryBudget {
            percent: budget.percent,
            min_concurrent: budget.min_concurrent,
        }),
        enable_ssl: pool.enable_ssl,
        tls: pool.enable_ssl.then(|| tls(pool)),
        enable_http2: pool.enable_http2,
        http2_max_concurrent_streams: pool.enable_http2.then_some(pool.connections.http2_streams as u32),
        snat_ip: pool.sources.all().to_vec(),
        max_connection_age: span(pool.connections.max_age),
        max_requests_per_connection: pool.connections.max_requests,
        max_idle_connections_per_server: pool.connections.most_idle,
        proxy_protocol: pool.connections.proxy_protocol.map(|version| version.as_str().to_owned()),
        rewrite_host_header_to_sni: pool.host_header == HostHeader::Sni,
        rewrite_host_header_to_server_name: pool.host_header == HostHeader::ServerName,
    }
}

fn tls(pool: &config::Pool) -> view::PoolTls {
    view::PoolTls {
        sni: pool.sni.clone(),
        sni_enabled: pool.tls.sni,
        verify: pool.verify,
        pki_profile_ref: pool.tls.pki_profile.clone(),
        host_check_enabled: pool.tls.host_check,
        ssl_key_and_certificate_ref: pool.tls.certificate.as_ref().map(|own| own.name.clone()),
    }
}

fn inline(monitor: &config::InlineMonitor) -> InlineMonitor {
    InlineMonitor::By(InlineDetails {
        consecutive_failures: monitor.consecutive_failures,
        max_failure_percent: written_share(monitor.failure_permille),
        minimum_requests: monitor.minimum_requests,
        interval: monitor.interval.into(),
        ejection_time: monitor.ejection_time.into(),
        max_ejection_time: monitor.max_ejection_time.into(),
        max_ejection_percent: written_share(monitor.max_ejection_permille),
        failed_response_code: monitor.failed_codes.words(),
    })
}

/// How a pool keeps sessions.
pub(super) fn persistence(profile: &config::PersistenceProfile, pool: &PoolName) -> view::AppPersistence {
    let mask = match &profile.by {
        PersistBy::ClientIp { mask, .. } => Some(*mask),
        _ => None,
    };
    view::AppPersistence {
        application_persistence_profile_ref: profile.name.clone(),
        persistence_type: profile.by.as_str().to_owned(),
        server_hm_down_recovery: profile.recovery.as_str().to_owned(),
        timeout: profile.by.timeout().map(Span),
        session_table: profile.table(pool),
        prst_hdr_name: match &profile.by {
            PersistBy::AppCookie { name, .. } => Some(name.clone()),
            PersistBy::Header { name, .. } => Some(name.to_string()),
            _ => None,
        },
        ip_mask: mask.map(|mask| mask.ipv4),
        ipv6_mask: mask.map(|mask| mask.ipv6),
        http_cookie: match &profile.by {
            PersistBy::HttpCookie { cookie, always_send } => Some(server_cookie(cookie, *always_send)),
            _ => None,
        },
    }
}

fn server_cookie(cookie: &config::CookieOptions, always_send_cookie: bool) -> view::ServerCookie {
    view::ServerCookie {
        cookie_name: cookie.name.clone(),
        path: cookie.path.clone(),
        domain: cookie.domain.clone(),
        same_site: cookie.same_site.as_str().to_owned(),
        partitioned: cookie.partitioned,
        http_only: cookie.http_only,
        persistent: cookie.persistent,
        avi_compatible: cookie.avi_compatible,
        always_send_cookie,
        keys: cookie.keys.len() as u32,
    }
}

/// How servers are probed.
pub(super) fn monitor(monitor: &Arc<config::HealthMonitor>) -> view::HealthMonitor {
    let exchange = monitor.kind.exchange();
    let verifies = matches!(monitor.kind, config::MonitorType::Https { .. });
    view::HealthMonitor {
        name: monitor.name.to_string(),
        kind: monitor.kind.as_str().to_owned(),
        send_interval: monitor.send_interval.into(),
        receive_timeout: monitor.receive_timeout.into(),
        successful_checks: monitor.successful_checks,
        failed_checks: monitor.failed_checks,
        monitor_port: monitor.monitor_port,
        http_request: exchange.map(|(request, _)| format!("{} {}", request.method, request.target)),
        http_response_code: exchange.map(|(_, codes)| codes.words()).unwrap_or_default(),
        maintenance_code: monitor.maintenance.codes.words(),
        maintenance_response: monitor.maintenance.text.clone(),
        verify: verifies.then_some(monitor.verify),
    }
}
