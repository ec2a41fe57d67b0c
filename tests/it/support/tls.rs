//! A TLS client that keeps its sessions and offers them again, as browsers do.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use openssl::{
    pkey::PKey,
    ssl::{SslConnector, SslMethod, SslOptions, SslSession, SslSessionCacheMode, SslVerifyMode, SslVersion},
    x509::X509,
};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::{certs::Cert, client::Connection, soon};

/// What a client speaks.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub version: SslVersion,
    /// Takes and offers session tickets; without them TLS 1.2 resumes by session id.
    pub tickets: bool,
    /// Offers HTTP/2 by ALPN, and nothing else; without it HTTP/1.1 alone.
    pub http2: bool,
}

impl Profile {
    pub const TLS13: Self = Self { version: SslVersion::TLS1_3, tickets: true, http2: false };
    pub const TLS12: Self = Self { version: SslVersion::TLS1_2, tickets: true, http2: false };
}

/// A client. It trusts every certificate: who answers is asked of the certificate itself.
pub struct TlsClient {
    connector: SslConnector,
    /// DER: OpenSSL marks a session object as not resumable when the connection that brought it ends abruptly.
    sessions: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl TlsClient {
    pub fn new(profile: Profile) -> Self {
        Self::with_cert(profile, None)
    }

    /// One that shows a certificate where it is asked for one.
    pub fn with_cert(profile: Profile, cert: Option<&Cert>) -> Self {
        let mut builder = SslConnector::builder(SslMethod::tls()).expect("OpenSSL starts");
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_min_proto_version(Some(profile.version)).expect("the version is known");
        builder.set_max_proto_version(Some(profile.version)).expect("the version is known");
        if let Some(Cert { certificate, key }) = cert {
            let certificate = X509::from_pem(certificate.as_bytes()).expect("certificates of tests are PEM");
            let key = PKey::private_key_from_pem(key.as_bytes()).expect("keys of tests are PEM");
            builder.set_certificate(&certificate).expect("OpenSSL takes a certificate");
            builder.set_private_key(&key).expect("OpenSSL takes its key");
        }
        if !profile.tickets {
            builder.set_options(SslOptions::NO_TICKET);
        }
        let alpn: &[u8] = if profile.http2 { b"\x02h2" } else { b"\x08http/1.1" };
        builder.set_alpn_protos(alpn).expect("the protocol list is well formed");
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let kept = sessions.clone();
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |_, session| kept.lock().extend(session.to_der().ok()));
        Self { connector: builder.build(), sessions }
    }

    /// A full handshake.
    pub async fn connect(&self, to: SocketAddr, sni: &str) -> SslStream<TcpStream> {
        self.handshake(to, sni, None).await.unwrap_or_else(|error| panic!("no TLS with {to}: {error}"))
    }

    /// A full handshake on a connection that is there already.
    pub async fn over(&self, tcp: TcpStream, sni: &str) -> SslStream<TcpStream> {
        self.shake_hands(tcp, sni, None).await.unwrap_or_else(|error| panic!("no TLS: {error}"))
    }

    /// A handshake that resumes the newest session; fails the test when the server does not resume it.
    pub async fn resume(&self, to: SocketAddr, sni: &str) -> SslStream<TcpStream> {
        let session = self.sessions.lock().last().cloned().expect("the server gave a session to resume");
        let session = SslSession::from_der(&session).expect("OpenSSL reads what it wrote");
        let stream = self.handshake(to, sni, Some(session)).await;
        let stream = stream.unwrap_or_else(|error| panic!("no TLS with {to}: {error}"));
        assert!(stream.ssl().session_reused(), "the server resumes the session");
        stream
    }

    /// A full handshake; `None`: it fails.
    pub async fn try_connect(&self, to: SocketAddr, sni: &str) -> Option<SslStream<TcpStream>> {
        self.handshake(to, sni, None).await.ok()
    }

    /// A handshake that offers the newest session, whether it is resumed or not; `None`: it fails.
    pub async fn try_resume(&self, to: SocketAddr, sni: &str) -> Option<SslStream<TcpStream>> {
        let session = self.sessions.lock().last().cloned().expect("the server gave a session to resume");
        let session = SslSession::from_der(&session).expect("OpenSSL reads what it wrote");
        self.handshake(to, sni, Some(session)).await.ok()
    }

    /// Whether a server gave it a session to resume.
    pub fn has_session(&self) -> bool {
        !self.sessions.lock().is_empty()
    }

    /// Whether a handshake succeeds.
    pub async fn can_connect(&self, to: SocketAddr, sni: &str) -> bool {
        self.handshake(to, sni, None).await.is_ok()
    }

    async fn handshake(
        &self,
        to: SocketAddr,
        sni: &str,
        session: Option<SslSession>,
    ) -> Result<SslStream<TcpStream>, openssl::ssl::Error> {
        let tcp = soon("connect", TcpStream::connect(to)).await.expect("the listener accepts");
        self.shake_hands(tcp, sni, session).await
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        sni: &str,
        session: Option<SslSession>,
    ) -> Result<SslStream<TcpStream>, openssl::ssl::Error> {
        let configuration = self.connector.configure().expect("OpenSSL makes a connection");
        let mut ssl = configuration.verify_hostname(false).into_ssl(sni).expect("OpenSSL takes a name");
        if let Some(session) = session {
            // SAFETY: the session was made for this very connector's SSL_CTX, by one of its connections.
            unsafe { ssl.set_session(&session) }.expect("OpenSSL takes a session");
        }
        let mut stream = SslStream::new(ssl, tcp).expect("OpenSSL takes a stream");
        soon("a TLS handshake", Pin::new(&mut stream).connect()).await?;
        Ok(stream)
    }
}

/// An HTTP/1.1 connection over a full handshake for `a.com`.
pub async fn open(to: SocketAddr) -> Connection {
    Connection::over(TlsClient::new(Profile::TLS13).connect(to, "a.com").await)
}

/// The first DNS name of the certificate that the server showed.
pub fn certificate_name(stream: &SslStream<TcpStream>) -> String {
    let certificate = stream.ssl().peer_certificate().expect("a server shows a certificate");
    let names = certificate.subject_alt_names().expect("the tests' certificates have names");
    names.iter().find_map(|name| name.dnsname()).expect("the tests' certificates have DNS names").to_owned()
}
