//! Each algorithm among the members of a group.

use super::{fixtures::*, *};

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
