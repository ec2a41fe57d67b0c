//! The id of a request: the same in logs, in marks of copies, at servers and at the site that it is sent on to.

use std::{fmt, hash::Hasher, sync::Arc};

use http::{HeaderName, HeaderValue};
use siphasher::sip::SipHasher13;

/// A number that homing drew, written as 16 hex digits, or what a trusted party called the request before it came
/// here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    number: u64,
    given: Option<Arc<str>>,
}

/// The header field that tells it.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl RequestId {
    /// An id of our own, of 64 random bits.
    pub const fn new(number: u64) -> Self {
        Self { number, given: None }
    }

    /// The id that another party gave: 1 to 100 letters, digits and `-_.:`, since it travels in headers and marks.
    pub fn given(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if !(1..=LONGEST).contains(&text.len()) || !text.bytes().all(fits) {
            return None;
        }
        let own = u64::from_str_radix(text, 16).ok().map(Self::new);
        // Who begins with a number writes it in the one way that we do.
        Some(own.filter(|own| text.len() == DIGITS && own.to_string() == text).unwrap_or_else(|| {
            let mut hash = SipHasher13::new();
            hash.write(text.as_bytes());
            Self { number: hash.finish(), given: Some(text.into()) }
        }))
    }

    /// A number that goes with the id, here and at every other site.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The id as text, for which `digits` may be needed.
    pub fn text<'a>(&'a self, digits: &'a mut [u8; DIGITS]) -> &'a str {
        match &self.given {
            Some(given) => given,
            None => {
                *digits = crate::clone::hex(self.number);
                std::str::from_utf8(digits).expect("hex digits are ASCII")
            }
        }
    }

    /// The value of [`X_REQUEST_ID`].
    pub(crate) fn to_field(&self) -> HeaderValue {
        HeaderValue::from_str(self.text(&mut [0; DIGITS])).expect("ids are visible ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; DIGITS]))
    }
}

const DIGITS: usize = 16;
/// The hop header adds some to it, and takes 128.
const LONGEST: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_ours_is_the_same_when_it_comes_back() {
        for number in [0, 0xff, u64::MAX] {
            let id = RequestId::new(number);
            assert_eq!(RequestId::given(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn an_id_that_was_given_is_kept_as_it_is() {
        for text in
            ["1", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "00000000000000FF", "a_b.c:d", &"x".repeat(100)]
        {
            let id = RequestId::given(text).expect("it may be an id");
            assert_eq!((id.to_string().as_str(), id.to_field().to_str().ok()), (text, Some(text)));
            assert_eq!(Some(id.number()), RequestId::given(text).map(|id| id.number()));
        }
        for text in ["", "a b", "a;b", "a\"b", "ä", "a\nb", &"x".repeat(101)] {
            assert_eq!(RequestId::given(text), None, "{text:?}");
        }
    }
}
