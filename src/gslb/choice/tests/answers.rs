//! What becomes of a member: addresses of a family, for clients outside, or a name.

use super::{fixtures::*, *};
use crate::gslb::fixtures::gslb;

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
    let mut federation = gslb();
    let service = |name: &str, domain: &str, wildcard_match| {
        Arc::new(GslbService {
            name: name.into(),
            domain_names: vec![domain.into()],
            wildcard_match,
            ..(*gslb().services[0]).clone()
        })
    };
    federation.services = vec![
        service("exact", "x.foo.com", false),
        service("wide", "foo.com", true),
        service("star", "*.bar.foo.com", false),
        service("second", "x.foo.com", false),
    ];
    let directory = Directory::new(&federation);
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
