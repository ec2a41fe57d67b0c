//! The responder as a whole, packet by packet, against what the RFCs ask for.

mod dnssec;
mod edns;
mod fixtures;
mod limits;
mod packets;

use std::net::IpAddr;

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};

use self::fixtures::{Ask, Heard, Server, addresses};

#[test]
fn a_service_is_answered_with_its_member_as_the_name_was_spelt() {
    let server = Server::new();
    for (kind, expected) in [(RecordType::A, "10.0.0.1"), (RecordType::AAAA, "2001:db8::1")] {
        let heard = server.hears(Ask::new("aPp.FoO.com", kind));
        assert_eq!(heard.rcode(), ResponseCode::NoError);
        assert!(heard.authoritative && !heard.recursion_available && heard.recursion_desired);
        assert_eq!(heard.queries[0].name.to_ascii(), "aPp.FoO.com.");
        assert_eq!(heard.answers[0].name.to_ascii(), "aPp.FoO.com.");
        assert_eq!(addresses(&heard), [expected.parse::<IpAddr>().unwrap()]);
        assert_eq!(heard.answers[0].ttl, 30);
        assert!(heard.authorities.is_empty() && heard.additionals.is_empty() && heard.edns.is_none());
    }
}

#[test]
fn what_is_there_is_told_from_what_is_not() {
    let server = Server::new();
    let table = [
        // Of services.
        ("app.foo.com", RecordType::MX, ResponseCode::NoError, 0),
        ("v4.foo.com", RecordType::AAAA, ResponseCode::NoError, 0),
        ("any.wild.foo.com", RecordType::A, ResponseCode::NoError, 1),
        ("a.b.wild.foo.com", RecordType::A, ResponseCode::NoError, 1),
        ("below.app.foo.com", RecordType::A, ResponseCode::NXDomain, 0),
        // Of the zone.
        ("foo.com", RecordType::A, ResponseCode::NoError, 0),
        ("ns1.foo.com", RecordType::A, ResponseCode::NoError, 1),
        ("ns1.foo.com", RecordType::AAAA, ResponseCode::NoError, 0),
        ("ns2.dns.foo.com", RecordType::AAAA, ResponseCode::NoError, 1),
        ("site-a.foo.com", RecordType::A, ResponseCode::NoError, 1),
        // Names that have names below them.
        ("dns.foo.com", RecordType::A, ResponseCode::NoError, 0),
        ("deep.foo.com", RecordType::A, ResponseCode::NoError, 0),
        ("deep.foo.com", RecordType::ANY, ResponseCode::NoError, 0),
        ("wild.foo.com", RecordType::A, ResponseCode::NoError, 0),
        ("nothing.foo.com", RecordType::A, ResponseCode::NXDomain, 0),
        ("nothing.foo.com", RecordType::ANY, ResponseCode::NXDomain, 0),
        // A service that is not enabled.
        ("off.foo.com", RecordType::A, ResponseCode::NXDomain, 0),
    ];
    for (name, kind, code, answers) in table {
        let heard = server.hears(Ask::new(name, kind));
        assert_eq!((heard.rcode(), heard.answers.len()), (code, answers), "{name} {kind}");
        assert!(heard.authoritative, "{name} {kind}");
        if answers == 0 {
            let [soa] = &*heard.authorities else { panic!("{name} {kind}: {:?}", heard.authorities) };
            let RData::SOA(data) = &soa.data else { panic!("{soa}") };
            assert_eq!((soa.name.to_ascii(), soa.ttl, data.minimum), ("foo.com.".into(), 20, 20));
        }
    }
}

#[test]
fn the_top_of_a_zone_has_its_soa_and_its_name_servers_with_their_addresses() {
    let server = Server::new();
    let heard = server.hears(Ask::new("FOO.com", RecordType::SOA));
    let RData::SOA(soa) = &heard.answers[0].data else { panic!("{heard:?}") };
    assert_eq!((soa.mname.to_ascii(), soa.rname.to_ascii()), ("ns1.foo.com.".into(), "dns.bar.com.".into()));
    assert_eq!((soa.serial, heard.answers[0].ttl), (7, 3600));
    let heard = server.hears(Ask::new("foo.com", RecordType::NS));
    let names: Vec<_> = heard.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(names, ["ns1.foo.com.", "ns2.dns.foo.com.", "ns.bar.com."]);
    let glue: Vec<_> = heard.additionals.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(glue, ["10.0.0.53", "2001:db8::53"]);
}

#[test]
fn without_zones_each_domain_name_is_one() {
    let server = Server::with("listen: [127.0.0.1:53]");
    for (name, zone) in [
        ("app.foo.com", "app.foo.com."),
        ("x.app.foo.com", "app.foo.com."),
        ("any.wild.foo.com", "wild.foo.com."),
    ] {
        let heard = server.hears(Ask::new(name, RecordType::TXT));
        assert_eq!(heard.authorities[0].name.to_ascii(), zone, "{name}");
    }
    let heard = server.hears(Ask::new("app.foo.com", RecordType::SOA));
    assert_eq!(heard.answers[0].data.to_string().split(' ').next(), Some("app.foo.com."));
    let heard = server.hears(Ask::new("app.foo.com", RecordType::NS));
    assert_eq!((heard.rcode(), heard.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(server.hears(Ask::new("foo.com", RecordType::SOA)).rcode(), ResponseCode::Refused);
}

#[test]
fn who_asks_for_everything_gets_next_to_nothing() {
    for name in ["app.foo.com", "foo.com", "ns1.foo.com"] {
        let heard = Server::new().hears(Ask::new(name, RecordType::ANY));
        assert!(
            matches!(&heard.answers[..], [record] if record.data.to_string().contains("RFC8482")),
            "{name}"
        );
    }
}

#[test]
fn a_member_without_address_is_answered_with_its_name_whatever_is_asked_for() {
    for kind in [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::CNAME, RecordType::TXT] {
        let heard = Server::new().hears(Ask::new("cdn.foo.com", kind));
        assert_eq!(heard.answers.len(), 1, "{kind}");
        assert_eq!(heard.answers[0].record_type(), RecordType::CNAME, "{kind}");
        assert_eq!(heard.answers[0].data.to_string(), "foo.cdn.example.", "{kind}");
    }
}

#[test]
fn services_with_tls_on_port_443_say_so() {
    let server = Server::new();
    let heard = server.hears(Ask::new("tls.foo.com", RecordType::HTTPS));
    let RData::HTTPS(https) = &heard.answers[0].data else { panic!("{heard:?}") };
    assert_eq!((https.svc_priority, https.target_name.is_root()), (1, true));
    assert!(heard.answers[0].data.to_string().contains("h2,http/1.1"), "{}", heard.answers[0]);
    let heard = server.hears(Ask::new("app.foo.com", RecordType::HTTPS));
    assert_eq!((heard.rcode(), heard.answers.len()), (ResponseCode::NoError, 0), "only plain ports");
    let all_down = Server::new().down(&["site_A", "site_B"]);
    assert!(all_down.hears(Ask::new("empty.foo.com", RecordType::HTTPS)).answers.is_empty());
}

#[test]
fn while_no_member_is_up_the_service_says_what_it_is_told_to() {
    let server = Server::new().down(&["site_A", "site_B"]);
    assert!(server.asks(&Ask::new("app.foo.com", RecordType::A).bytes()).is_none(), "down_response: none");
    let heard = server.hears(Ask::new("empty.foo.com", RecordType::A));
    assert_eq!((heard.rcode(), heard.answers.len(), heard.authorities.len()), (ResponseCode::NoError, 0, 1));
    let one_left = Server::new().down(&["site_A"]);
    assert_eq!(
        addresses(&one_left.hears(Ask::new("app.foo.com", RecordType::A))),
        ["10.0.1.1".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn queries_and_answers_are_counted() {
    let server = Server::new();
    for name in ["app.foo.com", "APP.foo.com", "nothing.foo.com", "elsewhere.org"] {
        server.hears(Ask::new(name, RecordType::A));
    }
    server.hears(Ask::new("app.foo.com", RecordType::Unknown(4711)));
    server.asks(&[]);
    let page = server.metrics.page();
    for line in [
        r#"homing_gslb_dns_queries_total{rcode="NOERROR",service="app",type="A"} 2"#,
        r#"homing_gslb_dns_queries_total{rcode="NOERROR",service="app",type="other"} 1"#,
        r#"homing_gslb_dns_queries_total{rcode="NXDOMAIN",service="-",type="A"} 1"#,
        r#"homing_gslb_dns_queries_total{rcode="REFUSED",service="-",type="A"} 1"#,
        r#"homing_gslb_dns_queries_total{rcode="none",service="-",type="other"} 1"#,
        r#"homing_gslb_dns_answers_total{member="site_A/vs-app4",reason="round_robin",service="app"} 2"#,
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn whoever_is_asked_about_itself_says_what_it_is_told_to() {
    let ask = || Ask::new("VERSION.bind", RecordType::TXT).class(3);
    assert_eq!(Server::new().hears(ask()).rcode(), ResponseCode::Refused);
    let named = Server::with("listen: [127.0.0.1:53]\n  version: 'ask me again'");
    let heard: Heard = named.hears(ask());
    assert_eq!(heard.answers[0].data.to_string(), "ask me again");
    assert_eq!(u16::from(heard.answers[0].dns_class), 3);
    assert_eq!(
        named.hears(Ask::new("hostname.bind", RecordType::TXT).class(3)).rcode(),
        ResponseCode::Refused
    );
}
