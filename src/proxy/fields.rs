//! Looking into a head. A head has a handful of fields, and to look at each of their names costs less than to hash
//! the one that is looked for.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::clone::MARK;

/// Whether there is a field of this name.
pub(super) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|known| known == name)
}

/// What all `Connection` fields say about one connection (RFC 9110, 7.6.1).
pub(super) fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.iter().filter(|(name, _)| **name == header::CONNECTION);
    fields.flat_map(|(_, field)| field.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// What routing and strictness need of a request's head, found in one pass.
#[derive(Default)]
pub(super) struct Survey<'a> {
    /// The last `Host` field.
    pub host: Option<&'a HeaderValue>,
    pub hosts: usize,
    pub cookies: usize,
    /// The last `Content-Length`.
    pub length: Option<&'a HeaderValue>,
    pub lengths: usize,
    /// The last `Transfer-Encoding`.
    pub coding: Option<&'a HeaderValue>,
    pub codings: usize,
    /// The last `Connection`.
    pub connection: Option<&'a HeaderValue>,
    pub connections: usize,
    /// It says that it is a copy.
    pub marked: bool,
}

impl<'a> Survey<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut survey = Self::default();
        for (name, value) in headers {
            if *name == header::HOST {
                survey.host = Some(value);
                survey.hosts += 1;
            } else if *name == header::COOKIE {
                survey.cookies += 1;
            } else if *name == header::CONNECTION {
                survey.connection = Some(value);
                survey.connections += 1;
            } else if *name == header::CONTENT_LENGTH {
                survey.length = Some(value);
                survey.lengths += 1;
            } else if *name == header::TRANSFER_ENCODING {
                survey.coding = Some(value);
                survey.codings += 1;
            } else if *name == MARK {
                survey.marked = true;
            }
        }
        survey
    }
}
