//! The two-site example as site_A's admin API tells it, for tests of what reads it.

mod pools;
mod virtual_services;

pub(crate) use pools::{draining, pools};
pub(crate) use virtual_services::virtual_services;

use super::*;

pub(crate) fn configuration() -> Configuration {
    Configuration {
        file: "conf/homing.yaml".into(),
        loaded: changed(),
        watch: true,
        needs_restart: needs_restart(),
        last_reload: Some(reload()),
    }
}

pub(crate) fn reload() -> Reload {
    let pools = Changes {
        added: vec!["new".into()],
        removed: vec![],
        changed: vec!["pay".into()],
        unchanged: vec!["SP-gs-1-pay@site_A".into(), "empty".into()],
    };
    let virtual_services =
        Changes { unchanged: vec!["pay@site_A".into(), "ship".into()], ..Changes::default() };
    Reload {
        result: ReloadResult::Success,
        trigger: "admin".into(),
        time: changed(),
        duration: Duration::from_millis(12),
        error: None,
        problems: vec![],
        warnings: vec!["conf/homing.yaml:3: admin.listen: beyond loopback; add `token_file`".into()],
        needs_restart: needs_restart(),
        changes: [("pools".to_owned(), pools), ("virtual_services".to_owned(), virtual_services)].into(),
    }
}

pub(crate) fn refused_reload() -> Reload {
    let problems = ["pools[pay].lb_algoritm: unknown key", "threads: `x` where a number is meant"];
    Reload {
        result: ReloadResult::Failure,
        error: Some("the configuration has 2 problems; nothing was changed".into()),
        problems: problems.map(|problem| format!("conf/homing.yaml:7: {problem}; mend it")).into(),
        warnings: vec![],
        needs_restart: vec![],
        changes: BTreeMap::new(),
        ..reload()
    }
}

fn needs_restart() -> Vec<String> {
    vec!["threads: 2 until a restart, then 4".into()]
}

pub(crate) fn gslb_runtime() -> GslbRuntime {
    let requests = [("new", 3), ("local", 4), ("proxied", 1), ("from_peer", 9)];
    let requests = requests.map(|(outcome, count)| (outcome.to_string(), count)).into();
    GslbRuntime {
        uuid: "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6".into(),
        name: "gs-1".into(),
        configured: Some(GslbConfigured {
            domain_names: vec!["a.com".into()],
            enabled: true,
            site_persistence_enabled: true,
            application_persistence_profile_ref: Some("gap-1".into()),
            health_monitor_refs: vec!["ghm-ping".into()],
            ttl: Duration::from_secs(30),
        }),
        groups: vec![
            group("group1", 13, member("site_A", "127.0.0.11", "pay@site_A", "dc871051")),
            group(
                "group2",
                12,
                GslbMember { vs_name: None, ..member("site_B", "127.0.0.12", "pay@site_B", "8a68c656") },
            ),
        ],
        checksum: Some("e298eb000bb6d5bcaeaaf10d08e609441823c69fc83e7d9a50014769d7ed2b03".into()),
        services_state: None,
        sp_oper_status: up(),
        fraction_proxied: GslbRuntime::fraction_proxied(&requests),
        requests,
        advice: None,
        sites: vec![],
    }
}

/// Over all sites, of which site_B answers and site_C does not.
pub(crate) fn gslb_service() -> GslbRuntime {
    let mut there = gslb_runtime();
    there.requests = [("new", 100), ("proxied", 92), ("from_peer", 1)]
        .map(|(outcome, count)| (outcome.to_string(), count))
        .into();
    there.fraction_proxied = GslbRuntime::fraction_proxied(&there.requests);
    there.groups[1].members[0].vs_name = Some("pay@site_B".into());
    let answer = |site: &str, told| Answer {
        site_name: site.into(),
        cluster_uuid: format!("cluster-of-{site}"),
        told,
    };
    let away = "http://10.0.0.13:9901: connection refused";
    let others = vec![answer("site_B", Ok(there)), answer("site_C", Err(away.into()))];
    gslb_runtime().with_sites("site_A", others)
}

/// A client of site_B that comes to site_A.
pub(crate) fn explanation() -> Explanation {
    Explanation {
        virtual_service: "pay@site_A".into(),
        gslb_service: Some("gs-1".into()),
        decision: "proxied to site_B (127.0.0.12:80)".into(),
        reason: "site_B is the client's home, and is up".into(),
        outcome: Some("proxied".into()),
        recovery: Some(Recovery {
            server_hm_down_recovery: "pick_new_server".into(),
            if_home_fails: "served here, and the answer brings a new cookie".into(),
        }),
        home: Some(Home {
            site_name: "site_B".into(),
            is_this_site: false,
            vs_uuid: "virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a".into(),
            prst_hdr_val: "16077db5be5a5402f8185e02769756a3f0deffcdc0ab28fe8a60ac13d0219e32".into(),
            ip: ip("127.0.0.12"),
            drain_epoch: 7,
            oper_status: up(),
        }),
        cookie: Some(SiteCookie {
            key_id: "509ceebd-0913-4a".into(),
            key_uuid: Some("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69".into()),
            key_state: Some("active".into()),
            issued: Some(Timestamp { secs: 1_517_875_922, usecs: 0 }),
            age: Some("1m 18s".into()),
            expires: Some("in 58m 42s".into()),
            drain_epoch: Some(7),
        }),
    }
}

/// Asked at site_A: the site itself, and a peer.
pub(crate) fn sites() -> [Site; 2] {
    let site = |name: &str, is_own, pinned_sessions| Site {
        name: name.into(),
        cluster_uuid: format!("cluster-of-{name}"),
        is_own,
        drain_state: DrainState::Draining,
        drain_until: Some(Timestamp { secs: changed().secs + 1800, usecs: 0 }),
        pinned_sessions,
    };
    [site("site_A", true, Some(412)), site("site_B", false, None)]
}

pub(crate) fn sessions() -> Sessions {
    Sessions {
        tables: vec![
            SessionTable { name: "ssl".into(), entries: 0 },
            SessionTable { name: "clone:pay@site_A:MY_CLONEPOOL".into(), entries: 2 },
        ],
        entries: vec![
            SessionEntry {
                session: "9f86d081884c7d65".into(),
                key: "9f86d081884c7d659a2feaa0c55a0001".into(),
                value: "127.0.0.1:11301".into(),
                why: "chosen when the session began".into(),
                since: changed(),
                requests: 17,
                in_use: true,
                created: Some(changed()),
                expires: Some(Timestamp { secs: changed().secs + 300, ..changed() }),
            },
            SessionEntry {
                session: "60303ae22b998861".into(),
                key: "60303ae22b998861bce3b28f33ee0001".into(),
                value: "127.0.0.1:11303".into(),
                why: "ordered by an operator".into(),
                since: Timestamp { secs: changed().secs + 60, ..changed() },
                requests: 1,
                in_use: false,
                created: Some(changed()),
                expires: None,
            },
        ],
        truncated: false,
    }
}

/// The second of them, as an operator asks for it.
pub(crate) fn explained() -> Explained {
    Explained {
        table: "clone:pay@site_A:MY_CLONEPOOL".into(),
        virtual_service: Some("pay@site_A".into()),
        pool_ref: Some("MY_CLONEPOOL".into()),
        token: Some("cookie:SID".into()),
        entry: sessions().entries.remove(1),
        server_status: Some(up()),
    }
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn group(name: &str, priority: u32, member: GslbMember) -> GslbGroup {
    GslbGroup {
        name: name.into(),
        priority: Some(priority),
        algorithm: Some("round_robin".into()),
        members: vec![member],
    }
}

/// A key that is old, and the one that is to follow it.
pub(crate) fn site_cookie_keys() -> Vec<SiteCookieKey> {
    let key = |uuid: &str, state: &str, age_seconds, seals, concerns: &[&str]| SiteCookieKey {
        key_id: uuid[..16].into(),
        uuid: uuid.into(),
        application_persistence_profile_ref: "gap-1".into(),
        state: state.into(),
        age_seconds,
        seals,
        concerns: concerns.iter().map(|concern| concern.to_string()).collect(),
    };
    vec![
        key("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69", "active", Some(11 * 86_400), 7, &["age"]),
        key("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", "next", Some(42), 0, &[]),
    ]
}

fn member(site: &str, address: &str, vs: &str, uuid: &str) -> GslbMember {
    GslbMember {
        cluster_uuid: format!("cluster-of-{site}"),
        site_name: site.into(),
        vs_uuid: format!("virtualservice-{uuid}"),
        vs_name: Some(vs.into()),
        ip: Some(ip(address)),
        oper_ips: vec![ip(address)],
        vip_type: "AVI_VIP".into(),
        services: vec![Service { address: None, port: 80, enable_ssl: false, security: None }],
        ratio: Some(1),
        enabled: Some(true),
        drain_state: None,
        drain_until: None,
        pinned_sessions: None,
        sp_pools: vec![SpPoolStatus {
            uuid: format!("pool-{uuid}"),
            name: format!("SP-gs-1-{vs}"),
            num_servers: 1,
            num_servers_up: 1,
        }],
        controller_status: up(),
    }
}

fn up() -> OperStatus {
    OperStatus { state: OperState::OperUp, reason: None, last_changed_time: Some(changed()) }
}

/// Tue Feb 6 00:15:17 2018, as in Avi's article.
fn changed() -> Timestamp {
    Timestamp { secs: 1_517_876_117, usecs: 353_741 }
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("addresses of the example are valid")
}

/// The service of Avi's article.
pub(crate) fn gslb_service_config() -> GslbServiceConfig {
    let group = |name: &str, priority, cluster: &str, vs: &str, address: &str| GslbGroupConfig {
        name: name.into(),
        priority,
        enabled: true,
        algorithm: "round_robin".into(),
        fallback_algorithm: None,
        manual_resume: false,
        min_health_monitors_up: None,
        members: vec![GslbMemberConfig {
            cluster_uuid: Some(cluster.into()),
            vs_uuid: Some(vs.into()),
            ip: Some(ip(address)),
            public_ip: None,
            fqdn: None,
            ratio: 1,
            enabled: true,
        }],
    };
    GslbServiceConfig {
        uuid: "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6".into(),
        name: "gs-1".into(),
        domain_names: vec!["a.com".into()],
        groups: vec![
            group("group1", 13, "cluster-a", "virtualservice-a", "10.90.173.73"),
            group("group2", 12, "cluster-b", "virtualservice-b", "10.90.174.72"),
        ],
        health_monitor_refs: vec!["ghm-ping".into()],
        controller_health_status_enabled: true,
        health_monitor_scope: "all_members".into(),
        enabled: true,
        use_edns_client_subnet: true,
        wildcard_match: false,
        site_persistence_enabled: true,
        application_persistence_profile_ref: Some("gap-1".into()),
        pool_algorithm: "priority".into(),
        min_members: 0,
        num_dns_ip: 1,
        ttl: Duration::from_secs(30),
        down_response: DownResponse {
            kind: "none".into(),
            fallback_ip: None,
            fallback_ip6: None,
            fallback_cname: None,
        },
        is_federated: true,
        tenant_ref: "admin".into(),
    }
}

/// A client while site_A, which comes first, is down.
pub(crate) fn choice_explanation() -> ChoiceExplanation {
    let group = |name: &str, priority, role: &str, member| ExplainedGroup {
        name: name.into(),
        priority,
        algorithm: "round_robin".into(),
        role: role.into(),
        members: vec![member],
    };
    let member = |name: &str, address: &str, verdict: &str, monitors: &str| ExplainedMember {
        name: name.into(),
        address: Some(address.into()),
        verdict: verdict.into(),
        monitors: Some(monitors.into()),
        site: None,
        kilometres: None,
    };
    ChoiceExplanation {
        gslb_service: "gs-1".into(),
        name: "a.com".into(),
        record_type: "A".into(),
        client: "192.0.2.0/24".into(),
        is_outside: true,
        location: None,
        answer: "10.90.174.72".into(),
        reason: "round_robin".into(),
        member: Some("site_B".into()),
        ttl: Duration::from_secs(30),
        scope: 0,
        groups: vec![
            group(
                "group1",
                13,
                "looked at",
                member("site_A", "10.90.173.73", "excluded: down", "down: ghm-ping: connection refused"),
            ),
            group(
                "group2",
                12,
                "its algorithm chose",
                member("site_B", "10.90.174.72", "in the answer", "up: monitors passed"),
            ),
        ],
    }
}

/// What site_A tells site_B of itself.
pub(crate) fn site_health() -> SiteHealth {
    SiteHealth {
        site_name: "site_A".into(),
        cluster_uuid: "cluster-of-site_A".into(),
        drain_state: DrainState::InService,
        virtual_services: vec![VsHealth {
            vs_uuid: "virtualservice-dc871051-35e8-4bec-bd1f-3c63fb6b7087".into(),
            vs_name: "pay@site_A".into(),
            oper_status: up(),
            sp_pool_status: Some(up()),
        }],
    }
}
