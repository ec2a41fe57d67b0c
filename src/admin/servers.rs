//! Servers as operators command them: to serve, to drain, or to rest.

use std::net::SocketAddr;

use super::{pools, view};
use crate::{names::same_name, pool::AdminState, snapshot::Live};

/// Why a server is not commanded.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("pool {name} is not known; known: {}", known.join(", "))]
    UnknownPool { name: String, known: Vec<String> },
    #[error(
        "pool {0} is homing's own and leads to other sites; drain the site that is meant with `homing gslb drain SITE`"
    )]
    SitePool(String),
    #[error("pool {pool} has no server {server}; servers: {}", known.join(", "))]
    UnknownServer { pool: String, server: String, known: Vec<String> },
    #[error(
        "server {server} of pool {pool} is disabled in the configuration; set enabled: true there and reload"
    )]
    DisabledInConfiguration { pool: String, server: String },
}

/// Has a server do what an operator says; what it is now. `server` is `ip:port`.
pub(super) fn order(
    live: &Live,
    pool: &str,
    server: &str,
    state: AdminState,
    by: &str,
) -> Result<view::Server, ServerError> {
    let snapshot = live.snapshot();
    let Some(pool) = snapshot.pool(pool) else {
        let known = snapshot.config.pools.iter().map(|pool| pool.name.to_string()).collect();
        return Err(ServerError::UnknownPool { name: pool.to_owned(), known });
    };
    let name = pool.name().to_string();
    if snapshot.config.pools.iter().all(|configured| !same_name(configured.name.as_str(), &name)) {
        return Err(ServerError::SitePool(name));
    }
    let Some(found) = server.parse::<SocketAddr>().ok().and_then(|addr| pool.server(addr)) else {
        let known = pool.servers().iter().map(|server| server.name().to_owned()).collect();
        return Err(ServerError::UnknownServer { pool: name, server: server.to_owned(), known });
    };
    if !found.is_enabled_in_configuration() {
        let server = found.name().to_owned();
        return Err(ServerError::DisabledInConfiguration { pool: name, server });
    }
    found.order(state, by, live.clock.wall());
    Ok(pools::server(pool, found, None))
}
