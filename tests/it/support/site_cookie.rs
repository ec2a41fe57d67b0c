//! The site cookie and the hop header, written a second time from the published format, so that the tests do not
//! take the project's word for it.

use std::time::{SystemTime, UNIX_EPOCH};

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, KeyInit, Payload},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// The cookie's name in the tests' federation.
pub const NAME: &str = "FOO";
/// The uuid of the tests' GSLB service.
pub const SERVICE: &str = "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6";
/// The tests' key.
pub const KEY: Key = Key {
    uuid: "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69",
    secret: [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
        28, 29, 30, 31,
    ],
};
/// site_A's member: cluster and virtual service.
pub const A: Member = Member {
    cluster: "cluster-3a179b95-dff9-444b-9986-ba89c4e19c44",
    vs: "virtualservice-dc871051-35e8-4bec-bd1f-3c63fb6b7087",
};
/// site_B's member.
pub const B: Member = Member {
    cluster: "cluster-1e560f44-c898-41c3-818b-3433edbf9391",
    vs: "virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a",
};

/// site_C's member, in the tests with three sites.
pub const C: Member = Member {
    cluster: "cluster-7d444840-9dc0-41d1-8245-5ffdce74fad2",
    vs: "virtualservice-9f1b6c10-3a52-4b7e-8d6c-2f0a51c7e9b4",
};

#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub uuid: &'static str,
    pub secret: [u8; 32],
}

/// A virtual service of a GSLB service.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub cluster: &'static str,
    pub vs: &'static str,
}

impl Member {
    pub fn id(self) -> [u8; 32] {
        Sha256::digest(format!("{}:{}", self.cluster, self.vs)).into()
    }
}

/// Everything that goes into a cookie. [`Cookie::of`] is a good one; tests spoil single fields.
#[derive(Clone, Debug)]
pub struct Cookie {
    pub layout: u8,
    pub flags: u8,
    pub pad: u16,
    pub drain_epoch: u32,
    pub iat: u64,
    pub exp: u64,
    pub member: [u8; 32],
    pub server_tag: [u8; 8],
    pub key: Key,
    pub service: &'static str,
    pub name: &'static str,
    pub domain: &'static str,
}

impl Cookie {
    /// A cookie of a member, sealed now, for an hour.
    pub fn of(member: Member) -> Self {
        let iat = now();
        Self {
            layout: 1,
            flags: 0,
            pad: 0,
            drain_epoch: 0,
            iat,
            exp: iat + 3600,
            member: member.id(),
            server_tag: [0; 8],
            key: KEY,
            service: SERVICE,
            name: NAME,
            domain: "",
        }
    }

    pub fn seal(&self) -> String {
        self.seal_with(rand::random())
    }

    fn seal_with(&self, nonce: [u8; 12]) -> String {
        let plain = [
            &[self.layout, self.flags][..],
            &self.pad.to_be_bytes(),
            &self.drain_epoch.to_be_bytes(),
            &self.iat.to_be_bytes(),
            &self.exp.to_be_bytes(),
            &self.member,
            &self.server_tag,
        ]
        .concat();
        let head = format!("1S{}", &self.key.uuid[..16]);
        let aad = self.aad(&head);
        let sealed = cipher(&self.key, self.service)
            .encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad })
            .expect("AES-GCM seals 64 bytes");
        head + &URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
    }

    /// What a value says that the tests' key sealed for the tests' service; fails the test when it does not open.
    pub fn open(value: &str) -> Self {
        Self::open_for("", value)
    }

    /// The same of a cookie with a domain.
    pub fn open_for(domain: &'static str, value: &str) -> Self {
        assert_eq!(value.len(), 141, "a site cookie has 141 characters: {value}");
        let mut cookie = Self { domain, ..Self::of(A) };
        assert_eq!(value[..18], format!("1S{}", &KEY.uuid[..16]), "tag and key id stand in clear");
        let raw = URL_SAFE_NO_PAD.decode(&value[18..]).expect("the rest is base64");
        let nonce: [u8; 12] = raw[..12].try_into().expect("twelve bytes");
        let plain = cipher(&KEY, SERVICE)
            .decrypt(&nonce.into(), Payload { msg: &raw[12..], aad: &cookie.aad(&value[..18]) })
            .expect("the cookie opens under the tests' key");
        let (layout, flags) = (plain[0], plain[1]);
        cookie.layout = layout;
        cookie.flags = flags;
        cookie.pad = u16::from_be_bytes(plain[2..4].try_into().expect("two bytes"));
        cookie.drain_epoch = u32::from_be_bytes(plain[4..8].try_into().expect("four bytes"));
        cookie.iat = u64::from_be_bytes(plain[8..16].try_into().expect("eight bytes"));
        cookie.exp = u64::from_be_bytes(plain[16..24].try_into().expect("eight bytes"));
        cookie.member = plain[24..56].try_into().expect("32 bytes");
        cookie.server_tag = plain[56..64].try_into().expect("eight bytes");
        cookie
    }

    fn aad(&self, head: &str) -> Vec<u8> {
        prefixed(&["homing/site-cookie/1S", head, self.service, self.name, self.domain])
    }
}

/// A hop header. [`Hop::to_b`] is a good one from site_A to site_B.
#[derive(Clone, Debug)]
pub struct Hop {
    pub src: String,
    pub dst: String,
    pub ts: u64,
    pub rid: String,
    pub client: String,
    pub proto: &'static str,
    pub key: Key,
}

impl Hop {
    pub fn to_b(rid: &str, client: &str) -> Self {
        let (src, dst) = (A.cluster.to_owned(), B.cluster.to_owned());
        Self { src, dst, ts: now(), rid: rid.to_owned(), client: client.to_owned(), proto: "http", key: KEY }
    }

    /// The header's value for a request.
    pub fn sign(&self, method: &str, authority: &str, path_and_query: &str) -> String {
        let value = format!(
            "v=1;kid={};src={};dst={};gs={SERVICE};ts={};rid={};cip={};proto={};tid=",
            &self.key.uuid[..16],
            self.src,
            self.dst,
            self.ts,
            self.rid,
            self.client,
            self.proto
        );
        let mut mac_key = [0; 32];
        Hkdf::<Sha256>::new(Some(self.key.uuid.as_bytes()), &self.key.secret)
            .expand(&prefixed(&["homing/hop/1", SERVICE]), &mut mac_key)
            .expect("32 bytes are a valid length");
        let mut mac = Hmac::<Sha256>::new_from_slice(&mac_key).expect("HMAC takes every key");
        mac.update(&prefixed(&["homing/hop/1", &value, method, authority, path_and_query]));
        format!("{value};mac={}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

/// The tag that names a server in a cookie of the tests' key and service.
pub fn server_tag(server: std::net::SocketAddr) -> [u8; 8] {
    let key = cookie_key(&KEY, SERVICE);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes every key");
    mac.update(&prefixed(&["server", &server.to_string()]));
    mac.finalize().into_bytes()[..8].try_into().expect("eight bytes")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

fn cipher(key: &Key, service: &str) -> Aes256Gcm {
    Aes256Gcm::new(&cookie_key(key, service).into())
}

fn cookie_key(key: &Key, service: &str) -> [u8; 32] {
    let mut derived = [0; 32];
    Hkdf::<Sha256>::new(Some(key.uuid.as_bytes()), &key.secret)
        .expand(&prefixed(&["homing/site-cookie/1S/key", service]), &mut derived)
        .expect("32 bytes are a valid length");
    derived
}

fn prefixed(parts: &[&str]) -> Vec<u8> {
    let part = |part: &&str| {
        let len = u16::try_from(part.len()).expect("parts are short");
        [&len.to_be_bytes()[..], part.as_bytes()].concat()
    };
    parts.iter().flat_map(part).collect()
}

#[test]
fn the_second_writing_agrees_with_the_published_vector() {
    let cookie = Cookie { drain_epoch: 7, iat: 1517875922, exp: 1517879522, ..Cookie::of(B) };
    let value = cookie.seal_with([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(
        value,
        "1S509ceebd-0913-4aAAECAwQFBgcICQoLmnZHMZnVTx__oXoTk4Lg2jQyj7iaVeKOqJw6VRTSEdjYp3UJX7CF4lZHuLrsMTaLkW-I53Is_xTYDZ_ZHxankKQ-lt5TgwW21-MFBZtRZRU"
    );
    assert_eq!(Cookie::open(&value).drain_epoch, 7);
}
