//! A federation of three sites for the tests of this module; the first two are those of Avi's article.

use std::{sync::Arc, time::Duration};

use super::Membership;
use crate::config::{
    AddressLists, ApplicationProfile, CookieOptions, DownResponse, GroupChoosing, Gslb, GslbAlgorithm,
    GslbGroup, GslbMember, GslbService, GslbSitePersistence, HealthMonitor, HmDownRecovery, HmScope,
    MemberPort, MonitorType, PoolAlgorithm, Site, SiteMode, SitePersistenceMode, SiteRef, VirtualService,
};
use crate::site_cookie::{Key, KeyFile, KeyState, Secret};

#[derive(Clone, Copy)]
pub struct TestSite {
    pub name: &'static str,
    pub cluster: &'static str,
    pub vs: &'static str,
}

pub const A: TestSite = TestSite {
    name: "site_A",
    cluster: "cluster-3a179b95-dff9-444b-9986-ba89c4e19c44",
    vs: "virtualservice-dc871051-35e8-4bec-bd1f-3c63fb6b7087",
};
pub const B: TestSite = TestSite {
    name: "site_B",
    cluster: "cluster-1e560f44-c898-41c3-818b-3433edbf9391",
    vs: "virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a",
};
pub const C: TestSite = TestSite {
    name: "site_C",
    cluster: "cluster-7d444840-9dc0-11d1-b245-5ffdce74fad2",
    vs: "virtualservice-7d444841-9dc0-11d1-b245-5ffdce74fad2",
};
pub const NOW: u64 = 1_517_875_922;

pub fn membership(site: TestSite) -> Membership {
    membership_in(site, &gslb())
}

pub fn membership_in(own: TestSite, gslb: &Gslb) -> Membership {
    Membership::of(&vs(own), &[], &site(own), gslb, NOW).expect("a good federation").expect("a member")
}

pub fn site(site: TestSite) -> Site {
    Site { name: site.name.into(), cluster_uuid: Some(site.cluster.into()) }
}

pub fn vs(site: TestSite) -> VirtualService {
    VirtualService {
        name: format!("pay@{}", site.name).into(),
        uuid: Some(site.vs.into()),
        enabled: true,
        domain_names: vec!["a.com".into()],
        services: Vec::new(),
        pool: Some("pay".into()),
        clones: Vec::new(),
        rules: Vec::new(),
        profile: Arc::new(ApplicationProfile::default()),
        port_redirects: Vec::new(),
        http_rules: Vec::new(),
        error_pages: None,
        address_lists: AddressLists::default(),
        client_limits: Default::default(),
        remove_listening_port_on_vs_down: false,
        close_client_conn_on_config_update: false,
        max_concurrent_connections: None,
        request_rates: Vec::new(),
        analytics: Default::default(),
    }
}

pub fn gslb() -> Gslb {
    gslb_with(|_| ())
}

/// Members are those of A, B and C, a group each.
pub fn gslb_with(change: impl FnOnce(&mut Vec<GslbMember>)) -> Gslb {
    let plain = MemberPort { port: 18100, enable_ssl: false };
    let tls = MemberPort { port: 18443, enable_ssl: true };
    let mut members = vec![
        member(A, "127.0.0.11", vec![plain], true),
        member(B, "127.0.0.12", vec![plain], true),
        member(C, "127.0.0.13", vec![plain, tls], false),
    ];
    change(&mut members);
    let group = |(n, member)| GslbGroup {
        name: format!("group{n}"),
        priority: 10 - n as u32,
        enabled: true,
        algorithm: GslbAlgorithm::RoundRobin,
        choosing: GroupChoosing::default(),
        members: vec![member],
    };
    let service = GslbService {
        name: "gs-1".into(),
        uuid: "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6".into(),
        domain_names: vec!["a.com".into()],
        enabled: true,
        site_persistence: Some(Arc::new(GslbSitePersistence {
            name: "gap-1".into(),
            is_federated: true,
            recovery: HmDownRecovery::PickNewServer,
            home_read_timeout: Duration::from_secs(65),
            cookie: cookie_options(),
        })),
        site_persistence_mode: SitePersistenceMode::Proxy,
        monitors: vec![Arc::new(HealthMonitor {
            name: "ghm-ping".into(),
            is_federated: true,
            kind: MonitorType::Tcp,
            send_interval: Duration::from_secs(1),
            receive_timeout: Duration::from_millis(500),
            successful_checks: 2,
            failed_checks: 2,
            monitor_port: None,
            maintenance: Default::default(),
            verify: true,
        })],
        monitor_scope: HmScope::AllMembers,
        controller_health_status_enabled: true,
        use_edns_client_subnet: true,
        wildcard_match: false,
        pool_algorithm: PoolAlgorithm::Priority,
        min_members: 0,
        ttl: Duration::from_secs(30),
        graceful_disable_timeout: Duration::from_secs(60),
        num_dns_ip: 1,
        down_response: DownResponse::None,
        groups: members.into_iter().enumerate().map(group).collect(),
    };
    let site = |site: TestSite| SiteRef {
        name: site.name.into(),
        cluster_uuid: site.cluster.into(),
        mode: SiteMode::Active,
        enabled: true,
        location: None,
        admin: None,
    };
    Gslb {
        federation_id: "demo".into(),
        sites: [A, B, C].map(site).to_vec(),
        services: vec![Arc::new(service)],
        private_networks: Vec::new(),
        topology: Vec::new(),
        geo_database: None,
        ca_certs: None,
        site_tls: None,
        checksum: String::new(),
    }
}

pub fn cookie_options() -> CookieOptions {
    CookieOptions {
        name: "FOO".into(),
        timeout: Some(Duration::from_secs(8 * 3600)),
        keys: vec![Key {
            uuid: "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69".into(),
            state: KeyState::Active,
            secret: Secret::new([7; 32]),
            file: KeyFile::default(),
        }],
        ..CookieOptions::default()
    }
}

fn member(site: TestSite, ip: &str, services: Vec<MemberPort>, enabled: bool) -> GslbMember {
    GslbMember {
        cluster_uuid: site.cluster.into(),
        vs_uuid: site.vs.into(),
        ip: Some(ip.parse().expect("an address")),
        public_ip: None,
        fqdn: None,
        services,
        ratio: 1,
        preference_order: 1,
        location: None,
        enabled,
        drain_epoch: 0,
    }
}
