//! Its pools.

use super::{super::*, changed, ip, seconds, up};

pub(crate) fn pools() -> Vec<Pool> {
    vec![
        Pool {
            uuid: Some("pool-dc871051-35e8-4bec-bd1f-3c63fb6b7087".into()),
            servers: vec![Server {
                prst_hdr_val: Some("16077db5be5a5402f8185e02769756a3f0deffcdc0ab28fe8a60ac13d0219e32".into()),
                description: Some("Gslb site-persistence server".into()),
                hostname: Some("127.0.0.12".into()),
                ..server("127.0.0.12", 80, up())
            }],
            site_persistence: Some(SpPool {
                gslb_sp_enabled: true,
                default_server_port: Some(80),
                application_persistence_profile_ref: "gap-1".into(),
                description: "Gslb site-persistence proxy pool".into(),
            }),
            settings: PoolSettings {
                graceful_disable_timeout: seconds(60),
                connection_ramp_duration: seconds(600),
                inline_health_monitor: InlineMonitor::Is(true),
                ..pool_settings()
            },
            ..pool("SP-gs-1-pay@site_A", "ghm-ping", 1)
        },
        Pool {
            servers: vec![
                Server {
                    ratio_now: Some(0.25),
                    inflight: 3,
                    connections: 5,
                    idle_connections: 2,
                    max_inflight: Some(25),
                    ramp_percent: Some(25),
                    consecutive_failures: Some(1),
                    ..server("127.0.0.1", 11201, up())
                },
                Server {
                    ejection: Some(Ejection {
                        reason: "5 failures in a row, the last: refused".into(),
                        time: seconds(60),
                        until: Timestamp { secs: changed().secs + 60, ..changed() },
                        times: 2,
                    }),
                    ..server("127.0.0.1", 11202, ejected())
                },
            ],
            num_servers: 2,
            runtime: PoolRuntime {
                inflight: 3,
                request_queue_length: Some(0),
                retries: Some(1),
                max_retries_now: Some(3),
                priority: Some(10),
                num_servers_ejected: Some(1),
                persistent_sessions: Some(17),
            },
            app_persistence: Some(AppPersistence {
                application_persistence_profile_ref: "by-address".into(),
                persistence_type: "client_ip".into(),
                server_hm_down_recovery: "pick_new_server".into(),
                timeout: Some(seconds(300)),
                session_table: Some("persist:pay".into()),
                prst_hdr_name: None,
                ip_mask: Some(32),
                ipv6_mask: Some(128),
                http_cookie: None,
            }),
            settings: PoolSettings {
                max_concurrent_connections_per_server: 100,
                request_queue_enabled: true,
                connection_ramp_duration: seconds(60),
                inline_health_monitor: InlineMonitor::By(InlineDetails {
                    consecutive_failures: 5,
                    max_failure_percent: "0%".into(),
                    minimum_requests: 20,
                    interval: seconds(10),
                    ejection_time: seconds(30),
                    max_ejection_time: seconds(300),
                    max_ejection_percent: "50%".into(),
                    failed_response_code: vec!["http_5xx".into()],
                }),
                retry_budget: Some(RetryBudget { percent: 20, min_concurrent: 3 }),
                ..pool_settings()
            },
            ..pool("pay", "hm-http", 1)
        },
        Pool { oper_status: OperStatus::new(OperState::OperUnknown), ..pool("empty", "hm-http", 0) },
    ]
}

/// A server that an operator drains.
pub(crate) fn draining() -> Server {
    Server {
        admin_state: Some(AdminState {
            state: "draining".into(),
            by: "127.0.0.1:40312".into(),
            since: changed(),
        }),
        ..server(
            "127.0.0.1",
            11301,
            OperStatus {
                reason: Some("draining: it keeps its sessions and gets no new ones".into()),
                ..up()
            },
        )
    }
}

fn pool(name: &str, monitor: &str, num_servers_up: u32) -> Pool {
    Pool {
        uuid: None,
        name: name.into(),
        lb_algorithm: "least_connections".into(),
        enabled: true,
        health_monitor_refs: vec![monitor.into()],
        servers: vec![],
        num_servers: num_servers_up,
        num_servers_up,
        oper_status: up(),
        runtime: PoolRuntime {
            inflight: 0,
            request_queue_length: None,
            retries: None,
            max_retries_now: None,
            priority: None,
            num_servers_ejected: None,
            persistent_sessions: None,
        },
        resolve_server_by_dns: vec![],
        app_persistence: None,
        site_persistence: None,
        settings: pool_settings(),
        health_monitors: vec![HealthMonitor {
            name: monitor.into(),
            kind: "http".into(),
            send_interval: seconds(10),
            receive_timeout: seconds(4),
            successful_checks: 2,
            failed_checks: 2,
            monitor_port: None,
            http_request: Some("GET /".into()),
            http_response_code: vec!["http_2xx".into(), "http_3xx".into()],
            maintenance_code: vec![],
            maintenance_response: None,
            verify: None,
        }],
    }
}

/// As of a pool that says nothing.
fn pool_settings() -> PoolSettings {
    PoolSettings {
        min_health_monitors_up: None,
        lb_algorithm_hash: None,
        lb_algorithm_consistent_hash_hdr: None,
        lb_algorithm_consistent_hash_cookie: None,
        min_servers: 1,
        max_concurrent_connections_per_server: 0,
        request_queue_enabled: false,
        request_queue_depth: 128,
        request_queue_timeout: seconds(10),
        graceful_disable_timeout: seconds(0),
        connection_ramp_duration: seconds(0),
        inline_health_monitor: InlineMonitor::Is(false),
        connect_timeout: seconds(5),
        read_timeout: seconds(60),
        idle_timeout: seconds(60),
        server_response_timeout: None,
        request_timeout: None,
        max_retries: None,
        retry_budget: None,
        enable_ssl: false,
        tls: None,
        enable_http2: false,
        http2_max_concurrent_streams: None,
        snat_ip: vec![],
        max_connection_age: None,
        max_requests_per_connection: None,
        max_idle_connections_per_server: None,
        proxy_protocol: None,
        rewrite_host_header_to_sni: false,
        rewrite_host_header_to_server_name: false,
    }
}

fn server(address: &str, port: u16, oper_status: OperStatus) -> Server {
    Server {
        ip: ip(address),
        port,
        hostname: None,
        enabled: true,
        ratio: 1,
        ratio_now: None,
        priority: None,
        oper_status,
        inflight: 0,
        connections: 0,
        idle_connections: 0,
        max_inflight: None,
        ramp_percent: None,
        ejection: None,
        consecutive_failures: None,
        response_time: None,
        changes: Vec::new(),
        admin_state: None,
        prst_hdr_val: None,
        description: None,
    }
}

fn ejected() -> OperStatus {
    let reason = "ejected for 1m: 5 failures in a row, the last: refused";
    OperStatus { state: OperState::OperDown, reason: Some(reason.into()), last_changed_time: Some(changed()) }
}
