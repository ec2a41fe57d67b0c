//! Packets that are not queries as they should be, or ask for what we do not do.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use proptest::prelude::*;

use super::fixtures::{Ask, Heard, Server};
use crate::dns::Over;

fn app() -> Ask {
    Ask::new("app.foo.com", RecordType::A)
}

/// A good packet, spoilt.
fn spoilt(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = app().edns(1232, 0).bytes();
    change(&mut packet);
    packet
}

#[test]
fn what_is_wrong_with_a_packet_is_told() {
    let server = Server::new();
    let opcode = |opcode: u8| spoilt(|packet| packet[2] = opcode << 3);
    let question_end = 12 + app().question().len();
    let (opt, tsig) = ([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0], [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    for (what, packet, code) in [
        ("inverse queries", opcode(1), ResponseCode::NotImp),
        ("status", opcode(2), ResponseCode::NotImp),
        ("notify", opcode(4), ResponseCode::NotImp),
        ("update", opcode(5), ResponseCode::NotImp),
        ("an opcode that nobody knows", opcode(15), ResponseCode::NotImp),
        ("no question", spoilt(|it| it[5] = 0), ResponseCode::FormErr),
        ("two questions", spoilt(|it| it[5] = 2), ResponseCode::FormErr),
        ("a header alone", spoilt(|it| it.truncate(12)), ResponseCode::FormErr),
        ("a question that is cut", spoilt(|it| it.truncate(question_end - 1)), ResponseCode::FormErr),
        ("an answer in a query", spoilt(|it| it[7] = 1), ResponseCode::FormErr),
        ("a record that is not there", spoilt(|it| it[9] = 1), ResponseCode::FormErr),
        ("very many records", spoilt(|it| it[10] = 255), ResponseCode::FormErr),
        ("more after the end", spoilt(|it| it.push(0)), ResponseCode::FormErr),
        (
            "a name that refers to itself",
            spoilt(|it| it.splice(12..25, [0xc0, 12]).for_each(drop)),
            ResponseCode::FormErr,
        ),
        (
            "a name that refers to the head",
            spoilt(|it| it.splice(12..25, [0xc0, 3]).for_each(drop)),
            ResponseCode::FormErr,
        ),
        (
            "a name that refers forward",
            spoilt(|it| it.splice(12..25, [0xc0, 40]).for_each(drop)),
            ResponseCode::FormErr,
        ),
        ("a label of a kind that is gone", spoilt(|it| it[12] = 0x41), ResponseCode::FormErr),
        (
            "a name that is too long",
            spoilt(|it| {
                let label = [&[63][..], &[b'a'; 63]].concat();
                it.splice(12..25, [label.repeat(4), vec![0]].concat());
            }),
            ResponseCode::FormErr,
        ),
        (
            "two OPT records",
            spoilt(|it| {
                it[11] = 2;
                it.extend(opt);
            }),
            ResponseCode::FormErr,
        ),
        (
            "an OPT record with a name",
            spoilt(|it| it.splice(question_end..=question_end, [1, b'a', 0]).for_each(drop)),
            ResponseCode::FormErr,
        ),
        ("an OPT record as authority", spoilt(|it| it.swap(9, 11)), ResponseCode::FormErr),
        (
            "an OPT record that is cut",
            spoilt(|it| {
                it.pop();
            }),
            ResponseCode::FormErr,
        ),
        (
            "a signature by a key that we do not have",
            spoilt(|it| {
                it[11] = 2;
                it.extend(tsig);
            }),
            ResponseCode::NotAuth,
        ),
        ("EDNS of another version", app().edns(1232, 1).bytes(), ResponseCode::BADVERS),
        ("a malformed subnet", app().option(8, &[0, 1, 33, 0]).bytes(), ResponseCode::FormErr),
        ("a malformed cookie", app().option(10, &[1, 2, 3]).bytes(), ResponseCode::FormErr),
    ] {
        let answer = server.asks(&packet).unwrap_or_else(|| panic!("{what} is answered"));
        let heard = Heard::read(&answer, &packet);
        assert_eq!(u16::from(heard.rcode()), u16::from(code), "{what}");
        assert!(heard.answers.is_empty() && !heard.authoritative, "{what}");
    }
}

#[test]
fn what_is_none_of_our_business_is_refused() {
    let server = Server::new();
    let class = |class| app().class(class);
    let kind = |kind| Ask::new("foo.com", kind);
    for (what, ask) in [
        ("a name outside", Ask::new("app.bar.com", RecordType::A)),
        ("a name above", Ask::new("com", RecordType::SOA)),
        ("the root", Ask { name: vec![0], ..app() }),
        ("a dot within a label", Ask { name: b"\x0bapp.foo.com\0".to_vec(), ..app() }),
        ("a transfer", kind(RecordType::AXFR)),
        ("an incremental one", kind(RecordType::IXFR)),
        ("mailboxes", kind(RecordType::Unknown(253))),
        ("a key exchange", kind(RecordType::Unknown(249))),
        ("class HS", class(4)),
        ("class NONE", class(254)),
        ("class ANY", class(255)),
    ] {
        let heard = server.hears(ask);
        assert_eq!(heard.rcode(), ResponseCode::Refused, "{what}");
        assert!(!heard.authoritative && heard.answers.is_empty() && heard.authorities.is_empty(), "{what}");
        assert_eq!(heard.queries.len(), 1, "{what}");
    }
}

#[test]
fn some_packets_are_met_with_silence() {
    let server = Server::new();
    let good = app().bytes();
    for length in 0..12 {
        assert!(server.asks(&good[..length]).is_none(), "{length} bytes are no header");
    }
    let answer = server.asks(&good).expect("an answer");
    assert!(server.asks(&answer).is_none(), "an answer is not answered");
    let from_port_0 = server.asks_from(&good, "192.0.2.1:0", Over::Udp, Default::default());
    assert!(from_port_0.is_none(), "nobody is at port 0");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_answered_well_or_not_at_all(
        noise in proptest::collection::vec(any::<u8>(), 0..80),
        at in 0_usize..60,
        cut in 0_usize..6,
        tcp in any::<bool>(),
    ) {
        let server = server();
        let mut packet = app().option(8, &[0, 1, 24, 0, 192, 0, 2]).option(10, &[7; 24]).bytes();
        let end = (at + cut).min(packet.len());
        packet.splice(at.min(end)..end, noise.iter().copied().take(6));
        for packet in [&packet[..], &noise] {
            let over = if tcp { Over::Tcp } else { Over::Udp };
            if let Some(answer) = server.asks_from(packet, "192.0.2.1:4000", over, Default::default()) {
                Heard::read(&answer, packet);
                prop_assert!(tcp || answer.len() <= 1232);
            }
        }
    }
}

/// One for all rounds.
fn server() -> &'static Server {
    static SERVER: std::sync::LazyLock<Server> = std::sync::LazyLock::new(Server::new);
    &SERVER
}
