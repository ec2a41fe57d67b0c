//! The DNS responder from outside: real sockets, many clients, reloads.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    dnssec::{DigestType, rdata::DNSSECRData},
    op::ResponseCode,
    rr::{Name, RData, RecordType},
};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::support::{
    certs,
    config::{Federation, Site, parse},
    dns::{DnsConnection, addresses, ask, query, try_ask},
    eventually,
    homing::{Homing, run},
    net,
    origin::Origin,
    soon,
};

/// site_A with a responder; `keys`: more of its section.
async fn site(fed: &Federation, keys: &str) -> (Site, SocketAddr) {
    let app = Origin::start("app").await;
    let addr = net::free_addr();
    (fed.site_a(&[&app]).with(|yaml| yaml["dns"] = section(addr, keys)), addr)
}

fn section(addr: SocketAddr, keys: &str) -> serde_yaml::Value {
    parse(&format!("{{listen: ['{addr}'], {keys}}}"))
}

/// Where clients of `a.com` are sent.
fn member(site: &Site) -> Vec<IpAddr> {
    vec![site.addr.ip()]
}

#[tokio::test]
async fn clients_are_sent_to_the_member_that_the_service_recommends() {
    let (site, dns) = site(&Federation::new(), "").await;
    let homing = site.clone().with(|yaml| yaml["threads"] = 3.into()).start().await;
    // Of many ports, so that every thread gets some.
    for _ in 0..40 {
        let answer = ask(dns, "A.com.", RecordType::A).await;
        assert_eq!(addresses(&answer), member(&site));
        assert_eq!(answer.queries[0].name, Name::from_ascii("A.com.").unwrap());
        assert!(answer.metadata.authoritative);
    }
    let mut connection = DnsConnection::open(dns).await;
    for _ in 0..10 {
        let answer = connection.ask("a.com.", RecordType::A).await.expect("an answer");
        assert_eq!(addresses(&answer), member(&site));
    }
    assert_eq!(
        ask(dns, "nothing.a.com.", RecordType::A).await.metadata.response_code,
        ResponseCode::NXDomain
    );
    assert_eq!(ask(dns, "b.com.", RecordType::A).await.metadata.response_code, ResponseCode::Refused);
    let queries = "homing_gslb_dns_queries_total";
    homing.settles(queries, &[("service", "gs"), ("type", "A"), ("rcode", "NOERROR")], 50.0).await;
    homing.settles(queries, &[("service", "-"), ("rcode", "NXDOMAIN")], 1.0).await;
    homing.settles("homing_gslb_dns_answers_total", &[("service", "gs"), ("member", "site_A")], 50.0).await;
}

#[tokio::test]
async fn a_signed_zone_has_the_keys_that_the_zone_above_is_to_vouch_for() {
    let key = certs::dnssec_key();
    let (site, dns) = site(&Federation::new(), "dnssec: {key_file: dnssec.key}").await;
    let homing = site.file("dnssec.key", &key).start().await;
    let mut connection = DnsConnection::open(dns).await;
    let answer = connection.ask("a.com.", RecordType::DNSKEY).await.expect("an answer");
    let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = &answer.answers[0].data else { panic!("{answer:?}") };
    let config = homing.dir().join("homing.yaml");
    let told = run(&["keys", "ds", "--config", config.to_str().expect("plain")]).await;
    let digest = key.to_digest(&Name::from_ascii("a.com.").unwrap(), DigestType::SHA256).unwrap();
    let digest = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let expected = format!("a.com. IN DS {} 13 2 {digest}\n", key.calculate_key_tag().unwrap());
    assert_eq!(told.stdout.to_uppercase(), expected.to_uppercase(), "{}", told.text());
}

#[tokio::test]
async fn an_answer_comes_from_the_address_that_was_asked() {
    let (site, _) = site(&Federation::new(), "").await;
    let everywhere = net::free_addr_on(Ipv4Addr::UNSPECIFIED.into());
    let site = site.with(|yaml| yaml["dns"] = section(everywhere, ""));
    let _homing = site.start().await;
    for _ in 0..3 {
        let one_of_all = SocketAddr::new(net::own_ip(), everywhere.port());
        assert_eq!(addresses(&ask(one_of_all, "a.com.", RecordType::A).await), member(&site));
    }
}

#[tokio::test]
async fn queries_follow_one_another_on_a_connection_without_waiting() {
    let (site, dns) = site(&Federation::new(), "").await;
    let _homing = site.start().await;
    let mut connection = DnsConnection::open(dns).await;
    let all: Vec<u8> = (0..300).flat_map(|id| DnsConnection::framed(id, "a.com.", RecordType::A)).collect();
    // Pieces that end anywhere.
    for piece in all.chunks(101) {
        connection.stream.write_all(piece).await.expect("the server reads");
    }
    let mut heard = HashSet::new();
    for _ in 0..300 {
        let answer = connection.answer().await.expect("an answer");
        assert_eq!(addresses(&answer), member(&site));
        heard.insert(answer.metadata.id);
    }
    assert_eq!(heard.len(), 300);
    connection.stream.write_all(&[0, 3, 1, 2, 3]).await.expect("the server reads");
    assert!(connection.ask("a.com.", RecordType::A).await.is_some(), "what is no query is passed over");
}

#[tokio::test]
async fn a_client_has_so_many_connections() {
    let (site, dns) = site(&Federation::new(), "tcp: {connections_per_client: 2, idle_timeout: 1h}").await;
    let homing = site.start().await;
    let mut kept = [DnsConnection::open(dns).await, DnsConnection::open(dns).await];
    for connection in &mut kept {
        assert!(connection.ask("a.com.", RecordType::A).await.is_some());
    }
    let mut third = DnsConnection::open(dns).await;
    assert!(third.answer().await.is_none(), "it is closed at once");
    homing.settles("homing_gslb_dns_tcp_connections_refused_total", &[], 1.0).await;
    let [gone, mut stays] = kept;
    assert!(stays.ask("a.com.", RecordType::A).await.is_some());
    drop(gone);
    homing.settles("homing_gslb_dns_tcp_connections_open", &[], 1.0).await;
    let mut fourth = DnsConnection::open(dns).await;
    assert!(fourth.ask("a.com.", RecordType::A).await.is_some(), "there is room again");
}

#[tokio::test]
async fn a_connection_ends_when_no_query_comes_through() {
    let (site, dns) = site(&Federation::new(), "tcp: {idle_timeout: 300ms}").await;
    let homing = site.start().await;
    let (mut silent, mut halfway) = (DnsConnection::open(dns).await, DnsConnection::open(dns).await);
    halfway.stream.write_all(&[0, 20, 1]).await.expect("the server reads");
    assert!(silent.answer().await.is_none());
    assert!(halfway.answer().await.is_none());
    homing.settles("homing_gslb_dns_tcp_connections_open", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_loses_its_connection() {
    let (site, dns) = site(&Federation::new(), "tcp: {idle_timeout: 500ms}").await;
    let homing = site.start().await;
    let mut connection = DnsConnection::open_narrow(dns).await;
    let many = DnsConnection::framed(1, "nothing.a.com.", RecordType::A).repeat(1000);
    let closed = async { while connection.stream.write_all(&many).await.is_ok() {} };
    soon("the connection is closed", closed).await;
    homing.settles("homing_gslb_dns_tcp_connections_open", &[], 0.0).await;
}

#[tokio::test]
async fn a_reload_changes_names_and_ports_and_loses_nothing() {
    let fed = Federation::new();
    let (site, first) = site(&fed, "").await;
    let homing = site.start().await;
    let mut connection = DnsConnection::open(first).await;
    assert!(connection.ask("a.com.", RecordType::A).await.is_some());
    let second = net::free_addr();
    let renamed = fed.clone().with(|yaml| yaml["gslb_services"][0]["domain_names"] = parse("[a.com, b.com]"));
    let changed = site
        .clone()
        .in_federation(&renamed)
        .vs("domain_names", "[a.com, b.com]")
        .with(|yaml| yaml["dns"]["listen"] = parse(&format!("['{first}', '{second}']")));
    let reload = homing.reloaded(&changed).await;
    assert_eq!(reload["changes"]["settings"]["changed"], serde_json::json!(["dns"]), "{reload:#}");
    for dns in [first, second] {
        assert_eq!(addresses(&ask(dns, "b.com.", RecordType::A).await), member(&site));
    }
    let answer = connection.ask("b.com.", RecordType::A).await.expect("the connection stays");
    assert_eq!(addresses(&answer), member(&site));
    homing.reloaded(&changed.clone().with(|yaml| yaml["dns"] = section(second, ""))).await;
    assert_eq!(addresses(&ask(second, "a.com.", RecordType::A).await), member(&site));
    nobody_listens(first).await;
    assert!(connection.ask("a.com.", RecordType::A).await.is_none(), "its connections end");
    let without = changed.with(|yaml| drop(yaml.as_mapping_mut().expect("a mapping").remove("dns")));
    homing.reloaded(&without).await;
    nobody_listens(second).await;
}

/// Waits until queries are refused by the machine.
async fn nobody_listens(dns: SocketAddr) {
    let refused = async || {
        // One that came at the last moment is never answered.
        let heard = timeout(Duration::from_secs(1), try_ask(dns, "a.com.", RecordType::A)).await;
        heard.is_ok_and(|heard| heard.is_err())
    };
    eventually(&format!("nobody listens on {dns}"), refused).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_clear_line_and_a_reload_changes_nothing() {
    let (site, dns) = site(&Federation::new(), "").await;
    let taken = UdpSocket::bind(net::free_addr()).expect("the address is free");
    let addr = taken.local_addr().expect("a bound socket has an address");
    let clashing = site.clone().with(|yaml| yaml["dns"] = section(addr, ""));
    let mut refused = Homing::spawn(&clashing).await;
    assert!(!refused.ended().await.success());
    let complaint =
        |log: &str| log.lines().filter(|line| line.contains(&format!("dns {addr} (UDP)"))).count() == 1;
    eventually("the address is named", async || complaint(&refused.log())).await;
    let homing = site.start().await;
    let reload = homing.reload(&clashing).await;
    assert_eq!(reload["result"], "failure", "{reload:#}");
    assert!(
        reload["problems"][0].as_str().expect("a line").contains("another program has this port"),
        "{reload:#}"
    );
    assert_eq!(addresses(&ask(dns, "a.com.", RecordType::A).await), member(&site));
}

#[tokio::test]
async fn queries_are_logged_while_somebody_wants_it() {
    let (site, dns) = site(&Federation::new(), "").await;
    let homing = site.start().await;
    ask(dns, "a.com.", RecordType::A).await;
    homing.reloaded(&site.clone().with(|yaml| yaml["dns"]["query_log"] = true.into())).await;
    ask(dns, "a.com.", RecordType::AAAA).await;
    eventually("the query is logged", async || homing.log().contains("dns query")).await;
    let log = homing.log();
    let line = log.lines().find(|line| line.contains("dns query")).expect("it is there");
    for part in ["a.com.", "AAAA", "NOERROR", "gs", "127.0.0.1"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    homing.reloaded(&site).await;
    ask(dns, "a.com.", RecordType::A).await;
    assert_eq!(homing.log_lines("dns query"), 1);
}

#[tokio::test]
async fn packets_that_are_none_leave_the_responder_well() {
    let (site, dns) = site(&Federation::new(), "rate_limit: {responses_per_second: 1000000}").await;
    let homing = site.start().await;
    let noise = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let good = query(1, "a.com.", RecordType::A);
    for n in 0..2000_usize {
        let mut packet = good.clone();
        packet[2 + n % (good.len() - 2)] ^= (n % 255) as u8 + 1;
        packet.truncate(n % 31);
        noise.send_to(&packet, dns).await.expect("it is sent");
    }
    for length in [1233, 9000, 60_000] {
        noise.send_to(&vec![0; length], dns).await.expect("it is sent");
    }
    assert_eq!(addresses(&ask(dns, "a.com.", RecordType::A).await), member(&site));
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_idle_clients() {
    let (site, dns) = site(&Federation::new(), "tcp: {idle_timeout: 1h}").await;
    let site = site.with(|yaml| yaml["grace_period"] = "1h".into());
    let homing = site.start().await;
    let mut connection = DnsConnection::open(dns).await;
    assert!(connection.ask("a.com.", RecordType::A).await.is_some());
    assert!(homing.stop().await.success());
    assert!(connection.answer().await.is_none());
}
