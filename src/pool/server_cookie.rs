//! The cookie that brings a session back to its server: what a pool with persistence of type `http_cookie` makes and
//! reads.
//!
//! With keys it is sealed as the site cookie is, says when it was made and when it ends, and means nothing under
//! another pool's name. Without keys it is the beginning of a hash of the server's name, which hides nothing from who
//! tries all addresses, and lets a client choose its server, as cookies of nginx and HAProxy do. Either way no table
//! is needed: every node that has the configuration reads what another one wrote.
//!
//! This is the value; the `Set-Cookie` around it, and when to send it, are others' affair.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use crate::{
    config::{self, CookieOptions},
    site_cookie::{Claims, Codec, KeyRing, LastOpened, Refusal, member_id},
};

/// Makes and reads the cookies of one pool.
pub struct ServerCookie {
    form: Form,
    lifetime: Option<Duration>,
    /// By what cookies call them.
    servers: HashMap<ServerId, SocketAddr>,
}

enum Form {
    Sealed(Codec),
    /// With the servers by their names.
    Named(HashMap<Box<[u8]>, SocketAddr>),
}

type ServerId = [u8; 32];

/// What a request's cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedServer {
    /// There is no cookie.
    None,
    /// There is one that is not to be believed, or names a server that is not in the pool.
    Refused(Refusal),
    /// `is_stale`: it is time for a new one.
    Server { addr: SocketAddr, is_stale: bool },
}

impl ServerCookie {
    /// The cookies of a pool whose persistence profile has these options.
    ///
    /// # Panics
    /// The keys do not make a ring, which a checked configuration does not have.
    pub fn new(pool: &config::Pool, options: &CookieOptions) -> Self {
        let (name, domain) = (&options.name, options.domain.as_deref());
        let servers = pool.servers.iter().map(|server| (server_id(pool, server.addr), server.addr));
        let servers: HashMap<_, _> = servers.collect();
        let form = match options.keys.is_empty() {
            true => {
                Form::Named(servers.iter().map(|(id, addr)| (hex(id).into_bytes().into(), *addr)).collect())
            }
            false => {
                let ring = KeyRing::new(options.keys.clone()).expect("the configuration checked the keys");
                Form::Sealed(Codec::new(&ring, &purpose(pool), name, domain))
            }
        };
        Self { form, lifetime: options.timeout, servers }
    }

    /// Reads the values of the cookie that a request has, at `now`, Unix seconds. `last` spares opening a value that
    /// came on the same connection before.
    pub fn read<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
        now: u64,
        last: &mut LastOpened,
    ) -> NamedServer {
        match &self.form {
            Form::Sealed(codec) => {
                let known = |id: &ServerId| self.servers.contains_key(id).then_some(0);
                match codec.open_best(values, now, known, last) {
                    None => NamedServer::None,
                    Some(Err(refusal)) => NamedServer::Refused(refusal),
                    Some(Ok(opened)) => NamedServer::Server {
                        addr: self.servers[&opened.claims.member_id],
                        is_stale: opened.is_stale(now),
                    },
                }
            }
            Form::Named(names) => {
                let mut values = values.into_iter().take(MAX_VALUES).peekable();
                if values.peek().is_none() {
                    return NamedServer::None;
                }
                match values.find_map(|value| names.get(value)) {
                    None => NamedServer::Refused(Refusal::WrongService),
                    Some(addr) => NamedServer::Server { addr: *addr, is_stale: false },
                }
            }
        }
    }

    /// The value that names a server from `now` on; `None`: it is not in the pool. `nonce` is random.
    pub fn issue(&self, server: SocketAddr, now: u64, nonce: [u8; 12]) -> Option<String> {
        let (id, _) = self.servers.iter().find(|(_, addr)| **addr == server)?;
        Some(match &self.form {
            Form::Named(_) => hex(id),
            Form::Sealed(codec) => {
                let exp = self.lifetime.map_or(0, |lifetime| now.saturating_add(lifetime.as_secs()));
                let claims =
                    Claims { member_id: *id, drain_epoch: 0, iat: now, exp, server_tag: Default::default() };
                codec.seal(&claims, nonce)
            }
        })
    }
}

/// What keys are derived for. No uuid of a GSLB service has a colon.
fn purpose(pool: &config::Pool) -> String {
    format!("pool:{}", pool.name)
}

fn server_id(pool: &config::Pool, server: SocketAddr) -> ServerId {
    member_id(pool.name.as_str(), &server.to_string())
}

/// Enough of an identity to tell servers apart: 16 hex digits.
fn hex(id: &ServerId) -> String {
    id[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many cookies of one name are looked at.
const MAX_VALUES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::LbAlgorithm,
        pool::fixture::{addr, config},
        site_cookie::{Key, KeyFile, KeyState, Secret},
    };

    const NOW: u64 = 1_517_876_000;
    const OLD: &str = "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69";
    const NEW: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";

    fn key(uuid: &str, secret: u8, state: KeyState) -> Key {
        Key { uuid: uuid.into(), state, secret: Secret::new([secret; 32]), file: KeyFile::default() }
    }

    fn pool(name: &str, servers: &[u16]) -> config::Pool {
        config::Pool { name: name.into(), ..config(LbAlgorithm::RoundRobin, servers) }
    }

    fn cookie_of(pool: &config::Pool, keys: Vec<Key>) -> ServerCookie {
        let timeout = Some(Duration::from_secs(3600));
        ServerCookie::new(
            pool,
            &CookieOptions { name: "S".into(), timeout, keys, ..CookieOptions::default() },
        )
    }

    fn sealed() -> ServerCookie {
        cookie_of(&pool("app", &[1, 1, 1]), vec![key(OLD, 1, KeyState::Active)])
    }

    fn read(cookie: &ServerCookie, values: &[&str], now: u64) -> NamedServer {
        cookie.read(values.iter().map(|value| value.as_bytes()), now, &mut LastOpened::default())
    }

    fn server(n: usize, is_stale: bool) -> NamedServer {
        NamedServer::Server { addr: addr(n), is_stale }
    }

    #[test]
    fn a_cookie_names_the_server_that_it_was_made_for_sealed_or_not() {
        for cookie in [sealed(), cookie_of(&pool("app", &[1, 1, 1]), Vec::new())] {
            for n in 1..=3 {
                let value = cookie.issue(addr(n), NOW, [9; 12]).expect("it is in the pool");
                assert_eq!(read(&cookie, &[&value], NOW), server(n, false));
                assert_eq!(read(&cookie, &["junk", &value], NOW), server(n, false));
            }
            assert_eq!(cookie.issue(addr(4), NOW, [9; 12]), None, "it is not in the pool");
            assert_eq!(read(&cookie, &[], NOW), NamedServer::None);
            assert!(matches!(read(&cookie, &["junk"], NOW), NamedServer::Refused(_)));
        }
    }

    #[test]
    fn a_sealed_cookie_ends_and_is_stale_before() {
        let cookie = sealed();
        let value = cookie.issue(addr(1), NOW, [9; 12]).expect("it is in the pool");
        for (now, said) in [
            (NOW + 1800, server(1, false)),
            (NOW + 1801, server(1, true)),
            (NOW + 3600, NamedServer::Refused(Refusal::Expired)),
            (NOW - 301, NamedServer::Refused(Refusal::Future)),
        ] {
            assert_eq!(read(&cookie, &[&value], now), said, "{now}");
        }
    }

    #[test]
    fn a_cookie_of_another_pool_key_or_hand_names_nobody() {
        let value = sealed().issue(addr(1), NOW, [9; 12]).expect("it is in the pool");
        let others = [
            (cookie_of(&pool("app", &[1; 3]), vec![key(OLD, 2, KeyState::Active)]), Refusal::Undecryptable),
            (cookie_of(&pool("app", &[1; 3]), vec![key(NEW, 1, KeyState::Active)]), Refusal::UnknownKey),
            (cookie_of(&pool("web", &[1; 3]), vec![key(OLD, 1, KeyState::Active)]), Refusal::Undecryptable),
            (cookie_of(&pool("app", &[]), vec![key(OLD, 1, KeyState::Active)]), Refusal::WrongService),
        ];
        for (other, refusal) in others {
            assert_eq!(read(&other, &[&value], NOW), NamedServer::Refused(refusal));
        }
        let mut forged = value.into_bytes();
        forged[100] ^= 1;
        let forged = String::from_utf8(forged).expect("still ASCII");
        assert_eq!(read(&sealed(), &[&forged], NOW), NamedServer::Refused(Refusal::Undecryptable));
        let named = cookie_of(&pool("app", &[1; 3]), Vec::new());
        let value = named.issue(addr(1), NOW, [9; 12]).expect("it is in the pool");
        assert_eq!(value.len(), 16);
        let other = cookie_of(&pool("web", &[1; 3]), Vec::new());
        assert_eq!(read(&other, &[&value], NOW), NamedServer::Refused(Refusal::WrongService));
    }

    #[test]
    fn a_cookie_of_a_retiring_key_is_believed_and_renewed() {
        let value = sealed().issue(addr(2), NOW, [9; 12]).expect("it is in the pool");
        let keys = vec![key(OLD, 1, KeyState::Retiring), key(NEW, 2, KeyState::Active)];
        assert_eq!(read(&cookie_of(&pool("app", &[1; 3]), keys), &[&value], NOW), server(2, true));
    }
}
