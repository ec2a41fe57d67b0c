//! A server that keeps every byte it gets, and answers with any bytes at all.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use openssl::ssl::{Ssl, SslAcceptor};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_openssl::SslStream;

use super::{
    certs::Cert,
    models::{self, Message},
    tls_server,
    wire::Io,
};

/// What it sends for a target, and whether it closes then.
type Script = dyn Fn(&str) -> (Vec<u8>, bool) + Send + Sync;

/// Ends with the test's runtime.
pub struct RawServer {
    pub addr: SocketAddr,
    /// What came on each connection, in the order in which they were made.
    got: Got,
    /// Whole requests, as the strict model reads them, in the order in which they came.
    requests: Requests,
}

type Got = Arc<Mutex<Vec<Vec<u8>>>>;
type Requests = Arc<Mutex<Vec<Message>>>;

impl RawServer {
    pub async fn start(script: impl Fn(&str) -> (Vec<u8>, bool) + Send + Sync + 'static) -> Self {
        Self::listen(None, script).await
    }

    /// The same with TLS; it knows no ALPN.
    pub async fn start_tls(
        cert: &Cert,
        script: impl Fn(&str) -> (Vec<u8>, bool) + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tls_server::acceptor(cert).build()), script).await
    }

    async fn listen(
        tls: Option<SslAcceptor>,
        script: impl Fn(&str) -> (Vec<u8>, bool) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let (got, requests) = (Got::default(), Requests::default());
        let script: Arc<Script> = Arc::new(script);
        let (kept, all) = (got.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut got = kept.lock();
                    got.push(Vec::new());
                    got.len() - 1
                };
                let (script, kept, all) = (script.clone(), kept.clone(), all.clone());
                let Some(tls) = &tls else {
                    tokio::spawn(serve(stream, number, script, kept, all));
                    continue;
                };
                let ssl = Ssl::new(tls.context()).expect("OpenSSL makes a connection");
                let mut stream = SslStream::new(ssl, stream).expect("OpenSSL takes a stream");
                tokio::spawn(async move {
                    if Pin::new(&mut stream).accept().await.is_ok() {
                        serve(stream, number, script, kept, all).await;
                    }
                });
            }
        });
        Self { addr, got, requests }
    }

    /// The bytes of each connection so far.
    pub fn got(&self) -> Vec<Vec<u8>> {
        self.got.lock().clone()
    }

    /// The whole requests so far.
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().clone()
    }
}

async fn serve(mut stream: impl Io, number: usize, script: Arc<Script>, got: Got, all: Requests) {
    let mut answered = 0;
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let whole = {
            let mut got = got.lock();
            got[number].extend_from_slice(&buffer[..read]);
            models::strict(&got[number]).0
        };
        for request in &whole[answered..] {
            answered += 1;
            all.lock().push(request.clone());
            let (bytes, close) = script(&request.target);
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
            if close {
                _ = stream.shutdown().await;
                return;
            }
        }
    }
}
