//! The description of a site-persistence pool: the peers of a virtual service as the servers of a pool.
//!
//! It is made by us alone: users can neither configure, reference nor rename it. Nothing is balanced in it,
//! for a cookie names the one server that a request is for; it is a pool so that peers are monitored,
//! counted, drained and shown like any server. Name, uuid and settings are those of the SP pools that Avi's
//! controller makes.

use std::{sync::Arc, time::Duration};

use super::Membership;
use crate::{
    config::{
        Connections, Gslb, HashKey, HostHeader, LbAlgorithm, Lifecycle, Patience, Pool, PoolTls, Retries,
        Server, SourceAddresses, VirtualService, site_server_name,
    },
    names::PoolName,
};

/// An SP pool: what is built, and its uuid.
#[derive(Clone, Debug)]
pub struct SpPool {
    /// `pool-` and the virtual service's uuid without its kind.
    pub uuid: String,
    /// Named `SP-<GSLB service>-<virtual service>`; its servers are in the order of the peers.
    pub pool: Arc<Pool>,
}

impl SpPool {
    /// Describes the SP pool of a virtual service.
    pub fn of(vs: &VirtualService, membership: &Membership, gslb: &Gslb) -> Self {
        let uuid = vs.uuid.as_ref().expect("a member has a uuid").as_str();
        let peers = &membership.peers;
        let enable_ssl = !peers.is_empty() && peers.iter().all(|peer| peer.enable_ssl);
        let site_tls = gslb.site_tls.clone().filter(|_| enable_ssl);
        let servers = peers.iter().map(|peer| Server {
            hostname: site_tls.as_ref().map(|_| site_server_name(&peer.site)),
            enabled: peer.enabled,
            ..Server::at(peer.addr)
        });
        Self {
            uuid: format!("pool-{}", uuid.strip_prefix("virtualservice-").unwrap_or(uuid)),
            pool: Arc::new(Pool {
                name: PoolName::from(format!("SP-{}-{}", membership.service.name, vs.name)),
                enabled: true,
                algorithm: LbAlgorithm::LeastConnections,
                hash_key: HashKey::default(),
                servers: servers.collect(),
                named_servers: Vec::new(),
                site_tls: site_tls.clone(),
                monitors: membership.service.monitors.clone(),
                min_health_monitors_up: None,
                persistence: None,
                inline: None,
                min_servers: 1,
                lifecycle: Lifecycle { ramp: CONNECTION_RAMP_DURATION, ..Lifecycle::default() },
                connect_timeout: CONNECT_TIMEOUT,
                read_timeout: membership.profile.home_read_timeout,
                idle_timeout: IDLE_TIMEOUT,
                sources: SourceAddresses::default(),
                patience: Patience::default(),
                connections: Connections::default(),
                retries: Retries::default(),
                enable_ssl,
                // Trailers, which gRPC ends with, cross in HTTP/2 alone.
                enable_http2: enable_ssl,
                sni: None,
                tls: PoolTls::default(),
                host_header: HostHeader::AsSent,
                verify: enable_ssl && gslb.ca_certs.is_some(),
                ca_certs: gslb.ca_certs.clone().filter(|_| enable_ssl),
            }),
        }
    }
}

/// How long a peer that came up takes to its full share.
const CONNECTION_RAMP_DURATION: Duration = Duration::from_secs(600);

/// The pool's `description`.
pub const DESCRIPTION: &str = "Gslb site-persistence proxy pool";

/// Its servers' `description`.
pub const SERVER_DESCRIPTION: &str = "Gslb site-persistence server";

/// Long enough for a lost SYN to be sent again, short enough for a client to wait for its recovery.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Less than the 60 s that a peer keeps an idle connection by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CaCerts;
    use crate::gslb::fixtures::{self, A, B};

    #[test]
    fn it_is_the_pool_that_avi_makes() {
        let (gslb, vs) = (fixtures::gslb(), fixtures::vs(A));
        let sp = SpPool::of(&vs, &fixtures::membership(A), &gslb);
        assert_eq!(sp.uuid, "pool-dc871051-35e8-4bec-bd1f-3c63fb6b7087");
        assert_eq!(sp.pool.name.as_str(), "SP-gs-1-pay@site_A");
        assert_eq!(sp.pool.algorithm, LbAlgorithm::LeastConnections);
        assert_eq!(sp.pool.monitors, gslb.services[0].monitors);
        let servers: Vec<_> = sp.pool.servers.iter().map(|s| (s.addr.to_string(), s.enabled)).collect();
        assert_eq!(servers, [("127.0.0.12:18100".into(), true), ("127.0.0.13:18100".into(), false)]);
        assert!(!sp.pool.enable_ssl && !sp.pool.verify, "one peer is plain");
    }

    #[test]
    fn sites_with_tls_verify_one_another_where_there_is_a_ca() {
        let mut gslb = fixtures::gslb_with(|members| {
            members.remove(0);
        });
        let sp = |gslb: &Gslb| SpPool::of(&fixtures::vs(B), &fixtures::membership_in(B, gslb), gslb).pool;
        assert!(sp(&gslb).enable_ssl && !sp(&gslb).verify);
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a name makes a certificate");
        let ca = openssl::x509::X509::from_der(ca.cert.der()).expect("it is a certificate");
        gslb.ca_certs = CaCerts::new(vec![ca]);
        let pool = sp(&gslb);
        let fingerprint = |ca: &Option<CaCerts>| ca.as_ref().map(CaCerts::fingerprint);
        assert!(pool.verify);
        assert!(fingerprint(&pool.ca_certs).is_some());
        assert_eq!(fingerprint(&pool.ca_certs), fingerprint(&gslb.ca_certs));
    }

    #[test]
    fn a_lonely_member_has_an_empty_pool() {
        let gslb = fixtures::gslb_with(|members| members.truncate(1));
        let sp = SpPool::of(&fixtures::vs(A), &fixtures::membership_in(A, &gslb), &gslb);
        assert!(sp.pool.servers.is_empty() && !sp.pool.enable_ssl);
    }
}
