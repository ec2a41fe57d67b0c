//! TLS on an accepted connection: one [`Acceptor`] per listener.
//!
//! Curves are Mozilla's "intermediate", and so are cipher suites unless the profile has its own; versions, tickets and
//! HTTP/2 are the profile's. The
//! certificate is chosen in the handshake, so certificates change without a new acceptor. A resumed session proves
//! itself with its keys and is shown no certificate.

use std::{any::Any, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use openssl::{
    error::ErrorStack,
    ssl::{
        AlpnError, ClientHelloResponse, NameType, SslAcceptor, SslMethod, SslMode, SslOptions, SslRef,
        SslSessionCacheMode, SslVersion, select_next_proto,
    },
};
use pingora::{
    listeners::TlsAccept,
    protocols::{
        IO,
        tls::{SslStream, server::handshake_with_callback},
    },
    tls::ext,
};

use super::{
    binding,
    certificates::CertificateStore,
    client_certificate::ClientVerifiers,
    handshake::HandshakeError,
    identity::{self, TlsFacts},
    site::PeerVerifier,
    tickets::{self, TicketKeys},
};
use crate::config::{SslProfile, TlsVersion};

/// Makes TLS streams of accepted ones.
pub struct Acceptor {
    ssl: SslAcceptor,
    certificates: Certificates,
}

impl Acceptor {
    /// An acceptor for a profile. Acceptors with the same `tickets` resume each other's sessions, with the identity
    /// that they have; sessions without tickets are remembered by the acceptor itself, and forgotten when
    /// the server ends a connection without shutting TLS down, as after a reset.
    pub fn new(
        profile: &SslProfile,
        certificates: CertificateStore,
        tickets: &TicketKeys,
    ) -> Result<Self, AcceptorError> {
        let clients = Arc::new(ArcSwap::from_pointee(ClientVerifiers::default()));
        let ssl = build(profile, tickets, clients.clone())
            .map_err(|source| AcceptorError { profile: profile.name.clone(), source })?;
        let certificates = Certificates {
            shown: ArcSwap::from_pointee(certificates),
            peers: ArcSwapOption::empty(),
            clients,
        };
        Ok(Self { ssl, certificates })
    }

    /// Shows other certificates from the next handshake on.
    pub fn set_certificates(&self, certificates: CertificateStore) {
        self.certificates.shown.store(Arc::new(certificates));
    }

    /// Asks peer sites for their certificates from the next handshake on, or asks nobody. Sessions stay: a resumed
    /// one proves no site.
    pub fn verify_peers(&self, peers: Option<Arc<PeerVerifier>>) {
        self.certificates.peers.store(peers);
    }

    /// Asks clients for their certificates from the next handshake on. Sessions that were begun otherwise are not
    /// resumed.
    pub fn verify_clients(&self, clients: ClientVerifiers) {
        self.certificates.clients.store(Arc::new(clients));
    }

    /// Shakes hands. The stream's digest has the [`TlsFacts`] of the connection.
    pub async fn accept<S: IO>(&self, stream: S) -> Result<SslStream<S>, HandshakeError> {
        Ok(handshake_with_callback(&self.ssl, stream, &self.certificates).await?)
    }
}

struct Certificates {
    shown: ArcSwap<CertificateStore>,
    peers: ArcSwapOption<PeerVerifier>,
    clients: Arc<ArcSwap<ClientVerifiers>>,
}

#[async_trait]
impl TlsAccept for Certificates {
    async fn certificate_callback(&self, ssl: &mut SslRef) {
        // Without a certificate the handshake ends with "no shared cipher"; it is not for us to end it here.
        if let Err(error) = self.show(ssl).and_then(|()| identity::name_session(ssl)) {
            tracing::error!(%error, "a certificate cannot be shown");
        }
    }

    async fn handshake_complete_callback(&self, ssl: &SslRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let facts = TlsFacts::read(ssl);
        let peers = self.peers.load();
        if let Some(peers) = peers.as_ref().filter(|peers| peers.is_asked(ssl)) {
            return Some(Arc::new(TlsFacts { site: peers.peer(ssl), ..facts }));
        }
        let clients = self.clients.load();
        let verifier = clients.find(facts.sni.as_deref());
        let client_certificate = verifier.and_then(|verifier| verifier.certificate(ssl));
        Some(Arc::new(TlsFacts { client_certificate, ..facts }))
    }
}

impl Certificates {
    fn show(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        if let Some(peers) = self.peers.load().as_ref().filter(|peers| peers.is_asked(ssl)) {
            return peers.ask(ssl);
        }
        if let Some(verifier) = self.clients.load().find(ssl.servername(NameType::HOST_NAME)) {
            verifier.ask(ssl)?;
        }
        let certificates = self.shown.load();
        let shown = certificates.find(ssl.servername(NameType::HOST_NAME));
        ext::ssl_use_certificate(ssl, &shown.leaf)?;
        ext::ssl_use_private_key(ssl, &shown.key)?;
        shown.intermediates.iter().try_for_each(|issuer| ext::ssl_add_chain_cert(ssl, issuer))
    }
}

fn build(
    profile: &SslProfile,
    tickets: &TicketKeys,
    clients: Arc<ArcSwap<ClientVerifiers>>,
) -> Result<SslAcceptor, ErrorStack> {
    let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    context.set_min_proto_version(Some(version(profile.min_version)))?;
    context.set_max_proto_version(Some(version(profile.max_version)))?;
    if let Some(ciphers) = &profile.accepted_ciphers {
        context.set_cipher_list(ciphers)?;
    }
    if let Some(suites) = &profile.ciphersuites {
        context.set_ciphersuites(suites)?;
    }
    context.set_options(SslOptions::NO_RENEGOTIATION);
    // An idle connection holds no record buffers, a busy one reads a record with one call.
    context.set_mode(SslMode::RELEASE_BUFFERS);
    context.set_read_ahead(true);
    // Without a context, resumption fails the handshake as soon as client certificates are asked for.
    context.set_session_id_context(binding::FREE)?;
    // Before a session can be resumed: only one that was begun under what the client's name asks for is.
    context.set_client_hello_callback(move |ssl, _| {
        if let Some(verifier) = clients.load().find(binding::hello_name(ssl)) {
            binding::bind(ssl, &binding::context(Some(verifier.fingerprint())))?;
        }
        Ok(ClientHelloResponse::SUCCESS)
    });
    context.set_session_cache_mode(SslSessionCacheMode::SERVER);
    if profile.session_tickets {
        tickets::use_keys(&mut context, tickets)?;
    } else {
        context.set_options(SslOptions::NO_TICKET);
    }
    identity::name_sessions_in_tickets(&mut context)?;
    let protocols: &[u8] = if profile.http2 { b"\x02h2\x08http/1.1" } else { b"\x08http/1.1" };
    context.set_alpn_select_callback(move |_, offered| {
        select_next_proto(protocols, offered).ok_or(AlpnError::NOACK)
    });
    Ok(context.build())
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls12 => SslVersion::TLS1_2,
        TlsVersion::Tls13 => SslVersion::TLS1_3,
    }
}

/// An acceptor that OpenSSL does not make.
#[derive(Debug, thiserror::Error)]
#[error("ssl profile `{profile}`: openssl refuses its settings: {source}")]
pub struct AcceptorError {
    profile: String,
    source: ErrorStack,
}

#[cfg(test)]
mod tests;
