//! Members behind TLS: a front that ends TLS stands before a plain member.

use std::pin::Pin;

use openssl::{
    pkey::PKey,
    ssl::{AlpnError, NameType, Ssl, SslAcceptor, SslMethod, SslVersion, select_next_proto},
    x509::X509,
};
use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio_openssl::SslStream;

use super::*;
use crate::config::CaCerts;

struct Front {
    addr: SocketAddr,
    /// Of every handshake that ended well.
    handshakes: Arc<Mutex<Vec<Handshake>>>,
    /// Its certificate, which signs itself.
    certificate: X509,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Handshake {
    resumed: bool,
    sni: Option<String>,
    alpn: Option<Vec<u8>>,
}

impl Front {
    /// With a certificate for `name`; speaks the protocols of `alpn`.
    async fn new(origin: &Origin, name: &str, version: SslVersion, alpn: &'static [u8]) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a name makes a certificate");
        let certificate = X509::from_der(made.cert.der()).expect("a certificate");
        let key = PKey::private_key_from_der(&made.signing_key.serialize_der()).expect("a key");
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("OpenSSL starts");
        acceptor.set_certificate(&certificate).expect("it fits");
        acceptor.set_private_key(&key).expect("it fits");
        acceptor.set_max_proto_version(Some(version)).expect("it is known");
        acceptor.set_alpn_select_callback(move |_, offered| {
            select_next_proto(alpn, offered).ok_or(AlpnError::NOACK)
        });
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let handshakes = Arc::new(Mutex::new(Vec::new()));
        let (done, to) = (handshakes.clone(), origin.addr);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a TCP socket");
                let ssl = Ssl::new(acceptor.context()).expect("OpenSSL makes a connection");
                let mut stream = SslStream::new(ssl, stream).expect("OpenSSL takes a stream");
                let done = done.clone();
                tokio::spawn(async move {
                    if Pin::new(&mut stream).accept().await.is_err() {
                        return;
                    }
                    let ssl = stream.ssl();
                    done.lock().push(Handshake {
                        resumed: ssl.session_reused(),
                        sni: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
                        alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
                    });
                    let mut plain = TcpStream::connect(to).await.expect("the member listens");
                    plain.set_nodelay(true).expect("a TCP socket");
                    let _ = copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        Self { addr, handshakes, certificate }
    }

    /// A pool of this member, whose certificate is checked.
    fn pool(&self) -> Pool {
        Pool { enable_ssl: true, verify: true, ..members(&[self.addr]) }
    }

    fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().clone()
    }
}

#[tokio::test]
async fn copies_travel_over_tls_and_later_handshakes_are_short() {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut origin = Origin::answering("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        let front = Front::new(&origin, "clone.test", version, b"\x08http/1.1").await;
        let pool = Pool { verify: false, sni: Some("clone.test".into()), ..front.pool() };
        let bench = Bench::of(&section(), &pool);
        for seq in 0..3 {
            bench.get(front.addr, 1, seq);
            bench.settled(seq as usize + 1).await;
        }
        let mut large = bench.post(front.addr, 1, BodyKind::Unknown);
        large.data(&vec![b'x'; 500_000].into());
        large.end();
        bench.settled(4).await;
        assert_eq!(bench.answered(), 4);
        assert_eq!(origin.requests(4).await[3].body.len(), 500_000);
        let resumed: Vec<_> = front.handshakes().iter().map(|handshake| handshake.resumed).collect();
        assert_eq!(resumed, [false, true, true, true], "{version:?}");
        assert_eq!(front.handshakes()[0].sni.as_deref(), Some("clone.test"));
        assert_eq!(front.handshakes()[0].alpn, None);
    }
}

#[tokio::test]
async fn many_copies_share_a_tls_connection_in_order() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let front = Front::new(&origin, "clone.test", SslVersion::TLS1_3, b"\x08http/1.1").await;
    let bench = Bench::of(&section(), &Pool { verify: false, ..front.pool() });
    for seq in 0..500 {
        if let Some(mut tap) = bench.tap(front.addr, 1, seq, Method::POST, BodyKind::Length(5_000)) {
            tap.data(&vec![b'x'; 5_000].into());
            tap.end();
        }
    }
    bench.settled(500).await;
    assert_eq!((bench.answered(), front.handshakes().len()), (500, 1));
    assert!(origin.requests(500).await.iter().map(|got| got.session().1).eq(0..500));
}

#[tokio::test]
async fn a_members_certificate_is_checked_as_the_pool_says() {
    let origin = Origin::answering(NO_CONTENT).await;
    let front = Front::new(&origin, "clone.test", SslVersion::TLS1_3, b"\x08http/1.1").await;
    let trusting = CaCerts::new(vec![front.certificate.clone()]);
    for (pool, good) in [
        (front.pool(), false),
        (Pool { verify: false, ..front.pool() }, true),
        (Pool { ca_certs: trusting, ..front.pool() }, true),
    ] {
        let bench = Bench::of(&section(), &pool);
        bench.get(front.addr, 1, 1);
        bench.settled(1).await;
        assert_eq!((bench.answered(), bench.dropped("tls")), if good { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn a_member_is_named_by_the_pool_else_by_itself_else_by_its_address() {
    let addr = SocketAddr::from(([192, 0, 2, 1], 443));
    for (sni, hostname, name) in [
        (Some("pool.test"), Some("own.test"), "pool.test"),
        (None, Some("own.test"), "own.test"),
        (None, None, "192.0.2.1"),
    ] {
        let pool = Pool { sni: sni.map(str::to_owned), ..members(&[]) };
        let member = Server { hostname: hostname.map(str::to_owned), ..Server::at(addr) };
        assert_eq!(tls_name(&pool, &member), name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_ends_with_the_connect_timeout() {
    let silent = Origin::new(|incoming| async move {
        let _held = incoming;
        std::future::pending().await
    })
    .await;
    let bench = Bench::of(&section(), &Pool { enable_ssl: true, ..members(&[silent.addr]) });
    let begun = tokio::time::Instant::now();
    bench.get(silent.addr, 1, 1);
    bench.settled(1).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(bench.dropped("connect"), 1);
}

#[tokio::test]
async fn what_is_not_tls_is_counted_so() {
    let plain = Origin::new(|mut incoming| async move {
        incoming.more().await;
        incoming.answer("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let bench = Bench::of(&section(), &Pool { enable_ssl: true, ..members(&[plain.addr]) });
    bench.get(plain.addr, 1, 1);
    bench.settled(1).await;
    assert_eq!(bench.dropped("tls"), 1);
}

#[tokio::test]
async fn over_tls_http2_is_spoken_where_the_member_offers_it() {
    let section = CloneSection { http2: true, ..section() };
    let new = Origin::new(|incoming| super::http2::serve(incoming, h2::server::Builder::new(), b"ok")).await;
    let old = Origin::answering(NO_CONTENT).await;
    for (origin, offered, agreed) in
        [(new, &b"\x02h2\x08http/1.1"[..], &b"h2"[..]), (old, b"\x08http/1.1", b"http/1.1")]
    {
        let front = Front::new(&origin, "clone.test", SslVersion::TLS1_3, offered).await;
        let bench = Bench::of(&section, &Pool { verify: false, ..front.pool() });
        for seq in 0..100 {
            bench.get(front.addr, 1, seq);
        }
        let mut large = bench.post(front.addr, 1, BodyKind::Unknown);
        large.data(&vec![b'x'; 500_000].into());
        large.end();
        bench.settled(101).await;
        assert_eq!((bench.answered(), origin.accepted()), (101, 2));
        assert_eq!(front.handshakes()[0].alpn.as_deref(), Some(agreed));
    }
}
