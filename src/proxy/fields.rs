//! Looking into a head. A head has a handful of fields, and to look at each of their names costs less than to hash
//! the one that is looked for.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::clone::MARK;

/// Whether there is a field of this name.
pub(super) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|known| known == name)
}

/// What routing needs of a request's head, found in one pass.
#[derive(Default)]
pub(super) struct Survey<'a> {
    /// The last `Host` field.
    pub host: Option<&'a HeaderValue>,
    pub hosts: usize,
    pub cookies: usize,
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
            } else if *name == MARK {
                survey.marked = true;
            }
        }
        survey
    }
}
