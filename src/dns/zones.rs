//! The zones that we have authority for: what is there beside the answers of the GSLB services, and what is not.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{A, AAAA, NS, SOA},
};

use super::{
    dnssec::Signer,
    name::{absolute, upwards},
};
use crate::config::{Dns, DnsZone, Gslb, GslbService};

/// By name, in lower case.
pub(super) struct Zones(HashMap<Box<str>, Box<Zone>>);

pub(super) struct Zone {
    pub name: Box<str>,
    /// The zone's SOA record alone.
    pub soa: [Record; 1],
    /// The same as it goes with the news that something is not there.
    pub negative: [Record; 1],
    pub ns: Vec<Record>,
    /// Empty where nothing is signed.
    pub keys: Vec<Record>,
    /// The addresses of the name servers in the zone.
    pub glue: Vec<Record>,
    hosts: HashMap<Box<str>, Host>,
    /// Names that have nothing, and names with something below them.
    between: HashSet<Box<str>>,
}

/// A name with addresses that are no matter of choice: of a name server, or of one member.
pub(super) struct Host {
    pub addresses: Vec<IpAddr>,
    pub ttl: u32,
}

/// What a zone knows of a name that no GSLB service has.
pub(super) enum Standing<'z> {
    Apex,
    Host(&'z Host),
    /// Other names are below it (an empty non-terminal): it exists, and has nothing.
    Between,
    Absent,
}

impl Zones {
    pub fn new(dns: &Dns, gslb: Option<&Gslb>) -> Self {
        let services: Vec<_> = gslb.iter().flat_map(|gslb| &gslb.services).filter(|it| it.enabled).collect();
        let mut names: Vec<_> = services.iter().flat_map(|service| names(service)).collect();
        let configured = dns.zones.iter().filter_map(Zone::new);
        let mut zones = Self(configured.map(named).collect());
        if dns.zones.is_empty() {
            // A zone above takes in those below.
            names.sort_by_key(|name| name.len());
            for name in &names {
                if zones.of(name).is_none() {
                    let zone = Zone::new(&of_its_own(name));
                    zones.0.extend(zone.map(named));
                }
            }
        }
        let served: HashSet<_> = names.iter().copied().collect();
        for service in &services {
            zones.add_members(service, &served);
        }
        for name in services.iter().flat_map(|service| &service.domain_names) {
            if let Some(zone) = zones.of_mut(name) {
                zone.add_between(name);
            }
        }
        zones
    }

    /// The closest zone that a name, in lower case, lies in.
    pub fn of(&self, name: &str) -> Option<&Zone> {
        upwards(name).find_map(|name| self.0.get(name)).map(|zone| &**zone)
    }

    /// The zones themselves.
    pub fn apexes(&self) -> impl Iterator<Item = &Name> {
        self.0.values().map(|zone| zone.apex())
    }

    /// Gives every zone its keys.
    pub fn publish(&mut self, signer: &Signer) {
        for zone in self.0.values_mut() {
            zone.keys = signer.keys(zone.apex(), zone.soa[0].ttl).collect();
        }
    }

    fn of_mut(&mut self, name: &str) -> Option<&mut Zone> {
        let zone = self.of(name)?.name.clone();
        self.0.get_mut(&zone).map(|zone| &mut **zone)
    }

    /// A member's own name, to which its clients are sent, has its address, the public one if it has one, unless a
    /// service has that name.
    fn add_members(&mut self, service: &GslbService, served: &HashSet<&str>) {
        for member in service.groups.iter().flat_map(|group| &group.members) {
            let Some(fqdn) = member.fqdn.as_deref().filter(|fqdn| !served.contains(fqdn)) else { continue };
            let Some(zone) = self.of_mut(fqdn) else { continue };
            let ttl = seconds(service.ttl);
            let Some(ip) = member.public_ip.or(member.ip) else { continue };
            let host = zone.hosts.entry(fqdn.into()).or_insert(Host { addresses: Vec::new(), ttl });
            if !host.addresses.contains(&ip) {
                host.addresses.push(ip);
            }
            zone.add_between(fqdn);
        }
    }
}

impl Zone {
    /// `None`: a name is too long to be one, which the configuration's check excludes.
    fn new(config: &DnsZone) -> Option<Self> {
        let apex = absolute(&config.name)?;
        let mname = config.mname.as_deref().or(config.ns.first().map(|server| &*server.name));
        let rname = config.rname.as_deref().map(absolute);
        let rname = rname.unwrap_or_else(|| apex.prepend_label("hostmaster").ok())?;
        let negative_ttl = seconds(config.negative_ttl);
        let soa = SOA::new(
            absolute(mname.unwrap_or(&config.name))?,
            rname,
            config.serial,
            REFRESH,
            RETRY,
            EXPIRE,
            negative_ttl,
        );
        let ttl = seconds(config.ttl);
        let record = |ttl, data| Record::from_rdata(apex.clone(), ttl, data);
        let mut zone = Self {
            name: (*config.name).into(),
            soa: [record(ttl, RData::SOA(soa.clone()))],
            negative: [record(negative_ttl.min(ttl), RData::SOA(soa))],
            ns: Vec::new(),
            keys: Vec::new(),
            glue: Vec::new(),
            hosts: HashMap::new(),
            between: HashSet::new(),
        };
        for server in &config.ns {
            let name = absolute(&server.name)?;
            zone.glue.extend(server.addresses.iter().map(|ip| address(name.clone(), ttl, *ip)));
            zone.ns.push(record(ttl, RData::NS(NS(name))));
            if !server.addresses.is_empty() {
                let host = Host { addresses: server.addresses.clone(), ttl };
                zone.hosts.insert((*server.name).into(), host);
                zone.add_between(&server.name);
            }
        }
        Some(zone)
    }

    pub fn apex(&self) -> &Name {
        &self.soa[0].name
    }

    /// What there is of a name in the zone, in lower case.
    pub fn standing(&self, name: &str) -> Standing<'_> {
        if let Some(host) = self.host(name) {
            return Standing::Host(host);
        }
        match name {
            _ if name == &*self.name => Standing::Apex,
            _ if self.between.contains(name) => Standing::Between,
            _ => Standing::Absent,
        }
    }

    pub fn host(&self, name: &str) -> Option<&Host> {
        // Most zones have none, and every query comes here.
        if self.hosts.is_empty() { None } else { self.hosts.get(name) }
    }

    fn add_between(&mut self, name: &str) {
        let above = upwards(name).skip(1).take_while(|name| *name != &*self.name);
        self.between.extend(above.map(Box::from));
    }
}

fn named(zone: Zone) -> (Box<str>, Box<Zone>) {
    (zone.name.clone(), Box::new(zone))
}

/// An A or AAAA record.
pub(super) fn address(name: Name, ttl: u32, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name, ttl, data)
}

/// Whole seconds, as DNS has them.
pub(super) fn seconds(duration: Duration) -> u32 {
    duration.as_secs().try_into().unwrap_or(u32::MAX)
}

/// The domain names of a service, those with `*.` as the names that they are below.
fn names(service: &GslbService) -> impl Iterator<Item = &str> {
    service.domain_names.iter().map(|name| name.strip_prefix("*.").unwrap_or(name))
}

/// The zone of a domain name for which none is configured.
fn of_its_own(name: &str) -> DnsZone {
    DnsZone { name: name.to_owned(), ..DnsZone::default() }
}

/// When secondary servers would ask again. There are none, so what is usual does.
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 604_800;
