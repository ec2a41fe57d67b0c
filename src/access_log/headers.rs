//! Header fields for lines that have them, without those that hold credentials.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::text::readable;
use crate::site_cookie::{HOP_HEADER, HOP_REFUSED_HEADER};

/// A head's fields, as a JSON object. A field that comes several times is a list.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub fields: &'a HeaderMap,
    /// Whether addresses in them are written with their queries.
    pub query: bool,
}

impl Headers<'_> {
    fn value<'v>(&self, name: &HeaderName, value: &'v [u8]) -> Cow<'v, str> {
        let text = readable(value);
        let is_address = [header::REFERER, header::LOCATION, header::CONTENT_LOCATION].contains(name);
        match (is_address && !self.query, text) {
            (true, Cow::Borrowed(text)) => without_query(text).into(),
            (true, Cow::Owned(text)) => without_query(&text).to_owned().into(),
            (false, text) => text,
        }
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for name in self.fields.keys().filter(|name| !is_secret(name)) {
            let values = self.fields.get_all(name).iter().map(|value| self.value(name, value.as_bytes()));
            let mut values: Vec<_> = values.collect();
            match values.len() {
                1 => map.serialize_entry(name.as_str(), &values.remove(0))?,
                _ => map.serialize_entry(name.as_str(), &values)?,
            }
        }
        map.end()
    }
}

/// An address up to its query.
pub fn without_query(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

/// Whether a field lets its reader act as somebody else: as the client, as the server, as a peer site.
fn is_secret(name: &HeaderName) -> bool {
    SECRET.contains(&name.as_str())
}

const SECRET: [&str; 13] = [
    "authorization",
    "proxy-authorization",
    "authentication-info",
    "proxy-authentication-info",
    "cookie",
    "cookie2",
    "set-cookie",
    "set-cookie2",
    "x-api-key",
    "x-auth-token",
    HOP_HEADER,
    HOP_REFUSED_HEADER,
    // Its MAC would let a request pass for a copy.
    "x-homing-clone",
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn written(fields: &[(&'static str, &[u8])], query: bool) -> Value {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_bytes(value).expect("a header's value"));
        }
        serde_json::to_value(Headers { fields: &map, query }).expect("it is an object")
    }

    #[test]
    fn credentials_are_never_written() {
        for name in SECRET {
            assert_eq!(
                written(&[(name, b"geheim"), ("x-other", b"1")], true),
                json!({"x-other": "1"}),
                "{name}"
            );
        }
    }

    #[test]
    fn fields_that_come_several_times_are_a_list_and_what_is_no_text_is_readable() {
        let fields = [("via", &b"1.1 a"[..]), ("via", b"1.1 b"), ("x-name", b"J\xfcrg\t\"x\"")];
        let expected = json!({"via": ["1.1 a", "1.1 b"], "x-name": "J\u{fffd}rg\t\"x\""});
        assert_eq!(written(&fields, true), expected);
    }

    #[test]
    fn queries_are_left_out_of_addresses_where_they_are_not_wanted() {
        let fields =
            [("referer", &b"https://a.com/b?token=1#c"[..]), ("location", b"/x?code=2"), ("x-a", b"?b")];
        let without = json!({"referer": "https://a.com/b", "location": "/x", "x-a": "?b"});
        assert_eq!(written(&fields, false), without);
        assert_eq!(written(&fields, true)["location"], "/x?code=2");
    }
}
