//! Whether this machine has the addresses that connections to servers are to come from.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use crate::{config::Config, names::PoolName};

/// An address that connections cannot come from.
#[derive(Debug, thiserror::Error)]
#[error(
    "pool {pool}: snat_ip {ip}: {source}; give the address to an interface of this machine, or name another (the sysctl \
     net.ipv4.ip_nonlocal_bind allows for one that comes later)"
)]
pub struct SourceError {
    pool: PoolName,
    ip: IpAddr,
    source: std::io::Error,
}

/// Looks for all of them.
pub(super) fn check(config: &Config) -> Result<(), SourceError> {
    let mut good = HashSet::new();
    for pool in &config.pools {
        for ip in pool.sources.all() {
            if good.contains(ip) {
                continue;
            }
            UdpSocket::bind(SocketAddr::new(*ip, 0)).map_err(|source| SourceError {
                pool: pool.name.clone(),
                ip: *ip,
                source,
            })?;
            good.insert(*ip);
        }
    }
    Ok(())
}
