//! TLS towards servers that homing itself connects to: clone members.
//!
//! A [`Connector`] is one OpenSSL context for a pool: what it trusts and which protocols it offers. A [`Server`] is
//! one of the pool's servers, with the name that its certificate must have and its last session, so that every
//! handshake but the first is a short one. Envoy calls this the upstream TLS context, BIG-IP the server SSL profile.
//! Connections for the app's requests are Pingora's.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use openssl::{
    error::ErrorStack,
    ssl::{self, SslConnector, SslMethod, SslSession, SslVerifyMode},
    x509::{X509VerifyResult, store::X509StoreBuilder},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use super::revocation::{self, Revocation};
use crate::config::{self, CaCerts, OwnCertificate};

/// The context of a pool's connections.
#[derive(Clone)]
pub struct Connector {
    ssl: SslConnector,
    verify_hostname: bool,
    sni: bool,
    /// The authorities, where they have said what they have taken back.
    revoked: Option<CaCerts>,
}

/// A server, and how the last handshake with it may be shortened.
pub struct Server {
    connector: Connector,
    name: String,
    /// Made with `connector`'s context and no other.
    session: Arc<Mutex<Option<SslSession>>>,
}

/// A connection. Dropped, it says so to the server, as far as that takes no waiting.
pub struct ServerStream {
    stream: SslStream<TcpStream>,
    session: Arc<Mutex<Option<SslSession>>>,
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("certificate refused: {0}")]
    Certificate(X509VerifyResult),
    #[error("certificate refused: {0}")]
    Revoked(#[from] Revocation),
    #[error("TLS handshake failed: {0}")]
    Handshake(#[from] ssl::Error),
    #[error("TLS could not be begun: {0}")]
    Setup(#[from] ErrorStack),
}

impl Connector {
    /// Trusts as `pool` says. `alpn` is what is offered, in the form of the extension; empty: nothing.
    pub fn new(pool: &config::Pool, alpn: &[u8]) -> Result<Self, ErrorStack> {
        let mut context = SslConnector::builder(SslMethod::tls_client())?;
        let trusted = pool.tls.ca_certs.as_ref().or(pool.ca_certs.as_ref());
        if let Some(ca_certs) = trusted {
            let mut store = X509StoreBuilder::new()?;
            ca_certs.certificates().iter().try_for_each(|ca| store.add_cert(ca.clone()))?;
            context.set_cert_store(store.build());
        }
        if !pool.verify {
            context.set_verify(SslVerifyMode::NONE);
        }
        if let Some(OwnCertificate { chain, key, .. }) = pool.tls.certificate.as_deref() {
            let (leaf, issuers) = chain.split_first().expect("a client certificate's chain is not empty");
            context.set_certificate(leaf)?;
            context.set_private_key(key)?;
            issuers.iter().try_for_each(|issuer| context.add_extra_chain_cert(issuer.clone()))?;
        }
        if !alpn.is_empty() {
            context.set_alpn_protos(alpn)?;
        }
        Ok(Self {
            ssl: context.build(),
            // As for the app's connections: the federation's authorities sign nobody else's certificates.
            verify_hostname: pool.verify && pool.tls.host_check && pool.ca_certs.is_none(),
            sni: pool.tls.sni,
            revoked: trusted.filter(|trusted| pool.verify && !trusted.crls().is_empty()).cloned(),
        })
    }

    /// The same, with servers that may have any name if `names_matter` is not so.
    pub(super) fn verifying_names(self, names_matter: bool) -> Self {
        Self { verify_hostname: self.verify_hostname && names_matter, ..self }
    }

    /// A server, by the name that its certificate has to have: also sent as SNI, unless it is an address.
    pub fn server(&self, name: impl Into<String>) -> Server {
        Server { connector: self.clone(), name: name.into(), session: Arc::default() }
    }
}

impl Server {
    /// Shakes hands.
    pub async fn connect(&self, stream: TcpStream) -> Result<ServerStream, ConnectError> {
        let Connector { ssl, verify_hostname, sni, revoked } = &self.connector;
        let settings = ssl.configure()?.verify_hostname(*verify_hostname).use_server_name_indication(*sni);
        let mut ssl = settings.into_ssl(&self.name)?;
        // A resumed session would bring no certificates to look up.
        if let Some(session) = self.session.lock().as_deref().filter(|_| revoked.is_none()) {
            // SAFETY: the session was made by a connection of this server, which has the context of `ssl`.
            unsafe { ssl.set_session(session)? };
        }
        let mut stream = SslStream::new(ssl, stream)?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            let verified = stream.ssl().verify_result();
            return Err(match verified {
                X509VerifyResult::OK => ConnectError::Handshake(error),
                refused => ConnectError::Certificate(refused),
            });
        }
        if let Some(authorities) = revoked {
            let chain = stream.ssl().verified_chain().into_iter().flatten();
            revocation::check(chain, authorities.crls(), SystemTime::now())?;
        }
        Ok(ServerStream { stream, session: self.session.clone() })
    }
}

impl ServerStream {
    /// Whether this protocol was agreed on by ALPN.
    pub fn speaks(&self, protocol: &[u8]) -> bool {
        self.stream.ssl().selected_alpn_protocol() == Some(protocol)
    }
}

impl Drop for ServerStream {
    fn drop(&mut self) {
        // TLS 1.3 brings what resumes a session only after the handshake: by now it has come.
        let session = self.stream.ssl().session().map(ToOwned::to_owned);
        // Without this OpenSSL takes the session for a bad one and does not resume it.
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        if session.is_some() {
            *self.session.lock() = session;
        }
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
