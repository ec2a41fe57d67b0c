//! Real handshakes with real OpenSSL clients over loopback.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use openssl::ssl::{ShutdownState, SslConnector, SslSession, SslVerifyMode};
use pingora::protocols::l4::stream::Stream as L4Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;
use crate::site_cookie::Secret;
use crate::tls::{CertifiedKey, HandshakeReason, certificates::tests::self_signed};

fn profile(version: TlsVersion, session_tickets: bool, http2: bool) -> SslProfile {
    SslProfile { min_version: version, max_version: version, session_tickets, http2, ..SslProfile::default() }
}

fn store(dns: &[&str]) -> CertificateStore {
    let directory = tempfile::tempdir().unwrap();
    let files = self_signed(directory.path(), dns[0], dns);
    CertificateStore::new(Arc::new(CertifiedKey::load(&files).unwrap()))
}

/// Accepts with `acceptor` and passes on what each handshake settled.
struct Server {
    addr: SocketAddr,
    facts: mpsc::UnboundedReceiver<Result<TlsFacts, HandshakeError>>,
}

impl Server {
    async fn start(acceptor: Arc<Acceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, facts) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let settled = match acceptor.accept(L4Stream::from(socket)).await {
                    Ok(mut stream) => {
                        stream.write_all(b"!").await.unwrap();
                        stream.flush().await.unwrap();
                        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                        AsyncWriteExt::shutdown(&mut stream).await.unwrap();
                        let digest = stream.ssl_digest().unwrap();
                        Ok(TlsFacts::of(&digest).unwrap().clone())
                    }
                    Err(error) => Err(error),
                };
                sender.send(settled).unwrap();
            }
        });
        Self { addr, facts }
    }

    /// Connects and returns what both sides saw.
    async fn meet(&mut self, client: &Client, session: Option<SslSession>) -> (TlsFacts, Seen) {
        let (client, addr) = (client.clone(), self.addr);
        let seen = tokio::task::spawn_blocking(move || client.connect(addr, session)).await.unwrap();
        (self.facts.recv().await.unwrap().unwrap(), seen)
    }
}

#[derive(Clone)]
struct Client {
    tickets: bool,
    alpn: &'static [u8],
    sni: &'static str,
    groups: Option<&'static str>,
    /// Whether the client ends TLS before it closes.
    goodbye: bool,
}

const CLIENT: Client = Client { tickets: true, alpn: b"", sni: "a.com", groups: None, goodbye: true };

struct Seen {
    session: SslSession,
    certificate: Option<String>,
    alpn: Option<Vec<u8>>,
}

impl Client {
    fn connect(&self, addr: SocketAddr, session: Option<SslSession>) -> Seen {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        // A session in a context's own cache would end with the context.
        connector.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        if !self.tickets {
            connector.set_options(SslOptions::NO_TICKET);
        }
        if !self.alpn.is_empty() {
            connector.set_alpn_protos(self.alpn).unwrap();
        }
        if let Some(groups) = self.groups {
            connector.set_groups_list(groups).unwrap();
        }
        let newest = Arc::new(Mutex::new(None));
        let keep = newest.clone();
        connector.set_new_session_callback(move |_, session| *keep.lock().unwrap() = Some(session));
        let mut configuration = connector.build().configure().unwrap().verify_hostname(false);
        if let Some(session) = session {
            // SAFETY: a session is of no context in particular; client contexts of this test are all alike.
            unsafe { configuration.set_session(&session).unwrap() };
        }
        let socket = TcpStream::connect(addr).unwrap();
        let mut stream = configuration.connect(self.sni, socket).unwrap();
        // TLS 1.3 tickets come before the server's first byte.
        stream.read_exact(&mut [0]).unwrap();
        if self.goodbye {
            stream.shutdown().unwrap();
        } else {
            // As if it had: OpenSSL spoils the session of a client that forgets it.
            stream.set_shutdown(ShutdownState::SENT);
        }
        let ssl = stream.ssl();
        let names = ssl.peer_certificate().and_then(|certificate| certificate.subject_alt_names());
        let session = newest.lock().unwrap().take();
        Seen {
            session: session.unwrap_or_else(|| ssl.session().unwrap().to_owned()),
            certificate: names.map(|names| names[0].dnsname().unwrap().to_owned()),
            alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
        }
    }
}

#[tokio::test]
async fn a_session_has_one_identity_however_it_is_resumed() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for (server_tickets, client_tickets) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = format!("{version:?}, tickets: server {server_tickets}, client {client_tickets}");
            let keys = TicketKeys::random().unwrap();
            let profile = profile(version, server_tickets, true);
            let acceptor = Acceptor::new(&profile, store(&["a.com"]), &keys).unwrap();
            let mut server = Server::start(Arc::new(acceptor)).await;
            let client = Client { tickets: client_tickets, ..CLIENT };

            let (first, seen) = server.meet(&client, None).await;
            assert!(!first.resumed, "{case}");
            let rude = Client { goodbye: false, ..client.clone() };
            let (second, seen) = server.meet(&rude, Some(seen.session)).await;
            let (third, _) = server.meet(&client, Some(seen.session)).await;
            for resumed in [&second, &third] {
                assert!(resumed.resumed, "{case}");
                assert_eq!(resumed.session_id, first.session_id, "{case}");
                assert_eq!(resumed.sni.as_deref(), Some("a.com"), "{case}");
                assert_eq!(resumed.version, first.version, "{case}");
            }
            let (other, _) = server.meet(&client, None).await;
            assert_ne!(other.session_id, first.session_id, "a full handshake is a new session: {case}");
        }
    }
}

#[tokio::test]
async fn a_session_that_began_with_a_retry_has_one_identity() {
    let keys = TicketKeys::random().unwrap();
    let acceptor = Acceptor::new(&profile(TlsVersion::Tls13, true, true), store(&["a.com"]), &keys).unwrap();
    let mut server = Server::start(Arc::new(acceptor)).await;
    // The client's first guess is a group that the server does not have.
    let client = Client { groups: Some("P-521:P-256"), ..CLIENT };
    let (first, seen) = server.meet(&client, None).await;
    let (second, _) = server.meet(&client, Some(seen.session)).await;
    assert!(second.resumed);
    assert_eq!(second.session_id, first.session_id);
    assert_eq!(second.sni.as_deref(), Some("a.com"));
}

#[tokio::test]
async fn listeners_that_share_keys_share_sessions() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (keys, others) = (TicketKeys::random().unwrap(), TicketKeys::random().unwrap());
        let start = async |keys| {
            let acceptor = Acceptor::new(&profile(version, true, true), store(&["a.com"]), keys).unwrap();
            Server::start(Arc::new(acceptor)).await
        };
        let mut servers = [start(&keys).await, start(&keys).await, start(&others).await];
        let (first, seen) = servers[0].meet(&CLIENT, None).await;
        let (second, seen) = servers[1].meet(&CLIENT, Some(seen.session)).await;
        assert!(second.resumed, "{version:?}");
        assert_eq!(second.session_id, first.session_id, "{version:?}");
        let (stranger, _) = servers[2].meet(&CLIENT, Some(seen.session)).await;
        assert!(!stranger.resumed, "{version:?}");
        assert_ne!(stranger.session_id, first.session_id, "{version:?}");
    }
}

#[tokio::test]
async fn a_change_of_keys_ends_no_session() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (keys, begun) = (TicketKeys::random().unwrap(), Instant::now());
        let acceptor = Acceptor::new(&profile(version, true, true), store(&["a.com"]), &keys).unwrap();
        let mut server = Server::start(Arc::new(acceptor)).await;
        let (first, old) = server.meet(&CLIENT, None).await;
        keys.rotate(begun).unwrap();
        let (second, renewed) = server.meet(&CLIENT, Some(old.session.clone())).await;
        assert!(second.resumed && second.session_id == first.session_id, "{version:?}");

        // So long after that only what was sealed since opens.
        keys.rotate(begun + Duration::from_secs(3 * 3600)).unwrap();
        let (third, _) = server.meet(&CLIENT, Some(renewed.session)).await;
        assert!(third.resumed && third.session_id == first.session_id, "{version:?}: it was sealed anew");
        let (stranger, _) = server.meet(&CLIENT, Some(old.session)).await;
        assert!(!stranger.resumed, "{version:?}");
    }
}

#[tokio::test]
async fn nodes_with_the_same_secrets_resume_each_others_sessions() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let start = async || {
            let keys = TicketKeys::random().unwrap();
            keys.follow(&[Secret::new([7; 32])], Instant::now()).unwrap();
            let acceptor = Acceptor::new(&profile(version, true, true), store(&["a.com"]), &keys).unwrap();
            Server::start(Arc::new(acceptor)).await
        };
        let mut nodes = [start().await, start().await];
        let (first, seen) = nodes[0].meet(&CLIENT, None).await;
        let (second, _) = nodes[1].meet(&CLIENT, Some(seen.session)).await;
        assert!(second.resumed && second.session_id == first.session_id, "{version:?}");
    }
}

#[tokio::test]
async fn the_protocol_is_chosen_by_profile_and_client() {
    for (http2, offered, chosen) in [
        (true, &b"\x08http/1.1\x02h2"[..], Some("h2")),
        (true, b"\x08http/1.1", Some("http/1.1")),
        (false, b"\x02h2\x08http/1.1", Some("http/1.1")),
        (true, b"\x03foo", None),
        (true, b"", None),
    ] {
        let keys = TicketKeys::random().unwrap();
        let profile = profile(TlsVersion::Tls13, true, http2);
        let acceptor = Acceptor::new(&profile, store(&["a.com"]), &keys).unwrap();
        let mut server = Server::start(Arc::new(acceptor)).await;
        let (facts, seen) = server.meet(&Client { alpn: offered, ..CLIENT }, None).await;
        assert_eq!(facts.alpn.as_deref(), chosen, "{offered:?}");
        assert_eq!(seen.alpn.as_deref(), chosen.map(str::as_bytes), "{offered:?}");
        assert_eq!(facts.version, "TLSv1.3");
        assert!(facts.cipher.starts_with("TLS_"), "{}", facts.cipher);
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_change_while_running() {
    let directory = tempfile::tempdir().unwrap();
    let mut certificates = store(&["a.com"]);
    let files = self_signed(directory.path(), "b", &["b.com"]);
    certificates.add(Arc::new(CertifiedKey::load(&files).unwrap()), &["*.shop.com".into()]);
    let keys = TicketKeys::random().unwrap();
    let acceptor = Acceptor::new(&profile(TlsVersion::Tls12, true, true), certificates, &keys).unwrap();
    let acceptor = Arc::new(acceptor);
    let mut server = Server::start(acceptor.clone()).await;
    for (sni, shown) in [("b.com", "b.com"), ("x.shop.com", "b.com"), ("other.com", "a.com")] {
        let (facts, seen) = server.meet(&Client { sni, ..CLIENT }, None).await;
        assert_eq!(seen.certificate.as_deref(), Some(shown), "{sni}");
        assert_eq!(facts.sni.as_deref(), Some(sni));
    }
    acceptor.set_certificates(store(&["renewed.com"]));
    let (_, seen) = server.meet(&CLIENT, None).await;
    assert_eq!(seen.certificate.as_deref(), Some("renewed.com"));
}

#[tokio::test]
async fn what_is_not_tls_is_refused_in_words() {
    let keys = TicketKeys::random().unwrap();
    let acceptor = Acceptor::new(&profile(TlsVersion::Tls13, true, true), store(&["a.com"]), &keys).unwrap();
    let mut server = Server::start(Arc::new(acceptor)).await;
    let mut client = TcpStream::connect(server.addr).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let error = server.facts.recv().await.unwrap().unwrap_err().to_string();
    assert!(error.contains("http request"), "{error}");
}

#[tokio::test]
async fn a_failed_handshake_tells_who_or_what_ended_it() {
    let acceptor = |version| {
        Acceptor::new(&profile(version, true, false), store(&["a.com"]), &TicketKeys::random().unwrap())
            .unwrap()
    };
    let says = |bytes: &'static [u8]| move |addr| TcpStream::connect(addr).unwrap().write_all(bytes).unwrap();
    let shakes = |set: fn(&mut openssl::ssl::SslConnectorBuilder)| {
        move |addr| {
            let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
            set(&mut connector);
            let _ = connector.build().connect("a.com", TcpStream::connect(addr).unwrap());
        }
    };
    type Client = Box<dyn FnOnce(SocketAddr) + Send>;
    let cases: [(TlsVersion, Client, HandshakeReason); 5] = [
        (TlsVersion::Tls13, Box::new(says(b"")), HandshakeReason::Closed),
        (TlsVersion::Tls13, Box::new(says(b"GET / HTTP/1.1\r\n\r\n")), HandshakeReason::NotTls),
        (
            TlsVersion::Tls13,
            Box::new(shakes(|client| client.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap())),
            HandshakeReason::Version,
        ),
        (
            TlsVersion::Tls12,
            Box::new(shakes(|client| client.set_cipher_list("AES128-SHA").unwrap())),
            HandshakeReason::Cipher,
        ),
        // It trusts none that signed itself.
        (TlsVersion::Tls12, Box::new(shakes(|_| {})), HandshakeReason::ClientAlert),
    ];
    for (version, client, reason) in cases {
        let mut server = Server::start(Arc::new(acceptor(version))).await;
        let addr = server.addr;
        tokio::task::spawn_blocking(move || client(addr)).await.unwrap();
        let error = server.facts.recv().await.unwrap().expect_err("the handshake fails");
        assert_eq!(error.reason, reason, "{error}");
    }
}
