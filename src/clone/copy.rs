//! A request's head as a clone member gets it: HTTP/1.1 bytes, made once, on the app's path.
//!
//! What concerns only one connection is left out (RFC 9110 section 7.6.1), and `Expect`, the hop header
//! between sites and what the clone section strips; `Cookie` fields are joined and lose the site cookie. The
//! client's address and scheme are told by homing, and nothing that the client says of them. The body is framed
//! anew, whatever framed the original. Each copy is marked with [`MARK`].

use std::{fmt, io::Write, net::IpAddr};

use http::{HeaderMap, HeaderName, Method, header};

use super::count::DropReason;
use crate::{config::CloneSection, names::VsName};

/// A request, as far as its copy needs it.
pub struct CopyHead<'a> {
    pub method: &'a Method,
    /// Path and query, as the bytes that the client sent, which need not be UTF-8.
    pub target: &'a [u8],
    /// Host and port, as the client asked.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
    /// The client's address, and whether it speaks TLS: told as `X-Forwarded-For` and `X-Forwarded-Proto`.
    pub client: IpAddr,
    pub secure: bool,
    /// Names the session to analysers; copies of one session share a lane.
    pub session: u64,
    /// The number of the request within its session.
    pub seq: u64,
    pub request_id: &'a dyn fmt::Display,
    /// A cookie that is not copied: the site cookie.
    pub drop_cookie: Option<&'a str>,
    pub body: BodyKind,
}

/// What is known of a request's body before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    None,
    /// Bytes, of `Content-Length`.
    Length(u64),
    Unknown,
}

/// Whether a request is a copy itself, which must not be copied again.
pub fn is_copy(headers: &HeaderMap) -> bool {
    headers.contains_key(&MARK)
}

/// What the heads of all copies of a clone section have in common.
pub struct Recipe {
    left_out: Vec<HeaderName>,
    copies_cookies: bool,
    writes_host: bool,
    writes_client: bool,
    writes_scheme: bool,
    /// Header lines that are set, then the mark up to the session.
    added: Vec<u8>,
}

/// How a copy's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    Length(u64),
    /// The body was cut to this length.
    CutTo(u64),
    /// Its end may say that it was cut.
    Chunked {
        may_be_cut: bool,
    },
}

impl Recipe {
    pub fn new(section: &CloneSection, vs: &VsName) -> Self {
        let mut left_out = NEVER_COPIED.to_vec();
        left_out.extend(section.strip_headers.iter().filter_map(|name| name.parse::<HeaderName>().ok()));
        let mut added = Vec::new();
        for (name, value) in &section.set_headers {
            if NEVER_COPIED.contains(name) && *name != header::HOST {
                continue;
            }
            write_field(&mut added, name.as_str(), value.as_bytes());
            left_out.push(name.clone());
        }
        added.extend_from_slice(b"X-Homing-Clone: vs=");
        for byte in vs.as_str().bytes() {
            match byte {
                b'!'..=b'~' if !b";%".contains(&byte) => added.push(byte),
                _ => write!(added, "%{byte:02X}").expect("a Vec takes every write"),
            }
        }
        added.extend_from_slice(b";session=");
        let (writes_client, writes_scheme) =
            (!left_out.contains(&FORWARDED_FOR), !left_out.contains(&FORWARDED_PROTO));
        left_out.extend(CLIENTS_WORD);
        Self {
            writes_client,
            writes_scheme,
            copies_cookies: !left_out.contains(&header::COOKIE),
            writes_host: !section.set_headers.iter().any(|(name, _)| name == header::HOST),
            left_out,
            added,
        }
    }

    /// Appends a copy's head, up to its framing. Refused is a host or a target that would break its lines.
    pub fn write(&self, head: &CopyHead<'_>, out: &mut Vec<u8>) -> Result<(), DropReason> {
        let breaks = |text: &[u8]| text.iter().any(|byte| *byte <= b' ' || *byte == 0x7f);
        if head.target.is_empty() || breaks(head.target) || breaks(head.host.as_bytes()) {
            return Err(DropReason::Malformed);
        }
        out.extend_from_slice(head.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(head.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if self.writes_host {
            write_field(out, "Host", head.host.as_bytes());
        }
        let of_connection = OfConnection::of(head.headers);
        for (name, value) in head.headers {
            if !self.left_out.contains(name) && *name != header::COOKIE && !of_connection.names(name) {
                write_field(out, name.as_str(), value.as_bytes());
            }
        }
        if self.copies_cookies && !of_connection.names(&header::COOKIE) {
            write_cookies(head, out);
        }
        if self.writes_client {
            write!(out, "X-Forwarded-For: {}\r\n", head.client).expect("a Vec takes every write");
        }
        if self.writes_scheme {
            write_field(out, "X-Forwarded-Proto", if head.secure { b"https" } else { b"http" });
        }
        out.extend_from_slice(&self.added);
        write!(out, "{:016x};seq={};id={}\r\n", head.session, head.seq, head.request_id)
            .expect("a Vec takes every write");
        Ok(())
    }
}

impl Framing {
    /// Appends the framing and the end of the head.
    pub fn write(self, out: &mut Vec<u8>) {
        let written = match self {
            Framing::None => write!(out, "\r\n"),
            Framing::Length(length) => write!(out, "Content-Length: {length}\r\n\r\n"),
            Framing::CutTo(length) => {
                write!(out, "Content-Length: {length}\r\n{TRUNCATED}: {length}\r\n\r\n")
            }
            Framing::Chunked { may_be_cut: false } => write!(out, "Transfer-Encoding: chunked\r\n\r\n"),
            Framing::Chunked { may_be_cut: true } => {
                write!(out, "Transfer-Encoding: chunked\r\nTrailer: {TRUNCATED}\r\n\r\n")
            }
        };
        written.expect("a Vec takes every write");
    }
}

/// The fields that a request's `Connection` fields name: they are for one connection only.
struct OfConnection<'a> {
    headers: &'a HeaderMap,
    names_any: bool,
}

impl<'a> OfConnection<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let ours = |option: &[u8]| {
            option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close")
        };
        Self { headers, names_any: !options(headers).all(ours) }
    }

    fn names(&self, name: &HeaderName) -> bool {
        let is_it = |option: &[u8]| option.eq_ignore_ascii_case(name.as_str().as_bytes());
        self.names_any && options(self.headers).any(is_it)
    }
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::CONNECTION).into_iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// One `Cookie` field from all of the request's, without the cookie that must not be copied.
fn write_cookies(head: &CopyHead<'_>, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b"cookie: ";
    for field in head.headers.get_all(header::COOKIE) {
        for pair in field.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii_end();
            if pair.is_empty() || head.drop_cookie.is_some_and(|dropped| name == dropped.as_bytes()) {
                continue;
            }
            out.extend_from_slice(separator);
            out.extend_from_slice(pair);
            separator = b"; ";
        }
    }
    if separator == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Marks a copy: `vs=<name>;session=<16 hex digits>;seq=<n>;id=<request id>`.
pub const MARK: HeaderName = HeaderName::from_static("x-homing-clone");

/// Says that a copy's body was cut, and how many bytes are left of it; a trailer where the head was gone.
pub(super) const TRUNCATED: &str = "X-Homing-Truncated";

/// Fields of one connection, of framing, and of homing itself.
const NEVER_COPIED: [HeaderName; 16] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("homing-hop"),
    HeaderName::from_static("homing-hop-refused"),
    HeaderName::from_static("x-homing-truncated"),
    MARK,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where a client could pretend to be another.
const CLIENTS_WORD: [HeaderName; 6] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
];

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;

    use super::*;
    use crate::clone::tests::section;

    /// The copy's head of a GET with these headers, as text.
    fn copied(section: &CloneSection, headers: &[(&str, &str)], drop_cookie: Option<&str>) -> String {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let head = CopyHead {
            method: &Method::GET,
            target: b"/a?b=c",
            host: "a.com:80",
            headers: &headers,
            client: Ipv4Addr::new(192, 0, 2, 7).into(),
            secure: true,
            session: 0xabc,
            seq: 7,
            request_id: &"0123",
            drop_cookie,
            body: BodyKind::None,
        };
        let mut out = Vec::new();
        Recipe::new(section, &"pay@site A".into()).write(&head, &mut out).expect("a good head");
        Framing::None.write(&mut out);
        String::from_utf8(out).expect("text")
    }

    const CLIENT: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    const MARKED: &str = "X-Homing-Clone: vs=pay@site%20A;session=0000000000000abc;seq=7;id=0123\r\n\r\n";

    #[test]
    fn a_copy_has_what_the_request_had_and_the_mark() {
        assert_eq!(
            copied(&section(), &[("host", "else.com"), ("x-a", "1"), ("x-a", "2"), ("accept", "*/*")], None),
            format!(
                "GET /a?b=c HTTP/1.1\r\nHost: a.com:80\r\nx-a: 1\r\nx-a: 2\r\naccept: */*\r\n{CLIENT}{MARKED}"
            )
        );
    }

    #[test]
    fn what_concerns_one_connection_or_homing_itself_is_not_copied() {
        let mut section = section();
        section.strip_headers = ["authorization".to_owned()].into();
        for (name, value) in [
            ("connection", "close"),
            ("connection", "x-secret , keep-alive"),
            ("x-secret", "named by Connection"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("expect", "100-continue"),
            ("homing-hop", "v=1"),
            ("x-homing-clone", "vs=forged"),
            ("x-homing-truncated", "1"),
            ("authorization", "Bearer stripped"),
        ] {
            let text = copied(&section, &[("connection", "x-secret"), (name, value)], None);
            assert_eq!(text, format!("GET /a?b=c HTTP/1.1\r\nHost: a.com:80\r\n{CLIENT}{MARKED}"), "{name}");
        }
    }

    #[test]
    fn the_client_is_told_by_homing_unless_the_section_strips_or_sets_it() {
        let forged = ["forwarded", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        let forged: Vec<_> =
            forged.into_iter().chain(["x-forwarded-port"]).map(|name| (name, "forged")).collect();
        let mut section = section();
        let head = "GET /a?b=c HTTP/1.1\r\nHost: a.com:80\r\n";
        assert_eq!(copied(&section, &forged, None), format!("{head}{CLIENT}{MARKED}"));
        section.strip_headers = ["X-Forwarded-For".to_owned()].into();
        section.set_headers.push((FORWARDED_PROTO, HeaderValue::from_static("gopher")));
        section.set_headers.push((header::FORWARDED, HeaderValue::from_static("for=mirror")));
        let set = "x-forwarded-proto: gopher\r\nforwarded: for=mirror\r\n";
        assert_eq!(copied(&section, &forged, None), format!("{head}{set}{MARKED}"));
    }

    #[test]
    fn cookies_are_joined_without_the_site_cookie() {
        for (fields, expected) in [
            (&["a=1", "b=2; c=3"][..], "cookie: a=1; b=2; c=3\r\n"),
            (&["SITE=x; a=1", "b=2;SITE=y"], "cookie: a=1; b=2\r\n"),
            (&["SITE=x"], ""),
            (&["SITEX=x; site=y; junk;; =v"], "cookie: SITEX=x; site=y; junk; =v\r\n"),
            (&["SITE = x", "SITE"], ""),
        ] {
            let headers: Vec<_> = fields.iter().map(|field| ("cookie", *field)).collect();
            let text = copied(&section(), &headers, Some("SITE"));
            assert_eq!(text, format!("GET /a?b=c HTTP/1.1\r\nHost: a.com:80\r\n{expected}{CLIENT}{MARKED}"));
        }
        let mut stripping = section();
        stripping.strip_headers = ["cookie".to_owned()].into();
        assert!(!copied(&stripping, &[("cookie", "a=1")], None).contains("a=1"));
    }

    #[test]
    fn headers_that_are_set_replace_those_that_came() {
        let mut section = section();
        for (name, value) in [("x-env", "mirror"), ("host", "clone.local"), ("content-length", "9")] {
            section.set_headers.push((name.parse().unwrap(), HeaderValue::from_static(value)));
        }
        assert_eq!(
            copied(&section, &[("x-env", "live"), ("x-env", "too")], None),
            format!("GET /a?b=c HTTP/1.1\r\n{CLIENT}x-env: mirror\r\nhost: clone.local\r\n{MARKED}")
        );
    }

    #[test]
    fn a_host_or_target_that_would_break_the_head_is_refused() {
        let (recipe, headers) = (Recipe::new(&section(), &"vs".into()), HeaderMap::new());
        for (host, target, good) in [
            ("a.com", "/", true),
            ("", "*", true),
            ("a.com\r\nx: y", "/", false),
            ("a.com", "/ HTTP/1.1", false),
            ("a.com", "", false),
            ("a.com", "/\u{7f}", false),
        ] {
            let head = CopyHead {
                method: &Method::GET,
                target: target.as_bytes(),
                host,
                headers: &headers,
                client: Ipv4Addr::LOCALHOST.into(),
                secure: false,
                session: 0,
                seq: 0,
                request_id: &"",
                drop_cookie: None,
                body: BodyKind::None,
            };
            assert_eq!(recipe.write(&head, &mut Vec::new()).is_ok(), good, "{host:?} {target:?}");
        }
    }

    #[test]
    fn a_copy_is_known_by_its_mark() {
        let mut headers = HeaderMap::new();
        assert!(!is_copy(&headers));
        headers.insert("X-Homing-Clone", HeaderValue::from_static("vs=a"));
        assert!(is_copy(&headers));
    }
}
