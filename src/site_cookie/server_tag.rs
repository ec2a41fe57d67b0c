//! The app server that a cookie names beside the home site, for two-level stickiness: 8 bytes of a keyed hash.
//!
//! ```text
//! server_tag = first 8 bytes of HMAC-SHA256( the cookie key of the service, LP("server", "ip:port") )
//! ```
//!
//! The tag needs no table: whoever has the keys and the list of servers finds the server again, on every node and
//! after a restart. It says nothing to a client, which sees it encrypted anyway. Zeros name nobody.
//!
//! BIG-IP and Avi write a server's address into a cookie of its own for this.

use std::{collections::HashMap, net::SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Key, KeyRing, KeyState, length_prefixed};

/// The tags of the servers of one virtual service.
pub struct ServerTags {
    /// By the tags that every key makes, so that a cookie of a retiring key still names its server.
    servers: HashMap<[u8; TAG_LEN], SocketAddr>,
    /// The tags for new cookies.
    tags: HashMap<SocketAddr, [u8; TAG_LEN]>,
}

impl ServerTags {
    /// The tags of these servers under the keys of a GSLB service.
    pub fn new(ring: &KeyRing, service_uuid: &str, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let keys: Vec<_> = ring.keys().iter().map(|key| (key.state, tagger(key, service_uuid))).collect();
        let mut made = Self { servers: HashMap::new(), tags: HashMap::new() };
        for server in servers {
            for (state, key) in &keys {
                let tag = tag(key, server);
                made.servers.insert(tag, server);
                if *state == KeyState::Active {
                    made.tags.insert(server, tag);
                }
            }
        }
        made
    }

    /// The tag of a server in a cookie that is sealed now; zeros for one that is not on the list.
    pub fn tag(&self, server: SocketAddr) -> [u8; TAG_LEN] {
        self.tags.get(&server).copied().unwrap_or_default()
    }

    /// The server that a cookie's tag names; `None`: nobody, or one that is not there any more.
    pub fn server(&self, tag: &[u8; TAG_LEN]) -> Option<SocketAddr> {
        self.servers.get(tag).copied()
    }
}

fn tagger(key: &Key, service_uuid: &str) -> Hmac<Sha256> {
    let key = key.derive("homing/site-cookie/1S/key", service_uuid);
    Hmac::new_from_slice(&*key).expect("HMAC takes every key")
}

fn tag(key: &Hmac<Sha256>, server: SocketAddr) -> [u8; TAG_LEN] {
    let mut mac = key.clone();
    let fits = length_prefixed(&[b"server", server.to_string().as_bytes()], |bytes| mac.update(bytes));
    assert!(fits, "an address is short");
    *mac.finalize().into_bytes().first_chunk().expect("a MAC has 32 bytes")
}

const TAG_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site_cookie::{KeyFile, Secret};

    const SERVICE: &str = "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6";

    fn key(uuid: &str, secret: u8, state: KeyState) -> Key {
        Key { uuid: uuid.into(), state, secret: Secret::new([secret; 32]), file: KeyFile::default() }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn tags(keys: Vec<Key>, servers: &[&str]) -> ServerTags {
        let ring = KeyRing::new(keys).expect("a ring");
        ServerTags::new(&ring, SERVICE, servers.iter().map(|server| addr(server)))
    }

    const OLD: &str = "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69";
    const NEW: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";

    #[test]
    fn a_tag_names_the_server_that_it_was_made_for() {
        let tags = tags(vec![key(OLD, 1, KeyState::Active)], &["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
        for server in ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"] {
            assert_eq!(tags.server(&tags.tag(addr(server))), Some(addr(server)));
        }
        assert_eq!(tags.tag(addr("10.0.0.3:80")), [0; 8], "it is not on the list");
        assert_eq!(tags.server(&[0; 8]), None);
        assert_eq!(tags.server(&[1; 8]), None);
    }

    #[test]
    fn the_tag_is_what_the_published_key_makes_of_the_address() {
        let secret = Secret::new(std::array::from_fn(|n| n as u8));
        let tags = tags(vec![Key { secret, ..key(OLD, 0, KeyState::Active) }], &["10.0.0.1:80"]);
        assert_eq!(tags.tag(addr("10.0.0.1:80")), 0x7cb9_bbbe_e5fe_cf5b_u64.to_be_bytes());
    }

    #[test]
    fn a_cookie_of_a_retiring_key_still_names_its_server() {
        let before = tags(vec![key(OLD, 1, KeyState::Active)], &["10.0.0.1:80"]);
        let tag = before.tag(addr("10.0.0.1:80"));
        let keys = vec![key(OLD, 1, KeyState::Retiring), key(NEW, 2, KeyState::Active)];
        let after = tags(keys, &["10.0.0.1:80"]);
        assert_eq!(after.server(&tag), Some(addr("10.0.0.1:80")));
        assert_ne!(after.tag(addr("10.0.0.1:80")), tag, "new cookies have the new key's tag");
        let gone = tags(vec![key(NEW, 2, KeyState::Active)], &["10.0.0.1:80"]);
        assert_eq!(gone.server(&tag), None);
    }
}
