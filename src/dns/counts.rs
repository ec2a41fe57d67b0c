//! What is counted of queries and answers. A counter is looked up when it counts first, and held from then on; what a
//! service never counts takes up nothing, for there may be very many services.

use std::sync::OnceLock;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use prometheus::{IntCounter, IntCounterVec};

use crate::{
    gslb::choice::{Member, Reason, ServiceChoice},
    metrics::Metrics,
};

/// Queries by type and rcode, of one service or of none.
pub(super) struct QueryCounts {
    service: Box<str>,
    queries: IntCounterVec,
    /// How many of `RCODES` have cells.
    rcodes: usize,
    /// `TYPES` for each rcode.
    cells: Cells,
}

/// Of one service.
pub(super) struct ServiceCounts {
    pub queries: QueryCounts,
    answers: IntCounterVec,
    members: usize,
    /// The reasons for each member, those without a member first.
    cells: Cells,
}

/// Counters that are held.
#[derive(Default)]
struct Cells(OnceLock<Box<[OnceLock<IntCounter>]>>);

impl Cells {
    /// `count`: how many there are.
    fn of(&self, count: usize) -> &[OnceLock<IntCounter>] {
        self.0.get_or_init(|| (0..count).map(|_| OnceLock::new()).collect())
    }
}

impl QueryCounts {
    /// Of queries for names of no service.
    pub fn of_none(metrics: &Metrics) -> Self {
        Self::new("-", metrics, RCODES.len())
    }

    fn new(service: &str, metrics: &Metrics, rcodes: usize) -> Self {
        let queries = metrics.dns.queries.clone();
        Self { service: service.into(), queries, rcodes, cells: Cells::default() }
    }

    /// `code`: `None` if it was met with silence.
    pub fn count(&self, kind: Option<RecordType>, code: Option<ResponseCode>) {
        let kind = TYPES.iter().position(|(known, _)| Some(*known) == kind).unwrap_or(TYPES.len() - 1);
        let rcode = rcode(code);
        let labels = || [&*self.service, TYPES[kind].1, RCODES[rcode].1];
        match self.cells.of(self.rcodes * TYPES.len()).get(rcode * TYPES.len() + kind) {
            Some(cell) => cell.get_or_init(|| self.queries.with_label_values(&labels())).inc(),
            None => self.queries.with_label_values(&labels()).inc(),
        }
    }
}

impl ServiceCounts {
    pub fn new(service: &ServiceChoice, metrics: &Metrics) -> Self {
        Self {
            queries: QueryCounts::new(service.config().name.as_str(), metrics, RCODES_OF_SERVICES),
            answers: metrics.dns.answers.clone(),
            members: service.members().len(),
            cells: Cells::default(),
        }
    }

    pub fn count_choice(&self, member: Option<&Member>, reason: Reason) {
        let row = member.map_or(0, |member| 1 + usize::from(member.place));
        let cells = self.cells.of((self.members + 1) * Reason::ALL.len());
        let cell = &cells[row * Reason::ALL.len() + reason as usize];
        let counter = cell.get_or_init(|| {
            let member = member.map_or("-", |member| &*member.name);
            self.answers.with_label_values(&[&*self.queries.service, member, reason.as_str()])
        });
        counter.inc();
    }
}

/// How logs and metrics call an rcode.
pub(super) fn rcode_word(code: Option<ResponseCode>) -> &'static str {
    RCODES[rcode(code)].1
}

fn rcode(code: Option<ResponseCode>) -> usize {
    RCODES.iter().position(|(known, _)| *known == code).unwrap_or(RCODES.len() - 1)
}

/// The last stands for all others.
const TYPES: [(RecordType, &str); 11] = [
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::SOA, "SOA"),
    (RecordType::NS, "NS"),
    (RecordType::TXT, "TXT"),
    (RecordType::MX, "MX"),
    (RecordType::DS, "DS"),
    (RecordType::ANY, "ANY"),
    (RecordType::ZERO, "other"),
];

/// Those that queries for names of a service end with.
const RCODES_OF_SERVICES: usize = 2;

/// The last stands for all others.
const RCODES: [(Option<ResponseCode>, &str); 9] = [
    (Some(ResponseCode::NoError), "NOERROR"),
    (None, "none"),
    (Some(ResponseCode::NXDomain), "NXDOMAIN"),
    (Some(ResponseCode::Refused), "REFUSED"),
    (Some(ResponseCode::FormErr), "FORMERR"),
    (Some(ResponseCode::NotImp), "NOTIMP"),
    (Some(ResponseCode::BADVERS), "BADVERS"),
    (Some(ResponseCode::NotAuth), "NOTAUTH"),
    (Some(ResponseCode::ServFail), "SERVFAIL"),
];
