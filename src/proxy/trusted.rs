//! What proxies in front say of their clients, where the application profile trusts them: `X-Forwarded-For` and
//! `X-Forwarded-Proto`. From everybody else these are removed unread.
//!
//! A client can write the field before a proxy adds to it, so it is read from its end: the last address that is not of
//! a trusted proxy is the client's. nginx: `set_real_ip_from` with `real_ip_recursive`; Avi: `use_true_client_ip`.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::fields;
use crate::rule::Exchange;

/// Takes over what a trusted proxy says of its client.
pub(super) fn believe(headers: &HeaderMap, trusted: &[IpNet], exchange: &mut Exchange) {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if trusted.is_empty() || !is_trusted(exchange.client) {
        return;
    }
    exchange.client_is_told = true;
    if let Some(client) = client(headers, is_trusted) {
        exchange.client = client;
    }
    if let Some(secure) = last(headers, &PROTO).and_then(scheme) {
        exchange.secure = secure;
    }
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

fn scheme(word: &[u8]) -> Option<bool> {
    let is = |scheme: &[u8]| word.eq_ignore_ascii_case(scheme);
    if is(b"https") { Some(true) } else { is(b"http").then_some(false) }
}

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
