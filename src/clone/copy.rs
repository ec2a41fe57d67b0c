//! A request's head as a clone member gets it: HTTP/1.1 bytes, made once, on the app's path.
//!
//! What concerns only one connection is left out (RFC 9110 section 7.6.1), and `Expect`, the hop header
//! between sites and what the clone section strips; `Cookie` fields are joined and lose the site cookie. The
//! client's address and scheme are told by homing, and nothing that the client says of them. The body is framed
//! anew, whatever framed the original. Each copy is marked, see [`super::MARK`].

use std::io::Write;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    count::DropReason,
    left_out::{CLIENTS_WORD, FORWARDED_FOR, FORWARDED_PROTO, NEVER_COPIED, OfConnection},
    mark::{MarkKeys, Marker},
};
use crate::{
    config::{CloneSection, PathPrefix},
    names::VsName,
};

/// A request, as far as its copy needs it.
pub struct CopyHead<'a> {
    pub method: &'a Method,
    /// Path and query, as the bytes that the client sent, which need not be UTF-8.
    pub target: &'a [u8],
    /// Host and port, as the client asked.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
    /// The client's address, and whether it speaks TLS: told as `X-Forwarded-For` and `X-Forwarded-Proto`.
    pub client: &'a str,
    pub secure: bool,
    /// Names the session to analysers; copies of one session share a lane.
    pub session: u64,
    /// The number of the request within its session.
    pub seq: u64,
    /// In logs too; letters, digits and `-_.:`.
    pub request_id: &'a str,
    /// Homing's own cookies, which are not copied: the site cookie, and the one that names the app's server.
    pub drop_cookies: [Option<&'a str>; 2],
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

/// What the heads of all copies of a clone section have in common.
pub struct Recipe {
    left_out: Vec<HeaderName>,
    copies_cookies: bool,
    rewrite_path_prefix: Option<PathPrefix>,
    /// In place of the request's.
    host: Option<HeaderValue>,
    writes_client: bool,
    writes_scheme: bool,
    /// Header lines that are set.
    added: Vec<u8>,
    marker: Marker,
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
    pub fn new(section: &CloneSection, vs: &VsName, marks: &MarkKeys) -> Self {
        let mut left_out = NEVER_COPIED.to_vec();
        left_out.extend(section.strip_headers.iter().filter_map(|name| name.parse::<HeaderName>().ok()));
        let mut added = Vec::new();
        for (name, value) in &section.set_headers {
            if NEVER_COPIED.contains(name) {
                continue;
            }
            write_field(&mut added, name.as_str(), value.as_bytes());
            left_out.push(name.clone());
        }
        let (writes_client, writes_scheme) =
            (!left_out.contains(&FORWARDED_FOR), !left_out.contains(&FORWARDED_PROTO));
        left_out.extend(CLIENTS_WORD);
        Self {
            writes_client,
            writes_scheme,
            copies_cookies: !left_out.contains(&header::COOKIE),
            rewrite_path_prefix: section.copied.rewrite_path_prefix.clone(),
            host: section
                .set_headers
                .iter()
                .find(|(name, _)| name == header::HOST)
                .map(|(_, host)| host.clone()),
            left_out,
            added,
            marker: Marker::new(vs, marks),
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
        self.write_target(head.target, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(out, "Host", self.host.as_ref().map_or(head.host.as_bytes(), HeaderValue::as_bytes));
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
            write_field(out, "X-Forwarded-For", head.client.as_bytes());
        }
        if self.writes_scheme {
            write_field(out, "X-Forwarded-Proto", if head.secure { b"https" } else { b"http" });
        }
        out.extend_from_slice(&self.added);
        self.marker.write(head, out);
        Ok(())
    }

    fn write_target(&self, target: &[u8], out: &mut Vec<u8>) {
        let prefix = self.rewrite_path_prefix.as_ref();
        match prefix.and_then(|prefix| Some((prefix, prefix.rest_of(target)?))) {
            Some((prefix, rest)) => {
                out.extend_from_slice(prefix.to.as_bytes());
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(target),
        }
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

/// One `Cookie` field from all of the request's, without the cookies that must not be copied.
fn write_cookies(head: &CopyHead<'_>, out: &mut Vec<u8>) {
    let dropped = |name: &[u8]| head.drop_cookies.iter().flatten().any(|own| name == own.as_bytes());
    let mut separator: &[u8] = b"cookie: ";
    for field in head.headers.get_all(header::COOKIE) {
        for pair in field.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii_end();
            if pair.is_empty() || dropped(name) {
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

/// Says that a copy's body was cut, and how many bytes are left of it; a trailer where the head was gone.
pub(super) const TRUNCATED: &str = "X-Homing-Truncated";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::tests::section;

    fn marks() -> MarkKeys {
        MarkKeys::new([], &[7; 16])
    }

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
            client: "192.0.2.7",
            secure: true,
            session: 0xabc,
            seq: 7,
            request_id: "0000000000000123",
            drop_cookies: [drop_cookie, None],
            body: BodyKind::None,
        };
        let mut out = Vec::new();
        Recipe::new(section, &"pay@site A".into(), &marks()).write(&head, &mut out).expect("a good head");
        Framing::None.write(&mut out);
        String::from_utf8(out).expect("text")
    }

    const CLIENT: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    const MARKED: &str = "X-Homing-Clone: vs=pay@site%20A;session=0000000000000abc;seq=7;id=0000000000000123;mac=23bdf3719d644ed2\r\n\r\n";

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
            format!("GET /a?b=c HTTP/1.1\r\nHost: clone.local\r\n{CLIENT}x-env: mirror\r\n{MARKED}")
        );
    }

    #[test]
    fn what_is_below_a_path_prefix_may_go_below_another() {
        for (from, to, line) in [
            ("/a", "/shadow/a", "GET /shadow/a?b=c HTTP/1.1\r\n"),
            ("/", "/shadow/", "GET /shadow/a?b=c HTTP/1.1\r\n"),
            ("/a/", "/b/", "GET /a?b=c HTTP/1.1\r\n"),
        ] {
            let mut section = section();
            section.copied.rewrite_path_prefix = Some(PathPrefix { from: from.into(), to: to.into() });
            let text = copied(&section, &[], None);
            assert_eq!(text, format!("{line}Host: a.com:80\r\n{CLIENT}{MARKED}"), "{from}");
        }
    }

    #[test]
    fn a_host_or_target_that_would_break_the_head_is_refused() {
        let (recipe, headers) = (Recipe::new(&section(), &"vs".into(), &marks()), HeaderMap::new());
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
                client: "127.0.0.1",
                secure: false,
                session: 0,
                seq: 0,
                request_id: "0000000000000000",
                drop_cookies: [None; 2],
                body: BodyKind::None,
            };
            assert_eq!(recipe.write(&head, &mut Vec::new()).is_ok(), good, "{host:?} {target:?}");
        }
    }
}
