//! The DNS responder: where it listens, its zones, and its guards against strangers.
//!
//! What it answers with (members, time to live, client subnets) is of the GSLB services, and federated.

use std::{fmt, net::IpAddr, net::SocketAddr, time::Duration};

use zeroize::Zeroizing;

use super::{
    Dnssec, Gslb,
    problem::{Wrong, shown},
    read::Object,
    units::{self, days, hours, milliseconds, seconds},
    words,
    yaml::Node,
};

/// The responder of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// UDP and TCP; never empty.
    pub listen: Vec<SocketAddr>,
    /// Empty: each domain name is a zone of its own.
    pub zones: Vec<DnsZone>,
    /// The longest answer over UDP to clients that take longer ones than 512 bytes.
    pub udp_size: u16,
    pub tcp: DnsTcp,
    pub rate_limit: Option<DnsRateLimit>,
    /// The first makes cookies, all are believed. Empty: a random one.
    pub cookie_secrets: Vec<CookieSecret>,
    /// What `version.bind` is answered with.
    pub version: Option<String>,
    pub query_log: bool,
    /// `None`: nothing is signed.
    pub dnssec: Option<Dnssec>,
}

/// A zone that this node has authority for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsZone {
    pub name: String,
    pub ns: Vec<NameServer>,
    /// The first name server if left out.
    pub mname: Option<String>,
    /// The mailbox of who is responsible, as a name; `hostmaster` in the zone if left out.
    pub rname: Option<String>,
    pub serial: u32,
    /// Of its SOA and NS records.
    pub ttl: Duration,
    /// How long resolvers remember that there is no such name or record.
    pub negative_ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    pub name: String,
    /// Of a name in the zone; others are found elsewhere.
    pub addresses: Vec<IpAddr>,
}

/// What clients over TCP may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsTcp {
    pub idle_timeout: Duration,
    pub connections: u32,
    pub connections_per_client: u32,
}

/// How many answers of a kind a network gets over UDP (response rate limiting).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsRateLimit {
    pub responses_per_second: u32,
    /// Every so-manieth answer over the limit is sent, empty and truncated; 0: none.
    pub slip: u32,
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
}

/// 16 bytes that servers of one address share, so that each believes the others' cookies.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieSecret(Zeroizing<[u8; 16]>);

impl CookieSecret {
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes.into())
    }

    /// Of a line of 32 hex digits.
    fn from_line(line: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 16]);
        if line.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(line.chunks_exact(2)) {
            let digit = |n: usize| char::from(digits[n]).to_digit(16).map(|digit| digit as u8);
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(Self(bytes))
    }

    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecret")
    }
}

impl Dns {
    /// `gslb`: what there is to answer.
    pub(super) fn read(o: &mut Object<'_>, gslb: Option<&Gslb>) -> Option<Self> {
        let listen = o.required_list("listen", address);
        let zones = o.objects("zones", DnsZone::read);
        let dns = Self {
            udp_size: o.field("udp_size", units::whole(512..=4096)).unwrap_or(1232),
            tcp: o.object("tcp", DnsTcp::read).unwrap_or_default(),
            rate_limit: o.object("rate_limit", DnsRateLimit::read).flatten(),
            cookie_secrets: cookie_secrets(o),
            version: o.field("version", version),
            query_log: o.field("query_log", units::flag).unwrap_or(false),
            dnssec: o.object("dnssec", Dnssec::read).flatten(),
            listen,
            zones,
        };
        dns.check(o, gslb);
        (!dns.listen.is_empty()).then_some(dns)
    }

    fn check(&self, o: &Object<'_>, gslb: Option<&Gslb>) {
        for (n, addr) in self.listen.iter().enumerate() {
            if self.listen[..n].contains(addr) {
                o.wrong("listen", format!("{addr} is written twice"), "leave one out");
            }
        }
        for (n, zone) in self.zones.iter().enumerate() {
            if self.zones[..n].iter().any(|other| other.name == zone.name) {
                let what = format!("zone {} is defined twice", shown(&zone.name));
                o.wrong("zones", what, "keep one of the two");
            }
        }
        let services: Vec<_> = gslb.iter().flat_map(|gslb| &gslb.services).collect();
        if services.is_empty() {
            let what = "there is no GSLB service, so every query is refused";
            o.dubious("listen", what, "name a `federation` with `gslb_services`, or leave `dns` out");
        }
        if self.zones.is_empty() {
            return;
        }
        for service in services.iter().filter(|service| service.enabled) {
            for name in &service.domain_names {
                if !self.zones.iter().any(|zone| zone.has(name)) {
                    let (name, service) = (shown(name), shown(service.name.as_str()));
                    let what = format!("{name} of GSLB service {service} lies in none of the zones");
                    o.wrong("zones", what, "add its zone, or leave `zones` out");
                }
            }
        }
    }
}

impl Default for DnsZone {
    fn default() -> Self {
        Self {
            name: String::new(),
            ns: Vec::new(),
            mname: None,
            rname: None,
            serial: 1,
            ttl: hours(1),
            negative_ttl: seconds(30),
        }
    }
}

impl DnsZone {
    fn read(o: &mut Object<'_>) -> Option<Self> {
        let name = o.required("name", words::host);
        let ns = o.objects("ns", NameServer::read);
        let default = Self::default();
        let zone = Self {
            mname: o.field("mname", words::host),
            rname: o.field("rname", words::host),
            serial: o.field("serial", units::whole(1..=u32::MAX)).unwrap_or(default.serial),
            ttl: whole_seconds(o, "ttl", default.ttl),
            negative_ttl: whole_seconds(o, "negative_ttl", default.negative_ttl),
            name: name?,
            ns,
        };
        for server in &zone.ns {
            let name = shown(&server.name);
            match (zone.has(&server.name), server.addresses.is_empty()) {
                (true, true) => {
                    let what = format!("name server {name} is in the zone and has no address");
                    o.wrong("ns", what, "add its `addresses`: nobody else can tell them");
                }
                (false, false) => {
                    let what = format!("name server {name} is not in the zone and has addresses");
                    o.wrong("ns", what, "leave `addresses` out: they are told by the zone that it is in");
                }
                _ => {}
            }
        }
        Some(zone)
    }

    /// Whether a name, or all that `*.suffix` stands for, is in the zone.
    fn has(&self, name: &str) -> bool {
        let name = name.strip_prefix("*.").unwrap_or(name);
        let above = name.strip_suffix(&*self.name);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }
}

impl NameServer {
    fn read(o: &mut Object<'_>) -> Option<Self> {
        let name = o.required("name", words::host);
        let addresses = o.list("addresses", words::ip).unwrap_or_default();
        Some(Self { name: name?, addresses })
    }
}

impl Default for DnsTcp {
    fn default() -> Self {
        Self { idle_timeout: seconds(10), connections: 1000, connections_per_client: 50 }
    }
}

impl DnsTcp {
    fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let idle = o.field("idle_timeout", units::duration(milliseconds(100)..=hours(1)));
        let per_client = o.field("connections_per_client", units::whole(1..=1_000_000));
        Self {
            idle_timeout: idle.unwrap_or(default.idle_timeout),
            connections: o.field("connections", units::whole(1..=1_000_000)).unwrap_or(default.connections),
            connections_per_client: per_client.unwrap_or(default.connections_per_client),
        }
    }
}

impl DnsRateLimit {
    fn read(o: &mut Object<'_>) -> Option<Self> {
        let responses_per_second = o.required("responses_per_second", units::whole(1..=1_000_000));
        let slip = o.field("slip", units::whole(0..=100)).unwrap_or(2);
        let ipv4_prefix = o.field("ipv4_prefix", units::whole(1..=32)).unwrap_or(24);
        let ipv6_prefix = o.field("ipv6_prefix", units::whole(1..=128)).unwrap_or(56);
        Some(Self { responses_per_second: responses_per_second?, slip, ipv4_prefix, ipv6_prefix })
    }
}

fn address(node: &Node) -> Result<SocketAddr, Wrong> {
    let addr = words::socket_address(&words::text(node)?)?;
    match addr.port() {
        0 => Err(Wrong::new(
            format!("`{addr}` has no port that clients could ask"),
            "write 53, or another one",
        )),
        _ => Ok(addr),
    }
}

fn version(node: &Node) -> Result<String, Wrong> {
    let text = words::text(node)?;
    match text.len() {
        0..=255 => Ok(text),
        _ => Err(Wrong::new("a text of more than 255 bytes", "DNS takes no longer one: shorten it")),
    }
}

/// Times to live are counted in seconds.
fn whole_seconds(o: &mut Object<'_>, key: &'static str, default: Duration) -> Duration {
    let value = o.field(key, units::duration(Duration::ZERO..=days(7))).unwrap_or(default);
    if value.subsec_nanos() != 0 {
        o.wrong(key, "DNS counts whole seconds", "write it as in `30s`");
    }
    value
}

fn cookie_secrets(o: &mut Object<'_>) -> Vec<CookieSecret> {
    let Some((path, bytes)) = o.file("cookie_secret_file") else { return Vec::new() };
    let bytes = Zeroizing::new(bytes);
    o.warn_if_others_read("cookie_secret_file", &path);
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let secrets: Option<Vec<_>> = lines.map(CookieSecret::from_line).collect();
    let secrets = secrets.unwrap_or_default();
    if secrets.is_empty() {
        let what = format!("file {} does not have lines of 32 hex digits", path.display());
        o.wrong("cookie_secret_file", what, "make one with `openssl rand -hex 16`");
    }
    secrets
}
