//! Groups in turn, what is disabled, and what is said while nobody is up.

use super::{fixtures::*, *};

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
