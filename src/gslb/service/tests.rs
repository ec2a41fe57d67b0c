//! What a member knows, reads and issues.

use std::time::Duration;

use super::*;
use crate::{
    gslb::fixtures::{self, A, B, C, NOW},
    site_cookie::Refusal,
};

fn value(set_cookie: &str) -> Vec<u8> {
    set_cookie.split(';').next().expect("a pair").as_bytes().to_vec()
}

#[test]
fn a_member_knows_itself_and_its_peers() {
    let membership = fixtures::membership(A);
    assert_eq!(membership.own, MemberId::of(&A.cluster.into(), &A.vs.into()));
    let peers: Vec<_> = membership.peers.iter().map(|peer| (peer.site.as_str(), peer.id)).collect();
    assert_eq!(
        peers,
        [
            ("site_B", MemberId::of(&B.cluster.into(), &B.vs.into())),
            ("site_C", MemberId::of(&C.cluster.into(), &C.vs.into())),
        ]
    );
    let b = membership.peer(&peers[0].1).expect("a peer");
    assert_eq!((b.addr.to_string().as_str(), b.enable_ssl, b.enabled), ("127.0.0.12:18100", false, true));
    let c = membership.peer(&peers[1].1).expect("a peer");
    assert_eq!((c.addr.to_string().as_str(), c.enable_ssl, c.enabled), ("127.0.0.13:18100", false, false));
    assert_eq!(membership.peer(&membership.own), None);
    assert_eq!(membership.loop_token, "homing-demo");
}

#[test]
fn a_virtual_service_outside_of_a_persistent_service_has_no_membership() {
    let none = |vs: &VirtualService, site: &Site, gslb: &Gslb| {
        Membership::of(vs, &[], site, gslb, NOW).expect("a good federation").is_none()
    };
    let (vs, site, gslb) = (fixtures::vs(A), fixtures::site(A), fixtures::gslb());
    assert!(!none(&vs, &site, &gslb));
    assert!(none(&VirtualService { uuid: None, ..vs.clone() }, &site, &gslb));
    assert!(none(&fixtures::vs(B), &site, &gslb), "another site's virtual service");
    assert!(none(&vs, &Site { cluster_uuid: None, ..site.clone() }, &gslb));
    let changed = |change: fn(&mut GslbService)| {
        let mut service = (*fixtures::gslb().services[0]).clone();
        change(&mut service);
        Gslb { services: vec![Arc::new(service)], ..fixtures::gslb() }
    };
    assert!(none(&vs, &site, &changed(|service| service.enabled = false)));
    assert!(none(&vs, &site, &changed(|service| service.site_persistence = None)));
}

#[test]
fn keys_that_make_no_ring_are_an_error_that_names_the_profile() {
    let mut gslb = fixtures::gslb();
    let mut service = (*gslb.services[0]).clone();
    let mut profile = (**service.site_persistence.as_ref().expect("it is persistent")).clone();
    profile.cookie.keys.clear();
    service.site_persistence = Some(Arc::new(profile));
    gslb.services = vec![Arc::new(service)];
    let error =
        Membership::of(&fixtures::vs(A), &[], &fixtures::site(A), &gslb, NOW).err().expect("no active key");
    assert!(error.to_string().starts_with("application_persistence_profiles `gap-1`: keys: none"), "{error}");
}

#[test]
fn a_cookie_means_home_to_its_issuer_and_a_peer_to_the_others() {
    let (a, b) = (fixtures::membership(A), fixtures::membership(B));
    let cookie = value(&a.issue_cookie(NOW, [1; 12], false, None));
    assert_eq!(a.read_cookie([&cookie[..]], NOW).cookie, Cookie::Ours { stale: false });
    assert_eq!(b.read_cookie([&cookie[..]], NOW).cookie, Cookie::Peers(a.own));
    assert_eq!(a.read_cookie([&cookie[..]], NOW + 4 * 3600 + 1).cookie, Cookie::Ours { stale: true });
    assert_eq!(a.read_cookie([&cookie[..]], NOW + 8 * 3600).cookie, Cookie::Refused(Refusal::Expired));
    assert_eq!(a.read_cookie([&b"SID=1"[..]], NOW).cookie, Cookie::None);
    assert_eq!(a.read_cookie([&b"FOO=\xff"[..]], NOW).cookie, Cookie::Refused(Refusal::Undecryptable));
    let newer = value(&b.issue_cookie(NOW + 1, [2; 12], true, None));
    assert_eq!(a.read_cookie([&cookie[..], b"x=1", &newer], NOW).cookie, Cookie::Peers(b.own));
}

#[test]
fn a_raised_drain_epoch_expires_older_cookies_everywhere() {
    let a = fixtures::membership(A);
    let cookie = value(&a.issue_cookie(NOW, [1; 12], false, None));
    for site in [A, B] {
        let drained =
            fixtures::membership_in(site, &fixtures::gslb_with(|members| members[0].drain_epoch = 1));
        assert_eq!(drained.read_cookie([&cookie[..]], NOW).cookie, Cookie::Refused(Refusal::Expired));
    }
}

#[test]
fn a_member_that_left_is_nobodys_home() {
    let cookie = value(&fixtures::membership(A).issue_cookie(NOW, [1; 12], false, None));
    let left = fixtures::membership_in(B, &fixtures::gslb_with(|members| drop(members.remove(0))));
    assert_eq!(left.read_cookie([&cookie[..]], NOW).cookie, Cookie::Refused(Refusal::WrongService));
}

#[test]
fn a_disabled_member_keeps_its_sessions_for_a_minute_and_a_drain_may_end_it_sooner() {
    let (a, b) = (fixtures::membership(A), fixtures::membership(B));
    let drains = Drains::default();
    let of_c = |membership: &Membership, drains: &Drains| {
        membership.peer_until(membership.peers.last().expect("site_C"), drains)
    };
    assert_eq!(a.own_until(&drains), None);
    assert_eq!(of_c(&a, &drains), Some(NOW + 60), "it is disabled since the configuration was loaded");
    assert_eq!(fixtures::membership(C).own_until(&drains), Some(NOW + 60));
    drains.drain(&C.cluster.into(), NOW, Duration::from_secs(30));
    drains.drain(&A.cluster.into(), NOW, Duration::from_secs(90));
    assert_eq!((of_c(&a, &drains), a.own_until(&drains)), (Some(NOW + 30), Some(NOW + 90)));
    assert_eq!((of_c(&b, &drains), b.own_until(&drains)), (Some(NOW + 30), None));
}

#[test]
fn a_reload_does_not_lengthen_the_time_of_a_member_that_is_disabled() {
    let gslb = |enabled| fixtures::gslb_with(|members| members[2].enabled = enabled);
    let loaded = |enabled, at| {
        let of = Membership::of(&fixtures::vs(A), &[], &fixtures::site(A), &gslb(enabled), at);
        of.expect("a good federation").expect("a member")
    };
    let until = |membership: &Membership| {
        membership.peer_until(membership.peers.last().expect("site_C"), &Drains::default())
    };
    let first = loaded(false, NOW);
    let again = loaded(false, NOW + 50).following(&first);
    assert_eq!(until(&again), Some(NOW + 60));
    assert_eq!(until(&loaded(false, NOW + 100).following(&again)), Some(NOW + 60), "as from the first");
    let enabled = loaded(true, NOW + 100).following(&again);
    assert_eq!(until(&enabled), None);
    assert_eq!(until(&loaded(false, NOW + 200).following(&enabled)), Some(NOW + 260), "another time");
}

#[test]
fn with_server_tags_a_cookie_names_the_app_server_to_its_home_alone() {
    let gslb = gslb_with_server_tags();
    let servers: [SocketAddr; 2] = [([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()];
    let membership = |site, servers: &[SocketAddr]| {
        let (vs, site) = (fixtures::vs(site), fixtures::site(site));
        let membership = Membership::of(&vs, servers, &site, &gslb, NOW);
        membership.expect("a good federation").expect("a member")
    };
    let (a, b) = (membership(A, &servers), membership(B, &servers));
    let read = |membership: &Membership, cookie: &str| membership.read_cookie([&*value(cookie)], NOW);
    let cookie = a.issue_cookie(NOW, [1; 12], false, Some(servers[1]));
    assert_eq!(read(&a, &cookie).server, Some(servers[1]));
    assert_eq!((read(&b, &cookie).cookie, read(&b, &cookie).server), (Cookie::Peers(a.own), None));
    assert_eq!(read(&membership(A, &servers[..1]), &cookie).server, None, "the server is gone");
    assert_eq!(read(&fixtures::membership(A), &cookie).server, None, "the option is off");
    let stranger = ([10, 0, 0, 3], 80).into();
    assert!(a.can_name(servers[0]) && !a.can_name(stranger));
    assert_eq!(read(&a, &a.issue_cookie(NOW, [2; 12], false, Some(stranger))).server, None);
    assert!(!fixtures::membership(A).can_name(servers[0]));
}

fn gslb_with_server_tags() -> Gslb {
    let mut service = (*fixtures::gslb().services[0]).clone();
    let mut profile = (**service.site_persistence.as_ref().expect("it is persistent")).clone();
    profile.cookie.server_tag = true;
    service.site_persistence = Some(Arc::new(profile));
    Gslb { services: vec![Arc::new(service)], ..fixtures::gslb() }
}

#[test]
fn the_loop_token_is_found_among_others() {
    for (fields, found) in [
        (&["homing-demo"][..], true),
        (&["other, Homing-Demo;v=1"], true),
        (&["other", "x;y=homing-demo , homing-demo ; a"], true),
        (&["homing-demo2", "x homing-demo", "x;homing-demo"], false),
        (&[""], false),
        (&[], false),
    ] {
        let fields = || fields.iter().map(|field| field.as_bytes());
        assert_eq!(carries_loop_token(fields(), "homing-demo"), found, "{:?}", fields().collect::<Vec<_>>());
    }
}

#[test]
fn a_client_is_redirected_to_where_it_keeps_its_scheme_if_that_is_possible() {
    let port = |port, enable_ssl| MemberPort { port, enable_ssl };
    for (ports, secure, origin) in [
        (&[port(80, false), port(443, true)][..], false, "http://b.a.com"),
        (&[port(80, false), port(443, true)], true, "https://b.a.com"),
        (&[port(8080, false), port(8443, true)], false, "http://b.a.com:8080"),
        (&[port(8080, false), port(8443, true)], true, "https://b.a.com:8443"),
        (&[port(443, false)], true, "http://b.a.com:443"),
        (&[port(443, true)], false, "https://b.a.com"),
    ] {
        let name = PublicName { fqdn: "b.a.com".into(), ports: ports.to_vec() };
        assert_eq!(name.origin(secure), origin, "{ports:?}, TLS: {secure}");
    }
}

#[test]
fn a_host_is_compared_with_a_name_as_a_host() {
    let name = PublicName { fqdn: "b.a.com".into(), ports: Vec::new() };
    for (host, is) in [
        ("b.a.com", true),
        ("B.a.com:8080", true),
        ("b.a.com.", true),
        ("a.com", false),
        ("b.a.com.x", false),
        ("[::1]:80", false),
    ] {
        assert_eq!(name.is(host), is, "{host}");
    }
}
