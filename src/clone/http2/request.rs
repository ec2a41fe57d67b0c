//! A copy's head, made once as HTTP/1.1, as a request of HTTP/2 (RFC 9113 section 8.3).
//!
//! It is done by the lane's task, so that requests of the app pay for one form only. Names and values are slices
//! of the copy's bytes.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Version, header,
    uri::{Authority, PathAndQuery, Scheme, Uri},
};

/// The request, and where its body begins; `None`: it cannot be said in HTTP/2.
pub(in crate::clone) fn parse(copy: &Bytes, scheme: &Scheme) -> Option<(Request<()>, usize)> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(copy, &mut fields).ok()?;
    let httparse::Status::Complete(length) = parsed else { return None };
    let (method, target) = (head.method?, head.path?);
    let mut authority = None;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = copy.slice_ref(field.value);
        if name == header::HOST {
            authority = Some(Authority::from_maybe_shared(value).ok()?);
        } else if !OF_CONNECTION.contains(&name) {
            request.headers_mut().append(name, HeaderValue::from_maybe_shared(value).ok()?);
        }
    }
    let target = PathAndQuery::from_maybe_shared(copy.slice_ref(target.as_bytes())).ok()?;
    let uri = Uri::builder().scheme(scheme.clone()).authority(authority?).path_and_query(target);
    *request.uri_mut() = uri.build().ok()?;
    Some((request, length))
}

/// What only HTTP/1.1 says.
const OF_CONNECTION: [HeaderName; 2] = [header::CONNECTION, header::TRANSFER_ENCODING];

/// More than homing takes from a client, and what a copy adds.
const MAX_FIELDS: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_copy_says_the_same_in_http2() {
        let copy = Bytes::from_static(
            b"POST /a?b=%20c HTTP/1.1\r\nHost: a.com:80\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\n\
            Transfer-Encoding: chunked\r\nTrailer: X\r\nContent-Length: 4\r\n\r\nbody",
        );
        let (request, length) = parse(&copy, &Scheme::HTTPS).expect("a request");
        assert_eq!(&copy[length..], b"body");
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::POST, "https://a.com:80/a?b=%20c".into())
        );
        let fields: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 4] =
            [("x-a", b"1"), ("x-a", b"2"), ("trailer", b"X"), ("content-length", b"4")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_http2_cannot_say_is_refused() {
        for (copy, good) in [
            ("GET / HTTP/1.1\r\nHost: a.com\r\n\r\n", true),
            ("OPTIONS * HTTP/1.1\r\nHost: a.com\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: \r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", false),
            ("GET nonsense HTTP/1.1\r\nHost: a.com\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a.com\r\n", false),
        ] {
            assert_eq!(parse(&copy.into(), &Scheme::HTTP).is_some(), good, "{copy:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(head in any::<Vec<u8>>()) {
            for copy in [head.clone(), [b"GET / HTTP/1.1\r\nHost:", &*head, b"\r\n\r\n"].concat()] {
                let _ = parse(&copy.into(), &Scheme::HTTP);
            }
        }
    }
}
