//! The site cookie in `Cookie` headers: reading every value of a name, and taking a name out.
//!
//! Headers are bytes, for browsers send more than ASCII. What does not look like a cookie is skipped by the
//! reader and left as it is by the remover. Names are compared exactly (RFC 6265bis, section 5).

use std::borrow::Cow;

/// Every value of the cookie `name` in the `Cookie` fields of a request, in their order. HTTP/2 clients split
/// their cookies over several fields.
pub fn cookie_values<'a>(
    fields: impl IntoIterator<Item = &'a [u8]>,
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    fields.into_iter().flat_map(pairs).filter_map(move |pair| value_of(pair, name.as_bytes()))
}

/// A `Cookie` field without the cookie `name`; the others stay as they are and in order. `None`: nothing is
/// left.
pub fn without_cookie<'a>(field: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let is_other = |pair: &&[u8]| value_of(pair, name.as_bytes()).is_none();
    if pairs(field).all(|pair| is_other(&pair)) {
        return Some(field.into());
    }
    let mut kept = Vec::with_capacity(field.len());
    for pair in pairs(field).filter(is_other) {
        if pair.trim_ascii().is_empty() {
            continue;
        }
        if kept.is_empty() {
            kept.extend_from_slice(pair.trim_ascii_start());
        } else {
            kept.push(b';');
            kept.extend_from_slice(pair);
        }
    }
    (!kept.is_empty()).then_some(kept.into())
}

/// What stands between the semicolons of a field.
fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b';', field).chain([field.len()]);
    ends.scan(0, |start, end| {
        let pair = &field[*start..end];
        *start = end + 1;
        Some(pair)
    })
}

/// The value of a `name=value` pair that has the name.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let equals = memchr::memchr(b'=', pair)?;
    let (found, value) = (&pair[..equals], &pair[equals + 1..]);
    (found.trim_ascii() == name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(fields: &[&str]) -> Vec<String> {
        let fields = fields.iter().map(|field| field.as_bytes());
        cookie_values(fields, "FOO").map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    #[test]
    fn every_value_of_a_name_is_read() {
        for (fields, expected) in [
            (&["FOO=1"][..], &["1"][..]),
            (&["SID=1; FOO=2; x=3"], &["2"]),
            (&["FOO=1; FOO=2", "a=b", " FOO = 3 ;"], &["1", "2", "3"]),
            (&["FOO=a=b"], &["a=b"]),
            (&["FOO="], &[""]),
            (&["foo=1; XFOO=2; FOOX=3; FOO; =FOO; ;;"], &[]),
            (&[], &[]),
        ] {
            assert_eq!(values(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_others_stay_untouched_and_in_order() {
        for (field, expected) in [
            ("SID=1; FOO=v; x=2", Some("SID=1; x=2")),
            ("FOO=v; SID=1;x=2", Some("SID=1;x=2")),
            ("SID=1; FOO=v", Some("SID=1")),
            ("FOO=1; SID=1; FOO=2; x=\"a b\"", Some("SID=1; x=\"a b\"")),
            ("FOO=v", None),
            ("FOO=v; ", None),
            (" ; FOO=v;; FOO=", None),
            ("SID=1; ; x=2;", Some("SID=1; ; x=2;")),
            ("", Some("")),
            ("XFOO=1; foo=2; FOO", Some("XFOO=1; foo=2; FOO")),
        ] {
            let left = without_cookie(field.as_bytes(), "FOO");
            let left = left.map(|left| String::from_utf8(left.into_owned()).expect("ASCII in, ASCII out"));
            assert_eq!(left.as_deref(), expected, "{field}");
        }
    }

    #[test]
    fn a_field_without_the_cookie_is_not_copied() {
        assert!(matches!(without_cookie(b"SID=1; x=\xff", "FOO"), Some(Cow::Borrowed(b"SID=1; x=\xff"))));
    }

    proptest! {
        #[test]
        fn junk_is_harmless_and_nothing_of_the_name_is_left(field in "([a-zFO=; \t\"é]|FOO=){0,40}", junk: Vec<u8>) {
            for field in [field.as_bytes(), &junk] {
                let others = |field: &[u8]| -> Vec<Vec<u8>> {
                    let pairs = field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                    let others = pairs.filter(|pair| !pair.is_empty() && value_of(pair, b"FOO").is_none());
                    others.map(<[u8]>::to_vec).collect()
                };
                let left = without_cookie(field, "FOO").unwrap_or_default();
                prop_assert_eq!(cookie_values([&*left], "FOO").count(), 0);
                prop_assert_eq!(others(&left), others(field));
            }
        }
    }
}
