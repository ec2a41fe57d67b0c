//! Real handshakes between the two sides, in one process, in virtual time where lists are looked up.

use std::time::{Duration, UNIX_EPOCH};

use openssl::{
    pkey::PKey,
    ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion},
    x509::{X509, X509Crl},
};
use pingora::{connectors::TransportConnector, protocols::l4::stream::Stream as L4Stream};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyPair, RevokedCertParams, SanType, SerialNumber,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    config::{CaCerts, SslProfile, TlsVersion},
    tls::{Acceptor, CertificateStore, CertifiedKey, TicketKeys, TlsFacts, certificates::tests::self_signed},
};

/// 2026-01-15; lists are good until 2026-02-01.
const NOW: u64 = 1_768_435_200;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn authority(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(authority_params(name), key()).expect("an authority can be made")
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A site's certificate with its key, both as OpenSSL has them.
fn pair(issuer: &Issuer, dns: &str, uri: &str, serial: u64) -> (Vec<X509>, PKey<openssl::pkey::Private>) {
    let key = key();
    let mut params = CertificateParams::new([dns.to_owned()]).expect("the name can be in a certificate");
    params.distinguished_name.push(DnType::CommonName, dns);
    params.serial_number = Some(SerialNumber::from(serial));
    params.subject_alt_names.push(SanType::URI(uri.try_into().expect("it is ASCII")));
    let certificate = params.signed_by(&key, issuer).expect("an authority can sign");
    (
        vec![x509(certificate.der())],
        PKey::private_key_from_pem(key.serialize_pem().as_bytes()).expect("it is a key"),
    )
}

fn x509(der: &[u8]) -> X509 {
    X509::from_der(der).expect("it is a certificate")
}

fn crl(issuer: &Issuer, revoked: &[u64]) -> X509Crl {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: rcgen::date_time_ymd(2026, 1, 2),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2026, 2, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    X509Crl::from_der(params.signed_by(issuer).expect("an authority can sign a list").der())
        .expect("it is a list")
}

/// A site of the federation `demo`: `a` is asked for as `sp.a` and is the cluster `c-a`.
fn site(name: &str, issuer: &Issuer, trusted: CaCerts) -> Arc<SiteTls> {
    let serial = u64::from(name.as_bytes()[0]);
    let pair = pair(issuer, &format!("sp.{name}"), &SiteTls::uri("demo", &format!("c-{name}")), serial);
    site_with(name, pair, trusted, true)
}

fn site_with(
    name: &str,
    pair: (Vec<X509>, PKey<openssl::pkey::Private>),
    trusted: CaCerts,
    required: bool,
) -> Arc<SiteTls> {
    Arc::new(SiteTls::new(&name.into(), "demo", pair, trusted, required).expect("a certificate is there"))
}

fn trusting(issuer: &Issuer, crls: Vec<X509Crl>) -> CaCerts {
    CaCerts::with_crls(vec![x509(issuer.der())], crls).expect("an authority is there")
}

fn clock() -> Clock {
    Clock::virtual_at(Duration::from_secs(NOW))
}

/// An acceptor of site b on a port of its own, which greets who has shaken hands.
struct Home {
    addr: std::net::SocketAddr,
    facts: tokio::sync::mpsc::UnboundedReceiver<Option<TlsFacts>>,
}

impl Home {
    async fn start(site: &Arc<SiteTls>, clock: &Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = self_signed(directory.path(), "app", &["a.com"]);
        let app = CertificateStore::new(Arc::new(CertifiedKey::load(&files).unwrap()));
        let profile = SslProfile {
            name: "test".into(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            session_tickets: true,
            http2: false,
            ..SslProfile::default()
        };
        let verifier = PeerVerifier::new(site, clock.clone()).unwrap();
        let acceptor = Acceptor::new(&profile, app, &TicketKeys::random().unwrap()).unwrap();
        acceptor.verify_peers(Some(verifier));
        let acceptor = Arc::new(acceptor);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, facts) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let settled = match acceptor.accept(L4Stream::from(socket)).await {
                    Ok(mut stream) => {
                        stream.write_all(b"!").await.unwrap();
                        stream.flush().await.unwrap();
                        TlsFacts::of(&stream.ssl_digest().unwrap()).cloned()
                    }
                    Err(_) => None,
                };
                let _ = sender.send(settled);
            }
        });
        Self { addr, facts }
    }

    /// What the next handshake settled; `None`: it failed.
    async fn settled(&mut self) -> Option<TlsFacts> {
        tokio::time::timeout(Duration::from_secs(10), self.facts.recv())
            .await
            .expect("a handshake ends")
            .unwrap()
    }

    /// Connects as Pingora does for a request of `from`'s SP pool; says what our side makes of it.
    async fn asked_by(&mut self, from: &Arc<SiteTls>, clock: &Clock) -> (Result<(), String>, Option<String>) {
        let server = config::Server { hostname: Some("sp.b".into()), ..config::Server::at(self.addr) };
        let pool = config::Pool {
            enable_ssl: true,
            ca_certs: Some(from.ca_certs.clone()),
            site_tls: Some(from.clone()),
            ..config::Pool::of("SP-x".into(), [])
        };
        let peer_tls = PeerTls::of(&pool).expect("it has authorities");
        let mut peer = HttpPeer::new(self.addr, true, "a.com".into());
        peer_tls.apply(&mut peer, &server);
        let verdict = match TransportConnector::new(None).new_stream(&peer).await {
            Err(error) => Err(error.etype().as_str().to_owned()),
            Ok(mut stream) => match peer_tls.check(stream.get_ssl_digest().as_deref(), clock.wall()) {
                Err(refusal) => Err(refusal.to_string()),
                // Under TLS 1.3 a client hears of its refusal only when it reads.
                Ok(()) => match stream.read_exact(&mut [0]).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err("closed".into()),
                },
            },
        };
        (verdict, self.settled().await.and_then(|facts| facts.site))
    }
}

#[tokio::test]
async fn sites_prove_themselves_to_each_other() {
    let (ca, clock) = (authority("ca"), clock());
    let mut home = Home::start(&site("b", &ca, trusting(&ca, vec![])), &clock).await;
    let peer = site("a", &ca, trusting(&ca, vec![]));
    assert_eq!(home.asked_by(&peer, &clock).await, (Ok(()), Some("c-a".into())));
}

#[tokio::test]
async fn a_browser_is_never_asked_for_a_certificate_and_proves_no_site() {
    let (ca, clock) = (authority("ca"), clock());
    let site_b = site("b", &ca, trusting(&ca, vec![]));
    let mut home = Home::start(&site_b, &clock).await;
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        // A site's own certificate would be given to who asks for it; nobody does.
        for (sni, asked) in
            [("a.com", false), ("sp.a", false), ("unknown.org", false), ("sp.b", true), ("SP.B", true)]
        {
            let addr = home.addr;
            let (chain, key) = (site_b.chain[0].clone(), site_b.key.clone());
            let client = tokio::task::spawn_blocking(move || {
                let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
                connector.set_verify(SslVerifyMode::NONE);
                connector.set_max_proto_version(Some(version)).unwrap();
                connector.set_certificate(&chain).unwrap();
                connector.set_private_key(&key).unwrap();
                let socket = std::net::TcpStream::connect(addr).unwrap();
                let stream =
                    connector.build().configure().unwrap().verify_hostname(false).connect(sni, socket);
                let mut stream = stream.expect("the handshake succeeds");
                std::io::Read::read_exact(&mut stream, &mut [0]).expect("it is greeted");
                stream.ssl().peer_certificate().unwrap().subject_alt_names().unwrap()[0]
                    .dnsname()
                    .unwrap()
                    .to_owned()
            });
            let shown = client.await.unwrap();
            let facts = home.settled().await.expect("the handshake succeeds");
            assert_eq!(facts.site.is_some(), asked, "{sni} {version:?}");
            assert_eq!(shown, if asked { "sp.b" } else { "a.com" }, "{sni} {version:?}");
        }
    }
}

#[tokio::test]
async fn who_has_no_certificate_of_a_site_is_refused_on_its_name() {
    let (ca, stranger, clock) = (authority("ca"), authority("stranger"), clock());
    let trusted = || trusting(&ca, vec![]);
    let mut home = Home::start(&site("b", &ca, trusted()), &clock).await;
    let other_ca = site("a", &stranger, trusted());
    let no_site = site_with("a", pair(&ca, "sp.a", "https://a.com/", 1), trusted(), true);
    let elsewhere = site_with("a", pair(&ca, "sp.a", "homing://other/c-a", 1), trusted(), true);
    let nobody = site_with("a", pair(&ca, "sp.a", "homing://demo/", 1), trusted(), true);
    for (what, peer) in [
        ("another authority", other_ca),
        ("no site", no_site),
        ("another federation", elsewhere),
        ("no cluster", nobody),
    ] {
        assert_eq!(home.asked_by(&peer, &clock).await, (Err("closed".into()), None), "{what}");
    }
    let addr = home.addr;
    let bare = tokio::task::spawn_blocking(move || {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        let socket = std::net::TcpStream::connect(addr).unwrap();
        connector.build().configure().unwrap().verify_hostname(false).connect("sp.b", socket).is_err()
    });
    assert!(bare.await.unwrap(), "without a certificate");
    assert_eq!(home.settled().await, None);
}

#[tokio::test]
async fn who_does_not_prove_to_be_the_site_that_is_asked_for_gets_no_request() {
    let (ca, stranger, clock) = (authority("ca"), authority("stranger"), clock());
    let trusted = || trusting(&ca, vec![]);
    let peer = site("a", &ca, trusted());
    let named_c = pair(&ca, "sp.c", "homing://demo/c-b", 2);
    for (what, home) in [
        ("another site's name", site_with("b", named_c.clone(), trusted(), true)),
        ("another authority", site("b", &stranger, trusted())),
    ] {
        let mut home = Home::start(&home, &clock).await;
        assert_eq!(home.asked_by(&peer, &clock).await.0, Err("InvalidCert".into()), "{what}");
    }
    // While sites get their certificates, names are not insisted on.
    let pair_a = pair(&ca, "sp.a", "homing://demo/c-a", 3);
    let lenient = site_with("a", pair_a, trusted(), false);
    let mut home = Home::start(&site_with("b", named_c, trusted(), false), &clock).await;
    assert_eq!(home.asked_by(&lenient, &clock).await, (Ok(()), Some("c-a".into())));
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_both_sides() {
    let (ca, clock) = (authority("ca"), clock());
    let (a, b) = (u64::from(b'a'), u64::from(b'b'));
    let of = |name: &str, revoked: &[u64]| site(name, &ca, trusting(&ca, vec![crl(&ca, revoked)]));
    let mut home = Home::start(&of("b", &[]), &clock).await;
    assert_eq!(home.asked_by(&of("a", &[]), &clock).await, (Ok(()), Some("c-a".into())), "nobody is revoked");
    let (verdict, _) = home.asked_by(&of("a", &[7, b]), &clock).await;
    assert_eq!(verdict, Err("the certificate of `sp.b` is revoked".into()));
    let mut home = Home::start(&of("b", &[a]), &clock).await;
    assert_eq!(home.asked_by(&of("a", &[]), &clock).await, (Err("closed".into()), None));
}

#[tokio::test]
async fn an_expired_list_refuses_everyone_until_a_new_one_is_there_or_the_clock_is_set_back() {
    let (ca, clock) = (authority("ca"), clock());
    let of = |name: &str, crls: bool| {
        site(name, &ca, trusting(&ca, if crls { vec![crl(&ca, &[])] } else { vec![] }))
    };
    let mut home = Home::start(&of("b", true), &clock).await;
    let (careful, careless) = (of("a", true), of("a", false));
    clock.advance(Duration::from_secs(30 * 24 * 3600));
    let (verdict, _) = home.asked_by(&careful, &clock).await;
    let said = verdict.expect_err("the list has expired");
    assert!(
        said.starts_with("the revocation list of `ca` expired at Feb  1 00:00:00 2026 GMT; fetch"),
        "{said}"
    );
    assert_eq!(home.asked_by(&careless, &clock).await, (Err("closed".into()), None), "home looks too");
    let back = Clock::virtual_at(Duration::from_secs(NOW));
    let mut home = Home::start(&of("b", true), &back).await;
    assert_eq!(home.asked_by(&careful, &back).await, (Ok(()), Some("c-a".into())));
}

#[test]
fn each_certificate_of_a_chain_needs_a_current_list_of_its_issuer() {
    let root = authority("root");
    let mut params = authority_params("issuing");
    params.serial_number = Some(SerialNumber::from(99_u64));
    let issuing = CertifiedIssuer::signed_by(params, key(), &root).expect("an authority can sign");
    let leaf = pair(&issuing, "sp.a", "homing://demo/c-a", 5).0.remove(0);
    let chain = [leaf, x509(issuing.der()), x509(root.der())];
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let check = |crls: &[X509Crl], now| {
        revocation::check(chain.iter().map(|it| &**it), crls, now).map_err(|refusal| refusal.to_string())
    };
    let (good, of_root) = (|| crl(&issuing, &[4]), || crl(&root, &[5]));
    assert_eq!(check(&[], now), Ok(()), "without lists nothing is looked up");
    assert_eq!(check(&[good(), of_root()], now), Ok(()));
    for (what, crls, said) in [
        ("the leaf is revoked", vec![crl(&issuing, &[5]), of_root()], "of `sp.a` is revoked"),
        ("its issuer is", vec![good(), crl(&root, &[99])], "of `issuing` is revoked"),
        ("no list of the root", vec![good()], "no revocation list of `root`"),
        ("no list of the issuer", vec![of_root()], "no revocation list of `issuing`"),
        ("one of two lists has it", vec![good(), crl(&issuing, &[5]), of_root()], "of `sp.a` is revoked"),
    ] {
        let refused = check(&crls, now).expect_err(what);
        assert!(refused.contains(said), "{what}: {refused}");
    }
    let late = UNIX_EPOCH + Duration::from_secs(NOW + 30 * 24 * 3600);
    assert!(check(&[good(), of_root()], late).is_err_and(|said| said.contains("`issuing` expired")));
}
