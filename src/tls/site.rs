//! Mutual authentication of sites. [`PeerVerifier`] is the accepting side, [`PeerTls`] the connecting one.
//!
//! A peer asks for this site by `sp.<site>` in SNI. There, and nowhere else, it is shown the site's certificate and
//! asked for its own: a browser, which asks for an app's name, is never asked. Both sides verify against the
//! authorities of the federated PKI profile and their revocation lists. What a peer's certificate proves is kept as
//! [`TlsFacts::site`](super::TlsFacts::site), which the hop header has to agree with.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use openssl::{
    error::ErrorStack,
    ssl::{NameType, SslRef, SslVerifyMode},
    x509::{
        X509Ref, X509StoreContextRef, X509VerifyResult,
        store::{X509Store, X509StoreBuilder},
    },
};
use parking_lot::Mutex;
use pingora::{protocols::tls::SslDigest, tls::ext, upstreams::peer::HttpPeer, utils::tls::CertKey};

use super::{
    revocation::{self, Revocation},
    trust::Trust,
};
use crate::{
    clock::Clock,
    config::{self, SiteTls},
};

/// Why a peer's certificate is refused although an authority has signed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerRefusal {
    #[error(transparent)]
    Revocation(#[from] Revocation),
    #[error("the certificate names no site of this federation; issue it with the URI {0}CLUSTER_UUID")]
    Stranger(String),
    #[error("the peer showed no certificate that could be looked up")]
    Unseen,
}

/// Asks peers for their certificates.
pub struct PeerVerifier {
    site: Arc<SiteTls>,
    store: X509Store,
    clock: Clock,
    told: Told,
}

/// What was logged: a peer whose certificate is refused comes again and again.
#[derive(Default)]
struct Told(Mutex<HashSet<PeerRefusal>>);

impl Told {
    fn tell(&self, refusal: &PeerRefusal) {
        if self.0.lock().insert(refusal.clone()) {
            tracing::warn!("a peer site is refused: {refusal}");
        }
    }
}

impl PeerVerifier {
    /// A verifier for a listener of this site.
    ///
    /// # Errors
    /// OpenSSL does not take an authority's certificate.
    pub fn new(site: &Arc<SiteTls>, clock: Clock) -> Result<Arc<Self>, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for authority in site.ca_certs.certificates().iter() {
            store.add_cert(authority.clone())?;
        }
        Ok(Arc::new(Self { site: site.clone(), store: store.build(), clock, told: Told::default() }))
    }

    /// Whether the client of a handshake asks for the site and not for an app.
    pub(super) fn is_asked(&self, ssl: &SslRef) -> bool {
        let name = ssl.servername(NameType::HOST_NAME);
        name.is_some_and(|name| name.eq_ignore_ascii_case(&self.site.server_name))
    }

    /// Shows this site's certificate and demands the client's. Such a session is not for resumption, which would
    /// prove nothing anew.
    pub(super) fn ask(self: &Arc<Self>, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let (leaf, issuers) = self.site.chain.split_first().expect("a site's chain is not empty");
        ext::ssl_use_certificate(ssl, leaf)?;
        ext::ssl_use_private_key(ssl, &self.site.key)?;
        issuers.iter().try_for_each(|issuer| ext::ssl_add_chain_cert(ssl, issuer))?;
        ssl.set_num_tickets(0)?;
        for authority in self.site.ca_certs.certificates().iter() {
            ssl.add_client_ca(authority)?;
        }
        ext::ssl_set_verify_cert_store(ssl, &self.store)?;
        let verifier = self.clone();
        let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        ssl.set_verify_callback(mode, move |good, context| good && verifier.accepts(context));
        Ok(())
    }

    /// The cluster that the peer's certificate names, after a full handshake that asked for it.
    pub(super) fn peer(&self, ssl: &SslRef) -> Option<String> {
        if !self.is_asked(ssl) || ssl.session_reused() {
            return None;
        }
        self.cluster(&*ssl.peer_certificate()?)
    }

    /// OpenSSL asks about each certificate, the peer's own last; by then it has found the others good.
    fn accepts(&self, context: &mut X509StoreContextRef) -> bool {
        if context.error_depth() > 0 {
            return true;
        }
        let Err(refusal) = self.check(context) else { return true };
        self.told.tell(&refusal);
        context.set_error(openssls(&refusal));
        false
    }

    fn check(&self, context: &X509StoreContextRef) -> Result<(), PeerRefusal> {
        let chain = context.chain().filter(|chain| !chain.is_empty()).ok_or(PeerRefusal::Unseen)?;
        revocation::check(chain, self.site.ca_certs.crls(), self.clock.wall())?;
        let named = self.cluster(&chain[0]);
        named.map(|_| ()).ok_or_else(|| PeerRefusal::Stranger(self.prefix()))
    }

    fn cluster(&self, certificate: &X509Ref) -> Option<String> {
        let (names, prefix) = (certificate.subject_alt_names()?, self.prefix());
        let cluster = names.iter().find_map(|name| name.uri()?.strip_prefix(&prefix));
        cluster.filter(|cluster| !cluster.is_empty()).map(str::to_owned)
    }

    fn prefix(&self) -> String {
        SiteTls::uri(&self.site.federation_id, "")
    }
}

/// Connects to peers: what they are shown, and how what they show is verified.
pub struct PeerTls {
    trust: Trust,
    own: Option<OwnSide>,
    told: Told,
}

struct OwnSide {
    certificate: Arc<CertKey>,
    site: Arc<SiteTls>,
}

impl PeerTls {
    /// Of a pool with authorities of its own.
    pub fn of(pool: &config::Pool) -> Option<Self> {
        let own = pool.site_tls.as_ref().map(|site| OwnSide {
            certificate: Arc::new(CertKey::new(site.chain.clone(), site.key.clone())),
            site: site.clone(),
        });
        Some(Self { trust: Trust::new(pool.ca_certs.clone()?), own, told: Told::default() })
    }

    /// Whether this site has a certificate to show.
    pub fn is_mutual(&self) -> bool {
        self.own.is_some()
    }

    /// Describes a connection to a server of the pool. Without a certificate of our own, peers are taken whatever
    /// their names are: they show the certificates of their apps then.
    pub fn apply(&self, peer: &mut HttpPeer, server: &config::Server) {
        self.trust.apply(peer);
        peer.options.verify_cert = true;
        peer.options.verify_hostname = false;
        if let (Some(own), Some(name)) = (&self.own, &server.hostname) {
            peer.sni.clone_from(name);
            peer.client_cert_key = Some(own.certificate.clone());
            peer.options.verify_hostname = own.site.required;
            peer.group_key ^= own.site.fingerprint();
        }
    }

    /// Whether the certificates of a new connection are not revoked. OpenSSL and Pingora have found them good.
    ///
    /// # Errors
    /// One is, or it cannot be known.
    pub fn check(&self, digest: Option<&SslDigest>, now: SystemTime) -> Result<(), PeerRefusal> {
        self.trust.check(digest, now).inspect_err(|refusal| self.told.tell(refusal))
    }
}

/// The reason as OpenSSL knows it.
fn openssls(refusal: &PeerRefusal) -> X509VerifyResult {
    match refusal {
        PeerRefusal::Revocation(revocation) => revocation.openssls(),
        PeerRefusal::Stranger(_) | PeerRefusal::Unseen => X509VerifyResult::APPLICATION_VERIFICATION,
    }
}

#[cfg(test)]
mod tests;
