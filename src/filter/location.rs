//! The `Location` of a redirect.

use std::fmt::Write;

use crate::prelude::*;

/// The request's path and query below `origin` (`https://a.com:8443`).
pub(super) fn location(origin: &str, request: &Request<'_>) -> Result<String, RuleError> {
    let target = request.path_and_query();
    let mut location = origin.to_owned();
    // `OPTIONS *` must not run into the name.
    if !target.starts_with('/') {
        location.push('/');
    }
    escape(target, &mut location);
    Ok(location)
}

/// Adds a path or a query to a text. A header's value is text; what a path has beyond it is escaped (RFC 3986, 2.1).
pub(super) fn escape(target: &str, text: &mut String) {
    for byte in target.bytes() {
        match byte {
            b'!'..=b'~' => text.push(byte.into()),
            // Writing to a text cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
}
