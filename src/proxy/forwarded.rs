//! The `Forwarded` field (RFC 7239), as far as it says who a client is and whether it spoke TLS.
//!
//! It is read strictly: a field that is not of the RFC's form says nothing, for who knows what else its author let
//! through.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What one proxy says of who came to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hop {
    /// `None`: it is not said, not known, or kept secret.
    pub client: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: Option<bool>,
}

/// The hops that a field tells of, the nearest last; `None`: it is malformed.
pub(super) fn hops(field: &[u8]) -> Option<Vec<Hop>> {
    let mut rest = field.trim_ascii();
    let mut hops = Vec::new();
    loop {
        let (hop, after) = hop(rest)?;
        hops.extend(hop);
        rest = match after.trim_ascii_start() {
            [] => return Some(hops),
            [b',', after @ ..] => after.trim_ascii_start(),
            _ => return None,
        };
    }
}

/// One element of the list, which may be empty, and what follows it.
fn hop(mut rest: &[u8]) -> Option<(Option<Hop>, &[u8])> {
    let mut hop = Hop::default();
    let mut names: Vec<&[u8]> = Vec::new();
    loop {
        if let Some((name, after)) = token(rest) {
            let (value, after) = value(after.strip_prefix(b"=")?)?;
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return None;
            }
            names.push(name);
            if name.eq_ignore_ascii_case(b"for") {
                hop.client = node(&value)?;
            } else if name.eq_ignore_ascii_case(b"proto") {
                hop.secure = scheme(&value);
            }
            rest = after;
        }
        match rest.strip_prefix(b";") {
            Some(after) => rest = after,
            None => return Some(((!names.is_empty()).then_some(hop), rest)),
        }
    }
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !is_token(*byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token, or a quoted string without its quotes and backslashes.
fn value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let (token, after) = token(text)?;
        return Some((token.into(), after));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value.into(), &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            byte => value.push(*byte),
        }
    }
    None
}

/// Whose address a node is: the outer `None` is for none of the RFC's forms, the inner for one without an address.
fn node(value: &[u8]) -> Option<Option<IpAddr>> {
    let text = str::from_utf8(value).ok()?;
    let (name, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (ip, after) = bracketed.split_once(']')?;
            let ip: Ipv6Addr = ip.parse().ok()?;
            (Some(IpAddr::from(ip).to_canonical()), after)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (hidden(name).then_some(None).or_else(|| Some(Some(ipv4(name)?)))?, port)
        }
    };
    match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => is_obfuscated(port) || is_port(port),
    }
    .then_some(name)
}

fn ipv4(name: &str) -> Option<IpAddr> {
    name.parse::<Ipv4Addr>().ok().map(IpAddr::from)
}

/// Whether a node does not say who it is.
fn hidden(name: &str) -> bool {
    name.eq_ignore_ascii_case("unknown") || is_obfuscated(name)
}

fn is_obfuscated(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_char))
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// `None`: neither of those that tell.
pub(super) fn scheme(word: &[u8]) -> Option<bool> {
    let is = |scheme: &[u8]| word.eq_ignore_ascii_case(scheme);
    if is(b"https") { Some(true) } else { is(b"http").then_some(false) }
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(field: &str) -> Option<Vec<(String, Option<bool>)>> {
        let told = |hop: Hop| (hop.client.map_or("-".into(), |ip| ip.to_string()), hop.secure);
        Some(hops(field.as_bytes())?.into_iter().map(told).collect())
    }

    #[test]
    fn fields_are_read_as_rfc_7239_has_them() {
        for (field, expected) in [
            ("for=192.0.2.43", &[("192.0.2.43", None)][..]),
            ("For=\"[2001:db8:cafe::17]:4711\"", &[("2001:db8:cafe::17", None)]),
            ("for=\"[::ffff:192.0.2.43]\"", &[("192.0.2.43", None)]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", &[("192.0.2.60", Some(false))]),
            (
                "for=192.0.2.43, for=198.51.100.17;proto=HTTPS",
                &[("192.0.2.43", None), ("198.51.100.17", Some(true))],
            ),
            ("for=192.0.2.43,for=\"198.51.100.17:80\"", &[("192.0.2.43", None), ("198.51.100.17", None)]),
            ("for=\"192.0.2.43:_port\"", &[("192.0.2.43", None)]),
            ("for=unknown", &[("-", None)]),
            ("for=_gazonk", &[("-", None)]),
            ("for=\"_SEVKISEK:1234\";proto=https", &[("-", Some(true))]),
            ("proto=https", &[("-", Some(true))]),
            ("proto=wss;for=192.0.2.1", &[("192.0.2.1", None)]),
            ("for=\"192\\.0.2.43\"", &[("192.0.2.43", None)]),
            ("host=\"a,b;for=10.0.0.1\";for=192.0.2.1", &[("192.0.2.1", None)]),
            ("for=192.0.2.1;;proto=http;", &[("192.0.2.1", Some(false))]),
            ("for=192.0.2.1, , for=192.0.2.2 ,", &[("192.0.2.1", None), ("192.0.2.2", None)]),
            ("", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(ip, secure)| (ip.to_string(), *secure)).collect();
            assert_eq!(told(field), Some(expected), "{field}");
        }
    }

    #[test]
    fn what_is_not_of_its_form_says_nothing() {
        for field in [
            "192.0.2.43",
            "for",
            "for=",
            "for =192.0.2.43",
            "for= 192.0.2.43",
            "for=192.0.2.43; proto=http",
            "for=192.0.2.43 proto=http",
            "for=[2001:db8::1]",
            "for=\"2001:db8::1\"",
            "for=\"[2001:db8::1\"",
            "for=\"[192.0.2.1]\"",
            "for=192.0.2.43:80",
            "for=\"192.0.2.43:\"",
            "for=\"192.0.2.43:123456\"",
            "for=\"192.0.2.43:80x\"",
            "for=192.0.2.043",
            "for=_",
            "for=\"_a b\"",
            "for=a.com",
            "for=\"192.0.2.43",
            "for=\"192.0.2.43\\",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1;FOR=192.0.2.2",
            "for=192.0.2.1, x",
            "for=\"\u{e9}\"",
        ] {
            assert_eq!(hops(field.as_bytes()), None, "{field}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_without_a_panic(field in any::<Vec<u8>>()) {
            let _ = hops(&field);
        }

        #[test]
        fn what_stands_before_a_hop_cannot_change_who_it_is(
            before in r#"([a-z]{1,3}=([a-z0-9_.]{1,4}|"[a-z,;=\[\]:]{0,6}")[;,] ?){0,4}"#,
            ip in any::<[u8; 4]>(),
        ) {
            let last = IpAddr::from(ip);
            if let Some(hops) = hops(format!("{before}, for={last};proto=https").as_bytes()) {
                let own = Hop { client: Some(last), secure: Some(true) };
                prop_assert_eq!(hops.last(), Some(&own));
            }
        }

        #[test]
        fn what_homing_says_it_understands(ip in any::<IpAddr>(), secure in any::<bool>()) {
            let node = match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("\"[{ip}]\""),
            };
            let field = format!("for={node};proto={}", if secure { "https" } else { "http" });
            let hop = Hop { client: Some(ip.to_canonical()), secure: Some(secure) };
            prop_assert_eq!(hops(field.as_bytes()), Some(vec![hop]));
        }
    }
}
