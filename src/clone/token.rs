//! The token that names a session: the first of a chain that the request has.
//!
//! A token is taken as it was sent, neither decoded nor verified; it tells sessions apart and grants nothing.

use std::{borrow::Cow, io::Write, net::IpAddr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::Token;

/// What of a request may name its session.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub tls_session_id: Option<&'a [u8]>,
    pub headers: &'a HeaderMap,
    /// Without `?`.
    pub query: Option<&'a str>,
    pub client: IpAddr,
}

/// The first token of the chain that the request has, and its value. An empty value is none.
pub fn find<'t, 'a>(chain: &'t [Token], facts: &Facts<'a>) -> Option<(&'t Token, Cow<'a, [u8]>)> {
    chain.iter().find_map(|token| {
        let value = value(token, facts)?;
        (!value.is_empty()).then_some((token, value))
    })
}

/// The key of a token's value in the session table, in words: `cookie:SID=abc`, `source_ip=192.0.2.1`,
/// `tls_session_id=00ff…`. Of a value longer than 4 KiB its SHA-256 stands there, so that keys are bounded, and
/// long values that differ only at their end, as those of apps that keep all in a cookie, are told apart.
pub fn key(token: &Token, value: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64 + value.len().min(MAX_VALUE));
    let written = match token {
        Token::TlsSessionId => write!(key, "tls_session_id="),
        Token::Cookie(name) => write!(key, "cookie:{name}="),
        Token::Header(name) => write!(key, "header:{name}="),
        Token::Jwt(claim) => write!(key, "jwt:{claim}="),
        Token::Query(name) => write!(key, "query:{name}="),
        Token::SourceIp => write!(key, "source_ip="),
    };
    written.expect("a Vec takes every write");
    match token {
        _ if value.len() > MAX_VALUE => {
            key.extend_from_slice(b"sha256:");
            write_hex(&Sha256::digest(value), &mut key);
        }
        Token::TlsSessionId => write_hex(value, &mut key),
        _ => key.extend_from_slice(value),
    }
    key
}

/// The key that an operator means who types a token as [`key`] writes it (its name without case), or the value
/// alone; `None`: this is no value of such a token.
pub fn typed(token: &Token, text: &str) -> Option<Vec<u8>> {
    let name = format!("{token}=");
    let named = text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(&name));
    let value = if named { &text[name.len()..] } else { text };
    match token {
        _ if value.is_empty() => None,
        Token::TlsSessionId => Some(key(token, &bytes_of_hex(value)?)),
        Token::SourceIp => {
            let client: IpAddr = value.parse().ok()?;
            Some(key(token, client.to_canonical().to_string().as_bytes()))
        }
        Token::Cookie(_) | Token::Header(_) | Token::Jwt(_) | Token::Query(_) => {
            Some(key(token, value.as_bytes()))
        }
    }
}

/// The bytes that pairs of hex digits stand for.
pub fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(*pair.get(1)?)?).ok()).collect()
}

fn write_hex(bytes: &[u8], key: &mut Vec<u8>) {
    for byte in bytes {
        key.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
}

fn value<'a>(token: &Token, facts: &Facts<'a>) -> Option<Cow<'a, [u8]>> {
    match token {
        Token::TlsSessionId => facts.tls_session_id.map(Cow::Borrowed),
        Token::Cookie(name) => cookie(facts.headers, name).map(Cow::Borrowed),
        Token::Header(name) => facts.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
        Token::Jwt(claim) => jwt(facts.headers, claim).map(|claim| Cow::Owned(claim.into_bytes())),
        Token::Query(name) => query(facts.query?, name).map(|value| Cow::Borrowed(value.as_bytes())),
        Token::SourceIp => Some(Cow::Owned(facts.client.to_canonical().to_string().into_bytes())),
    }
}

/// The first value of a cookie, over all `Cookie` fields.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The first value of a parameter, as it was sent.
fn query<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A claim of `Authorization: Bearer`, a text or a number.
fn jwt(headers: &HeaderMap, claim: &str) -> Option<String> {
    let credentials = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = credentials.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parts = token.trim().split('.');
    let payload = parts.nth(1).filter(|payload| payload.len() <= MAX_JWT)?;
    parts.next()?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let mut claims: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&claims).ok()?;
    match claims.remove(claim)? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Bytes of a value that are taken as they are.
const MAX_VALUE: usize = 4 * 1024;

/// Base64 characters of a payload that are looked at.
const MAX_JWT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
        };
        of.iter().map(field).collect()
    }

    /// The key of the first token that the request has.
    fn found(chain: &[Token], fields: &[(&'static str, &str)], query: Option<&str>) -> Option<String> {
        let facts =
            Facts { tls_session_id: Some(b"\x00\xff"), headers: &headers(fields), query, client: CLIENT };
        let (token, value) = find(chain, &facts)?;
        Some(String::from_utf8(key(token, &value)).expect("these keys are text"))
    }

    #[test]
    fn the_first_token_that_the_request_has_names_its_session() {
        let chain = [
            Token::Cookie("SID".into()),
            Token::Header(HeaderName::from_static("x-session")),
            Token::Query("sid".into()),
            Token::SourceIp,
        ];
        for (fields, query, expected) in [
            (&[("cookie", "a=b"), ("cookie", "xSID=no; SID=1; SID=2")][..], None, "cookie:SID=1"),
            (&[("cookie", "SID=; sid=2"), ("x-session", "s")], None, "header:x-session=s"),
            (&[], Some("a=b&sid=%20x&sid=y"), "query:sid=%20x"),
            (&[], Some("asid=1"), "source_ip=192.0.2.1"),
        ] {
            assert_eq!(found(&chain, fields, query).as_deref(), Some(expected));
        }
        assert_eq!(found(&[Token::TlsSessionId], &[], None).as_deref(), Some("tls_session_id=00ff"));
        assert_eq!(found(&chain[..3], &[], None), None);
    }

    #[test]
    fn an_ipv4_client_is_the_same_over_ipv6_sockets() {
        let client = "::ffff:192.0.2.1".parse().expect("an address");
        let facts = Facts { tls_session_id: None, headers: &HeaderMap::new(), query: None, client };
        let chain = [Token::TlsSessionId, Token::SourceIp];
        let (token, value) = find(&chain, &facts).expect("every client has an address");
        assert_eq!(key(token, &value), b"source_ip=192.0.2.1");
    }

    #[test]
    fn a_claim_of_a_bearer_token_is_read_without_verifying_it() {
        let bearer = |claims: &str| format!("Bearer e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let chain = [Token::Jwt("sub".into())];
        for (credentials, expected) in [
            (bearer(r#"{"iss":"x","sub":"alice"}"#), Some("jwt:sub=alice")),
            (bearer(r#"{"sub":42}"#).replace("Bearer", "bearer"), Some("jwt:sub=42")),
            (bearer(r#"{"sub":["a"]}"#), None),
            (bearer(r#"{"iss":"x"}"#), None),
            (bearer(r#"["sub"]"#), None),
            (bearer("{"), None),
            (bearer(r#"{"sub":"alice"}"#).replace("Bearer", "Basic"), None),
            ("Bearer e30.!!.c2ln".into(), None),
            ("Bearer opaque".into(), None),
            (format!("Bearer e30.{}.c2ln", "e".repeat(MAX_JWT + 1)), None),
        ] {
            let found = found(&chain, &[("authorization", &credentials)], None);
            assert_eq!(found.as_deref(), expected, "{credentials}");
        }
    }

    #[test]
    fn what_an_operator_types_is_the_key_that_a_request_makes() {
        let sid = || Token::Cookie("SID".into());
        for (token, typed_text, expected) in [
            (sid(), "cookie:SID=abc", Some("cookie:SID=abc")),
            (sid(), "Cookie:sid=abc", Some("cookie:SID=abc")),
            (sid(), "abc", Some("cookie:SID=abc")),
            (sid(), "cookie:SID=", None),
            (sid(), "", None),
            (sid(), "ü", Some("cookie:SID=ü")),
            (
                Token::Header(HeaderName::from_static("x-session")),
                "header:X-Session=s",
                Some("header:x-session=s"),
            ),
            (Token::Jwt("sub".into()), "jwt:sub=alice", Some("jwt:sub=alice")),
            (Token::Query("sid".into()), "query:sid=%20", Some("query:sid=%20")),
            (Token::SourceIp, "source_ip=::ffff:192.0.2.1", Some("source_ip=192.0.2.1")),
            (Token::SourceIp, "2001:DB8::1", Some("source_ip=2001:db8::1")),
            (Token::SourceIp, "abc", None),
            (Token::TlsSessionId, "tls_session_id=00FF", Some("tls_session_id=00ff")),
            (Token::TlsSessionId, "00ff", Some("tls_session_id=00ff")),
            (Token::TlsSessionId, "00f", None),
            (Token::TlsSessionId, "+1", None),
            (Token::TlsSessionId, "üü", None),
        ] {
            let key = typed(&token, typed_text).map(|key| String::from_utf8(key).expect("text"));
            assert_eq!(key.as_deref(), expected, "{token} {typed_text}");
        }
        let long = "x".repeat(MAX_VALUE + 1);
        assert_eq!(typed(&sid(), &long), Some(key(&sid(), long.as_bytes())));
    }

    #[test]
    fn a_long_value_is_bounded_and_still_tells_sessions_apart() {
        let longest = vec![b'x'; MAX_VALUE];
        let (long, longer) = (vec![b'x'; 100_000], vec![b'x'; 100_001]);
        let mut other = long.clone();
        *other.last_mut().expect("it is long") = b'y';
        for token in [Token::Cookie("SID".into()), Token::TlsSessionId] {
            let keys = [&longest, &long, &longer, &other].map(|value| key(&token, value));
            assert!(keys.iter().all(|key| key.len() <= 2 * MAX_VALUE + 64));
            assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
            assert_eq!(key(&token, &long), keys[1], "the same value is the same session");
        }
        assert!(key(&Token::Cookie("SID".into()), &long).starts_with(b"cookie:SID=sha256:d69e6898"));
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_makes_it_panic(text in "[ -~]{0,200}", query in ".*") {
            let chain = [Token::Jwt("sub".into()), Token::Cookie("".into()), Token::Query("".into())];
            for token in &chain {
                let credentials = format!("Bearer a.{text}.b");
                found(std::slice::from_ref(token), &[("cookie", &text), ("authorization", &credentials)], Some(&query));
            }
        }
    }
}
