//! What holds for any federation.

use proptest::prelude::*;

use super::{fixtures::*, *};

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
