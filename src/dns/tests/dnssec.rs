//! Signed answers, verified as a resolver does that trusts the zone's keys.

use std::time::Duration;

use hickory_proto::{
    dnssec::{
        Verifier,
        rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG},
    },
    op::ResponseCode,
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::fixtures::{Ask, DNS, Heard, NOW, Server};
use crate::dns::Over;

fn server(key_file: &str) -> Server {
    Server::with(&format!("{DNS}\n  dnssec: {{ key_file: {key_file}, signature_validity: 2d }}"))
}

fn dnssec(record: &Record) -> Option<&DNSSECRData> {
    match &record.data {
        RData::DNSSEC(data) => Some(data),
        _ => None,
    }
}

fn keys(server: &Server) -> Vec<DNSKEY> {
    let heard = server.hears(Ask::new("foo.com", RecordType::DNSKEY).signed());
    let key = |record: &Record| match dnssec(record) {
        Some(DNSSECRData::DNSKEY(key)) => Some(key.clone()),
        _ => None,
    };
    heard.answers.iter().filter_map(key).collect()
}

fn signatures(records: &[Record]) -> impl Iterator<Item = (&Name, &RRSIG)> {
    records.iter().filter_map(|record| match dnssec(record) {
        Some(DNSSECRData::RRSIG(signature)) => Some((&record.name, signature)),
        _ => None,
    })
}

fn proofs(heard: &Heard) -> Vec<(&Name, &NSEC)> {
    let proof = |record| match dnssec(record) {
        Some(DNSSECRData::NSEC(nsec)) => Some((&record.name, nsec)),
        _ => None,
    };
    heard.authorities.iter().filter_map(proof).collect()
}

/// How many signatures hold: of every record there must be one by the first key.
fn verified(keys: &[DNSKEY], records: &[Record]) -> usize {
    let mut count = 0;
    for (name, signature) in signatures(records) {
        let input = signature.input();
        let key = keys.iter().find(|key| key.calculate_key_tag().unwrap() == input.key_tag);
        let verdict =
            key.expect("a key of the zone").verify_rrsig(name, DNSClass::IN, signature, records.iter());
        assert!(verdict.is_ok(), "{name} {}: {verdict:?}", input.type_covered);
        assert_eq!(input.signer_name.to_ascii(), "foo.com.");
        assert!(input.sig_inception.get() < NOW as u32 && input.sig_expiration.get() > NOW as u32);
        count += 1;
    }
    let first = keys[0].calculate_key_tag().unwrap();
    for record in records.iter().filter(|record| record.record_type() != RecordType::RRSIG) {
        let covers = |(name, it): (&Name, &RRSIG)| {
            *name == record.name
                && it.input().type_covered == record.record_type()
                && it.input().key_tag == first
        };
        assert!(signatures(records).any(covers), "{record} is not signed");
    }
    count
}

#[test]
fn whatever_is_answered_is_signed_for_who_wants_it() {
    let server = server("one.key");
    let keys = keys(&server);
    assert_eq!(keys.len(), 1);
    assert!(keys[0].zone_key() && keys[0].secure_entry_point());
    for (name, kind, answers) in [
        ("aPp.foo.com", RecordType::A, 1),
        ("app.foo.com", RecordType::AAAA, 1),
        ("many.foo.com", RecordType::AAAA, 20),
        ("a.b.wild.foo.com", RecordType::A, 1),
        ("tls.foo.com", RecordType::HTTPS, 1),
        ("cdn.foo.com", RecordType::A, 1),
        ("app.foo.com", RecordType::ANY, 1),
        ("ns1.foo.com", RecordType::A, 1),
        ("foo.com", RecordType::SOA, 1),
        ("foo.com", RecordType::NS, 3),
        ("foo.com", RecordType::DNSKEY, 1),
    ] {
        let heard = server.hears(Ask::new(name, kind).signed());
        assert_eq!(heard.answers.len(), answers + 1, "{name} {kind}");
        assert_eq!(verified(&keys, &heard.answers), 1, "{name} {kind}");
        assert!(heard.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok), "DO is said back");
        let unsigned = server.hears(Ask::new(name, kind).edns(1232, 0));
        assert_eq!(unsigned.answers.len(), answers, "{name} {kind}");
        assert!(!unsigned.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok));
    }
}

#[test]
fn what_is_not_there_is_denied_and_nothing_else_is() {
    let server = server("one.key");
    let keys = keys(&server);
    let nxdomain =
        ["nothing.foo.com", "x.y.nothing.foo.com", "below.app.foo.com", "off.foo.com", "*.foo.com"];
    let there = ["app", "ns1", "many", "wild", "deep", "dns", "site-a", "nosubnet"];
    for asked in nxdomain {
        let heard = server.hears(Ask::new(asked, RecordType::A).signed());
        assert_eq!(heard.rcode(), ResponseCode::NXDomain);
        let proofs = proofs(&heard);
        assert_eq!(verified(&keys, &heard.authorities), 1 + proofs.len(), "{asked}");
        let covered =
            |name: &Name| proofs.iter().any(|(owner, nsec)| *owner < name && name < nsec.next_domain_name());
        let name = Name::from_ascii(format!("{asked}.")).unwrap();
        assert!(covered(&name), "{asked}");
        // As resolvers find the closest name that is there: what the asked name shares with a proof of it.
        let common =
            |other: &Name| name.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
        let covering = proofs.iter().find(|(owner, nsec)| **owner < name && name < *nsec.next_domain_name());
        let (owner, nsec) = covering.expect("it was found before");
        let encloser = name.trim_to(common(owner).max(common(nsec.next_domain_name())));
        assert!(covered(&encloser.prepend_label(&b"*"[..]).unwrap()), "no wildcard is below {encloser}");
        for other in there.map(|label| Name::from_ascii(format!("{label}.foo.com.")).unwrap()) {
            assert!(!covered(&other), "{asked} denies {other}");
        }
    }
}

#[test]
fn a_name_without_the_type_has_what_else_it_has() {
    let server = server("one.key");
    let keys = keys(&server);
    for (asked, kind, types) in [
        ("v4.foo.com", RecordType::AAAA, "A RRSIG NSEC HTTPS"),
        ("app.foo.com", RecordType::MX, "A AAAA RRSIG NSEC HTTPS"),
        ("ns1.foo.com", RecordType::AAAA, "A RRSIG NSEC"),
        ("dns.foo.com", RecordType::A, "RRSIG NSEC"),
        ("foo.com", RecordType::A, "NS SOA RRSIG NSEC DNSKEY"),
        ("foo.com", RecordType::DS, "NS SOA RRSIG NSEC DNSKEY"),
    ] {
        let heard = server.hears(Ask::new(asked, kind).signed());
        assert_eq!(heard.rcode(), ResponseCode::NoError);
        assert_eq!(verified(&keys, &heard.authorities), 2, "{asked} {kind}");
        let [(owner, nsec)] = proofs(&heard)[..] else { panic!("{asked} {kind}") };
        assert_eq!(owner.to_ascii(), format!("{asked}."));
        let mut told: Vec<_> = nsec.type_bit_maps().collect();
        told.sort_by_key(|kind| u16::from(*kind));
        assert_eq!(
            told.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            types,
            "{asked} {kind}"
        );
    }
}

#[test]
fn the_next_key_is_vouched_for_before_it_signs() {
    let server = server("two.key");
    let keys = keys(&server);
    assert_eq!(keys.len(), 2);
    let heard = server.hears(Ask::new("foo.com", RecordType::DNSKEY).signed());
    assert_eq!(verified(&keys, &heard.answers), 2, "each signs both");
    let heard = server.hears(Ask::new("app.foo.com", RecordType::A).signed());
    assert_eq!(verified(&keys, &heard.answers), 1);
    let lines = server.delegation_signers();
    assert_eq!(lines.len(), 2);
    for key in &keys {
        let start = format!("foo.com. IN DS {} 13 2 ", key.calculate_key_tag().unwrap());
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{lines:?}");
    }
}

#[test]
fn signatures_are_made_anew_long_before_they_are_over() {
    let server = server("one.key");
    let query = Ask::new("app.foo.com", RecordType::A).signed().bytes();
    let ends = |after: Duration| {
        let answer = server.asks_from(&query, "192.0.2.77:4000", Over::Udp, after).expect("an answer");
        let heard = Heard::read(&answer, &query);
        let (_, signature) = signatures(&heard.answers).next().expect("it is signed");
        u64::from(signature.input().sig_expiration.get())
    };
    for hours in 0..200 {
        let after = Duration::from_secs(hours * 3600);
        let left = ends(after) - (NOW + after.as_secs());
        assert!((36 * 3600..=48 * 3600).contains(&left), "{left} s are left after {hours} h");
    }
}

#[test]
fn an_answer_that_is_too_long_is_cut_as_a_whole() {
    let server = server("one.key");
    let mut ask = Ask::new("many.foo.com", RecordType::AAAA).signed();
    ask.edns = Some((512, 0, Vec::new()));
    let heard = server.hears(ask);
    assert!(heard.truncation && heard.answers.is_empty() && heard.authorities.is_empty());
}
