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
    for byte in target.bytes() {
        // A header's value is text; what a path has beyond it is escaped (RFC 3986, 2.1).
        match byte {
            b'!'..=b'~' => location.push(byte.into()),
            _ => write!(location, "%{byte:02X}")?,
        }
    }
    Ok(location)
}
