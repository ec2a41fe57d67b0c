//! The cookie's value, format `1S`: sealing and opening it.
//!
//! ```text
//! value = "1S" key-id(16) base64url( nonce(12) ciphertext(64) tag(16) )          141 characters
//! ```
//!
//! AES-256-GCM; the key id, the GSLB service, the cookie's name and its domain are authenticated with it. A
//! value is opened with the one key that it names, never with several in turn. Reading it out of a `Cookie`
//! header and rendering `Set-Cookie` happen elsewhere.

use std::sync::Arc;

use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut, KeyInit},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use super::{
    Claims, KeyRing, KeyState, LastOpened, Opened,
    claims::PLAIN_LEN,
    keys::{KEY_ID_LEN, Key},
    length_prefixed,
};

/// Why a cookie is like none. The words are those of the metric's `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.as_str())]
pub enum Refusal {
    Undecryptable,
    UnknownKey,
    Future,
    Expired,
    WrongService,
}

impl Refusal {
    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecryptable => "undecryptable",
            Self::UnknownKey => "unknown_key",
            Self::Future => "future",
            Self::Expired => "expired",
            Self::WrongService => "wrong_service",
        }
    }

    /// Why, for people. `said`: what the cookie says, where it can be opened.
    pub fn why(self, said: Option<&Claims>, now: u64) -> &'static str {
        match self {
            Self::Undecryptable => {
                "it is cut or changed, or made for another key, GSLB service, cookie name or domain"
            }
            Self::UnknownKey => "no configured key has its key id",
            Self::Future => "it was issued ahead of this machine's clock",
            Self::Expired if said.is_some_and(|said| said.exp == 0 || now < said.exp) => {
                "its drain_epoch is below its member's"
            }
            Self::Expired => "its time is over",
            Self::WrongService => "it names no member of this GSLB service",
        }
    }
}

/// Seals and opens the cookies of one GSLB service.
pub struct Codec {
    keys: Arc<[CodecKey]>,
    /// Index of the key that seals.
    active: usize,
}

pub(super) struct CodecKey {
    id: [u8; KEY_ID_LEN],
    cipher: Aes256Gcm,
    /// What is authenticated beside the plaintext; the same for every cookie of this key.
    associated: Vec<u8>,
}

impl Codec {
    /// Derives the keys of a service. `domain` is the cookie's `Domain` attribute as configured.
    pub fn new(ring: &KeyRing, service_uuid: &str, cookie_name: &str, domain: Option<&str>) -> Self {
        let keys =
            ring.keys().iter().map(|key| CodecKey::new(key, service_uuid, cookie_name, domain)).collect();
        let active = ring.keys().iter().position(|key| key.state == KeyState::Active);
        Self { keys, active: active.expect("a key ring has an active key") }
    }

    /// Makes a cookie's value. A nonce is random and never used twice.
    pub fn seal(&self, claims: &Claims, nonce: [u8; NONCE_LEN]) -> String {
        let key = &self.keys[self.active];
        let mut sealed = [0; SEALED_LEN];
        let (nonce_out, rest) = sealed.split_at_mut(NONCE_LEN);
        let (text, tag_out) = rest.split_at_mut(PLAIN_LEN);
        nonce_out.copy_from_slice(&nonce);
        text.copy_from_slice(&claims.to_bytes());
        let tag = key
            .cipher
            .encrypt_inout_detached(&nonce.into(), &key.associated, text.into())
            .expect("GCM takes 64 bytes");
        tag_out.copy_from_slice(&tag);

        let mut encoded = [0; ENCODED_LEN];
        let length = URL_SAFE_NO_PAD.encode_slice(sealed, &mut encoded).expect("92 bytes are 123 characters");
        let mut value = String::with_capacity(VALUE_LEN);
        for part in [TAG, &key.id, &encoded[..length]] {
            value.push_str(str::from_utf8(part).expect("tag, key id and base64 are ASCII"));
        }
        value
    }

    /// Opens a cookie's value and checks it at `now` (Unix seconds). `epoch_of` gives the drain epoch of a
    /// member of the service, `None` for who is none.
    pub fn open(
        &self,
        value: &[u8],
        now: u64,
        epoch_of: impl Fn(&[u8; 32]) -> Option<u32>,
    ) -> Result<Opened, Refusal> {
        Self::check(self.unseal(value)?, now, epoch_of)
    }

    /// What [`Codec::open`] checks of a value that is ours.
    fn check(
        opened: Opened,
        now: u64,
        epoch_of: impl Fn(&[u8; 32]) -> Option<u32>,
    ) -> Result<Opened, Refusal> {
        let claims = &opened.claims;
        if claims.iat > now.saturating_add(MAX_SKEW) {
            return Err(Refusal::Future);
        }
        if claims.exp != 0 && now >= claims.exp {
            return Err(Refusal::Expired);
        }
        let epoch = epoch_of(&claims.member_id).ok_or(Refusal::WrongService)?;
        if claims.drain_epoch < epoch {
            return Err(Refusal::Expired);
        }
        Ok(opened)
    }

    /// Of several cookies with our name, the valid one that was sealed last. At most four are looked at.
    /// Where none is valid, the reason is that of the first; `None` where there is no cookie. `last` spares opening
    /// a value that came on the same connection before.
    pub fn open_best(
        &self,
        values: impl IntoIterator<Item: AsRef<[u8]>>,
        now: u64,
        epoch_of: impl Fn(&[u8; 32]) -> Option<u32>,
        last: &mut LastOpened,
    ) -> Option<Result<Opened, Refusal>> {
        let mut open = |value: &[u8]| {
            let opened = last.or_open(&self.keys, value, || self.unseal(value))?;
            Self::check(opened, now, &epoch_of)
        };
        values.into_iter().take(MAX_VALUES).map(|value| open(value.as_ref())).reduce(|best, next| {
            match (&best, &next) {
                (Ok(kept), Ok(newer)) if newer.claims.iat > kept.claims.iat => next,
                (Err(_), Ok(_)) => next,
                _ => best,
            }
        })
    }

    /// Decrypts a cookie's value, for people who want to see what it says: nothing is checked that depends on
    /// the time or on who is a member.
    pub fn unseal(&self, value: &[u8]) -> Result<Opened, Refusal> {
        if value.len() != VALUE_LEN || !value.starts_with(TAG) {
            return Err(Refusal::Undecryptable);
        }
        let (id, encoded) = value[TAG.len()..].split_at(KEY_ID_LEN);
        let position = self.keys.iter().position(|key| key.id == id).ok_or(Refusal::UnknownKey)?;
        let key = &self.keys[position];

        let mut sealed = [0; DECODE_LEN];
        if !matches!(URL_SAFE_NO_PAD.decode_slice(encoded, &mut sealed), Ok(SEALED_LEN)) {
            return Err(Refusal::Undecryptable);
        }
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_LEN>().expect("92 bytes begin with 12");
        let (text, rest) = rest.split_first_chunk_mut::<PLAIN_LEN>().expect("80 bytes begin with 64");
        let (tag, _) = rest.split_first_chunk::<TAG_LEN>().expect("16 bytes are left");
        let serial = u64::from_be_bytes(*tag.first_chunk().expect("a tag has 16 bytes"));
        key.cipher
            .decrypt_inout_detached((&*nonce).into(), &key.associated, text.as_mut_slice().into(), tag.into())
            .map_err(|_| Refusal::Undecryptable)?;
        let claims = Claims::from_bytes(text).ok_or(Refusal::Undecryptable)?;
        Ok(Opened { claims, by_active_key: position == self.active, serial })
    }
}

impl CodecKey {
    fn new(key: &Key, service_uuid: &str, cookie_name: &str, domain: Option<&str>) -> Self {
        let id = key.id();
        let mut associated = Vec::new();
        let fits = length_prefixed(
            &[
                b"homing/site-cookie/1S",
                &[TAG, &id].concat(),
                service_uuid.as_bytes(),
                cookie_name.as_bytes(),
                domain.unwrap_or_default().as_bytes(),
            ],
            |bytes| associated.extend(bytes),
        );
        assert!(fits, "names of a configuration have less than 64 KiB");
        let cipher = Aes256Gcm::new((&*key.derive("homing/site-cookie/1S/key", service_uuid)).into());
        Self { id, cipher, associated }
    }
}

/// The format's name, in clear.
const TAG: &[u8] = b"1S";

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const SEALED_LEN: usize = NONCE_LEN + PLAIN_LEN + TAG_LEN;
const ENCODED_LEN: usize = (SEALED_LEN * 4).div_ceil(3);
const VALUE_LEN: usize = TAG.len() + KEY_ID_LEN + ENCODED_LEN;

/// The decoder asks for room in whole groups of three bytes.
const DECODE_LEN: usize = SEALED_LEN.next_multiple_of(3);

/// How far ahead the clock of the site that sealed may be, in seconds.
const MAX_SKEW: u64 = 300;

/// How many cookies of one name are opened.
const MAX_VALUES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site_cookie::{KeyFile, Secret, member_id};

    const SERVICE: &str = "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6";
    const KEY: &str = "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69";
    const OTHER_KEY: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
    const NOW: u64 = 1_517_876_000;
    const VECTOR: &str = "1S509ceebd-0913-4aAAECAwQFBgcICQoLmnZHMZnVTx__oXoTk4Lg2jQyj7iaVeKOqJw6VRTSEdjYp3UJX7CF4lZHuLrsMTaLkW-I53Is_xTYDZ_ZHxankKQ-lt5TgwW21-MFBZtRZRU";

    fn key(uuid: &str, state: KeyState) -> Key {
        let secret = Secret::new(std::array::from_fn(|n| n as u8));
        Key { uuid: uuid.into(), state, secret, file: KeyFile::default() }
    }

    fn codec_with(keys: Vec<Key>) -> Codec {
        Codec::new(&KeyRing::new(keys).expect("a ring"), SERVICE, "FOO", None)
    }

    fn codec() -> Codec {
        codec_with(vec![key(KEY, KeyState::Active)])
    }

    fn claims() -> Claims {
        Claims {
            member_id: member_id(
                "cluster-1e560f44-c898-41c3-818b-3433edbf9391",
                "virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a",
            ),
            drain_epoch: 7,
            iat: 1_517_875_922,
            exp: 1_517_879_522,
            server_tag: [0; 8],
        }
    }

    fn anyone(_: &[u8; 32]) -> Option<u32> {
        Some(0)
    }

    #[test]
    fn the_value_is_the_published_one() {
        let nonce = std::array::from_fn(|n| n as u8);
        assert_eq!(codec().seal(&claims(), nonce), VECTOR);
        let opened = codec().open(VECTOR.as_bytes(), NOW, anyone);
        let opened = opened.expect("it is ours");
        assert_eq!((opened.claims, opened.by_active_key), (claims(), true));
    }

    #[test]
    fn every_character_is_checked() {
        let codec = codec();
        for at in 0..VALUE_LEN {
            for replacement in 0..=255 {
                let mut value = VECTOR.as_bytes().to_vec();
                if value[at] == replacement {
                    continue;
                }
                value[at] = replacement;
                let id = TAG.len()..TAG.len() + KEY_ID_LEN;
                let expected = if id.contains(&at) { Refusal::UnknownKey } else { Refusal::Undecryptable };
                assert_eq!(codec.unseal(&value), Err(expected), "{}", String::from_utf8_lossy(&value));
            }
        }
        for value in ["", "1S", &VECTOR[1..], &VECTOR[..140], &format!("{VECTOR}=")] {
            assert_eq!(codec.unseal(value.as_bytes()), Err(Refusal::Undecryptable), "{value}");
        }
    }

    #[test]
    fn a_cookie_belongs_to_its_service_name_and_domain() {
        let ring = KeyRing::new(vec![key(KEY, KeyState::Active)]).expect("a ring");
        for other in [
            Codec::new(&ring, "gslbservice-00000000-0000-0000-0000-000000000000", "FOO", None),
            Codec::new(&ring, SERVICE, "BAR", None),
            Codec::new(&ring, SERVICE, "FOO", Some("a.com")),
        ] {
            assert_eq!(other.unseal(VECTOR.as_bytes()), Err(Refusal::Undecryptable));
        }
    }

    #[test]
    fn a_key_opens_in_every_state_and_no_other_opens() {
        for state in [KeyState::Next, KeyState::Retiring] {
            let codec = codec_with(vec![key(KEY, state), key(OTHER_KEY, KeyState::Active)]);
            let opened = codec.open(VECTOR.as_bytes(), NOW, anyone).expect("the key is held");
            assert!(!opened.by_active_key && opened.is_stale(NOW), "{state:?}");
            assert!(codec.seal(&claims(), [0; 12]).starts_with("1S1b9d6bcd-bbfd-4b"));
        }
        let codec = codec_with(vec![key(OTHER_KEY, KeyState::Active)]);
        assert_eq!(codec.open(VECTOR.as_bytes(), NOW, anyone), Err(Refusal::UnknownKey));
    }

    #[test]
    fn a_plaintext_of_another_layout_or_with_reserved_bits_is_not_ours() {
        let codec = codec();
        for (at, byte, good) in
            [(0, 1, true), (0, 0, false), (0, 2, false), (1, 1, false), (2, 1, false), (3, 128, false)]
        {
            let mut text = claims().to_bytes();
            text[at] = byte;
            let key = &codec.keys[0];
            let tag = key
                .cipher
                .encrypt_inout_detached(&[5; NONCE_LEN].into(), &key.associated, text.as_mut_slice().into())
                .expect("GCM takes 64 bytes");
            let sealed = URL_SAFE_NO_PAD.encode([&[5; NONCE_LEN][..], &text, &tag].concat());
            let value = [TAG, &key.id, sealed.as_bytes()].concat();
            assert_eq!(codec.unseal(&value).is_ok(), good, "byte {at} is {byte}");
        }
    }

    #[test]
    fn time_membership_and_epoch_are_checked_in_this_order() {
        let codec = codec();
        let c = claims();
        let stranger = |_: &[u8; 32]| None;
        let epoch = |epoch| move |member: &[u8; 32]| (*member == c.member_id).then_some(epoch);
        let check = |claims: Claims, now, epoch_of: &dyn Fn(&[u8; 32]) -> Option<u32>| {
            codec.open(codec.seal(&claims, [9; 12]).as_bytes(), now, epoch_of).err()
        };
        assert_eq!(check(c, c.iat - 300, &anyone), None);
        assert_eq!(check(c, c.iat - 301, &stranger), Some(Refusal::Future));
        assert_eq!(check(c, c.exp - 1, &anyone), None);
        assert_eq!(check(c, c.exp, &stranger), Some(Refusal::Expired));
        assert_eq!(check(Claims { exp: 0, ..c }, u64::MAX, &anyone), None);
        assert_eq!(check(Claims { iat: u64::MAX, ..c }, 0, &anyone), Some(Refusal::Future));
        assert_eq!(check(c, NOW, &stranger), Some(Refusal::WrongService));
        assert_eq!(check(c, NOW, &epoch(7)), None);
        assert_eq!(check(c, NOW, &epoch(8)), Some(Refusal::Expired));
        assert_eq!(check(Claims { drain_epoch: 9, ..c }, NOW, &epoch(8)), None);
    }

    #[test]
    fn of_several_cookies_the_newest_valid_one_counts() {
        let codec = codec();
        let sealed = |iat| codec.seal(&Claims { iat, exp: 0, ..claims() }, [3; 12]);
        let (old, new, future) = (sealed(NOW - 100), sealed(NOW - 50), sealed(NOW + 1000));
        let best = |values: &[&str]| {
            codec.open_best(values, NOW, anyone, &mut LastOpened::default()).map(|r| r.map(|o| o.claims.iat))
        };
        assert_eq!(best(&[]), None);
        assert_eq!(best(&["junk"]), Some(Err(Refusal::Undecryptable)));
        assert_eq!(best(&[&future, "junk"]), Some(Err(Refusal::Future)));
        assert_eq!(best(&[&old, &new]), Some(Ok(NOW - 50)));
        assert_eq!(best(&[&new, &old]), Some(Ok(NOW - 50)));
        assert_eq!(best(&["junk", &future, &old]), Some(Ok(NOW - 100)));
        assert_eq!(best(&["1", "2", "3", &old, &new]), Some(Ok(NOW - 100)), "the fifth is not looked at");
        assert_eq!(best(&["1", "2", "3", "4", &new]), Some(Err(Refusal::Undecryptable)));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            member_id: [u8; 32], drain_epoch: u32, iat: u64, exp: u64, server_tag: [u8; 8], nonce: [u8; 12],
        ) {
            let claims = Claims { member_id, drain_epoch, iat, exp, server_tag };
            let value = codec().seal(&claims, nonce);
            prop_assert_eq!(value.len(), VALUE_LEN);
            let opened = codec().unseal(value.as_bytes()).expect("it is ours");
            prop_assert_eq!((opened.claims, opened.by_active_key), (claims, true));
        }

        #[test]
        fn any_flipped_bit_is_refused(member_id: [u8; 32], nonce: [u8; 12], at in 0..VALUE_LEN, bit in 0..8) {
            let mut value = codec().seal(&Claims { member_id, ..claims() }, nonce).into_bytes();
            value[at] ^= 1u8 << bit;
            prop_assert!(codec().unseal(&value).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "1S509ceebd-0913-4a[A-Za-z0-9_=-]{123}") {
            prop_assert!(codec().open(&bytes, NOW, anyone).is_err());
            prop_assert!(codec().open(text.as_bytes(), NOW, anyone).is_err());
        }
    }
}
