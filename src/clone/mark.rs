//! The mark of a copy, which tells analysers where in which session it belongs, and homing its own copies when
//! one comes back.
//!
//! ```text
//! X-Homing-Clone: vs=<name>;session=<16 hex digits>;seq=<n>;id=<request id>;mac=<16 hex digits>
//! ```
//!
//! A copy that comes back, because its member passes it on to us, must not be copied again; but a client that
//! writes a mark itself must not keep out of the copies by it. So a mark ends with a MAC over what is before it,
//! by a key that clients do not have, and any other is taken off a request before anybody sees it. A genuine one
//! stays on, so that whoever gets the request next knows too.
//!
//! The MAC is SipHash-2-4 with a key of 128 bits: made for short texts, less than a tenth of a microsecond, and 64 bits that nobody can
//! try but by sending us requests, of which 2⁶³ would be needed for one that is not copied. What it does not keep
//! off is who has seen a genuine mark, that is a clone member, or somebody who reads what members get: he can send
//! it again, and such a request is taken for a copy. Marks never go to clients.
//!
//! Nodes that may get one another's copies need one key: see [`MarkKeys`].

use std::{hash::Hasher, io::Write};

use hkdf::Hkdf;
use http::{HeaderMap, HeaderName};
use sha2::Sha256;
use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;

use super::copy::CopyHead;
use crate::{names::VsName, site_cookie::Secret};

/// Marks a copy: `vs=<name>;session=<16 hex digits>;seq=<n>;id=<request id>;mac=<16 hex digits>`.
pub const MARK: HeaderName = HeaderName::from_static("x-homing-clone");

/// Whether a request is a copy itself, which must not be copied again. Marks that are not genuine are taken off
/// before rules see a request.
pub fn is_copy(headers: &HeaderMap) -> bool {
    headers.contains_key(&MARK)
}

/// The keys that marks are made with and known by.
///
/// They come of the secrets that nodes share: `clone_mark_key_file`, and the federation's site cookie keys. Nodes
/// without a secret in common do not know each other's copies: where the clone pool of each sends to the other,
/// a request goes round between them for ever. One key file for both ends that.
pub struct MarkKeys {
    /// The first makes marks.
    keys: Vec<SipHasher24>,
}

impl MarkKeys {
    /// The first of the secrets makes marks, `process` if there is none: the random key of this process, by which
    /// its own copies are known in any case.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>, process: &[u8; 16]) -> Self {
        let derived = secrets.into_iter().map(|secret| {
            let mut key = [0; 16];
            let hkdf = Hkdf::<Sha256>::new(None, secret.expose());
            hkdf.expand(b"homing/clone-mark", &mut key).expect("HKDF-SHA256 gives up to 8160 bytes");
            key
        });
        Self { keys: derived.chain([*process]).map(|key| SipHasher24::new_with_key(&key)).collect() }
    }

    /// Whether a request has one mark, made by a holder of one of these keys.
    pub fn is_genuine(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(&MARK).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let Some((text, mac)) = field.as_bytes().split_last_chunk::<MAC_DIGITS>() else { return false };
        let Some(text) = text.strip_suffix(MAC_FIELD) else { return false };
        self.keys.iter().any(|key| self::mac(*key, text).ct_eq(mac).into())
    }
}

/// Writes the marks of one clone section.
pub(super) struct Marker {
    /// Up to the session.
    begin: Vec<u8>,
    /// The key, when it has taken in the beginning.
    begun: SipHasher24,
}

impl Marker {
    pub fn new(vs: &VsName, keys: &MarkKeys) -> Self {
        let mut begin = b"vs=".to_vec();
        for byte in vs.as_str().bytes() {
            match byte {
                b'!'..=b'~' if !b";%".contains(&byte) => begin.push(byte),
                _ => write!(begin, "%{byte:02X}").expect("a Vec takes every write"),
            }
        }
        begin.extend_from_slice(b";session=");
        let mut begun = keys.keys[0];
        begun.write(&begin);
        Self { begin, begun }
    }

    /// Appends the field.
    pub fn write(&self, head: &CopyHead<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"X-Homing-Clone: ");
        out.extend_from_slice(&self.begin);
        let rest = out.len();
        out.extend_from_slice(&hex(head.session));
        out.extend_from_slice(b";seq=");
        out.extend_from_slice(itoa::Buffer::new().format(head.seq).as_bytes());
        out.extend_from_slice(b";id=");
        out.extend_from_slice(head.request_id.as_bytes());
        let mac = mac(self.begun, &out[rest..]);
        out.extend_from_slice(MAC_FIELD);
        out.extend_from_slice(&mac);
        out.extend_from_slice(b"\r\n");
    }
}

/// In hex digits; `key` may have taken in the beginning of the text.
fn mac(mut key: SipHasher24, text: &[u8]) -> [u8; MAC_DIGITS] {
    key.write(text);
    hex(key.finish())
}

/// 16 digits. The formatter of the standard library takes as long as all else of a mark.
pub fn hex(number: u64) -> [u8; MAC_DIGITS] {
    std::array::from_fn(|n| HEX[(number >> (60 - 4 * n)) as usize & 15])
}

const MAC_FIELD: &[u8] = b";mac=";
const MAC_DIGITS: usize = 16;
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;
    use crate::clone::BodyKind;

    const PROCESS: [u8; 16] = [9; 16];

    fn keys(secrets: &[u8]) -> MarkKeys {
        let secrets: Vec<_> = secrets.iter().map(|byte| Secret::new([*byte; 32])).collect();
        MarkKeys::new(&secrets, &PROCESS)
    }

    /// The value of the mark that a holder of these keys makes.
    fn mark(vs: &str, keys: MarkKeys) -> String {
        let head = CopyHead {
            method: &Method::GET,
            target: b"/",
            host: "a.com",
            headers: &HeaderMap::new(),
            client: "127.0.0.1",
            secure: false,
            session: 0xabc,
            seq: 7,
            request_id: "0000000000000123",
            drop_cookies: [None; 2],
            body: BodyKind::None,
        };
        let mut out = Vec::new();
        Marker::new(&vs.into(), &keys).write(&head, &mut out);
        let line = String::from_utf8(out).expect("text");
        let value = line.strip_prefix("X-Homing-Clone: ").and_then(|line| line.strip_suffix("\r\n"));
        value.expect("one field").to_owned()
    }

    fn is_genuine(keys: &MarkKeys, marks: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for mark in marks {
            headers.append(&MARK, HeaderValue::from_str(mark).expect("a header's value"));
        }
        keys.is_genuine(&headers)
    }

    #[test]
    fn a_mark_tells_its_place_and_ends_with_its_mac() {
        let mark = mark("pay@site A;%", keys(&[1]));
        let (place, mac) = mark.rsplit_once(";mac=").expect("a MAC");
        assert_eq!(place, "vs=pay@site%20A%3B%25;session=0000000000000abc;seq=7;id=0000000000000123");
        // Other nodes, and other versions, must agree on this.
        assert_eq!(mac, "32e941b62088060f");
    }

    #[test]
    fn a_mark_is_known_by_any_of_the_keys_and_no_other_is() {
        let known = keys(&[1, 2]);
        let [own, other, strange] = [&[1, 2][..], &[2, 3], &[3, 1]].map(|secrets| mark("web", keys(secrets)));
        let of_the_process = mark("web", keys(&[]));
        let later = own.replace("seq=7", "seq=8");
        for (what, marks, genuine) in [
            ("our own", &[own.as_str()][..], true),
            ("one by another of our keys", &[&other], true),
            ("one by the process's own key", &[&of_the_process], true),
            ("one by a key that is not ours", &[&strange], false),
            ("a changed one", &[&later], false),
            ("in capitals", &[&own.to_ascii_uppercase()], false),
            ("without its MAC", &[&own[..own.len() - 21]], false),
            ("a client's", &["1"], false),
            ("an empty one", &[""], false),
            ("a MAC alone", &[&own[own.len() - 16..]], false),
            ("one and another beside it", &[&own, "1"], false),
            ("none", &[], false),
        ] {
            assert_eq!(is_genuine(&known, marks), genuine, "{what}");
        }
    }

    #[test]
    fn a_copy_is_known_by_its_mark() {
        let mut headers = HeaderMap::new();
        assert!(!is_copy(&headers));
        headers.insert("X-Homing-Clone", HeaderValue::from_static("vs=a"));
        assert!(is_copy(&headers));
    }
}
