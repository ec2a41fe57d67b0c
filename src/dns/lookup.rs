//! What there is of a name: the answer of a GSLB service, of a zone, or the news that there is none.

use std::{net::IpAddr, sync::Arc, time::Instant};

use hickory_proto::{
    ProtoError,
    op::{Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{
            CNAME, HINFO, HTTPS, SVCB, TXT,
            svcb::{Alpn, SvcParamKey, SvcParamValue},
        },
    },
};

use super::{
    denial,
    dnssec::Signer,
    edns::Subnet,
    name::{absolute, upwards},
    reply::{Answers, Sections},
    zones::{Standing, Zone, Zones, seconds},
};
use crate::{
    config::{Config, Dns, GslbService, VirtualService},
    gslb::choice::{
        Addresses, Choice, ChoiceAnswer, Client, Directory, Family, Health, Reason, ServiceChoice,
    },
};

/// Everything that can be asked for.
pub(super) struct Lookup {
    zones: Zones,
    directory: Option<Arc<Directory>>,
    health: Arc<dyn Health + Send + Sync>,
    /// What HTTPS records say, by service; `None`: it has no such record.
    https: Box<[Option<SVCB>]>,
    /// What `version.bind` is answered with.
    version: Option<String>,
    signer: Option<Signer>,
}

/// Who asks and when, as far as it matters to what there is.
pub(super) struct Circumstances {
    pub client: IpAddr,
    pub subnet: Option<Subnet>,
    pub now: Instant,
    pub seed: u64,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// `None`: nothing is said at all.
    pub code: Option<ResponseCode>,
    pub zone: Option<&'a Zone>,
    pub service: Option<&'a ServiceChoice>,
    pub choice: Option<Chosen<'a>>,
    pub sections: Sections<'a>,
    /// For which networks around the client's subnet it holds.
    pub scope: u8,
}

/// Who was chosen, and why.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub member: Option<&'a crate::gslb::choice::Member>,
    pub reason: Reason,
}

impl Lookup {
    pub fn new(
        dns: &Dns,
        config: &Config,
        directory: Option<Arc<Directory>>,
        health: Arc<dyn Health + Send + Sync>,
    ) -> Self {
        let services = directory.iter().flat_map(|directory| directory.services());
        let https = services.map(|it| https(it.config(), &config.virtual_services));
        let mut zones = Zones::new(dns, config.gslb.as_deref());
        let signer = dns.dnssec.as_ref().map(Signer::new);
        signer.iter().for_each(|signer| zones.publish(signer));
        Self { zones, signer, https: https.collect(), version: dns.version.clone(), directory, health }
    }

    /// `name`: that of the question, in lower case.
    pub fn find<'a>(&'a self, question: &Query, name: &str, at: &Circumstances) -> Found<'a> {
        match (question.query_class, u16::from(question.query_type)) {
            (_, OPT) => return Found::error(ResponseCode::FormErr),
            (DNSClass::IN, code) if !TRANSFERS_AND_SUCH.contains(&code) => {}
            (DNSClass::CH, _) => return self.chaos(question, name),
            _ => return Found::error(ResponseCode::Refused),
        }
        let Some(zone) = self.zones.of(name) else { return Found::error(ResponseCode::Refused) };
        let found = match (zone.host(name), self.service(name)) {
            (None, Some(service)) => self.of_service(question, name, (zone, service), at),
            _ => of_zone(question, name, zone),
        };
        Found { zone: Some(zone), ..found }
    }

    fn service(&self, name: &str) -> Option<&ServiceChoice> {
        self.directory.as_ref()?.find(name)
    }

    fn of_service<'a>(
        &'a self,
        question: &Query,
        name: &str,
        (zone, service): (&'a Zone, &'a ServiceChoice),
        at: &Circumstances,
    ) -> Found<'a> {
        let found = match question.query_type {
            RecordType::SOA | RecordType::NS | RecordType::DNSKEY if name == &*zone.name => {
                of_zone(question, name, zone)
            }
            RecordType::ANY => Found::one(question, ANY_TTL, refused_any()),
            RecordType::AAAA => self.chosen(question, Family::V6, (zone, service), at),
            _ => self.chosen(question, Family::V4, (zone, service), at),
        };
        Found { service: Some(service), ..found }
    }

    fn chosen<'a>(
        &'a self,
        question: &Query,
        family: Family,
        (zone, service): (&'a Zone, &'a ServiceChoice),
        at: &Circumstances,
    ) -> Found<'a> {
        // A prefix of 0 is a client's wish that its address be left out of it.
        let subnet = at.subnet.filter(|subnet| subnet.prefix > 0 && service.uses_client_subnet());
        let client = match subnet {
            Some(Subnet { address, prefix }) => Client::subnet(address, prefix),
            None => Client::at(at.client),
        };
        let choice = service.choose(&client, family, &*self.health, at.now, at.seed);
        let Choice { answer, ttl, scope, member, reason } = choice;
        let ttl = seconds(ttl);
        let found = match (answer, question.query_type) {
            (ChoiceAnswer::Silent, _) => Found::default(),
            (ChoiceAnswer::Cname(target), _) => match absolute(target) {
                Some(target) => Found::one(question, ttl, RData::CNAME(CNAME(target))),
                None => Found::error(ResponseCode::ServFail),
            },
            (ChoiceAnswer::Addresses(addresses), RecordType::A | RecordType::AAAA) => {
                Found::answers(Answers::Addresses { addresses, ttl })
            }
            (_, RecordType::HTTPS) if is_up(reason) => match &self.https[service.number()] {
                Some(https) => Found::one(question, ttl, RData::HTTPS(HTTPS(https.clone()))),
                None => Found::nothing(zone, ResponseCode::NoError),
            },
            _ => Found::nothing(zone, ResponseCode::NoError),
        };
        // Only who asks for addresses is sent somewhere.
        let is_of_addresses = matches!(question.query_type, RecordType::A | RecordType::AAAA);
        let choice = is_of_addresses.then_some(Chosen { member, reason });
        Found { choice, scope: if subnet.is_some() { scope } else { 0 }, ..found }
    }

    /// What was found, signed; `None`: there is nothing to sign, or nobody who would.
    ///
    /// # Errors
    /// A record that cannot be one.
    pub fn sign(
        &self,
        question: &Query,
        name: &str,
        found: &Found<'_>,
        unix_seconds: u64,
    ) -> Result<Option<Signed>, ProtoError> {
        let (Some(signer), Some(zone)) = (&self.signer, found.zone) else { return Ok(None) };
        let sign = |mut records| signer.sign(&mut records, zone.apex(), unix_seconds).map(|()| records);
        let answers = sign(found.sections.answers.records(question))?;
        let mut authority = sign(found.sections.authority.to_vec())?;
        if !authority.is_empty() {
            for proof in self.denial(question, name, zone, found.service.is_some()) {
                authority.extend(sign(vec![proof])?);
            }
        }
        Ok(Some(Signed { answers, authority }))
    }

    /// Proofs that what is asked for is not there.
    fn denial(&self, question: &Query, name: &str, zone: &Zone, is_service: bool) -> Vec<Record> {
        let ttl = zone.negative[0].ttl;
        let standing = zone.standing(name);
        if !is_service && matches!(standing, Standing::Absent) {
            let exists = |name: &&str| {
                self.service(name).is_some() || !matches!(zone.standing(name), Standing::Absent)
            };
            let encloser = upwards(name).skip(1).find(exists).unwrap_or(&zone.name);
            return denial::of_name(&question.name, &question.name.trim_to(labels(encloser)), ttl);
        }
        let mut types = Vec::new();
        if is_service {
            // Each of them may be there for another client, or a moment later.
            types.extend([RecordType::A, RecordType::AAAA, RecordType::HTTPS]);
        }
        match standing {
            Standing::Host(host) => types.extend(host.addresses.iter().map(|ip| match ip {
                IpAddr::V4(_) => RecordType::A,
                IpAddr::V6(_) => RecordType::AAAA,
            })),
            Standing::Apex => {
                types.extend([RecordType::SOA, RecordType::DNSKEY]);
                types.extend(zone.ns.first().map(|_| RecordType::NS));
            }
            Standing::Between | Standing::Absent => {}
        }
        types.retain(|kind| *kind != question.query_type);
        denial::of_type(&question.name, &types, ttl).into_iter().collect()
    }

    /// The class in which servers are asked about themselves.
    fn chaos<'a>(&'a self, question: &Query, name: &str) -> Found<'a> {
        let asks =
            question.query_type == RecordType::TXT && ["version.bind", "version.server"].contains(&name);
        match &self.version {
            Some(version) if asks => {
                let mut found = Found::one(question, 0, RData::TXT(TXT::new(vec![version.clone()])));
                if let Answers::One(record) = &mut found.sections.answers {
                    record.dns_class = DNSClass::CH;
                }
                found
            }
            _ => Found::error(ResponseCode::Refused),
        }
    }
}

/// An answer with its signatures.
pub(super) struct Signed {
    answers: Vec<Record>,
    authority: Vec<Record>,
}

impl Signed {
    /// In the place of what was found.
    pub fn sections<'a>(&'a self, found: &Sections<'a>) -> Sections<'a> {
        Sections {
            answers: Answers::Stored(&self.answers),
            authority: &self.authority,
            additionals: found.additionals,
        }
    }
}

fn labels(name: &str) -> usize {
    name.split('.').count()
}

/// What a zone has of a name that is no service's.
fn of_zone<'a>(question: &Query, name: &str, zone: &'a Zone) -> Found<'a> {
    let nothing = Found::nothing(zone, ResponseCode::NoError);
    match (zone.standing(name), question.query_type) {
        (Standing::Absent, _) => Found::nothing(zone, ResponseCode::NXDomain),
        (Standing::Apex, RecordType::SOA) => Found::answers(Answers::Stored(&zone.soa)),
        (Standing::Apex, RecordType::DNSKEY) if !zone.keys.is_empty() => {
            Found::answers(Answers::Stored(&zone.keys))
        }
        (Standing::Apex, RecordType::NS) if !zone.ns.is_empty() => {
            let mut found = Found::answers(Answers::Stored(&zone.ns));
            found.sections.additionals = &zone.glue;
            found
        }
        (Standing::Apex | Standing::Host(_), RecordType::ANY) => Found::one(question, ANY_TTL, refused_any()),
        (Standing::Host(host), RecordType::A | RecordType::AAAA) => {
            let asked = |ip: &&IpAddr| ip.is_ipv4() == (question.query_type == RecordType::A);
            let addresses: Addresses = host.addresses.iter().filter(asked).copied().collect();
            match addresses.is_empty() {
                true => nothing,
                false => Found::answers(Answers::Addresses { addresses, ttl: host.ttl }),
            }
        }
        (Standing::Apex | Standing::Host(_) | Standing::Between, _) => nothing,
    }
}

impl<'a> Found<'a> {
    pub fn error(code: ResponseCode) -> Self {
        Self { code: Some(code), ..Self::default() }
    }

    fn answers(answers: Answers<'a>) -> Self {
        let sections = Sections { answers, ..Sections::default() };
        Self { code: Some(ResponseCode::NoError), sections, ..Self::default() }
    }

    /// One record of the name that is asked for.
    fn one(question: &Query, ttl: u32, data: RData) -> Self {
        Self::answers(Answers::One(Box::new(Record::from_rdata(question.name.clone(), ttl, data))))
    }

    /// Authority to say that something is not there.
    fn nothing(zone: &'a Zone, code: ResponseCode) -> Self {
        let sections = Sections { authority: &zone.negative, ..Sections::default() };
        Self { code: Some(code), sections, ..Self::default() }
    }
}

/// Whether somebody is there who serves HTTPS.
fn is_up(reason: Reason) -> bool {
    match reason {
        Reason::RoundRobin
        | Reason::ConsistentHash
        | Reason::Geo
        | Reason::Topology
        | Reason::PreferenceOrder
        | Reason::Fallback
        | Reason::NoAddress => true,
        Reason::DownNone
        | Reason::DownAllRecords
        | Reason::DownFallbackIp
        | Reason::DownEmpty
        | Reason::DownCname => false,
    }
}

/// What answers who asks for everything (RFC 8482), so that a small question has no large answer.
fn refused_any() -> RData {
    RData::HINFO(HINFO::new("RFC8482".into(), String::new()))
}

/// The HTTPS record of a service whose members all have TLS on the port that `https:` stands for. HTTP/2 is promised
/// unless a virtual service of this node, which is all that is known of them, does not have it.
fn https(service: &GslbService, virtual_services: &[Arc<VirtualService>]) -> Option<SVCB> {
    let members: Vec<_> = service.groups.iter().flat_map(|group| &group.members).collect();
    let has_tls = |port: &crate::config::MemberPort| port.enable_ssl && port.port == HTTPS_PORT;
    if !members.iter().all(|member| member.services.iter().any(has_tls)) {
        return None;
    }
    let ours = |vs: &&Arc<VirtualService>| members.iter().any(|it| vs.uuid.as_ref() == Some(&it.vs_uuid));
    let without_http2 = virtual_services.iter().filter(ours).flat_map(|vs| &vs.services);
    let without_http2 =
        without_http2.filter_map(|service| service.tls.as_ref()).any(|tls| !tls.profile.http2);
    let mut alpn = vec!["h2".to_owned(), "http/1.1".to_owned()];
    if without_http2 {
        alpn.remove(0);
    }
    Some(SVCB::new(1, Name::root(), vec![(SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(alpn)))]))
}

const HTTPS_PORT: u16 = 443;

const OPT: u16 = 41;

/// TKEY, TSIG, IXFR, AXFR, MAILB, MAILA.
const TRANSFERS_AND_SUCH: std::ops::RangeInclusive<u16> = 249..=254;

/// Seconds. It says nothing that could change.
const ANY_TTL: u32 = 3600;
