//! A TLS server that may ask who connects, and remembers what it was told. It answers each request with 200.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use openssl::{
    pkey::PKey,
    ssl::{NameType, Ssl, SslAcceptor, SslAcceptorBuilder, SslMethod, SslVerifyMode},
    x509::{X509, store::X509StoreBuilder},
};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;

use super::{
    certs::{Ca, Cert},
    net,
    wire::{Wire, reply},
};

/// The server. It ends with the test's runtime.
pub struct TlsServer {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request, and the connection that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub sni: Option<String>,
    /// The DNS name of the client's certificate.
    pub client: Option<String>,
    pub host: Option<String>,
}

impl TlsServer {
    /// Who connects has to show a certificate of `clients`, if there is such an authority.
    pub async fn start(cert: &Cert, clients: Option<&Ca>) -> Self {
        let mut tls = acceptor(cert);
        if let Some(clients) = clients {
            let mut store = X509StoreBuilder::new().expect("OpenSSL makes a store");
            store.add_cert(pem(&clients.pem())).expect("OpenSSL takes the authority");
            tls.set_cert_store(store.build());
            tls.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        let tls = tls.build();
        let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Self { addr, seen: seen.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), seen.clone()));
            }
        });
        server
    }

    /// The requests so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

/// What accepts connections with a certificate.
pub fn acceptor(cert: &Cert) -> SslAcceptorBuilder {
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("OpenSSL starts");
    let key = PKey::private_key_from_pem(cert.key.as_bytes()).expect("keys of tests are PEM");
    tls.set_certificate(&pem(&cert.certificate)).expect("OpenSSL takes the certificate");
    tls.set_private_key(&key).expect("OpenSSL takes the key");
    tls
}

fn pem(pem: &str) -> X509 {
    X509::from_pem(pem.as_bytes()).expect("certificates of tests are PEM")
}

async fn serve(stream: TcpStream, tls: SslAcceptor, seen: Arc<Mutex<Vec<Seen>>>) {
    let ssl = Ssl::new(tls.context()).expect("OpenSSL makes a connection");
    let mut stream = SslStream::new(ssl, stream).expect("OpenSSL takes a stream");
    if Pin::new(&mut stream).accept().await.is_err() {
        return;
    }
    let sni = stream.ssl().servername(NameType::HOST_NAME).map(str::to_owned);
    let client = stream.ssl().peer_certificate().and_then(|certificate| {
        let names = certificate.subject_alt_names()?;
        names.iter().find_map(|name| name.dnsname().map(str::to_owned))
    });
    let mut wire = Wire::new(stream);
    while let Ok(Some(head)) = wire.head().await {
        let host = head.headers.get("host").map(str::to_owned);
        seen.lock().push(Seen { sni: sni.clone(), client: client.clone(), host });
        if wire.write(reply(200, "tls", false, false)).await.is_err() {
            break;
        }
    }
}
