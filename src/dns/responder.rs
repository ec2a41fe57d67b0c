//! From a packet to its answer: a function of the packet, who sent it, the time and a seed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use hickory_proto::op::{Metadata, Query, ResponseCode};

use super::{
    cookie::Cookies,
    counts::{QueryCounts, ServiceCounts, rcode_word},
    edns::{Edns, Said},
    lookup::{Chosen, Circumstances, Found, Lookup},
    name::LowerName,
    rate_limit::{Kind, Pass, RateLimit},
    reply::{Reply, Sections},
    request::Request,
};
use crate::{
    config::{Config, Dns, DnsTcp},
    gslb::choice::{Directory, Health},
    metrics::Metrics,
};

/// Answers by one configuration. All of it stays as it is until the next takes its place.
pub struct Responder {
    lookup: Lookup,
    cookies: Cookies,
    rate_limit: Option<Arc<RateLimit>>,
    udp_size: u16,
    tcp: DnsTcp,
    query_log: bool,
    none: QueryCounts,
    /// By [`crate::gslb::choice::ServiceChoice::number`].
    services: Box<[ServiceCounts]>,
    limited: [prometheus::IntCounter; 2],
}

/// What outlives configurations.
pub struct Kept {
    /// The secret of cookies where none is configured.
    pub cookie_secret: [u8; 16],
    /// Of the configuration before, to be used again if it is of the same numbers.
    pub rate_limit: Option<Arc<RateLimit>>,
}

/// Who sent a packet, and when.
pub struct Asker {
    pub address: SocketAddr,
    pub over: Over,
    pub now: Instant,
    /// Since 1970.
    pub unix_seconds: u64,
    /// Chance, another for each packet.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Udp,
    Tcp,
}

impl Responder {
    pub fn new(
        dns: &Dns,
        config: &Config,
        directory: Option<Arc<Directory>>,
        health: Arc<dyn Health + Send + Sync>,
        kept: &Kept,
        metrics: &Metrics,
    ) -> Self {
        let services = directory.iter().flat_map(|directory| directory.services());
        let services = services.map(|service| ServiceCounts::new(service, metrics)).collect();
        let limited = ["dropped", "truncated"];
        Self {
            services,
            lookup: Lookup::new(dns, config, directory, health),
            cookies: Cookies::new(&dns.cookie_secrets, kept.cookie_secret),
            rate_limit: kept.rate_limit.clone(),
            udp_size: dns.udp_size,
            tcp: dns.tcp,
            query_log: dns.query_log,
            none: QueryCounts::of_none(metrics),
            limited: limited.map(|action| metrics.dns.rate_limited.with_label_values(&[action])),
        }
    }

    /// Writes the answer to a packet into `out`; false: it is met with silence.
    pub fn answer(&self, packet: &[u8], asker: &Asker, out: &mut Vec<u8>) -> bool {
        // Port 0 is nobody's: an answer to it would help somebody against somebody else.
        let Some(request) = Request::read(packet).filter(|_| asker.address.port() != 0) else {
            self.none.count(None, None);
            return false;
        };
        let address = asker.address.ip().to_canonical();
        let name = request.question.as_ref().map(|question| LowerName::of(&question.name));
        let name = name.as_ref().map(LowerName::as_str);
        let found = match (request.fault, &request.question, name) {
            (None, Some(question), Some(name)) => {
                let subnet = request.edns.and_then(|edns| edns.subnet);
                let at = Circumstances { client: address, subnet, now: asker.now, seed: asker.seed };
                self.lookup.find(question, name, &at)
            }
            (fault, _, _) => Found::error(fault.unwrap_or(ResponseCode::FormErr)),
        };
        let pass = self.pass(&request, name.unwrap_or_default(), &found, asker);
        let code = found.code.filter(|_| pass != Pass::Dropped);
        self.count(&request, &found, code);
        if self.query_log {
            log(asker, &request.question, &found, code);
        }
        let Some(code) = code else { return false };
        let said = request.edns.as_ref().map(|edns| self.said(edns, address, found.scope, asker));
        let mut head = Metadata::response_from_request(&request.head);
        head.response_code = code;
        head.authoritative = found.zone.is_some();
        head.truncation = pass == Pass::Truncated;
        let wants_signatures = request.edns.is_some_and(|edns| edns.dnssec_ok);
        let signed = match (&request.question, name) {
            (Some(question), Some(name)) if wants_signatures && !head.truncation => {
                match self.lookup.sign(question, name, &found, asker.unix_seconds) {
                    Ok(signed) => signed,
                    // Half an answer would be taken for a forged one.
                    Err(_) => return false,
                }
            }
            _ => None,
        };
        let nothing = Sections::default();
        let sections = signed.as_ref().map(|signed| signed.sections(&found.sections));
        let reply = Reply {
            head,
            question: request.question.as_ref(),
            sections: if head.truncation { &nothing } else { sections.as_ref().unwrap_or(&found.sections) },
            said: said.as_ref(),
            limit: self.limit(request.edns.as_ref(), asker.over),
        };
        reply.write(out).is_ok()
    }

    /// What clients over TCP may take up.
    pub(super) fn tcp(&self) -> DnsTcp {
        self.tcp
    }

    /// The longest answer, in bytes.
    fn limit(&self, edns: Option<&Edns>, over: Over) -> u16 {
        match (over, edns) {
            (Over::Tcp, _) => u16::MAX,
            (Over::Udp, None) => SMALLEST,
            (Over::Udp, Some(edns)) => edns.payload.clamp(SMALLEST, self.udp_size),
        }
    }

    fn said(&self, edns: &Edns, address: IpAddr, scope: u8, asker: &Asker) -> Said {
        let server = |client| self.cookies.server(client, address, asker.unix_seconds as u32);
        Said {
            payload: self.udp_size,
            dnssec_ok: edns.dnssec_ok,
            subnet: edns.subnet.map(|subnet| (subnet, scope)),
            cookie: edns.cookie.map(|cookie| (cookie.client, server(cookie.client))),
        }
    }

    /// Whether the client may have its answer. One that has shown that its address is its own may.
    fn pass(&self, request: &Request, name: &str, found: &Found<'_>, asker: &Asker) -> Pass {
        let (Some(limit), Over::Udp, Some(code)) = (&self.rate_limit, asker.over, found.code) else {
            return Pass::Whole;
        };
        let address = asker.address.ip().to_canonical();
        let cookie = request.edns.and_then(|edns| edns.cookie);
        if cookie.is_some_and(|it| self.cookies.believes(&it, address, asker.unix_seconds as u32)) {
            return Pass::Whole;
        }
        // A service may have any number of names.
        let name = found.service.map_or(name, |service| service.config().name.as_str());
        let kind = match (found.zone, &request.question) {
            (Some(zone), _) if code == ResponseCode::NXDomain => Kind::Negative(&zone.name),
            (Some(_), Some(question)) => Kind::Answer(name, question.query_type.into()),
            _ => Kind::Error,
        };
        let pass = limit.pass(address, kind, asker.now);
        match pass {
            Pass::Whole => {}
            Pass::Dropped => self.limited[0].inc(),
            Pass::Truncated => self.limited[1].inc(),
        }
        pass
    }

    fn count(&self, request: &Request, found: &Found<'_>, code: Option<ResponseCode>) {
        let kind = request.question.as_ref().map(|question| question.query_type);
        let Some(service) = found.service else { return self.none.count(kind, code) };
        let counts = &self.services[service.number()];
        counts.queries.count(kind, code);
        if let Some(Chosen { member, reason }) = found.choice.filter(|_| code.is_some()) {
            counts.count_choice(member, reason);
        }
    }
}

/// What an operator asks for with `query_log`.
fn log(asker: &Asker, question: &Option<Query>, found: &Found<'_>, code: Option<ResponseCode>) {
    let name = question.as_ref().map(|question| question.name.to_ascii());
    let kind = question.as_ref().map(|question| question.query_type.to_string());
    let chosen = found.choice;
    tracing::info!(
        client = %asker.address,
        over = match asker.over { Over::Udp => "udp", Over::Tcp => "tcp" },
        name,
        r#type = kind,
        rcode = rcode_word(code),
        service = found.service.map(|service| service.config().name.as_str()),
        member = chosen.and_then(|chosen| chosen.member).map(|member| &*member.name),
        reason = chosen.map(|chosen| chosen.reason.as_str()),
        "dns query"
    );
}

/// What every client takes over UDP (RFC 1035).
const SMALLEST: u16 = 512;
