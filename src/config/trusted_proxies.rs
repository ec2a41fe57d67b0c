//! Proxies in front that are believed what they say of their clients.

use ipnet::IpNet;

use super::{read::Object, words};

/// Default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Client networks.
    pub networks: Vec<IpNet>,
    pub header: TrustedHeader,
}

/// By which field they tell. One alone is read: a proxy that writes one may pass on what clients have written into the
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustedHeader {
    /// And `X-Forwarded-Proto`.
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl TrustedProxies {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let networks = o.list("trusted_proxies", words::network).unwrap_or_default();
        let header = o.field(HEADER, words::choice(&HEADERS)).unwrap_or_default();
        if networks.is_empty() && o.has(HEADER) {
            o.wrong(HEADER, "no proxy is trusted", "add `trusted_proxies`, or leave it out");
        }
        Self { networks, header }
    }
}

impl TrustedHeader {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&HEADERS, self)
    }
}

const HEADER: &str = "trusted_proxies_header";
const HEADERS: [(&str, &str, TrustedHeader); 2] =
    [("x_forwarded_for", "", TrustedHeader::XForwardedFor), ("forwarded", "", TrustedHeader::Forwarded)];
