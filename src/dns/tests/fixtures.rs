//! A responder for a few services, and queries as they are on the wire.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, RecordType},
};

use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::PKey,
};

use crate::{
    config,
    dns::{Kept, Over, Responder, delegation_signers, rate_limit::RateLimit, responder::Asker},
    gslb::choice::{Availability, Directory, Health, Member},
    metrics::Metrics,
};

pub const NOW: u64 = 1_700_000_000;

pub struct Server {
    config: config::Config,
    begun: Instant,
    responder: Responder,
    pub metrics: Metrics,
}

/// An answer.
#[derive(Debug)]
pub struct Heard {
    message: Message,
    pub length: usize,
}

/// The members of other sites are up.
struct Down(Vec<&'static str>);

impl Health for Down {
    fn of(&self, member: &Member, _: Instant) -> Availability {
        let down = self.0.iter().any(|site| member.name.starts_with(site));
        if down { Availability::Down } else { Availability::Up }
    }
}

impl Server {
    pub fn new() -> Self {
        Self::with(DNS)
    }

    /// `dns`: the section of the configuration.
    pub fn with(dns: &str) -> Self {
        let site = format!(
            "site: {{ name: site_A, cluster_uuid: cluster-a }}\nfederation: federation.yaml\ndns:\n  {dns}\n"
        );
        let files: BTreeMap<PathBuf, Vec<u8>> = [
            ("homing.yaml", site.into()),
            ("federation.yaml", federation().into()),
            ("one.key", key()),
            ("two.key", [key(), key()].concat()),
        ]
        .map(|(name, text): (&str, Vec<u8>)| (name.into(), text))
        .into();
        let loaded = config::load_from(&files, Path::new("homing.yaml"), &[]);
        let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
        Self::build(config, Vec::new())
    }

    /// What the zones above are told.
    pub fn delegation_signers(&self) -> Vec<String> {
        delegation_signers(&self.config)
    }

    /// The same while all members of some sites are down.
    pub fn down(self, sites: &[&'static str]) -> Self {
        Self::build(self.config, sites.to_vec())
    }

    fn build(config: config::Config, down: Vec<&'static str>) -> Self {
        let (metrics, begun) = (Metrics::new(), Instant::now());
        let dns = config.dns.clone().expect("there is a responder");
        let directory = Arc::new(Directory::new(config.gslb.as_deref().expect("there is a federation")));
        let rate_limit = dns.rate_limit.map(|config| Arc::new(RateLimit::new(config, [5; 16], begun)));
        let kept = Kept { cookie_secret: [6; 16], rate_limit };
        let responder = Responder::new(&dns, &config, Some(directory), Arc::new(Down(down)), &kept, &metrics);
        Self { config, begun, responder, metrics }
    }

    /// What it answers to a packet over UDP; `None`: nothing.
    pub fn asks(&self, packet: &[u8]) -> Option<Vec<u8>> {
        self.asks_from(packet, "192.0.2.77:4000", Over::Udp, Duration::ZERO)
    }

    pub fn asks_from(&self, packet: &[u8], from: &str, over: Over, after: Duration) -> Option<Vec<u8>> {
        let address: SocketAddr = from.parse().expect("an address");
        let unix_seconds = NOW + after.as_secs();
        let asker = Asker { address, over, now: self.begun + after, unix_seconds, seed: 1 };
        let mut out = b"of the packet before".to_vec();
        self.responder.answer(packet, &asker, &mut out).then_some(out)
    }

    pub fn hears(&self, ask: Ask) -> Heard {
        let packet = ask.bytes();
        Heard::read(&self.asks(&packet).expect("an answer"), &packet)
    }
}

impl Heard {
    /// Every answer is one to the packet.
    pub fn read(answer: &[u8], packet: &[u8]) -> Self {
        let message = Message::from_vec(answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(answer[..2], packet[..2], "the id");
        assert!(answer[2] & 0x80 != 0, "it is an answer");
        Self { message, length: answer.len() }
    }

    pub fn rcode(&self) -> ResponseCode {
        let high = self.edns.as_ref().map_or(0, |edns| edns.rcode_high());
        ResponseCode::from(high, self.metadata.response_code.low())
    }
}

impl Deref for Heard {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// A fresh one of DNSSEC.
fn key() -> Vec<u8> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    key.private_key_to_pem_pkcs8().expect("it can be written")
}

/// The addresses in the answer section.
pub fn addresses(heard: &Heard) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(ip) => IpAddr::from(ip.0),
        RData::AAAA(ip) => IpAddr::from(ip.0),
        other => panic!("{other} is no address"),
    };
    heard.answers.iter().map(|record| address(&record.data)).collect()
}

/// A query, with recursion desired.
#[derive(Clone)]
pub struct Ask {
    pub name: Vec<u8>,
    pub kind: u16,
    pub class: u16,
    /// Payload, version and options.
    pub edns: Option<(u16, u8, Vec<u8>)>,
    pub dnssec_ok: bool,
}

impl Ask {
    pub fn new(name: &str, kind: RecordType) -> Self {
        let labels = Name::from_labels(name.split('.').map(str::as_bytes)).expect("a name");
        let mut name: Vec<u8> =
            labels.iter().flat_map(|label| [&[label.len() as u8], label].concat()).collect();
        name.push(0);
        Self { name, kind: kind.into(), class: 1, edns: None, dnssec_ok: false }
    }

    /// With the wish for signatures.
    pub fn signed(mut self) -> Self {
        self.edns = Some((1232, 0, Vec::new()));
        Self { dnssec_ok: true, ..self }
    }

    pub fn class(self, class: u16) -> Self {
        Self { class, ..self }
    }

    pub fn edns(self, payload: u16, version: u8) -> Self {
        Self { edns: Some((payload, version, Vec::new())), ..self }
    }

    /// With EDNS for answers of 1232 bytes, if there is none yet.
    pub fn option(mut self, code: u16, value: &[u8]) -> Self {
        let (_, _, options) = self.edns.get_or_insert((1232, 0, Vec::new()));
        options.extend(code.to_be_bytes());
        options.extend((value.len() as u16).to_be_bytes());
        options.extend(value);
        self
    }

    /// With an id of its own, RD, one question and perhaps an OPT record.
    pub fn bytes(&self) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())];
        packet.extend(self.question());
        if let Some((payload, version, options)) = &self.edns {
            packet.extend([0, 0, 41]);
            packet.extend(payload.to_be_bytes());
            packet.extend([0, *version, u8::from(self.dnssec_ok) << 7, 0]);
            packet.extend((options.len() as u16).to_be_bytes());
            packet.extend(options);
        }
        packet
    }

    pub fn question(&self) -> Vec<u8> {
        [&self.name[..], &self.kind.to_be_bytes(), &self.class.to_be_bytes()].concat()
    }
}

pub const DNS: &str = "listen: [127.0.0.1:53]
  zones:
    - name: foo.com
      ns:
        - { name: ns1.foo.com, addresses: [10.0.0.53] }
        - { name: ns2.dns.foo.com, addresses: ['2001:db8::53'] }
        - { name: ns.bar.com }
      rname: dns.bar.com
      serial: 7
      negative_ttl: 20s";

const A: &str = "cluster_uuid: cluster-a, vs_uuid: vs-";
const B: &str = "cluster_uuid: cluster-b, vs_uuid: vs-";

fn federation() -> String {
    let plain = "services: [{ port: 80 }]";
    let tls = "services: [{ port: 443, enable_ssl: true }, { port: 80 }]";
    let member = |what: &str, services: &str| format!("        - {{ {what}, {services} }}\n");
    let group = |keys: &str, members: &[String]| {
        let name = members.len() + keys.len();
        format!("      - name: group{name}\n        {keys}\n        members:\n{}", members.concat())
    };
    let service = |name: &str, domains: &str, keys: &str, groups: &[String]| {
        format!(
            "  - name: {name}\n    uuid: gs-{name}\n    domain_names: {domains}\n    is_federated: true\n    {keys}\n    groups:\n{}",
            groups.concat()
        )
    };
    let many: Vec<_> = (1..=20)
        .map(|n| member(&format!("{A}many{n}, ip: '2001:db8::{n}', preference_order: {n}"), plain))
        .collect();
    let of_each_site = [
        group(
            "priority: 12",
            &[
                member(&format!("{A}app4, ip: 10.0.0.1, fqdn: site-a.foo.com"), plain),
                member(&format!("{A}app6, ip: '2001:db8::1'"), plain),
            ],
        ),
        group("priority: 9", &[member(&format!("{B}app, ip: 10.0.1.1"), plain)]),
    ];
    let one = |name: &str, services: &str| {
        [group("priority: 10", &[member(&format!("{A}{name}, ip: 10.0.0.9"), services)])]
    };
    let hashed = |name: &str| {
        let members: Vec<_> =
            (1..=9).map(|n| member(&format!("{A}{name}{n}, ip: 10.0.9.{n}"), plain)).collect();
        [group("{ algorithm: consistent_hash, consistent_hash_mask: 20 }", &members).replace(
            "{ algorithm: consistent_hash, consistent_hash_mask: 20 }",
            "algorithm: consistent_hash\n        consistent_hash_mask: 20",
        )]
    };
    let services = [
        service("app", "[app.foo.com]", "ttl: 30s", &of_each_site),
        service("v4", "[v4.foo.com]", "ttl: 30s", &one("v4", plain)),
        service("wild", "['*.wild.foo.com', x.deep.foo.com]", "ttl: 30s", &one("wild", plain)),
        service("off", "[off.foo.com]", "enabled: false", &one("off", plain)),
        service("empty", "[empty.foo.com]", "down_response: empty", &one("empty", tls)),
        service("tls", "[tls.foo.com]", "ttl: 30s", &one("tls", tls)),
        service("many", "[many.foo.com]", "num_dns_ip: 0", &[group("algorithm: preference_order", &many)]),
        service("hash", "[hash.foo.com]", "ttl: 30s", &hashed("hash")),
        service("nosubnet", "[nosubnet.foo.com]", "use_edns_client_subnet: false", &hashed("no")),
        service(
            "cdn",
            "[cdn.foo.com]",
            "ttl: 30s",
            &[group("priority: 10", &[member("fqdn: foo.cdn.example", plain)])],
        ),
    ];
    format!(
        "gslb:\n  federation_id: demo\n  sites:\n    - {{ name: site_A, cluster_uuid: cluster-a }}\n    - {{ name: site_B, cluster_uuid: cluster-b }}\ngslb_services:\n{}",
        services.concat()
    )
}
