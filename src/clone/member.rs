//! One clone member: its lanes, its share of the budget, its counters.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{error::Elapsed, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    budget::Share,
    count::{DropReason, MemberCounts},
    lane::Lane,
    transport::{Link, Transport},
};
use crate::{
    config::{OnOverflow, SourceAddresses},
    names::PoolName,
    preface::{self, Preface},
    tls,
};

pub(super) struct Member {
    pub pool: PoolName,
    pub addr: SocketAddr,
    pub settings: Settings,
    /// Where connections to it come from,
    pub sources: SourceAddresses,
    /// and whose turn it is.
    pub turn: AtomicUsize,
    /// The member wants TLS.
    pub tls: Option<tls::Server>,
    pub lanes: Box<[Lane]>,
    pub share: Arc<Share>,
    pub counts: MemberCounts,
    /// Set when what is idle shall end.
    pub retired: CancellationToken,
    /// Bodies that have a connection of their own.
    pub streams: AtomicUsize,
    /// The last attempt to connect failed.
    pub unreachable: AtomicBool,
}

/// What the configuration says, for every member alike.
#[derive(Clone)]
pub(super) struct Settings {
    pub inline_body_bytes: usize,
    /// Copies under way on one connection.
    pub depth: usize,
    pub on_overflow: OnOverflow,
    /// A longer body is cut.
    pub max_body_bytes: u64,
    pub http2: bool,
    pub retry_lost: bool,
    pub max_streams: usize,
    pub connect_timeout: Duration,
    /// The longest wait for an answer.
    pub answer_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
}

impl Settings {
    /// How often to look for what is overdue.
    pub fn tick(&self) -> Duration {
        (self.answer_timeout.min(self.idle_timeout) / 4).clamp(MIN_TICK, MAX_TICK)
    }
}

/// One of the member's connections for streamed bodies, given back when dropped.
pub(super) struct StreamSlot(Arc<Member>);

impl Member {
    /// The lane of a session's copies.
    pub fn lane_of(&self, session: u64) -> usize {
        (session % self.lanes.len() as u64) as usize
    }

    /// Opens a connection, which begins with `preface` if there is one. Only the first failure of a series and its end
    /// are logged.
    pub async fn connect(&self, preface: Option<&Preface>) -> Result<Link, Unreachable> {
        let connected = match timeout(self.settings.connect_timeout, self.open(preface)).await {
            Ok(connected) => connected,
            Err(late) => Err(late.into()),
        };
        let (pool, server) = (&self.pool, self.addr);
        match &connected {
            Ok(_) => {
                if self.unreachable.swap(false, Relaxed) {
                    tracing::info!(%pool, %server, "clone member is reachable again");
                }
            }
            Err(error) => {
                if !self.unreachable.swap(true, Relaxed) {
                    tracing::warn!(%pool, %server, %error, "clone member cannot be reached, its copies are dropped");
                }
            }
        }
        connected
    }

    async fn open(&self, preface: Option<&Preface>) -> Result<Link, Unreachable> {
        let source = self.sources.of(self.addr.ip(), self.turn.fetch_add(1, Relaxed));
        let stream = preface::connect(source, self.addr, preface).await?;
        stream.set_nodelay(true)?;
        let http2 = self.settings.http2;
        let Some(tls) = &self.tls else { return Ok(Link { transport: Transport::Plain(stream), http2 }) };
        let stream = tls.connect(stream).await?;
        Ok(Link { http2: http2 && stream.speaks(b"h2"), transport: Transport::Tls(stream) })
    }

    /// A connection for a streamed body, if there are not too many.
    pub fn stream_slot(self: &Arc<Self>) -> Option<StreamSlot> {
        let slot = StreamSlot(self.clone());
        (self.streams.fetch_add(1, Relaxed) < self.settings.max_streams).then_some(slot)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("connection not made within the connect timeout")]
    Timeout(#[from] Elapsed),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Tls(#[from] tls::ConnectError),
}

impl Unreachable {
    /// What becomes of the copies that waited for the connection.
    pub fn reason(&self) -> DropReason {
        match self {
            Self::Timeout(_) | Self::Io(_) => DropReason::Connect,
            Self::Tls(_) => DropReason::Tls,
        }
    }
}

const MIN_TICK: Duration = Duration::from_millis(10);

const MAX_TICK: Duration = Duration::from_secs(1);

/// How long a member may take no byte of what is written to it.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
