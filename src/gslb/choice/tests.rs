//! The choice by a table of each algorithm, and properties that hold for any federation.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Instant};

use proptest::prelude::*;

use super::*;
use crate::{
    config::{
        DownResponse, Gslb, GslbAlgorithm, GslbGroup, GslbMember, GslbService, Location, MemberPort,
        PoolAlgorithm, TopologyRule,
    },
    gslb::fixtures,
};

/// Members that are not up, by name.
#[derive(Clone, Default)]
struct Ill(BTreeMap<String, Availability>);

impl Ill {
    fn of(members: &[(&str, Availability)]) -> Self {
        Self(members.iter().map(|(name, how)| ((*name).to_owned(), *how)).collect())
    }
}

impl Health for Ill {
    fn of(&self, member: &Member, _: Instant) -> Availability {
        self.0.get(&*member.name).copied().unwrap_or(Availability::Up)
    }
}

const WELL: Ill = Ill(BTreeMap::new());

fn member(site: usize, ip: &str) -> GslbMember {
    let sites = fixtures::gslb().sites;
    GslbMember {
        cluster_uuid: sites[site].cluster_uuid.clone(),
        vs_uuid: format!("virtualservice-{site}").as_str().into(),
        ip: Some(ip.parse().unwrap()),
        public_ip: None,
        fqdn: None,
        services: vec![MemberPort { port: 80, enable_ssl: false }],
        ratio: 1,
        preference_order: 1,
        location: None,
        enabled: true,
        drain_epoch: 0,
    }
}

fn group(priority: u32, algorithm: GslbAlgorithm, members: Vec<GslbMember>) -> GslbGroup {
    let choosing = Default::default();
    GslbGroup { name: format!("group{priority}"), priority, enabled: true, algorithm, choosing, members }
}

/// Three sites, at Berlin, Paris and Sydney, with a member each in one group, without site persistence.
fn three(algorithm: GslbAlgorithm, change: impl FnOnce(&mut GslbService, &mut Gslb)) -> Directory {
    let mut gslb = fixtures::gslb();
    for (site, (latitude, longitude)) in
        gslb.sites.iter_mut().zip([(52.5, 13.4), (48.9, 2.4), (-33.9, 151.2)])
    {
        site.location = Some(Location { latitude, longitude });
    }
    let members = vec![member(0, "10.0.0.1"), member(1, "10.0.0.2"), member(2, "10.0.0.3")];
    let mut service = GslbService {
        site_persistence: None,
        groups: vec![group(10, algorithm, members)],
        domain_names: vec!["x.foo.com".into()],
        ..(*gslb.services[0]).clone()
    };
    change(&mut service, &mut gslb);
    gslb.services = vec![Arc::new(service)];
    Directory::new(&gslb)
}

fn service(directory: &Directory) -> &ServiceChoice {
    directory.find("x.foo.com").expect("it has the name")
}

fn at(address: &str) -> Client {
    Client::at(address.parse().unwrap())
}

/// The names of the members in an answer, and why.
fn choose(directory: &Directory, client: &Client, health: &Ill, seed: u64) -> (String, Reason) {
    let choice = service(directory).choose(client, Family::V4, health, Instant::now(), seed);
    let names = match &choice.answer {
        ChoiceAnswer::Addresses(addresses) => {
            let names = addresses.iter().map(|ip| {
                let members = service(directory).members();
                let of = members.iter().find(|member| [member.ip, member.public_ip].contains(&Some(*ip)));
                of.map_or(ip.to_string(), |member| member.name.to_string())
            });
            names.collect::<Vec<_>>().join(" ")
        }
        ChoiceAnswer::Cname(name) => format!("cname {name}"),
        ChoiceAnswer::Empty => "empty".into(),
        ChoiceAnswer::Silent => "silent".into(),
    };
    (names, choice.reason)
}

fn shares(directory: &Directory, health: &Ill, picks: u32) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for seed in 0..picks {
        // Neighbouring clients, such as many resolvers have, and seeds that count.
        let client = Client::at(IpAddr::V4((0xc612_0000 + seed).into()));
        *counts.entry(choose(directory, &client, health, seed.into()).0).or_insert(0.0) += 1.0;
    }
    counts.values_mut().for_each(|count| *count /= f64::from(picks));
    counts
}

fn assert_shares(shares: &BTreeMap<String, f64>, expected: &[(&str, f64)], off: f64) {
    assert_eq!(shares.keys().collect::<Vec<_>>(), expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, share) in expected {
        assert!((shares[*name] - share).abs() < off, "{name}: {shares:?}");
    }
}

#[test]
fn round_robin_shares_by_ratio() {
    let directory = three(GslbAlgorithm::RoundRobin, |service, _| {
        service.groups[0].members[1].ratio = 2;
        service.groups[0].members[2].ratio = 5;
    });
    let expected = [("site_A", 0.125), ("site_B", 0.25), ("site_C", 0.625)];
    assert_shares(&shares(&directory, &WELL, 100_000), &expected, 0.01);
    let without = Ill::of(&[("site_C", Availability::Down)]);
    assert_shares(
        &shares(&directory, &without, 100_000),
        &[("site_A", 1.0 / 3.0), ("site_B", 2.0 / 3.0)],
        0.01,
    );
}

#[test]
fn a_client_that_asks_for_a_and_aaaa_in_turn_is_not_bound_to_a_member() {
    let directory = three(GslbAlgorithm::RoundRobin, |_, _| ());
    let even = (0..10_000).map(|n| choose(&directory, &at("192.0.2.1"), &WELL, 2 * n).0);
    let mut counts = BTreeMap::new();
    even.for_each(|name| *counts.entry(name).or_insert(0) += 1);
    assert!(counts.len() == 3 && counts.values().all(|count| (3000..3700).contains(count)), "{counts:?}");
}

#[test]
fn consistent_hash_keeps_clients_and_moves_only_those_of_a_member_that_leaves() {
    let directory = three(GslbAlgorithm::ConsistentHash, |service, _| service.groups[0].members[2].ratio = 2);
    let before = shares(&directory, &WELL, 100_000);
    assert_shares(&before, &[("site_A", 0.25), ("site_B", 0.25), ("site_C", 0.5)], 0.02);
    let without = Ill::of(&[("site_B", Availability::Down)]);
    let mut moved = 0;
    for n in 0..100_000_u32 {
        let client = Client::at(IpAddr::V4((0xc612_0000 + 2 * n).into()));
        let (home, reason) = choose(&directory, &client, &WELL, n.into());
        assert_eq!(reason, Reason::ConsistentHash);
        assert_eq!(choose(&directory, &client, &WELL, 7).0, home, "whatever the seed");
        let now = choose(&directory, &client, &without, n.into()).0;
        if home == "site_B" {
            assert_ne!(now, home);
            moved += 1;
        } else {
            assert_eq!(now, home, "only its own clients move");
        }
    }
    assert!((20_000..30_000).contains(&moved), "{moved}");
}

#[test]
fn a_mask_makes_one_client_of_a_network() {
    for (mask, mask6) in [(24, 48), (1, 1), (31, 127)] {
        let directory = three(GslbAlgorithm::ConsistentHash, |service, _| {
            service.groups[0].choosing.consistent_hash_mask = mask;
            service.groups[0].choosing.consistent_hash_mask6 = mask6;
        });
        let network = |family: IpAddr, mask: u8, n: u128| match family {
            IpAddr::V4(ip) => IpAddr::from((ip.to_bits() | (n as u32 & (u32::MAX >> mask))).to_be_bytes()),
            IpAddr::V6(ip) => IpAddr::from((ip.to_bits() | (n & (u128::MAX >> mask))).to_be_bytes()),
        };
        for (first, mask) in [("128.0.0.0", mask), ("8000::", mask6)] {
            let first: IpAddr = first.parse().unwrap();
            let home = choose(&directory, &Client::at(first), &WELL, 0).0;
            for n in [1, 77, u128::MAX] {
                let client = Client::at(network(first, mask, n));
                assert_eq!(choose(&directory, &client, &WELL, 1).0, home, "{client:?} {mask}");
            }
        }
    }
}

#[test]
fn topology_takes_the_longest_network_and_its_sites_in_order() {
    let rule = |networks: &[&str], sites: &[&str]| TopologyRule {
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        sites: sites.iter().map(|site| (*site).into()).collect(),
    };
    let directory = three(GslbAlgorithm::Topology, |service, gslb| {
        gslb.topology =
            vec![rule(&["10.0.0.0/8"], &["site_B", "site_C"]), rule(&["10.1.0.0/16"], &["site_C", "site_A"])];
        service.groups[0].choosing.fallback_algorithm = GslbAlgorithm::PreferenceOrder;
    });
    let ill =
        |names: &[&str]| Ill(names.iter().map(|name| ((*name).to_owned(), Availability::Down)).collect());
    for (client, down, chosen, reason) in [
        ("10.2.0.1", &[][..], "site_B", Reason::Topology),
        ("10.2.0.1", &["site_B"], "site_C", Reason::Topology),
        ("10.2.0.1", &["site_B", "site_C"], "site_A", Reason::Fallback),
        ("10.1.0.1", &[], "site_C", Reason::Topology),
        ("10.1.0.1", &["site_C"], "site_A", Reason::Topology),
        ("192.0.2.1", &[], "site_A", Reason::Fallback),
        ("2001:db8::1", &[], "site_A", Reason::Fallback),
    ] {
        let found = choose(&directory, &at(client), &ill(down), 1);
        assert_eq!(found, (chosen.to_owned(), reason), "{client} without {down:?}");
    }
}

#[test]
fn preference_order_counts_before_the_order_of_the_file() {
    let directory = three(GslbAlgorithm::PreferenceOrder, |service, _| {
        service.groups[0].members[0].preference_order = 3;
        service.num_dns_ip = 0;
    });
    let all = choose(&directory, &at("192.0.2.1"), &WELL, 9);
    assert_eq!(all, ("site_B site_C site_A".into(), Reason::PreferenceOrder));
}

/// A group each for A, B and C, with priorities 30, 20, 20.
fn tiers(change: impl FnOnce(&mut GslbService)) -> Directory {
    three(GslbAlgorithm::PreferenceOrder, |service, _| {
        let members = std::mem::take(&mut service.groups[0].members);
        let groups = members.into_iter().zip([30, 20, 20]);
        service.groups = groups
            .map(|(member, priority)| group(priority, GslbAlgorithm::PreferenceOrder, vec![member]))
            .collect();
        service.num_dns_ip = 0;
        change(service);
    })
}

#[test]
fn groups_are_taken_by_priority_until_enough_members_are_up() {
    let ill =
        |names: &[&str]| Ill(names.iter().map(|name| ((*name).to_owned(), Availability::Down)).collect());
    for (min_members, down, chosen) in [
        (0, &[][..], "site_A"),
        (1, &[], "site_A"),
        (2, &[], "site_A site_B site_C"),
        (3, &[], "site_A site_B site_C"),
        (9, &[], "site_A site_B site_C"),
        (0, &["site_A"], "site_B site_C"),
        (2, &["site_B"], "site_A site_C"),
        (0, &["site_A", "site_B"], "site_C"),
        (2, &["site_A", "site_B"], "site_C"),
        (0, &["site_A", "site_B", "site_C"], "silent"),
    ] {
        let directory = tiers(|service| service.min_members = min_members);
        let found = choose(&directory, &at("192.0.2.1"), &ill(down), 1).0;
        assert_eq!(found, chosen, "min_members {min_members} without {down:?}");
    }
}

#[test]
fn what_is_disabled_at_any_level_gets_nobody() {
    let first = |directory: &Directory| choose(directory, &at("192.0.2.1"), &WELL, 1).0;
    let in_order = |change: &dyn Fn(&mut GslbService, &mut Gslb)| {
        three(GslbAlgorithm::PreferenceOrder, |service, gslb| change(service, gslb))
    };
    assert_eq!(first(&in_order(&|_, _| ())), "site_A");
    assert_eq!(first(&in_order(&|service, _| service.groups[0].members[0].enabled = false)), "site_B");
    assert_eq!(first(&in_order(&|_, gslb| gslb.sites[0].enabled = false)), "site_B");
    assert_eq!(first(&tiers(|service| service.groups[0].enabled = false)), "site_B site_C");
    assert!(in_order(&|service, _| service.enabled = false).find("x.foo.com").is_none());
    for availability in [Availability::Down, Availability::Leaving, Availability::Held] {
        let ill = Ill::of(&[("site_A", availability)]);
        let directory = in_order(&|_, _| ());
        assert_eq!(choose(&directory, &at("192.0.2.1"), &ill, 1).0, "site_B", "{availability:?}");
    }
}

#[test]
fn while_nobody_is_up_the_answer_is_the_configured_one() {
    let all = Ill::of(&[
        ("site_A", Availability::Down),
        ("site_B", Availability::Leaving),
        ("site_C", Availability::Held),
    ]);
    let v4 = Some("192.0.2.9".parse().unwrap());
    for (response, a, aaaa) in [
        (DownResponse::None, "silent", ChoiceAnswer::Silent),
        (DownResponse::Empty, "empty", ChoiceAnswer::Empty),
        (DownResponse::AllRecords, "site_A site_B", ChoiceAnswer::Empty),
        (DownResponse::FallbackIp { v4, v6: None }, "192.0.2.9", ChoiceAnswer::Empty),
        (
            DownResponse::Cname("sorry.example".into()),
            "cname sorry.example",
            ChoiceAnswer::Cname("sorry.example"),
        ),
    ] {
        let directory = three(GslbAlgorithm::RoundRobin, |service, _| {
            service.down_response = response.clone();
            service.groups[0].members[2].enabled = false;
        });
        assert_eq!(choose(&directory, &at("192.0.2.1"), &all, 1).0, a, "{response:?}");
        let choice = service(&directory).choose(&at("192.0.2.1"), Family::V6, &all, Instant::now(), 1);
        assert_eq!((choice.answer, choice.member), (aaaa, None), "{response:?}");
    }
}

#[test]
fn a_family_that_members_do_not_have_is_no_address_while_they_are_up() {
    let directory = three(GslbAlgorithm::RoundRobin, |service, _| {
        service.groups[0].members[1].ip = Some("2001:db8::2".parse().unwrap());
    });
    let ask = |health: &Ill| {
        let choice = service(&directory).choose(&at("192.0.2.1"), Family::V6, health, Instant::now(), 1);
        (choice.answer.clone(), choice.reason)
    };
    let v6 = Addresses::from_elem("2001:db8::2".parse().unwrap(), 1);
    assert_eq!(ask(&WELL), (ChoiceAnswer::Addresses(v6), Reason::RoundRobin));
    let ill = Ill::of(&[("site_B", Availability::Down)]);
    assert_eq!(ask(&ill), (ChoiceAnswer::Empty, Reason::NoAddress));
}

#[test]
fn clients_outside_get_the_public_address() {
    let directory = three(GslbAlgorithm::PreferenceOrder, |service, gslb| {
        gslb.private_networks = vec!["10.0.0.0/8".parse().unwrap()];
        service.groups[0].members[0].public_ip = Some("192.0.2.80".parse().unwrap());
    });
    for (client, address, scope) in [
        (Client::subnet("10.3.0.0".parse().unwrap(), 24), "10.0.0.1", 8),
        (Client::subnet("11.3.0.0".parse().unwrap(), 24), "192.0.2.80", 8),
        (Client::subnet("0.0.0.0".parse().unwrap(), 0), "192.0.2.80", 0),
        (at("10.3.0.1"), "10.0.0.1", 0),
    ] {
        let choice = service(&directory).choose(&client, Family::V4, &WELL, Instant::now(), 1);
        let expected = Addresses::from_elem(address.parse().unwrap(), 1);
        assert_eq!((choice.answer, choice.scope), (ChoiceAnswer::Addresses(expected), scope), "{client:?}");
    }
}

#[test]
fn a_member_with_a_name_and_no_address_is_a_cname() {
    let directory = three(GslbAlgorithm::PreferenceOrder, |service, _| {
        let cdn = GslbMember {
            cluster_uuid: "".into(),
            vs_uuid: "x.cdn.example".into(),
            ip: None,
            fqdn: Some("x.cdn.example".into()),
            ..member(0, "10.0.0.1")
        };
        service.groups[0].members.insert(1, cdn);
        service.num_dns_ip = 0;
    });
    let without_a = Ill::of(&[("site_A", Availability::Down)]);
    assert_eq!(choose(&directory, &at("192.0.2.1"), &WELL, 1).0, "site_A site_B site_C");
    assert_eq!(choose(&directory, &at("192.0.2.1"), &without_a, 1).0, "cname x.cdn.example");
    let choice = service(&directory).choose(&at("192.0.2.1"), Family::V6, &without_a, Instant::now(), 1);
    assert_eq!(choice.answer, ChoiceAnswer::Cname("x.cdn.example"), "whatever is asked for");
}

#[test]
fn a_name_is_found_as_it_is_and_below_those_that_stand_for_more() {
    let mut gslb = fixtures::gslb();
    let service = |name: &str, domain: &str, wildcard_match| {
        Arc::new(GslbService {
            name: name.into(),
            domain_names: vec![domain.into()],
            wildcard_match,
            ..(*fixtures::gslb().services[0]).clone()
        })
    };
    gslb.services = vec![
        service("exact", "x.foo.com", false),
        service("wide", "foo.com", true),
        service("star", "*.bar.foo.com", false),
        service("second", "x.foo.com", false),
    ];
    let directory = Directory::new(&gslb);
    for (name, found) in [
        ("x.foo.com", Some("exact")),
        ("y.x.foo.com", Some("wide")),
        ("foo.com", Some("wide")),
        ("a.b.foo.com", Some("wide")),
        ("a.bar.foo.com", Some("star")),
        ("a.b.bar.foo.com", Some("star")),
        ("bar.foo.com", Some("wide")),
        ("xfoo.com", None),
        ("com", None),
        ("", None),
    ] {
        let found_name = directory.find(name).map(|service| service.config().name.as_str());
        assert_eq!(found_name, found, "{name}");
    }
}

#[test]
fn members_have_names_that_tell_them_apart() {
    let directory = three(GslbAlgorithm::RoundRobin, |service, _| {
        let other = GslbMember { vs_uuid: "virtualservice-9".into(), ..member(0, "10.0.0.9") };
        let third =
            GslbMember { cluster_uuid: "".into(), vs_uuid: "192.0.2.1".into(), ..member(0, "192.0.2.1") };
        service.groups.push(group(5, GslbAlgorithm::RoundRobin, vec![other, third]));
    });
    let members: Vec<_> = directory.members().map(|(_, member)| (member.number, &*member.name)).collect();
    assert_eq!(
        members,
        [
            (0, "site_A/virtualservice-0"),
            (1, "site_B"),
            (2, "site_C"),
            (3, "site_A/virtualservice-9"),
            (4, "192.0.2.1")
        ]
    );
    for (service, member) in directory.members() {
        assert_eq!(service.config_of(member).ip, member.ip);
    }
}

mod by_place {
    use super::*;
    use crate::config::GeoDatabase;

    fn database() -> GeoDatabase {
        GeoDatabase::small(&[
            ("192.0.2.0", 24, 50.1, 8.7),
            ("198.51.100.0", 24, 51.5, -0.1),
            ("203.0.113.0", 24, -36.8, 174.8),
        ])
    }

    #[test]
    fn geo_takes_the_nearest_member_that_is_up() {
        let directory = three(GslbAlgorithm::Geo, |service, gslb| {
            gslb.geo_database = Some(database());
            service.groups[0].choosing.fallback_algorithm = GslbAlgorithm::PreferenceOrder;
        });
        for (client, down, chosen, reason) in [
            ("192.0.2.1", "", "site_A", Reason::Geo),
            ("192.0.2.1", "site_A", "site_B", Reason::Geo),
            ("198.51.100.1", "", "site_B", Reason::Geo),
            ("203.0.113.1", "", "site_C", Reason::Geo),
            ("203.0.113.1", "site_C", "site_A", Reason::Geo),
            ("10.0.0.1", "", "site_A", Reason::Fallback),
        ] {
            let found = choose(&directory, &at(client), &Ill::of(&[(down, Availability::Down)]), 3);
            assert_eq!(found, (chosen.to_owned(), reason), "{client} without {down}");
        }
        let client = Client::subnet("192.0.2.0".parse().unwrap(), 28);
        let choice = service(&directory).choose(&client, Family::V4, &WELL, Instant::now(), 1);
        assert_eq!(choice.scope, 24, "for all of the database's network");
    }

    #[test]
    fn a_members_own_place_counts_before_its_sites_and_that_before_the_databases() {
        let directory = three(GslbAlgorithm::Geo, |service, gslb| {
            gslb.geo_database = Some(database());
            service.groups[0].members[0].location = Some(Location { latitude: -36.8, longitude: 174.8 });
            gslb.sites[2].location = None;
            service.groups[0].members[2].public_ip = Some("198.51.100.9".parse().unwrap());
        });
        for (client, chosen) in
            [("203.0.113.1", "site_A"), ("198.51.100.1", "site_C"), ("192.0.2.1", "site_B")]
        {
            assert_eq!(choose(&directory, &at(client), &WELL, 1).0, chosen, "{client}");
        }
    }

    #[test]
    fn pool_algorithm_geo_takes_the_group_with_the_nearest_member() {
        let directory = three(GslbAlgorithm::PreferenceOrder, |service, gslb| {
            gslb.geo_database = Some(database());
            service.pool_algorithm = PoolAlgorithm::Geo;
            let mut members = std::mem::take(&mut service.groups[0].members);
            let far = members.split_off(1);
            let order = GslbAlgorithm::PreferenceOrder;
            service.groups = vec![group(30, order, members), group(20, order, far)];
        });
        for (client, down, chosen) in [
            ("192.0.2.1", "", "site_A"),
            ("192.0.2.1", "site_A", "site_B"),
            ("203.0.113.1", "", "site_B"),
            ("203.0.113.1", "site_B", "site_C"),
            ("10.0.0.1", "", "site_A"),
        ] {
            let found = choose(&directory, &at(client), &Ill::of(&[(down, Availability::Down)]), 3).0;
            assert_eq!(found, chosen, "{client} without {down}");
        }
    }
}

fn availability() -> impl Strategy<Value = Availability> {
    use Availability::{Down, Held, Leaving, Up};
    prop::sample::select(vec![Up, Up, Down, Leaving, Held])
}

fn algorithm() -> impl Strategy<Value = GslbAlgorithm> {
    use GslbAlgorithm::{ConsistentHash, Geo, PreferenceOrder, RoundRobin, Topology};
    prop::sample::select(vec![RoundRobin, ConsistentHash, Geo, Topology, PreferenceOrder])
}

proptest! {
    /// Groups of members with a state each; who is not up or not enabled is never in an answer, and somebody is in it
    /// while somebody may be.
    #[test]
    fn only_members_that_are_up_and_enabled_are_answered_with(
        groups in prop::collection::vec(
            (any::<u8>(), algorithm(), any::<bool>(), prop::collection::vec((availability(), any::<bool>(), 1_u16..20), 1..5)),
            1..5,
        ),
        min_members in 0_u32..6,
        num_dns_ip in 0_u8..5,
        by_geo in any::<bool>(),
        client in any::<u32>(),
        (seed, v6) in (any::<u64>(), any::<bool>()),
    ) {
        let mut health = Ill::default();
        let mut allowed = Vec::new();
        let directory = three(GslbAlgorithm::RoundRobin, |service, gslb| {
            gslb.topology = vec![TopologyRule {
                networks: vec!["0.0.0.0/1".parse().unwrap()],
                sites: vec!["site_B".into(), "site_A".into()],
            }];
            service.groups.clear();
            for (n, (priority, algorithm, enabled, members)) in groups.into_iter().enumerate() {
                let members = members.into_iter().enumerate().map(|(m, (state, on, ratio))| {
                    let ip = format!("10.0.{n}.{m}");
                    let vs = format!("vs-{n}-{m}");
                    health.0.insert(vs.clone(), state);
                    if enabled && on && state == Availability::Up {
                        allowed.push(ip.parse::<IpAddr>().unwrap());
                    }
                    GslbMember { cluster_uuid: "".into(), vs_uuid: vs.as_str().into(), ratio, enabled: on, ..member(0, &ip) }
                });
                let members = members.collect();
                let mut group = group(priority.into(), algorithm, members);
                group.enabled = enabled;
                service.groups.push(group);
            }
            service.groups.sort_by_key(|group| std::cmp::Reverse(group.priority));
            (service.min_members, service.num_dns_ip) = (min_members, num_dns_ip);
            if by_geo {
                service.pool_algorithm = PoolAlgorithm::Geo;
            }
        });
        let client = Client::at(IpAddr::V4(client.into()));
        let (now, family) = (Instant::now(), if v6 { Family::V6 } else { Family::V4 });
        let service = service(&directory);
        let choice = service.choose(&client, family, &health, now, seed);
        match &choice.answer {
            ChoiceAnswer::Addresses(addresses) => {
                prop_assert!(!addresses.is_empty() && addresses.iter().all(|ip| allowed.contains(ip)));
                prop_assert!(num_dns_ip == 0 || addresses.len() <= num_dns_ip.into());
                let once: std::collections::BTreeSet<_> = addresses.iter().collect();
                prop_assert_eq!(once.len(), addresses.len());
                prop_assert_eq!(choice.member.and_then(|member| member.ip), addresses.first().copied());
            }
            ChoiceAnswer::Empty => prop_assert!(v6 && !allowed.is_empty()),
            ChoiceAnswer::Silent => prop_assert!(allowed.is_empty()),
            ChoiceAnswer::Cname(name) => prop_assert!(false, "{}", name),
        }
        prop_assert_eq!(&service.choose(&client, family, &health, now, seed), &choice, "the same again");
        let account = service.explain(&client, family, &health, now, seed);
        prop_assert_eq!(&account.choice, &choice);
        let members = account.groups.iter().flat_map(|group| &group.members);
        for told in members {
            let chosen = matches!(&choice.answer, ChoiceAnswer::Addresses(of) if of.contains(&told.member.ip.unwrap()));
            prop_assert_eq!(told.verdict == Verdict::Chosen, chosen, "{:?}", told);
        }
    }
}
