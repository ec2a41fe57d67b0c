//! Header fields that copies do not have, whatever their section says.

use http::{HeaderMap, HeaderName, header};

use super::mark::MARK;

/// Fields of one connection, of framing, and of homing itself.
pub(super) const NEVER_COPIED: [HeaderName; 16] = [
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

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where a client could pretend to be another.
pub(super) const CLIENTS_WORD: [HeaderName; 6] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
];

/// The fields that a request's `Connection` fields name: they are for one connection only.
pub(super) struct OfConnection<'a> {
    headers: &'a HeaderMap,
    names_any: bool,
}

impl<'a> OfConnection<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        let ours = |option: &[u8]| {
            option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close")
        };
        Self { headers, names_any: !options(headers).all(ours) }
    }

    pub fn names(&self, name: &HeaderName) -> bool {
        let is_it = |option: &[u8]| option.eq_ignore_ascii_case(name.as_str().as_bytes());
        self.names_any && options(self.headers).any(is_it)
    }
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::CONNECTION).into_iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}
