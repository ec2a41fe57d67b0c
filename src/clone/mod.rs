//! Clone pools: members get copies of requests, and nobody waits for their answers. BIG-IP's clone pool,
//! Envoy's and Istio's request mirroring, nginx's `mirror`.
//!
//! A [`ClonePool`] serves one clone section of a virtual service. [`ClonePool::tap`] opens a copy to the member
//! that was chosen; the [`Tap`] is told of the body as it goes by. A copy is written on one of a few long-lived
//! connections per member, its lanes; a large body has a connection of its own. Answers are read to their end,
//! counted and forgotten. Members are spoken to in HTTP/1.1 or HTTP/2, plain or over TLS. A lane is opened by the
//! first copy of a session that falls to it and closed when it is idle, so there are as many as there is use for.
//!
//! The app's path never waits here: it makes the copy's head, puts bytes into a queue that a budget bounds, and
//! wakes a task. Whatever a member does, at worst copies are lost, and each loss is counted once.
//!
//! Which requests are copied, to which member, and the session table that remembers it, are not decided here:
//! [`token`] and [`selection`] are the pure parts of that decision.

mod answer;
mod budget;
mod connection;
mod copies;
mod copy;
mod count;
mod http2;
mod lane;
mod left_out;
mod loss_log;
mod mark;
mod member;
mod pace;
pub mod selection;
mod stream;
mod tap;
pub mod token;
mod transport;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use budget::{Budget, Share};
use copies::Copy;
use copy::Framing;
pub use copy::{BodyKind, CopyHead, Recipe};
pub use count::{DropReason, SkipReason};
use count::{MemberCounts, PoolCounts};
use http::Method;
use lane::Lane;
use loss_log::{Line, LossLog};
pub use mark::{MARK, MarkKeys, hex, is_copy};
use member::{Member, Settings};
use openssl::error::ErrorStack;
use parking_lot::Mutex;
use stream::Stream;
use tap::Gathering;
pub use tap::Tap;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, CloneSection, ProxyProtocol},
    metrics::Metrics,
    names::{PoolName, VsName},
    preface::Preface,
    tls::Connector,
};

/// The lanes of one clone section to the members of its pool.
pub struct ClonePool {
    vs: VsName,
    pool: PoolName,
    recipe: Recipe,
    inline_body_bytes: u64,
    max_body_bytes: u64,
    headers_only: bool,
    proxy_protocol: Option<ProxyProtocol>,
    /// Ordered by address.
    members: Vec<Arc<Member>>,
    counts: Arc<PoolCounts>,
    losses: Mutex<LossLog>,
}

impl ClonePool {
    /// Connections are opened when the first copies come. Once `retired` is cancelled, those without work end;
    /// copies that are under way then, or come later, are still sent.
    ///
    /// # Errors
    /// OpenSSL refuses the pool's TLS settings.
    pub fn new(
        section: &CloneSection,
        members: &config::Pool,
        vs: &VsName,
        marks: &MarkKeys,
        metrics: &Metrics,
        retired: CancellationToken,
    ) -> Result<Arc<Self>, ErrorStack> {
        let (vs_name, pool) = (vs.as_str(), section.pool.as_str());
        let lanes = section.connections_per_server.get();
        let settings = Settings {
            inline_body_bytes: section.inline_body_bytes,
            depth: section.pipeline_depth.get(),
            on_overflow: section.on_overflow,
            max_body_bytes: section.copied.max_body_bytes.map_or(u64::MAX, |most| most as u64),
            http2: section.http2,
            retry_lost: section.retry_lost,
            max_streams: lanes * STREAMS_PER_LANE,
            connect_timeout: members.connect_timeout,
            answer_timeout: members.read_timeout,
            idle_timeout: members.idle_timeout,
        };
        let alpn: &[u8] = if section.http2 { b"\x02h2\x08http/1.1" } else { b"" };
        let connector = members.enable_ssl.then(|| Connector::new(members, alpn)).transpose()?;
        let counts = PoolCounts::new(metrics, vs_name, pool);
        let gauge = metrics.clone_buffered_bytes.with_label_values(&[pool]);
        let budget = Budget::new(section.max_buffered_bytes, gauge);
        let member = |server: &config::Server| {
            Arc::new(Member {
                pool: section.pool.clone(),
                addr: server.addr,
                settings: settings.clone(),
                sources: members.sources.clone(),
                turn: Default::default(),
                tls: connector.as_ref().map(|connector| connector.server(tls_name(members, server))),
                lanes: (0..lanes).map(|_| Lane::default()).collect(),
                share: Share::new(&budget, members.servers.len() == 1),
                counts: MemberCounts::new(metrics, vs_name, pool, server.addr, &counts),
                retired: retired.clone(),
                streams: Default::default(),
                unreachable: Default::default(),
            })
        };
        let mut by_address: Vec<_> = members.servers.iter().map(member).collect();
        by_address.sort_by_key(|member| member.addr);
        let losses = Mutex::new(LossLog::new(lost(&by_address, &counts)));
        Ok(Arc::new(Self {
            vs: vs.clone(),
            pool: section.pool.clone(),
            recipe: Recipe::new(section, vs, marks),
            inline_body_bytes: section.inline_body_bytes as u64,
            max_body_bytes: settings.max_body_bytes,
            headers_only: section.copied.headers_only,
            proxy_protocol: members.connections.proxy_protocol,
            members: by_address,
            counts,
            losses,
        }))
    }

    /// The pool that the copies go to.
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// How members want to be told of clients before anything else.
    pub fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol
    }

    /// Opens a copy of a request to a member, on a connection that begins with `preface` where members want one. A
    /// request without body is complete with this. Call it once for a request, however often that is tried.
    ///
    /// # Errors
    /// Why the copy was dropped; that is counted.
    pub fn tap(
        &self,
        to: SocketAddr,
        head: &CopyHead<'_>,
        preface: Option<Preface>,
    ) -> Result<Tap, DropReason> {
        let member = self.member(to).inspect_err(|reason| self.counts.dropped(*reason))?;
        self.open(member, head, preface).inspect_err(|reason| member.counts.dropped(*reason))
    }

    /// Counts a request that is not meant to be copied.
    pub fn skip(&self, reason: SkipReason) {
        self.counts.skipped(reason);
    }

    /// Tells the log of copies that were lost, of each member and reason once a minute at most. Call it now and
    /// then.
    pub fn log_losses(&self, now: Instant) {
        let (vs, pool) = (&self.vs, &self.pool);
        for Line { server, reason, copies } in self.losses.lock().due(lost(&self.members, &self.counts), now)
        {
            let server = server.map(tracing::field::display);
            tracing::warn!(%vs, %pool, server, reason, copies, "clone copies lost");
        }
    }

    fn member(&self, addr: SocketAddr) -> Result<&Arc<Member>, DropReason> {
        let member = self.members.binary_search_by_key(&addr, |member| member.addr);
        member.map(|member| &self.members[member]).map_err(|_| DropReason::UnknownServer)
    }

    fn open(
        &self,
        member: &Arc<Member>,
        head: &CopyHead<'_>,
        preface: Option<Preface>,
    ) -> Result<Tap, DropReason> {
        let head_request = head.method == Method::HEAD;
        let lane = member.lane_of(head.session);
        let length = match head.body {
            BodyKind::Unknown => None,
            BodyKind::None => Some(0),
            BodyKind::Length(length) => Some(length),
        };
        if self.headers_only || length == Some(0) {
            let cut = length != Some(0);
            let copy = Copy { head_request, cut, apart: preface.is_some(), ..Copy::default() };
            Lane::push(member, lane, copy, preface.as_ref(), 0, |out| {
                self.recipe.write(head, out)?;
                let announced = [Method::POST, Method::PUT, Method::PATCH].contains(head.method);
                let framing = match (cut, announced) {
                    (true, _) => Framing::CutTo(0),
                    (false, true) => Framing::Length(0),
                    (false, false) => Framing::None,
                };
                framing.write(out);
                Ok(())
            })?;
            return Ok(Tap::done());
        }
        let waits = length.map(|length| length.min(self.max_body_bytes) <= self.inline_body_bytes);
        // What will be cut has no length that could be announced.
        let length = length.filter(|length| *length <= self.max_body_bytes);
        let mut bytes = Vec::with_capacity(HEAD_CAPACITY);
        self.recipe.write(head, &mut bytes)?;
        if waits == Some(false) {
            let slot = member.stream_slot().ok_or(DropReason::Streams)?;
            let stream = Stream::start(member, slot, preface, bytes, head_request, length);
            return Ok(Tap::streaming(stream, self.max_body_bytes));
        }
        let gathering = Gathering::begin(member, lane, preface, bytes, head_request, length)?;
        Ok(Tap::gathering(gathering, self.max_body_bytes))
    }
}

/// The name that a member's certificate must have. Lanes carry requests for many hosts, so it is not theirs.
fn tls_name(pool: &config::Pool, member: &config::Server) -> String {
    let name = pool.sni.as_ref().or(member.hostname.as_ref());
    name.cloned().unwrap_or_else(|| member.addr.ip().to_string())
}

/// Copies lost so far, by member, if one is known, and reason.
fn lost(
    members: &[Arc<Member>],
    counts: &PoolCounts,
) -> impl Iterator<Item = ((Option<SocketAddr>, &'static str), u64)> {
    let of_members = members.iter().flat_map(|member| {
        member.counts.lost().map(|(reason, copies)| ((Some(member.addr), reason), copies))
    });
    of_members.chain(counts.lost().map(|(reason, copies)| ((None, reason), copies)))
}

/// Streamed bodies at a time, for each lane of a member.
const STREAMS_PER_LANE: usize = 4;

/// Room for most heads.
const HEAD_CAPACITY: usize = 1024;

#[cfg(test)]
mod tests;
