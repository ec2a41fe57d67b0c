//! Fuzzing of what strangers can send: the site cookie, the hop header, DNS packets, servers' answers.
//!
//! Coverage-guided fuzzers need a nightly compiler; these run with every `cargo test`, for a number of rounds that
//! `HOMING_FUZZ_ROUNDS` raises. Each round spoils good values, seldom far from good, for what is wrong all over is
//! refused at the first look. A failure tells its seed; `HOMING_FUZZ_SEED` repeats it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use hickory_proto::{op::Message, rr::RecordType};
use homing::{
    config,
    dns::{Asker, Kept, Over, Responder},
    gslb::choice::{Availability, Directory, Health, Member},
    listen::proxy_protocol,
    message::{Answers, Request},
    metrics::Metrics,
    pool::{NamedServer, ServerCookie},
    site_cookie::{
        Claims, ClientScheme, Codec, HopFields, HopKeys, Key, KeyFile, KeyRing, KeyState, LastOpened,
        ReplayGuard, Secret,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const SERVICE: &str = "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6";
const A: &str = "cluster-3a179b95-dff9-444b-9986-ba89c4e19c44";
const B: &str = "cluster-1e560f44-c898-41c3-818b-3433edbf9391";
const NOW: u64 = 1_517_875_922;

#[test]
fn no_spoilt_cookie_opens() {
    let codec = Codec::new(&ring(), SERVICE, "FOO", None);
    let good = |rng: &mut StdRng| {
        let mut claims = Claims { member_id: [0; 32], drain_epoch: 0, iat: NOW, exp: 0, server_tag: [0; 8] };
        rng.fill(&mut claims.member_id);
        codec.seal(&claims, rng.random()).into_bytes()
    };
    let opens = |value: &[u8]| {
        let mut last = LastOpened::default();
        let opened = codec.open(value, NOW, |_| Some(0)).is_ok();
        let best = codec.open_best([value, b"", value], NOW, |_| Some(0), &mut last);
        assert_eq!(best.is_some_and(|best| best.is_ok()), opened);
        opened
    };
    fuzz(good, opens);
}

#[test]
fn no_spoilt_cookie_names_a_server() {
    let servers = [1, 2, 3].map(|n| SocketAddr::from(([192, 0, 2, n], 80)));
    let options = config::CookieOptions {
        name: "APP".into(),
        keys: ring().keys().to_vec(),
        ..config::CookieOptions::default()
    };
    let cookie = ServerCookie::new(&config::Pool::of("app".into(), servers), &options);
    let good = |rng: &mut StdRng| {
        let server = servers.choose(rng).expect("there are three");
        cookie.issue(*server, NOW, rng.random()).expect("it is in the pool").into_bytes()
    };
    let names_a_server = |value: &[u8]| {
        let named = cookie.read([b"", value], NOW, &mut LastOpened::default());
        matches!(named, NamedServer::Server { .. })
    };
    fuzz(good, names_a_server);
}

#[test]
fn no_spoilt_hop_is_believed() {
    let [home, peer] =
        [A, B].map(|own| HopKeys::new(&ring(), SERVICE, own, [A, B].map(String::from)).expect("good uuids"));
    let good = |rng: &mut StdRng| {
        let client = if rng.random() { "192.0.2.7" } else { "2001:db8::7" };
        let fields = HopFields {
            dst: A,
            ts: NOW,
            rid: &format!("{:x}", rng.random::<u64>()),
            client: client.parse().expect("an address"),
            scheme: if rng.random() { ClientScheme::Https } else { ClientScheme::Http },
            tls_session: rng.random::<bool>().then(|| rng.random()),
        };
        peer.sign(&fields, "GET", "a.com", "/").expect("good fields").into_bytes()
    };
    let believed = |value: &[u8]| {
        let Ok(text) = str::from_utf8(value) else { return false };
        home.verify(text, "GET", "a.com", "/", NOW, &ReplayGuard::new()).is_ok()
    };
    fuzz(good, believed);
}

#[test]
fn every_dns_packet_is_answered_well_or_not_at_all() {
    let responder = responder();
    let (seed, rounds) = seed_and_rounds();
    let (mut rng, begun) = (StdRng::seed_from_u64(seed), Instant::now());
    let mut out = Vec::new();
    for round in 0..rounds {
        let (mut packet, other) = (dns_query(&mut rng), dns_query(&mut rng));
        for _ in 0..rng.random_range(0..=4) {
            spoil(&mut packet, &other, &mut rng);
        }
        let over = if rng.random() { Over::Udp } else { Over::Tcp };
        let address = ([192, 0, 2, rng.random()], rng.random()).into();
        let asker = Asker { address, over, now: begun, unix_seconds: NOW, seed: rng.random() };
        if responder.answer(&packet, &asker, &mut out) {
            let said = || format!("HOMING_FUZZ_SEED={seed}, round {round}: {}", packet.escape_ascii());
            let answer = Message::from_vec(&out).unwrap_or_else(|error| panic!("{error}: {}", said()));
            assert_eq!(out[..2], packet[..2], "{}", said());
            assert_eq!(out[2] & 0xf8, 0x80 | packet[2] & 0x78, "an answer of the same kind: {}", said());
            assert!(over == Over::Tcp || out.len() <= 1232, "{}", said());
            assert!(answer.answers.is_empty() || answer.metadata.authoritative, "{}", said());
            let address = ([192, 0, 2, 1], 53).into();
            assert!(!responder.answer(&out.clone(), &Asker { address, ..asker }, &mut out), "{}", said());
        }
    }
}

/// What passes of servers' answers is read in the same way however it comes, and by the parser behind as it is written.
#[test]
fn a_spoilt_answer_is_read_in_one_way_or_not_at_all() {
    let (seed, rounds) = seed_and_rounds();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let (mut answer, other) = (answer(&mut rng), answer(&mut rng));
        for _ in 0..rng.random_range(0..=3) {
            spoil(&mut answer, &other, &mut rng);
        }
        let said = || format!("HOMING_FUZZ_SEED={seed}, round {round}: {}", answer.escape_ascii());
        let (mut whole, mut split) = (Answers::default(), Answers::default());
        whole.asked(Request::Other);
        split.asked(Request::Other);
        let good = whole.read(&answer);
        let (first, second) = answer.split_at(rng.random_range(0..=answer.len()));
        assert_eq!(split.read(first) + split.read(second), good, "{}", said());
        assert_eq!((split.fault(), split.are_over()), (whole.fault(), whole.are_over()), "{}", said());
        assert_eq!(whole.fault().is_none(), good == answer.len(), "{}", said());

        let Some(end) = answer[..good].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut fields);
        let read = parsed.parse(&answer[..good]);
        assert_eq!(read, Ok(httparse::Status::Complete(end + 4)), "{}", said());
        let head = str::from_utf8(&answer[..end]).unwrap_or_default();
        for (line, field) in head.split("\r\n").skip(1).zip(parsed.headers) {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{}", said()));
            let same = name == field.name && value.trim_matches([' ', '\t']).as_bytes() == field.value;
            assert!(same, "{}", said());
        }
    }
}

/// An answer as servers send them.
fn answer(rng: &mut StdRng) -> Vec<u8> {
    let answers: [&[u8]; 6] = [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVary: *\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 500 Oh\r\nConnection: close\r\n\r\nuntil the end",
        b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    ];
    answers.choose(rng).expect("some").to_vec()
}

/// What is read of a header is read of its own bytes alone, and no part of it would do.
#[test]
fn a_proxy_header_ends_where_it_says() {
    let (seed, rounds) = seed_and_rounds();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let (mut header, other) = (proxy_header(&mut rng), proxy_header(&mut rng));
        for _ in 0..rng.random_range(0..=3) {
            spoil(&mut header, &other, &mut rng);
        }
        let Ok((introduced, length)) = proxy_protocol::parse(&header) else { continue };
        let said = || format!("HOMING_FUZZ_SEED={seed}, round {round}: {}", header.escape_ascii());
        assert_eq!(proxy_protocol::parse(&header[..length]).ok(), Some((introduced, length)), "{}", said());
        assert!(proxy_protocol::parse(&header[..length - 1]).is_err(), "{}", said());
        let followed = [&header[..length], &other].concat();
        assert_eq!(proxy_protocol::parse(&followed).ok(), Some((introduced, length)), "{}", said());
    }
}

/// A header of either version, as balancers send them.
fn proxy_header(rng: &mut StdRng) -> Vec<u8> {
    let lines: [&[u8]; 3] = [
        b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\n",
        b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
        b"PROXY UNKNOWN\r\n",
    ];
    if rng.random() {
        return lines.choose(rng).expect("some").to_vec();
    }
    let kinds: [(u8, usize); 4] = [(0x11, 12), (0x21, 36), (0x31, 216), (0, 0)];
    let (family, addresses) = *kinds.choose(rng).expect("some");
    let mut rest = vec![0; addresses + rng.random_range(0..8)];
    rng.fill(&mut *rest);
    let command = if rng.random_range(0..5) == 0 { 0x20 } else { 0x21 };
    let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, &rest].concat()
}

/// A query as resolvers send them.
fn dns_query(rng: &mut StdRng) -> Vec<u8> {
    let names = ["a.com.", "x.a.com.", "a.b.c.a.com.", "com.", ".", "A.cOM."];
    let kinds = [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::SOA, RecordType::HTTPS];
    let (name, kind) = (names.choose(rng).expect("some"), kinds.choose(rng).expect("some"));
    let mut packet = crate::support::dns::query(rng.random(), name, *kind);
    if rng.random() {
        let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        let cookie = [&[0, 10, 0, 8][..], &rng.random::<[u8; 8]>()].concat();
        let options = [&subnet[..], &cookie].concat();
        packet[11] = 1;
        packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, options.len() as u8]);
        packet.extend(options);
    }
    packet
}

fn responder() -> Responder {
    let site = "
        site: { name: site_A, cluster_uuid: a }
        federation: federation.yaml
        dns: { listen: ['127.0.0.1:53'], version: homing }";
    let federation = "
        gslb: { federation_id: fuzz, sites: [{ name: site_A, cluster_uuid: a }] }
        gslb_services:
          - name: gs
            uuid: gs
            domain_names: [a.com]
            is_federated: true
            wildcard_match: true
            groups:
              - name: one
                members: [{ cluster_uuid: a, vs_uuid: vs, ip: 10.0.0.1, services: [{ port: 80 }] }]";
    let files: BTreeMap<PathBuf, Vec<u8>> = [("homing.yaml", site), ("federation.yaml", federation)]
        .map(|(name, text)| (name.into(), text.into()))
        .into();
    let loaded = config::load_from(&files, Path::new("homing.yaml"), &[]);
    let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
    let (dns, gslb) = (config.dns.clone().expect("a section"), config.gslb.clone().expect("a federation"));
    let directory = Some(Arc::new(Directory::new(&gslb)));
    let kept = Kept { cookie_secret: [1; 16], rate_limit: None };
    Responder::new(&dns, &config, directory, Arc::new(Up), &kept, &Metrics::new())
}

struct Up;

impl Health for Up {
    fn of(&self, _: &Member, _: Instant) -> Availability {
        Availability::Up
    }
}

/// Good values are accepted, and none that is spoilt.
fn fuzz(good: impl Fn(&mut StdRng) -> Vec<u8>, accepts: impl Fn(&[u8]) -> bool) {
    let (seed, rounds) = seed_and_rounds();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let (one, other) = (good(&mut rng), good(&mut rng));
        assert!(accepts(&one), "HOMING_FUZZ_SEED={seed}, round {round}: a good value is refused");
        let mut spoilt = one.clone();
        for _ in 0..rng.random_range(1..=3) {
            spoil(&mut spoilt, &other, &mut rng);
        }
        if spoilt != one && spoilt != other {
            let shown = spoilt.escape_ascii();
            assert!(!accepts(&spoilt), "HOMING_FUZZ_SEED={seed}, round {round}: accepted: {shown}");
        }
    }
}

fn seed_and_rounds() -> (u64, u64) {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = from_environment("HOMING_FUZZ_SEED").unwrap_or_else(rand::random);
    (seed, from_environment("HOMING_FUZZ_ROUNDS").unwrap_or(2_000))
}

/// One change: of a byte, a stretch, an order, or of one value's part for another's.
fn spoil(value: &mut Vec<u8>, other: &[u8], rng: &mut StdRng) {
    let at = rng.random_range(0..=value.len());
    let end = rng.random_range(at..=value.len().min(at + 20));
    let byte = match rng.random_range(0..3) {
        0 => rng.random(),
        1 => *b"AZaz09-_=;:. ,%\0".choose(rng).expect("there are some"),
        _ => *other.choose(rng).expect("good values are not empty"),
    };
    match rng.random_range(0..8) {
        0 if at < value.len() => value[at] = byte,
        1 if at < value.len() => value[at] ^= 1 << rng.random_range(0..8),
        2 => value.insert(at, byte),
        3 => drop(value.drain(at..end)),
        4 => {
            let again = value[at..end].to_vec();
            value.splice(at..at, again);
        }
        5 => value.truncate(at),
        6 => {
            let from = at.min(other.len());
            value.splice(at.., other[from..].iter().copied());
        }
        _ => value[at..end].reverse(),
    }
}

fn ring() -> KeyRing {
    let key = |uuid: &str, state, first| Key {
        uuid: uuid.into(),
        state,
        secret: Secret::new([first; 32]),
        file: KeyFile::default(),
    };
    let keys = vec![
        key("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69", KeyState::Active, 1),
        key("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", KeyState::Retiring, 2),
    ];
    KeyRing::new(keys).expect("a ring")
}
