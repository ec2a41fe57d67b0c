//! Clients that ask all the while.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::task::JoinHandle;

use crate::support::{
    client::{Connection, Request},
    eventually,
    http2::Http2,
    tls::{Profile, TlsClient},
};

/// Clients that open a new connection when they are told to, and never because one failed.
pub struct Load {
    asked: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    KeepAlive,
    Tls,
    Http2,
    /// Sessions one after another, of some requests at a time, each on a connection of its own.
    NewSessions,
}

impl Load {
    pub fn start(plain: SocketAddr, tls: SocketAddr) -> Self {
        let (asked, ending) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let kinds =
            [Kind::KeepAlive, Kind::KeepAlive, Kind::Tls, Kind::Http2, Kind::NewSessions, Kind::NewSessions];
        let client = |(n, kind): (usize, Kind)| {
            let (asked, ending) = (asked.clone(), ending.clone());
            tokio::spawn(async move {
                let count = || asked.fetch_add(1, Relaxed);
                let request = Request::get("/").cookie(&format!("SID={n}"));
                match kind {
                    Kind::NewSessions => {
                        for session in (0_u64..).take_while(|_| !ending.load(Relaxed)) {
                            let request = Request::get("/").cookie(&format!("SID={n}-{session}"));
                            for _ in 0..3 {
                                let both = tokio::join!(request.send(plain), request.send(plain));
                                assert_eq!((both.0.status, both.1.status), (200, 200), "client {n}");
                                count();
                                count();
                            }
                        }
                    }
                    Kind::Http2 => {
                        while !ending.load(Relaxed) {
                            let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
                            let client = Http2::over(client.connect(tls, "a.com").await).await;
                            while !ending.load(Relaxed)
                                && let Some(answer) = client.ask_while_open(&request).await
                            {
                                assert_eq!(answer.status, 200, "client {n}");
                                count();
                            }
                        }
                    }
                    Kind::KeepAlive | Kind::Tls => {
                        while !ending.load(Relaxed) {
                            let mut connection = match kind {
                                Kind::Tls => crate::support::tls::open(tls).await,
                                _ => Connection::open(plain).await,
                            };
                            let mut is_last = false;
                            while !is_last && !ending.load(Relaxed) {
                                let answer = connection.ask(&request).await;
                                assert_eq!(answer.status, 200, "client {n}");
                                is_last = answer.header("connection").is_some_and(|it| it == "close");
                                count();
                            }
                        }
                    }
                }
            })
        };
        let clients = kinds.into_iter().enumerate().map(client).collect();
        Self { asked, ending, clients }
    }

    /// Waits until so many more requests were answered.
    pub async fn makes(&self, requests: u64) {
        let due = self.asked.load(Relaxed) + requests;
        eventually("requests are answered", async || {
            self.clients.iter().any(JoinHandle::is_finished) || self.asked.load(Relaxed) >= due
        })
        .await;
        assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client has failed");
    }

    pub async fn end(self) -> u64 {
        self.ending.store(true, Relaxed);
        for client in self.clients {
            client.await.expect("no request fails");
        }
        self.asked.load(Relaxed)
    }
}
