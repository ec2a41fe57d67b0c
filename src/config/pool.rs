//! Pools and their servers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::HealthMonitor;
use crate::names::PoolName;

/// Servers among which a balancer chooses: of an app, or clone members.
#[derive(Clone, Debug)]
pub struct Pool {
    pub name: PoolName,
    pub enabled: bool,
    pub algorithm: LbAlgorithm,
    pub servers: Vec<Server>,
    pub monitors: Vec<Arc<HealthMonitor>>,
    /// Connect to servers; default 5 s.
    pub connect_timeout: Duration,
    /// The longest silence of a server while its answer is awaited or flows; default 60 s.
    pub read_timeout: Duration,
    /// How long an unused connection to a server is kept; default 60 s. Keep it below the servers' own.
    pub idle_timeout: Duration,
    /// Connect to servers with TLS.
    pub enable_ssl: bool,
    /// The name in SNI; default: the request's host. Certificates are verified when `verify` is set.
    pub sni: Option<String>,
    /// Verify the servers' certificates; default true where `enable_ssl`.
    pub verify: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub addr: SocketAddr,
    pub hostname: Option<String>,
    /// Share of the traffic relative to the others; 0 means none.
    pub ratio: u16,
    pub enabled: bool,
}

/// How a pool chooses among its servers that are up; each honours `ratio`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LbAlgorithm {
    RoundRobin,
    Random,
    /// Avi's default, and ours.
    #[default]
    LeastConnections,
}
