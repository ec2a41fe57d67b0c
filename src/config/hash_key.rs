//! What of a request `consistent_hash` goes by. Avi spreads this over keys beside the algorithm; so do we.

use http::HeaderName;

use super::{LbAlgorithm, read::Object, words};

/// The part of a request whose hash chooses the server.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum HashKey {
    /// The client's address.
    #[default]
    SourceIp,
    /// Path and query.
    Uri,
    /// The first field of this name.
    Header(HeaderName),
    /// The first value of this cookie.
    Cookie(String),
    /// What a rule says.
    CustomString,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SourceIp,
    Uri,
    Header,
    Cookie,
    CustomString,
}

impl HashKey {
    pub(super) fn read(o: &mut Object<'_>, algorithm: LbAlgorithm) -> Self {
        let kind = o.field(KIND, words::choice(&KINDS)).unwrap_or(Kind::SourceIp);
        let header = o.field(HEADER, |node| words::header_name(&words::text(node)?));
        let cookie = o.field(COOKIE, |node| words::cookie_name(&words::text(node)?));
        if algorithm != LbAlgorithm::ConsistentHash {
            for key in [KIND, HEADER, COOKIE].into_iter().filter(|key| o.has(key)) {
                let what = format!("no effect with `lb_algorithm: {}`", algorithm.as_str());
                o.wrong(key, what, "write `lb_algorithm: consistent_hash`, or leave it out");
            }
            return Self::default();
        }
        for (key, of) in [(HEADER, Kind::Header), (COOKIE, Kind::Cookie)] {
            if o.has(key) && kind != of {
                let what = format!("no effect with `{KIND}: {}`", words::word(&KINDS, kind));
                o.wrong(key, what, format!("write `{KIND}: {}`, or leave it out", words::word(&KINDS, of)));
            }
            if !o.has(key) && kind == of {
                let what = format!("{} goes by a name, and there is none", words::word(&KINDS, kind));
                o.wrong(KIND, what, format!("add `{key}`"));
            }
        }
        match kind {
            Kind::SourceIp => Self::SourceIp,
            Kind::Uri => Self::Uri,
            // A name that is missing or wrong was reported.
            Kind::Header => header.map_or(Self::SourceIp, Self::Header),
            Kind::Cookie => cookie.map_or(Self::SourceIp, Self::Cookie),
            Kind::CustomString => Self::CustomString,
        }
    }

    /// Its kind, as it is written in YAML.
    pub fn as_str(&self) -> &'static str {
        let kind = match self {
            Self::SourceIp => Kind::SourceIp,
            Self::Uri => Kind::Uri,
            Self::Header(_) => Kind::Header,
            Self::Cookie(_) => Kind::Cookie,
            Self::CustomString => Kind::CustomString,
        };
        words::word(&KINDS, kind)
    }
}

const KIND: &str = "lb_algorithm_hash";
const HEADER: &str = "lb_algorithm_consistent_hash_hdr";
const COOKIE: &str = "lb_algorithm_consistent_hash_cookie";

const KINDS: [(&str, &str, Kind); 5] = [
    ("consistent_hash_source_ip_address", "LB_ALGORITHM_CONSISTENT_HASH_SOURCE_IP_ADDRESS", Kind::SourceIp),
    ("consistent_hash_uri", "LB_ALGORITHM_CONSISTENT_HASH_URI", Kind::Uri),
    ("consistent_hash_custom_header", "LB_ALGORITHM_CONSISTENT_HASH_CUSTOM_HEADER", Kind::Header),
    ("consistent_hash_cookie", "LB_ALGORITHM_CONSISTENT_HASH_COOKIE", Kind::Cookie),
    ("consistent_hash_custom_string", "LB_ALGORITHM_CONSISTENT_HASH_CUSTOM_STRING", Kind::CustomString),
];
