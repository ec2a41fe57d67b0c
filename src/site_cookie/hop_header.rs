//! The parts of the hop header, why one is no proof, the answer with which home refuses a hop, and the header's text taken apart.
//!
//! Nothing is proven here; that is the business of the keys, one file up.

use std::{fmt, net::IpAddr, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

/// The request header that proves a hop.
pub const HOP_HEADER: &str = "homing-hop";

/// The response header by which home refuses a hop; its value is a [`HomeRefusal`].
pub const HOP_REFUSED_HEADER: &str = "homing-hop-refused";

/// What the sender says about a request.
#[derive(Clone, Copy, Debug)]
pub struct HopFields<'a> {
    /// The home site.
    pub dst: &'a str,
    /// Now, Unix seconds.
    pub ts: u64,
    /// The request's id, new with every attempt.
    pub rid: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The client's scheme.
    pub scheme: ClientScheme,
    /// A keyed hash of the client's TLS session identity.
    pub tls_session: Option<[u8; TLS_SESSION_LEN]>,
}

/// A hop that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The site that sent it.
    pub src: String,
    pub rid: String,
    /// The client's address, for logs, forwarding headers, persistence and limits.
    pub client: IpAddr,
    pub scheme: ClientScheme,
    pub tls_session: Option<[u8; TLS_SESSION_LEN]>,
}

/// Why a hop header is no proof. All but `WrongSite` are to be treated as if there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum HopRefusal {
    #[error("malformed")]
    Malformed,
    #[error("unknown_key")]
    UnknownKey,
    #[error("forged")]
    Forged,
    #[error("wrong_service")]
    WrongService,
    /// The connection brings no certificate of the site, where sites have some.
    #[error("no_certificate")]
    NoCertificate,
    #[error("unknown_site")]
    UnknownSite,
    #[error("skewed")]
    Skewed,
    #[error("replayed")]
    Replayed,
    /// It is proven, but meant for another site: answered with
    /// [`HomeRefusal::WrongSite`].
    #[error("wrong_site")]
    WrongSite,
}

/// How the client spoke to the site that it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientScheme {
    Http,
    Https,
}

/// What home cannot serve, as the value of [`HOP_REFUSED_HEADER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HomeRefusal {
    /// The hop is meant for another site.
    WrongSite,
    /// No app server is up.
    PoolDown,
    /// The home has been emptied: its sessions begin anew elsewhere.
    Drained,
}

/// A header value, taken apart and not yet proven. The fields come once each, in the one order.
pub(super) struct Parsed<'a> {
    pub(super) signed: &'a str,
    pub(super) kid: &'a str,
    pub(super) src: &'a str,
    pub(super) dst: &'a str,
    pub(super) gs: &'a str,
    pub(super) ts: u64,
    pub(super) rid: &'a str,
    pub(super) client: IpAddr,
    pub(super) scheme: ClientScheme,
    pub(super) tls_session: Option<[u8; TLS_SESSION_LEN]>,
    pub(super) mac: [u8; MAC_LEN],
}

impl<'a> Parsed<'a> {
    pub(super) fn new(value: &'a str) -> Option<Self> {
        if value.len() > MAX_LEN {
            return None;
        }
        let (signed, mac) = value.split_at_checked(value.len().checked_sub(MAC_TEXT_LEN)?)?;
        let signed = signed.strip_suffix(";mac=")?;
        let mut fields = signed.split(';');
        let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
        let word = |text: &'a str| is_word(text).then_some(text);
        if field("v")? != "1" {
            return None;
        }
        let parsed = Self {
            signed,
            kid: word(field("kid")?)?,
            src: word(field("src")?)?,
            dst: word(field("dst")?)?,
            gs: word(field("gs")?)?,
            ts: field("ts")?.parse().ok()?,
            rid: word(field("rid")?)?,
            client: field("cip")?.parse().ok()?,
            scheme: field("proto")?.parse().ok()?,
            tls_session: match field("tid")? {
                "" => None,
                text => Some(decode(text)?),
            },
            mac: decode(mac)?,
        };
        fields.next().is_none().then_some(parsed)
    }
}

impl fmt::Display for ClientScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ClientScheme {
    /// As URLs and the header have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl FromStr for ClientScheme {
    type Err = HopRefusal;

    fn from_str(text: &str) -> Result<Self, HopRefusal> {
        match text {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(HopRefusal::Malformed),
        }
    }
}

impl HomeRefusal {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongSite => "wrong_site",
            Self::PoolDown => "pool_down",
            Self::Drained => "drained",
        }
    }

    /// The refusal that a header's value says; `None`: one that is not known here.
    pub fn of(value: &str) -> Option<Self> {
        [Self::WrongSite, Self::PoolDown, Self::Drained].into_iter().find(|refusal| refusal.as_str() == value)
    }

    /// The status of the answer that carries it.
    pub fn status(self) -> u16 {
        match self {
            Self::WrongSite => 421,
            Self::PoolDown | Self::Drained => 503,
        }
    }
}

/// Canonical base64 of exactly `N` bytes.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; MAC_LEN.next_multiple_of(3)];
    if text.len() != (N * 4).div_ceil(3) || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(N) {
        return None;
    }
    bytes.first_chunk().copied()
}

/// What may stand in a field: nothing that ends it.
pub(super) fn is_word(text: &str) -> bool {
    (1..=MAX_WORD_LEN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
}

/// Bytes of the MAC.
pub(super) const MAC_LEN: usize = 32;

/// Characters of the MAC, in base64 without padding.
const MAC_TEXT_LEN: usize = (MAC_LEN * 4).div_ceil(3);

/// Bytes of a TLS session's hash.
pub(super) const TLS_SESSION_LEN: usize = 16;
const MAX_WORD_LEN: usize = 128;

/// Room for four words of the greatest length and the rest.
const MAX_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_home_refuses_has_a_word_and_a_status() {
        for (refusal, word, status) in [
            (HomeRefusal::WrongSite, "wrong_site", 421),
            (HomeRefusal::PoolDown, "pool_down", 503),
            (HomeRefusal::Drained, "drained", 503),
        ] {
            assert_eq!((refusal.as_str(), refusal.status()), (word, status));
            assert_eq!(HomeRefusal::of(word), Some(refusal));
        }
        assert_eq!(HomeRefusal::of("tired"), None);
    }

    #[test]
    fn fields_come_once_each_in_one_order() {
        let mac = "A".repeat(43);
        let check = |fields: &str| Parsed::new(&format!("{fields};mac={mac}")).is_some();
        assert!(check("v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid="));
        assert!(check("v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=AAAAAAAAAAAAAAAAAAAAAA"));
        for bad in [
            "",
            "v=2;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=",
            "v=1;src=a;kid=k;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=",
            "v=1;kid=k;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=;x=1",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http",
            "v=1;kid=k;src=;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=",
            "v=1;kid=k;src=a b;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=-1;rid=r;cip=::1;proto=http;tid=",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=localhost;proto=http;tid=",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=HTTP;tid=",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=AAAA",
            "v=1;kid=k;src=a;dst=b;gs=g;ts=1;rid=r;cip=::1;proto=http;tid=AAAAAAAAAAAAAAAAAAAAAB",
        ] {
            assert!(!check(bad), "{bad}");
        }
        let long = format!("v=1;kid=k;src={};", "a".repeat(MAX_LEN));
        assert!(Parsed::new(&long).is_none());
    }
}
