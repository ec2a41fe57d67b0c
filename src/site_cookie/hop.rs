//! The signed header of a request that one site proxies to another.
//!
//! ```text
//! Homing-Hop: v=1;kid=…;src=…;dst=…;gs=…;ts=…;rid=…;cip=…;proto=http|https;tid=…;mac=…
//! ```
//!
//! It proves to home that the request came from a peer, carries the client's address, scheme and TLS session,
//! and cannot be moved to another request, site or minute: the MAC (HMAC-SHA256) covers the method, the
//! authority and the target, and each request id is good once. What home does with a proven hop is decided
//! elsewhere, and so is when the header is removed.
//!
//! Avi trusts its federated PKI profile here and sends the client's address in `X-Forwarded-For` unproven.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{
    Hop, HopFields, HopRefusal, KeyRing, KeyState, ReplayGuard,
    hop_header::{MAC_LEN, Parsed, TLS_SESSION_LEN, is_word},
    keys::{KEY_ID_LEN, Key},
    length_prefixed,
};

/// Signs and verifies the hops of one GSLB service, as one site.
pub struct HopKeys {
    keys: Vec<HopKey>,
    /// Index of the key that signs.
    active: usize,
    service_uuid: String,
    own: String,
    peers: Vec<String>,
}

struct HopKey {
    id: [u8; KEY_ID_LEN],
    /// Keyed; cloned for each MAC.
    mac: Hmac<Sha256>,
}

/// Why a hop cannot be signed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HopError {
    #[error("uuid `{0}`: 1 to 128 letters, digits and `-_.:` are allowed, for it travels in a header")]
    Uuid(String),
    #[error("site `{0}` is not a peer of this site")]
    UnknownSite(String),
    #[error("request id `{0}`: 1 to 128 letters, digits and `-_.:` are allowed")]
    RequestId(String),
    #[error("the request's target is too long to be signed")]
    TooLong,
}

impl HopKeys {
    /// Derives the keys of a service. `own` is this site, `peers` are the others of the federation.
    pub fn new(
        ring: &KeyRing,
        service_uuid: &str,
        own: &str,
        peers: impl IntoIterator<Item = String>,
    ) -> Result<Self, HopError> {
        let peers: Vec<_> = peers.into_iter().filter(|peer| peer != own).collect();
        let uuids = peers.iter().map(String::as_str).chain([own, service_uuid]);
        if let Some(bad) = uuids.into_iter().find(|uuid| !is_word(uuid)) {
            return Err(HopError::Uuid(bad.into()));
        }
        let active = ring.keys().iter().position(|key| key.state == KeyState::Active);
        Ok(Self {
            keys: ring.keys().iter().map(|key| HopKey::new(key, service_uuid)).collect(),
            active: active.expect("a key ring has an active key"),
            service_uuid: service_uuid.into(),
            own: own.into(),
            peers,
        })
    }

    /// What stands for a client's TLS session in [`HopFields::tls_session`]: the same for all nodes of a
    /// site, and nothing to who does not hold the key.
    pub fn tls_session(&self, identity: &[u8]) -> [u8; TLS_SESSION_LEN] {
        let mut mac = self.keys[self.active].mac.clone();
        length_prefixed(&[b"homing/hop/1/tls-session"], |bytes| mac.update(bytes));
        mac.update(identity);
        let hash = mac.finalize().into_bytes();
        *hash.first_chunk().expect("32 bytes begin with 16")
    }

    /// The header's value for a request: its method, authority (`Host`) and path with query, as they are
    /// sent.
    pub fn sign(
        &self,
        fields: &HopFields<'_>,
        method: &str,
        authority: &str,
        path_and_query: &str,
    ) -> Result<String, HopError> {
        let HopFields { dst, ts, rid, client, scheme, tls_session } = fields;
        if self.peers.iter().all(|peer| peer != dst) {
            return Err(HopError::UnknownSite(dst.to_string()));
        }
        if !is_word(rid) {
            return Err(HopError::RequestId((*rid).into()));
        }
        let key = &self.keys[self.active];
        let kid = str::from_utf8(&key.id).expect("key ids are ASCII");
        let tid = tls_session.map(|id| URL_SAFE_NO_PAD.encode(id)).unwrap_or_default();
        let (src, gs, proto) = (&*self.own, &*self.service_uuid, scheme.as_str());
        let (ts, cip) = (ts.to_string(), client.to_string());

        // Put together by hand, for every request that is proxied pays for it.
        let mut value = String::with_capacity(512);
        let ids = ["v=1;kid=", kid, ";src=", src, ";dst=", dst, ";gs=", gs, ";ts=", &ts, ";rid=", rid];
        let client = [";cip=", &cip, ";proto=", proto, ";tid=", &tid];
        ids.into_iter().chain(client).for_each(|part| value.push_str(part));
        let mac = key.mac(&value, method, authority, path_and_query).ok_or(HopError::TooLong)?;
        value.push_str(";mac=");
        URL_SAFE_NO_PAD.encode_string(mac, &mut value);
        Ok(value)
    }

    /// Proves a hop. The request is given as it was received, `now` in Unix seconds. A request with more than
    /// one such header has none.
    pub fn verify(
        &self,
        value: &str,
        method: &str,
        authority: &str,
        path_and_query: &str,
        now: u64,
        replay: &ReplayGuard,
    ) -> Result<Hop, HopRefusal> {
        let parsed = Parsed::new(value).ok_or(HopRefusal::Malformed)?;
        let key =
            self.keys.iter().find(|key| key.id == parsed.kid.as_bytes()).ok_or(HopRefusal::UnknownKey)?;
        let mac = key.mac(parsed.signed, method, authority, path_and_query).ok_or(HopRefusal::Malformed)?;
        if !bool::from(mac.ct_eq(&parsed.mac)) {
            return Err(HopRefusal::Forged);
        }
        if parsed.gs != self.service_uuid {
            return Err(HopRefusal::WrongService);
        }
        let src =
            self.peers.iter().find(|peer| peer.as_str() == parsed.src).ok_or(HopRefusal::UnknownSite)?;
        if now.abs_diff(parsed.ts) > MAX_SKEW {
            return Err(HopRefusal::Skewed);
        }
        if !replay.is_new(parsed.src, parsed.rid, now) {
            return Err(HopRefusal::Replayed);
        }
        if parsed.dst != self.own.as_str() {
            return Err(HopRefusal::WrongSite);
        }
        Ok(Hop {
            src: src.clone(),
            rid: parsed.rid.into(),
            client: parsed.client,
            scheme: parsed.scheme,
            tls_session: parsed.tls_session,
        })
    }
}

impl HopKey {
    fn new(key: &Key, service_uuid: &str) -> Self {
        let derived = key.derive(PURPOSE, service_uuid);
        Self { id: key.id(), mac: Hmac::new_from_slice(&*derived).expect("HMAC takes keys of any length") }
    }

    /// `None` where a part is longer than 64 KiB.
    fn mac(
        &self,
        signed: &str,
        method: &str,
        authority: &str,
        path_and_query: &str,
    ) -> Option<[u8; MAC_LEN]> {
        let mut mac = self.mac.clone();
        let fields = [PURPOSE, signed, method, authority, path_and_query].map(str::as_bytes);
        length_prefixed(&fields, |bytes| mac.update(bytes)).then(|| mac.finalize().into_bytes().into())
    }
}

/// How far apart the clocks of two sites may be, in seconds.
pub(super) const MAX_SKEW: u64 = 30;

const PURPOSE: &str = "homing/hop/1";

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::site_cookie::{ClientScheme, KeyFile, Secret};

    const SERVICE: &str = "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6";
    const A: &str = "cluster-3a179b95-dff9-444b-9986-ba89c4e19c44";
    const B: &str = "cluster-1e560f44-c898-41c3-818b-3433edbf9391";
    const C: &str = "cluster-00000000-0000-0000-0000-00000000000c";
    const NOW: u64 = 1_517_875_922;

    fn ring(state: KeyState) -> KeyRing {
        let key = |uuid: &str, state, first| Key {
            uuid: uuid.into(),
            state,
            secret: Secret::new(std::array::from_fn(|n| n as u8 + first)),
            file: KeyFile::default(),
        };
        let mut keys = vec![key("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69", state, 0)];
        if state != KeyState::Active {
            keys.push(key("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", KeyState::Active, 32));
        }
        KeyRing::new(keys).expect("a ring")
    }

    fn site(own: &str) -> HopKeys {
        site_of(own, SERVICE, KeyState::Active)
    }

    fn site_of(own: &str, service: &str, state: KeyState) -> HopKeys {
        HopKeys::new(&ring(state), service, own, [A, B].map(String::from)).expect("good uuids")
    }

    fn fields<'a>(dst: &'a str, rid: &'a str) -> HopFields<'a> {
        HopFields {
            dst,
            ts: NOW,
            rid,
            client: "192.0.2.7".parse().expect("an address"),
            scheme: ClientScheme::Https,
            tls_session: Some(std::array::from_fn(|n| n as u8)),
        }
    }

    fn signed() -> String {
        site(B).sign(&fields(A, "r-1"), "GET", "a.com", "/pay?x=1").expect("good fields")
    }

    fn verify(site: &HopKeys, value: &str) -> Result<Hop, HopRefusal> {
        site.verify(value, "GET", "a.com", "/pay?x=1", NOW, &ReplayGuard::new())
    }

    /// Computed apart from this code, with Python's `hmac`.
    const VECTOR: &str = "v=1;kid=509ceebd-0913-4a;src=cluster-1e560f44-c898-41c3-818b-3433edbf9391;dst=cluster-3a179b95-dff9-444b-9986-ba89c4e19c44;gs=gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6;ts=1517875922;rid=r-1;cip=192.0.2.7;proto=https;tid=AAECAwQFBgcICQoLDA0ODw;mac=qcI5XJ1ZtP1jwK8-GoZE_zi_1EFObxcPsCwmiwCg17Q";

    #[test]
    fn the_header_is_as_published() {
        assert_eq!(signed(), VECTOR);
    }

    #[test]
    fn a_hop_brings_the_client_home() {
        assert_eq!(
            verify(&site(A), &signed()),
            Ok(Hop {
                src: B.into(),
                rid: "r-1".into(),
                client: "192.0.2.7".parse().expect("an address"),
                scheme: ClientScheme::Https,
                tls_session: Some(std::array::from_fn(|n| n as u8)),
            })
        );
        let dst = A;
        let plain = HopFields {
            client: "2001:db8::7".parse().expect("an address"),
            scheme: ClientScheme::Http,
            tls_session: None,
            ..fields(dst, "r-2")
        };
        let value = site(B).sign(&plain, "GET", "a.com", "/pay?x=1").expect("good fields");
        let hop = verify(&site(A), &value).expect("it is proven");
        assert_eq!((hop.client, hop.scheme, hop.tls_session), (plain.client, ClientScheme::Http, None));
    }

    #[test]
    fn every_single_character_change_is_refused() {
        let (value, home) = (signed(), site(A));
        for at in 0..value.len() {
            for replacement in (0..=127u8).map(char::from) {
                let mut changed = value.clone();
                changed.replace_range(at..=at, replacement.encode_utf8(&mut [0; 4]));
                assert!(changed == value || verify(&home, &changed).is_err(), "{changed}");
            }
            let (mut shorter, mut longer) = (value.clone(), value.clone());
            shorter.remove(at);
            longer.insert(at, ';');
            assert!(verify(&home, &shorter).is_err(), "{shorter}");
            assert!(verify(&home, &longer).is_err(), "{longer}");
        }
    }

    #[test]
    fn a_hop_is_good_for_one_request_only() {
        let (home, value, replay) = (site(A), signed(), ReplayGuard::new());
        let check =
            |method, authority, path| home.verify(&value, method, authority, path, NOW, &replay).err();
        assert_eq!(check("POST", "a.com", "/pay?x=1"), Some(HopRefusal::Forged));
        assert_eq!(check("GET", "b.com", "/pay?x=1"), Some(HopRefusal::Forged));
        assert_eq!(check("GET", "a.com", "/pay?x=2"), Some(HopRefusal::Forged));
        assert_eq!(check("GET", "a.com/pay", "?x=1"), Some(HopRefusal::Forged));
        assert_eq!(check("GET", "a.com", "/pay?x=1"), None);
        assert_eq!(check("GET", "a.com", "/pay?x=1"), Some(HopRefusal::Replayed));
        let again = site(B).sign(&fields(A, "r-1"), "GET", "a.com", "/other").expect("good fields");
        let second = home.verify(&again, "GET", "a.com", "/other", NOW, &replay);
        assert_eq!(second, Err(HopRefusal::Replayed), "a request id is good once, whatever the path");
    }

    #[test]
    fn a_hop_is_good_for_half_a_minute() {
        for (now, refusal) in [
            (NOW - 31, Some(HopRefusal::Skewed)),
            (NOW - 30, None),
            (NOW + 30, None),
            (NOW + 31, Some(HopRefusal::Skewed)),
        ] {
            let replay = ReplayGuard::new();
            assert_eq!(site(A).verify(&signed(), "GET", "a.com", "/pay?x=1", now, &replay).err(), refusal);
        }
    }

    #[test]
    fn sites_services_and_keys_are_told_apart() {
        assert_eq!(verify(&site(C), &signed()), Err(HopRefusal::WrongSite));
        let other = site_of(A, "gslbservice-00000000-0000-0000-0000-000000000000", KeyState::Active);
        assert_eq!(verify(&other, &signed()), Err(HopRefusal::Forged));
        for state in [KeyState::Next, KeyState::Retiring] {
            assert!(verify(&site_of(A, SERVICE, state), &signed()).is_ok(), "{state:?}");
            let newer = site_of(B, SERVICE, state);
            let value = newer.sign(&fields(A, "r-1"), "GET", "a.com", "/").expect("good fields");
            assert!(value.starts_with("v=1;kid=1b9d6bcd-bbfd-4b;"), "{value}");
            assert_eq!(verify(&site(A), &value), Err(HopRefusal::UnknownKey));
        }
        let stranger = site(C).sign(&fields(A, "r-1"), "GET", "a.com", "/pay?x=1").expect("good fields");
        assert_eq!(verify(&site(A), &stranger), Err(HopRefusal::UnknownSite));
        assert_eq!(verify(&site(B), &signed()), Err(HopRefusal::UnknownSite), "our own is not a peer's");
    }

    #[test]
    fn a_tls_session_is_known_by_a_keyed_hash() {
        let hash = site(B).tls_session(b"one");
        assert_eq!(hash, site(B).tls_session(b"one"));
        assert_ne!(hash, site(B).tls_session(b"two"));
        assert_ne!(hash, site_of(B, SERVICE, KeyState::Next).tls_session(b"one"), "another key");
    }

    #[test]
    fn no_field_can_bring_another() {
        let a = A;
        let sign = |dst: &str, rid: &str| site(B).sign(&fields(dst, rid), "GET", "a.com", "/").err();
        for rid in ["", "1;cip=10.0.0.1", "1 2", "é", &"1".repeat(129)] {
            assert_eq!(sign(a, rid), Some(HopError::RequestId(rid.into())));
        }
        assert_eq!(sign(C, "1"), Some(HopError::UnknownSite(C.into())));
        assert_eq!(sign(B, "1"), Some(HopError::UnknownSite(B.into())), "no hop to oneself");
        let bad = HopKeys::new(&ring(KeyState::Active), "gs;dst=x", B, [a.into()]).err();
        assert_eq!(bad, Some(HopError::Uuid("gs;dst=x".into())));
        let long = "/".repeat(1 << 16);
        let refused = site(B).sign(&fields(a, "1"), "GET", "a.com", &long);
        assert_eq!(refused, Err(HopError::TooLong));
        let refused = site(A).verify(&signed(), "GET", "a.com", &long, NOW, &ReplayGuard::new());
        assert_eq!(refused, Err(HopRefusal::Malformed));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, shaped in "v=1;kid=[a-z;=]{0,20};src=.{0,9};mac=.{0,50}") {
            prop_assert!(verify(&site(A), &text).is_err());
            prop_assert!(verify(&site(A), &shaped).is_err());
        }

        #[test]
        fn any_good_request_is_proven(
            rid in "[A-Za-z0-9_.:-]{1,128}", client: IpAddr, tls_session: Option<[u8; 16]>, path in "/.{0,99}",
        ) {
            let dst = A;
            let fields = HopFields { client, tls_session, ..fields(dst, &rid) };
            let value = site(B).sign(&fields, "PUT", "a.com", &path).expect("good fields");
            let hop = site(A).verify(&value, "PUT", "a.com", &path, NOW, &ReplayGuard::new());
            let hop = hop.expect("it is proven");
            prop_assert_eq!((hop.rid, hop.client, hop.tls_session), (rid, client, tls_session));
        }
    }
}
