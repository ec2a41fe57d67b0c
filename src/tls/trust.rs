//! By whom servers are vouched for, and by what homing is known to them, on connections that Pingora makes.

use std::{sync::Arc, time::SystemTime};

use openssl::x509::X509;
use pingora::{
    protocols::tls::{HandshakeCompleteHook, SslDigest},
    upstreams::peer::HttpPeer,
    utils::tls::CertKey,
};

use super::{revocation, site::PeerRefusal};
use crate::config::{self, CaCerts};

/// Authorities that are trusted in place of the system's, and what they have revoked.
pub(super) struct Trust {
    ca_certs: CaCerts,
    keep_chain: HandshakeCompleteHook,
}

/// The chain by which OpenSSL verified a server; kept with the connection.
struct Chain(Vec<X509>);

impl Trust {
    pub fn new(ca_certs: CaCerts) -> Self {
        let keep_chain: HandshakeCompleteHook = Arc::new(|ssl| {
            let chain = ssl.verified_chain()?.iter().map(ToOwned::to_owned).collect();
            Some(Arc::new(Chain(chain)))
        });
        Self { ca_certs, keep_chain }
    }

    pub fn apply(&self, peer: &mut HttpPeer) {
        peer.options.ca = Some(self.ca_certs.certificates().clone());
        // Pingora keeps connections apart by this, and not by `ca`.
        peer.group_key ^= self.ca_certs.fingerprint();
        if !self.ca_certs.crls().is_empty() {
            peer.options.upstream_tls_handshake_complete_hook = Some(self.keep_chain.clone());
        }
    }

    /// Whether the certificates of a new connection are not revoked. OpenSSL and Pingora have found them good.
    ///
    /// # Errors
    /// One is, or it cannot be known.
    pub fn check(&self, digest: Option<&SslDigest>, now: SystemTime) -> Result<(), PeerRefusal> {
        if self.ca_certs.crls().is_empty() {
            return Ok(());
        }
        let chain = digest.and_then(|digest| digest.extension.get::<Chain>());
        let Chain(chain) = chain.ok_or(PeerRefusal::Unseen)?;
        Ok(revocation::check(chain.iter().map(|it| &**it), self.ca_certs.crls(), now)?)
    }
}

/// What a pool of app servers says about certificates.
pub struct ServerTls {
    trust: Option<Trust>,
    certificate: Option<(Arc<CertKey>, u64)>,
    host_check: bool,
}

impl ServerTls {
    /// `None`: it says nothing.
    pub fn of(pool: &config::Pool) -> Option<Self> {
        let tls = Some(&pool.tls).filter(|tls| pool.enable_ssl && tls.has_proofs())?;
        let certificate = tls
            .certificate
            .as_ref()
            .map(|it| (Arc::new(CertKey::new(it.chain.clone(), it.key.clone())), it.fingerprint()));
        let trust = tls.ca_certs.clone().map(Trust::new);
        Some(Self { trust, certificate, host_check: tls.host_check })
    }

    /// Describes a connection to a server of the pool.
    pub fn apply(&self, peer: &mut HttpPeer) {
        if let Some(trust) = &self.trust {
            trust.apply(peer);
        }
        peer.options.verify_hostname &= self.host_check;
        if let Some((certificate, fingerprint)) = &self.certificate {
            peer.client_cert_key = Some(certificate.clone());
            peer.group_key ^= fingerprint;
        }
    }

    /// Whether the certificates of a new connection are not revoked.
    ///
    /// # Errors
    /// A certificate is revoked, or it cannot be known.
    pub fn check(&self, digest: Option<&SslDigest>, now: SystemTime) -> Result<(), PeerRefusal> {
        self.trust.as_ref().map_or(Ok(()), |trust| trust.check(digest, now))
    }
}
