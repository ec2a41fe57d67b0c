//! Its virtual services.

use super::{super::*, ip, seconds, up};

pub(crate) fn virtual_services() -> Vec<VirtualService> {
    vec![
        VirtualService {
            uuid: Some("virtualservice-dc871051-35e8-4bec-bd1f-3c63fb6b7087".into()),
            name: "pay@site_A".into(),
            enabled: true,
            domain_names: vec!["a.com".into(), "*.a.com".into()],
            services: vec![service("127.0.0.11", 80, false), service("127.0.0.11", 443, true)],
            pool_ref: Some("pay".into()),
            application_persistence_profile_ref: Some("by-address".into()),
            application_profile_ref: "System-HTTP".into(),
            http_rules: vec![HttpRule {
                name: "to-https".into(),
                vs_port: vec![80],
                redirect_port: Some(443),
                matches: vec![],
                actions: vec![],
            }],
            clone: vec![clone_section()],
            rule_refs: vec!["canary".into()],
            sp_pool_refs: vec!["SP-gs-1-pay@site_A".into()],
            oper_status: up(),
            runtime: Some(VsRuntime { connections_open: 12 }),
            deny: vec!["10.9.0.0/16".into()],
            performance_limits: Some(PerformanceLimits { max_concurrent_connections: 20_000 }),
            requests_rate_limit: vec![RequestRate {
                per: "client_ip".into(),
                rate_limiter: RateLimiter { count: 100, period: seconds(1), burst_sz: 200 },
                action: "local_response".into(),
                status_code: Some(429),
            }],
            ..virtual_service("pay@site_A")
        },
        VirtualService {
            enabled: false,
            services: vec![service("127.0.0.11", 81, false)],
            ..virtual_service("ship")
        },
    ]
}

/// Which nobody has made anything of.
fn virtual_service(name: &str) -> VirtualService {
    VirtualService {
        uuid: None,
        name: name.into(),
        enabled: true,
        domain_names: vec![],
        services: vec![],
        pool_ref: None,
        application_persistence_profile_ref: None,
        application_profile_ref: "System-HTTP".into(),
        http_rules: vec![],
        clone: vec![],
        rule_refs: vec![],
        sp_pool_refs: vec![],
        oper_status: OperStatus::new(OperState::OperDisabled),
        runtime: None,
        error_page_profile_ref: None,
        allow: vec![],
        deny: vec![],
        remove_listening_port_on_vs_down: false,
        close_client_conn_on_config_update: false,
        max_concurrent_connections_per_client: None,
        max_cps_per_client: None,
        performance_limits: None,
        requests_rate_limit: vec![],
        analytics_policy: AnalyticsPolicy {
            sample: "100%".into(),
            throttle: 0,
            slow_request: seconds(1),
            full_client_logs: FullClientLogs { enabled: false, duration: seconds(1800), throttle: 10 },
        },
        application_profile: application_profile(),
    }
}

fn application_profile() -> ApplicationProfile {
    ApplicationProfile {
        http_to_https: false,
        client_header_timeout: seconds(10),
        keepalive_timeout: seconds(60),
        client_max_uri_size: 8 << 10,
        client_max_header_size: 12 << 10,
        max_header_count: 100,
        client_max_request_size: 48 << 10,
        client_max_body_size: None,
        client_body_timeout: seconds(60),
        client_body_min_rate: 256,
        request_id: RequestIds { trusted_peers: vec![], to_server: false, to_client: false },
        http2: Http2 {
            max_concurrent_streams: 100,
            max_header_list_size: 64 << 10,
            max_control_frames: 1000,
            prior_knowledge: false,
        },
        trusted_proxies: vec![],
        trusted_proxies_header: "x_forwarded_for".into(),
        ssl_client_certificate_mode: "none".into(),
        pki_profile_ref: None,
    }
}

fn clone_section() -> CloneSection {
    CloneSection {
        pool_ref: "MY_CLONEPOOL".into(),
        tokens: vec!["cookie:SID".into(), "source_ip".into()],
        timeout: seconds(300),
        lifetime: None,
        refresh: "request".into(),
        clone_selection: "random".into(),
        sample: "100%".into(),
        methods: vec![],
        paths: vec![],
        headers_only: false,
        max_body_bytes: None,
        rewrite_path_prefix: None,
        strip_headers: vec!["authorization".into(), "proxy-authorization".into()],
        set_headers: vec![],
        max_buffered_bytes: 16 << 20,
        inline_body: 64 << 10,
        connections_per_server: 4,
        pipeline_depth: 64,
        on_overflow: "drop".into(),
        http2: false,
        retry_lost: false,
        sessions: Some(2),
    }
}

fn service(address: &str, port: u16, enable_ssl: bool) -> Service {
    let security = ServiceSecurity {
        ssl_key_and_certificate_ref: enable_ssl.then(|| "a-com".into()),
        ssl_profile: enable_ssl.then(ssl_profile),
        enable_proxy_protocol: false,
        proxy_protocol_peers: vec![],
    };
    Service { address: Some(ip(address)), port, enable_ssl, security: Some(security) }
}

fn ssl_profile() -> SslProfile {
    SslProfile {
        name: "System-Standard".into(),
        min_version: "tls1.2".into(),
        max_version: "tls1.3".into(),
        session_tickets: true,
        http2: true,
        accepted_ciphers: None,
        ciphersuites: None,
        handshake_timeout: seconds(10),
    }
}
