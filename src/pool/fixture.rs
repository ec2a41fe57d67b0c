//! Pools for the tests of this module: server `i` is `10.0.0.i:80`, from 1.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

pub fn config(algorithm: LbAlgorithm, ratios: &[u16]) -> config::Pool {
    let server = |(index, &ratio)| config::Server { ratio, ..config::Server::at(addr(index + 1)) };
    config::Pool {
        algorithm,
        servers: ratios.iter().enumerate().map(server).collect(),
        verify: true,
        ..config::Pool::of("app".into(), [])
    }
}

pub fn monitor(kind: config::MonitorType) -> Arc<config::HealthMonitor> {
    Arc::new(config::HealthMonitor {
        name: "hm".into(),
        is_federated: false,
        kind,
        send_interval: Duration::from_secs(3600),
        receive_timeout: Duration::from_secs(3600),
        successful_checks: 2,
        failed_checks: 2,
        monitor_port: None,
        maintenance: Default::default(),
        verify: true,
    })
}

pub fn build(config: config::Pool) -> Arc<Pool> {
    Pool::new(&Arc::new(config), &Metrics::new(), None, UNIX_EPOCH)
}

pub fn pool(algorithm: LbAlgorithm, ratios: &[u16]) -> Arc<Pool> {
    build(config(algorithm, ratios))
}

pub fn addr(index: usize) -> SocketAddr {
    format!("10.0.0.{index}:80").parse().unwrap()
}

pub fn down() -> Health {
    Health::Down { reason: "hm: answered 500".into() }
}
