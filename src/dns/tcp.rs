//! Queries over TCP (RFC 7766): many on one connection, without waiting for answers. Connections are counted, in all
//! and for each client, and end when nothing has come through for a while in either direction.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::responder::{Asker, Over, Responder};
use crate::{clock::Clock, config::DnsTcp, metrics::Metrics};

/// The connections of all addresses together.
pub(super) struct Connections {
    by_client: Mutex<Open>,
    open: IntGauge,
    /// Too many in all.
    refused: IntCounter,
    /// Too many of one client.
    refused_of_client: IntCounter,
}

#[derive(Default)]
struct Open {
    all: u32,
    by_client: HashMap<IpAddr, u32>,
}

/// One connection, as long as it lives.
struct Held<'a> {
    connections: &'a Connections,
    client: IpAddr,
}

impl Connections {
    pub fn new(metrics: &Metrics) -> Self {
        let refused = |reason| metrics.dns.tcp_connections_refused.with_label_values(&[reason]);
        Self {
            by_client: Mutex::default(),
            open: metrics.dns.tcp_connections_open.clone(),
            refused: refused("connections"),
            refused_of_client: refused("connections_per_client"),
        }
    }

    fn hold(&self, client: IpAddr, limits: DnsTcp) -> Option<Held<'_>> {
        let mut open = self.by_client.lock();
        let of_client = open.by_client.get(&client).copied().unwrap_or(0);
        if open.all >= limits.connections {
            self.refused.inc();
            return None;
        }
        if of_client >= limits.connections_per_client {
            self.refused_of_client.inc();
            return None;
        }
        open.all += 1;
        open.by_client.insert(client, of_client + 1);
        self.open.inc();
        Some(Held { connections: self, client })
    }

    /// How long a connection may be idle: while most are taken, others want it more.
    fn patience(&self, limits: DnsTcp) -> Duration {
        let scarce = self.by_client.lock().all > limits.connections / 4 * 3;
        if scarce { limits.idle_timeout / 10 } else { limits.idle_timeout }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Connections { by_client, open, .. } = self.connections;
        let mut all = by_client.lock();
        all.all -= 1;
        if let Some(of_client) = all.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                all.by_client.remove(&self.client);
            }
        }
        open.dec();
    }
}

/// Accepts until it is dropped, and then ends its connections.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    connections: Arc<Connections>,
    responder: Arc<ArcSwap<Responder>>,
    clock: Clock,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("dns over TCP: {error}"),
    };
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let (connections, responder) = (connections.clone(), responder.clone());
                let clock = clock.clone();
                served.spawn(async move {
                    let limits = responder.load().tcp();
                    let Some(_held) = connections.hold(client.ip().to_canonical(), limits) else { return };
                    let mut connection = Connection { stream, client, read: Vec::new(), written: Vec::new() };
                    if let Err(error) = connection.serve(&connections, &responder, &clock).await {
                        tracing::debug!(%client, "dns over TCP: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::debug!("dns over TCP: {error}");
                // Mostly for want of open files, which somebody else has to give back.
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    /// What came and is not answered.
    read: Vec<u8>,
    /// Answers that did not leave.
    written: Vec<u8>,
}

impl Connection {
    /// Until the client ends it, or nothing comes through for too long.
    async fn serve(
        &mut self,
        connections: &Connections,
        responder: &ArcSwap<Responder>,
        clock: &Clock,
    ) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        loop {
            let patience = connections.patience(responder.load().tcp());
            timeout(patience, self.read_query()).await??;
            self.answer_all(&responder.load_full(), clock);
            if !self.written.is_empty() {
                timeout(patience, self.stream.write_all(&self.written)).await??;
                self.written.clear();
            }
        }
    }

    /// Reads until there is a whole query.
    async fn read_query(&mut self) -> io::Result<()> {
        while first(&self.read).is_none() {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Answers the whole queries that are there, as long as the answers are not too many at once.
    fn answer_all(&mut self, responder: &Responder, clock: &Clock) {
        let (mut done, mut out) = (0, Vec::new());
        while let Some(query) = first(&self.read[done..]) {
            let asker = Asker {
                address: self.client,
                over: Over::Tcp,
                now: clock.now(),
                unix_seconds: clock.unix_seconds(),
                seed: rand::random(),
            };
            if responder.answer(query, &asker, &mut out) {
                self.written.extend((out.len() as u16).to_be_bytes());
                self.written.extend_from_slice(&out);
            }
            done += LENGTH + query.len();
            if self.written.len() >= MOST_WRITTEN {
                break;
            }
        }
        self.read.drain(..done);
    }
}

/// The first query of a stream, if all of it is there.
fn first(read: &[u8]) -> Option<&[u8]> {
    let (length, rest) = read.split_first_chunk()?;
    rest.get(..u16::from_be_bytes(*length).into())
}

/// Before each message, its length.
const LENGTH: usize = 2;

/// Bytes of answers that may wait for a client to read them.
const MOST_WRITTEN: usize = 1 << 16;

const AFTER_ERROR: Duration = Duration::from_millis(100);
