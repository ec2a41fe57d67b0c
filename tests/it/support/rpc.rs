//! An HTTP/2 app server that behaves as gRPC servers do: every piece of a body comes back at once, and the answer ends
//! with trailers. It remembers the heads that it got.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response, request::Parts};
use openssl::{
    pkey::PKey,
    ssl::{AlpnError, Ssl, SslAcceptor, SslMethod, select_next_proto},
    x509::X509,
};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use super::{certs::Cert, net, wire::Io};

/// The server. It ends with the test's runtime.
pub struct RpcServer {
    pub addr: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    heads: Mutex<Vec<Parts>>,
    to_refuse: AtomicUsize,
    cancelled: AtomicUsize,
    connections: AtomicUsize,
}

impl RpcServer {
    /// Without TLS: clients know beforehand what it speaks.
    pub async fn start() -> Self {
        Self::new(None).await
    }

    /// With TLS; HTTP/2 is all that it agrees to by ALPN.
    pub async fn start_tls(cert: &Cert) -> Self {
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("OpenSSL starts");
        let certificate = X509::from_pem(cert.certificate.as_bytes()).expect("the certificate can be read");
        let key = PKey::private_key_from_pem(cert.key.as_bytes()).expect("the key can be read");
        tls.set_certificate(&certificate).expect("OpenSSL takes the certificate");
        tls.set_private_key(&key).expect("OpenSSL takes the key");
        tls.set_alpn_select_callback(|_, offered| {
            select_next_proto(b"\x02h2", offered).ok_or(AlpnError::ALERT_FATAL)
        });
        Self::new(Some(tls.build())).await
    }

    async fn new(tls: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let server = Self { addr, tls: tls.is_some(), shared: shared.clone() };
        tokio::spawn(accept(listener, tls, shared));
        server
    }

    /// The heads so far, in order.
    pub fn heads(&self) -> Vec<Parts> {
        self.shared.heads.lock().clone()
    }

    /// Refuses the next `n` requests when they are there, and says that nothing was done about them.
    pub fn refuse(&self, n: usize) {
        self.shared.to_refuse.store(n, Ordering::Relaxed);
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many requests the other side gave up.
    pub fn cancelled(&self) -> usize {
        self.shared.cancelled.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, tls: Option<SslAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), shared.clone());
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(stream, tls).await {
                serve(stream, shared).await;
            }
        });
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<SslAcceptor>) -> Option<Box<dyn Io>> {
    let Some(acceptor) = tls else { return Some(Box::new(stream)) };
    let ssl = Ssl::new(acceptor.context()).expect("OpenSSL makes a connection");
    let mut stream = tokio_openssl::SslStream::new(ssl, stream).expect("OpenSSL takes a stream");
    Pin::new(&mut stream).accept().await.ok()?;
    Some(Box::new(stream))
}

async fn serve(stream: Box<dyn Io>, shared: Arc<Shared>) {
    let Ok(mut connection) = server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            if answer(request, respond, &shared).await.is_err() {
                shared.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let one_less = |left: usize| left.checked_sub(1);
    if shared.to_refuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
        while body.data().await.transpose()?.is_some() {}
        respond.send_reset(Reason::REFUSED_STREAM);
        return Ok(());
    }
    let unknown = head.uri.path() == UNKNOWN;
    shared.heads.lock().push(head);
    let answer = Response::builder().header("content-type", "application/grpc");
    if unknown {
        let answer = answer.header("grpc-status", "12").body(()).expect("a valid head");
        return respond.send_response(answer, true).map(drop);
    }
    let mut out = respond.send_response(answer.body(()).expect("a valid head"), false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        out.send_data(piece, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a valid value"));
    trailers.insert("grpc-message", "all is well".parse().expect("a valid value"));
    out.send_trailers(trailers)
}

/// A path that is answered by a head alone, as gRPC does when it has nothing to say.
pub const UNKNOWN: &str = "/unknown";
