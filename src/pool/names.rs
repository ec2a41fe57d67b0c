//! The addresses of servers that are configured by name.
//!
//! A name may have several addresses: each is a server. What a name had last it keeps until there is another answer,
//! whatever becomes of DNS meanwhile.

use std::{collections::HashMap, net::IpAddr, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;

use crate::config;

/// What is known, of all pools' names.
#[derive(Default)]
pub struct ServerNames(Mutex<HashMap<String, Vec<IpAddr>>>);

impl ServerNames {
    /// A name has these addresses; whether they are others than before.
    pub fn learn(&self, name: &str, mut addresses: Vec<IpAddr>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        let mut known = self.0.lock();
        let changed = known.get(name) != Some(&addresses);
        known.insert(name.to_owned(), addresses);
        changed
    }

    /// How many addresses a name has, as far as is known.
    pub fn count(&self, name: &str) -> usize {
        self.0.lock().get(name).map_or(0, Vec::len)
    }

    /// The pool with the servers that its names stand for.
    pub fn resolved(&self, pool: &Arc<config::Pool>) -> Arc<config::Pool> {
        if pool.named_servers.is_empty() {
            return pool.clone();
        }
        let known = self.0.lock();
        let mut resolved = config::Pool::clone(pool);
        for named in &pool.named_servers {
            let name = named.hostname.as_ref().and_then(|name| known.get(name));
            for ip in name.into_iter().flatten() {
                let addr = SocketAddr::new(*ip, named.addr.port());
                if resolved.servers.iter().all(|server| server.addr != addr) {
                    resolved.servers.push(config::Server { addr, ..named.clone() });
                }
            }
        }
        Arc::new(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{LbAlgorithm, Server},
        pool::fixture,
    };

    #[test]
    fn a_name_is_a_server_for_each_of_its_addresses() {
        let names = ServerNames::default();
        let mut pool = fixture::config(LbAlgorithm::RoundRobin, &[1]);
        let any = SocketAddr::from(([0, 0, 0, 0], 80));
        pool.named_servers = ["a.com", "b.com"]
            .map(|name| Server { hostname: Some(name.into()), ratio: 3, ..Server::at(any) })
            .into();
        let pool = Arc::new(pool);
        let servers = || {
            let pool = names.resolved(&pool);
            pool.servers.iter().map(|server| (server.addr.to_string(), server.ratio)).collect::<Vec<_>>()
        };
        let own = ("10.0.0.1:80".to_owned(), 1);
        assert_eq!(servers(), std::slice::from_ref(&own));
        let ips =
            |ips: &[&str]| ips.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<IpAddr>>();
        assert!(names.learn("a.com", ips(&["10.0.0.9", "10.0.0.1", "10.0.0.8"])));
        assert!(!names.learn("a.com", ips(&["10.0.0.1", "10.0.0.8", "10.0.0.9"])), "in another order");
        assert!(names.learn("b.com", ips(&["::1", "10.0.0.9"])));
        let of = |addr: &str| (addr.to_owned(), 3);
        assert_eq!(
            servers(),
            [own, of("10.0.0.8:80"), of("10.0.0.9:80"), of("[::1]:80")],
            "each address once"
        );
    }
}
