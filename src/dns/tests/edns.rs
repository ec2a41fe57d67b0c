//! Sizes, client subnets and cookies.

use hickory_proto::rr::{
    RecordType,
    rdata::opt::{EdnsCode, EdnsOption},
};

use super::fixtures::{Ask, Heard, NOW, Server, addresses};
use crate::dns::Over;

#[test]
fn an_answer_is_as_long_as_the_client_takes_and_we_allow() {
    let server = Server::with("listen: [127.0.0.1:53]\n  udp_size: 700");
    let many = || Ask::new("many.foo.com", RecordType::AAAA);
    let whole = 12 + many().question().len() + 20 * (2 + 10 + 16);
    assert!((512..700).contains(&whole), "{whole}");
    for (ask, fits) in [
        (many(), false),
        (many().edns(0, 0), false),
        (many().edns(512, 0), false),
        (many().edns((whole + 10) as u16, 0), false),
        (many().edns((whole + 11) as u16, 0), true),
        (many().edns(700, 0), true),
        (many().edns(u16::MAX, 0), true),
    ] {
        let heard = server.hears(ask.clone());
        assert_eq!((!heard.truncation, heard.answers.len()), (fits, if fits { 20 } else { 0 }));
        assert!(heard.length <= 700);
        assert_eq!(heard.edns.is_some(), ask.bytes().len() > many().bytes().len(), "OPT for OPT");
        assert!(heard.edns.as_ref().is_none_or(|edns| edns.max_payload() == 700));
    }
    let smaller = Server::with("listen: [127.0.0.1:53]\n  udp_size: 512");
    assert!(smaller.hears(many().edns(4096, 0)).truncation);
    let packet = many().bytes();
    let over_tcp =
        smaller.asks_from(&packet, "192.0.2.1:4000", Over::Tcp, Default::default()).expect("an answer");
    let heard = Heard::read(&over_tcp, &packet);
    assert_eq!((heard.truncation, heard.answers.len()), (false, 20));
}

#[test]
fn glue_that_does_not_fit_is_left_out_without_a_word() {
    let names: String = (0..16)
        .map(|n| format!("{{ name: ns{n}.a-long-name-of-a-zone.foo.com, addresses: [10.0.0.1, 10.0.0.2] }},"))
        .collect();
    let zones = format!("listen: [127.0.0.1:53]\n  zones: [{{ name: foo.com, ns: [{names}] }}]");
    let heard = Server::with(&zones).hears(Ask::new("foo.com", RecordType::NS));
    assert_eq!((heard.truncation, heard.answers.len()), (false, 16));
    assert!((1..16).contains(&heard.additionals.len()), "{}", heard.additionals.len());
}

#[test]
fn a_client_subnet_counts_where_the_service_wants_it() {
    let server = Server::new();
    let subnet = |name: &str, option: &[u8]| {
        let heard = server.hears(Ask::new(name, RecordType::A).option(8, option));
        let Some(EdnsOption::Subnet(subnet)) = heard.edns.as_ref().and_then(|it| it.option(EdnsCode::Subnet))
        else {
            panic!("{heard:?}");
        };
        (subnet.source_prefix(), subnet.scope_prefix(), addresses(&heard))
    };
    let [one, same_20, other] = [[198, 51, 100], [198, 51, 101], [203, 0, 113]]
        .map(|[a, b, c]| subnet("hash.foo.com", &[0, 1, 24, 0, a, b, c]));
    assert_eq!((one.0, one.1), (24, 20), "the answer holds for the bits that were looked at");
    assert_eq!(one, same_20);
    assert_eq!((other.0, other.1), (24, 20));
    let networks = (0..50).map(|n| subnet("hash.foo.com", &[0, 1, 24, 0, n, 51, 100]).2);
    assert!(networks.collect::<std::collections::HashSet<_>>().len() > 3, "who is asked for matters");
    assert_eq!(subnet("hash.foo.com", &[0, 1, 8, 0, 198]).1, 8, "nobody knows the bits beyond");
    let own = addresses(&server.hears(Ask::new("hash.foo.com", RecordType::A)));
    assert_eq!(subnet("hash.foo.com", &[0, 1, 0, 0]), (0, 0, own), "the client does not want it to matter");
    for n in 0..20 {
        let (source, scope, of_service) = subnet("nosubnet.foo.com", &[0, 1, 24, 0, n, 51, 100]);
        assert_eq!((source, scope), (24, 0), "the answer is for everyone");
        assert_eq!(of_service, addresses(&server.hears(Ask::new("nosubnet.foo.com", RecordType::A))));
    }
    assert_eq!(subnet("v4.foo.com", &[0, 1, 24, 0, 198, 51, 100]).1, 0, "no algorithm looked at it");
    assert_eq!(subnet("nothing.foo.com", &[0, 1, 24, 0, 198, 51, 100]).1, 0);
    let of_the_future = server.hears(Ask::new("hash.foo.com", RecordType::A).option(8, &[0, 9, 8, 0, 1]));
    assert!(of_the_future.edns.as_ref().is_some_and(|it| it.option(EdnsCode::Subnet).is_none()));
}

#[test]
fn who_sends_a_cookie_gets_one_back() {
    let server = Server::new();
    let cookie = |value: &[u8]| {
        let heard = server.hears(Ask::new("app.foo.com", RecordType::A).option(10, value));
        match heard.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Cookie)) {
            Some(EdnsOption::Unknown(10, cookie)) => cookie.clone(),
            other => panic!("{other:?}"),
        }
    };
    let first = cookie(&[9; 8]);
    assert_eq!((first.len(), &first[..8], first[8]), (24, &[9; 8][..], 1));
    assert_eq!(first[12..16], (NOW as u32).to_be_bytes());
    assert_eq!(cookie(&first), first, "the one that it has");
    assert_eq!(cookie(&[9; 24]), first, "in place of a false one");
    assert_eq!(cookie(&[9; 40]), first, "in place of another server's");
    assert_ne!(cookie(&[8; 8]), first);
    let with_version_1 = Ask::new("app.foo.com", RecordType::A).edns(1232, 1).option(10, &[9; 8]);
    assert!(
        server.hears(with_version_1).edns.as_ref().is_some_and(|it| it.option(EdnsCode::Cookie).is_none())
    );
}
