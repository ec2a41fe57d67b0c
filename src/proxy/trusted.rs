//! What proxies in front say of their clients, where the application profile trusts them: `X-Forwarded-For` and
//! `X-Forwarded-Proto`, or `Forwarded`, as the profile says. The others are not read, for a proxy that writes the one may
//! pass on what a client has written into the other. From everybody else all are removed unread.
//!
//! A client can write the field before a proxy adds to it, so it is read from its end: the last address that is not of
//! a trusted proxy is the client's. nginx: `set_real_ip_from` with `real_ip_recursive`; Avi: `use_true_client_ip`.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

use super::{
    fields,
    forwarded::{self, Hop, scheme},
};
use crate::{
    config::{TrustedHeader, TrustedProxies},
    rule::Exchange,
};

/// Takes over what a trusted proxy says of its client.
pub(super) fn believe(headers: &HeaderMap, proxies: &TrustedProxies, exchange: &mut Exchange) {
    let is_trusted = |ip: IpAddr| proxies.networks.iter().any(|net| net.contains(&ip));
    if proxies.networks.is_empty() || !is_trusted(exchange.client) {
        return;
    }
    exchange.client_is_told = true;
    let (client, secure) = match proxies.header {
        TrustedHeader::XForwardedFor => {
            exchange.keeps_x_forwarded = true;
            (client(headers, is_trusted), last(headers, &PROTO).and_then(scheme))
        }
        TrustedHeader::Forwarded => {
            let hops = hops(headers);
            (first_stranger(&hops, is_trusted), hops.last().and_then(|nearest| nearest.secure))
        }
    };
    if let Some(client) = client {
        exchange.client = client;
    }
    if let Some(secure) = secure {
        exchange.secure = secure;
    }
}

/// The hops that `Forwarded` tells of, the nearest last, as far back as every field can be read.
fn hops(headers: &HeaderMap) -> Vec<Hop> {
    if !fields::has(headers, &FORWARDED) {
        return Vec::new();
    }
    let all: Vec<_> =
        headers.get_all(&FORWARDED).iter().map(|field| forwarded::hops(field.as_bytes())).collect();
    let readable = all.iter().rev().take_while(|hops| hops.is_some()).count();
    all.into_iter().rev().take(readable).rev().flatten().flatten().collect()
}

/// The nearest client that is none of the proxies; where nobody says who came to one, that one.
fn first_stranger(hops: &[Hop], is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut found = None;
    for client in hops.iter().rev().map_while(|hop| hop.client) {
        found = Some(client);
        if !is_trusted(client) {
            break;
        }
    }
    found
}

/// `None`: the nearest proxy names nobody.
fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut found = None;
    let fields: Vec<_> = headers.get_all(&FOR).iter().collect();
    for word in fields.iter().rev().flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b',')) {
        // What nobody can read, or is no address, was not written by a proxy that is trusted.
        let Some(ip) = str::from_utf8(word).ok().and_then(|word| address(word.trim())) else { break };
        found = Some(ip);
        if !is_trusted(ip) {
            break;
        }
    }
    found
}

/// An address, which some proxies write with its port.
fn address(word: &str) -> Option<IpAddr> {
    let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    let ip = bare.parse().ok().or_else(|| Some(word.parse::<SocketAddr>().ok()?.ip()))?;
    Some(ip.to_canonical())
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let field = fields::has(headers, name).then(|| headers.get_all(name).iter().next_back()).flatten()?;
    field.as_bytes().rsplit(|byte| *byte == b',').next().map(<[u8]>::trim_ascii)
}

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use ipnet::IpNet;

    use super::*;

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_clients() {
        for (fields, expected) in [
            (&["203.0.113.7"][..], Some("203.0.113.7")),
            (&["192.0.2.66, 203.0.113.7"], Some("203.0.113.7")),
            (&["192.0.2.66, 203.0.113.7, 10.0.0.2"], Some("203.0.113.7")),
            (&["192.0.2.66", "203.0.113.7", "10.0.0.2, 10.0.0.3"], Some("203.0.113.7")),
            (&["10.0.0.4, 10.0.0.2"], Some("10.0.0.4")),
            (&["203.0.113.7:4711"], Some("203.0.113.7")),
            (&["[2001:db8::7]:4711"], Some("2001:db8::7")),
            (&["2001:db8::7"], Some("2001:db8::7")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["unknown"], None),
            (&["203.0.113.7,"], None),
            (&[""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(&FOR, HeaderValue::from_str(field).expect("a value"));
            }
            let trusted: IpNet = "10.0.0.0/8".parse().expect("a network");
            let found = client(&headers, |ip| trusted.contains(&ip));
            assert_eq!(found.map(|ip| ip.to_string()).as_deref(), expected, "{fields:?}");
        }
    }

    #[test]
    fn of_forwarded_the_same_holds() {
        for (fields, expected, secure) in [
            (&["for=203.0.113.7;proto=https"][..], Some("203.0.113.7"), Some(true)),
            (&["for=192.0.2.66, for=203.0.113.7"], Some("203.0.113.7"), None),
            (&["for=203.0.113.7;proto=https, for=10.0.0.2;proto=http"], Some("203.0.113.7"), Some(false)),
            (&["for=192.0.2.66", "for=203.0.113.7", "for=10.0.0.2"], Some("203.0.113.7"), None),
            (&["for=10.0.0.4, for=10.0.0.2"], Some("10.0.0.4"), None),
            (&["for=203.0.113.7, for=unknown, for=10.0.0.2"], Some("10.0.0.2"), None),
            (&["for=203.0.113.7, proto=https, for=10.0.0.2"], Some("10.0.0.2"), None),
            (&["for=\"[2001:db8::7]:4711\", for=_edge"], None, None),
            (&["for=203.0.113.7, what", "for=10.0.0.2;proto=https"], Some("10.0.0.2"), Some(true)),
            (&["for=10.0.0.2", "what"], None, None),
            (&[""], None, None),
            (&[], None, None),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(FORWARDED, HeaderValue::from_str(field).expect("a value"));
            }
            let trusted: IpNet = "10.0.0.0/8".parse().expect("a network");
            let hops = hops(&headers);
            let found = first_stranger(&hops, |ip| trusted.contains(&ip));
            assert_eq!(found.map(|ip| ip.to_string()).as_deref(), expected, "{fields:?}");
            assert_eq!(hops.last().and_then(|hop| hop.secure), secure, "{fields:?}");
        }
    }

    #[test]
    fn the_last_word_on_the_scheme_counts() {
        for (field, secure) in [
            ("https", Some(true)),
            ("HTTP", Some(false)),
            ("http, https", Some(true)),
            ("wss", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(&PROTO, HeaderValue::from_static(field));
            assert_eq!(last(&headers, &PROTO).and_then(scheme), secure, "{field}");
        }
    }
}
