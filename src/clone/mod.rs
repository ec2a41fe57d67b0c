//! Clone pools: members get copies of requests, and nobody waits for their answers. BIG-IP's clone pool,
//! Envoy's and Istio's request mirroring, nginx's `mirror`.
//!
//! A [`ClonePool`] serves one clone section of a virtual service. [`ClonePool::tap`] opens a copy to the member
//! that was chosen; the [`Tap`] is told of the body as it goes by. A copy is written on one of a few long-lived
//! connections per member, its lanes; a large body has a connection of its own. Answers are read to their end,
//! counted and forgotten.
//!
//! The app's path never waits here: it makes the copy's head, puts bytes into a queue that a budget bounds, and
//! wakes a task. Whatever a member does, at worst copies are lost, and each loss is counted once.
//!
//! Which requests are copied, to which member, and the session table that remembers it, are not decided here:
//! [`token`] and [`selection`] are the pure parts of that decision.

mod answer;
mod budget;
mod connection;
mod copy;
mod count;
mod lane;
mod loss_log;
mod member;
pub mod selection;
mod stream;
mod tap;
pub mod token;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use budget::{Budget, Share};
pub use copy::{BodyKind, CopyHead, MARK, is_copy};
use copy::{Framing, Recipe};
pub use count::{DropReason, SkipReason};
use count::{MemberCounts, PoolCounts};
use http::Method;
use lane::{Copy, Lane};
use loss_log::{Line, LossLog};
use member::{Member, Settings};
use parking_lot::Mutex;
use stream::Stream;
use tap::Gathering;
pub use tap::Tap;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, CloneSection},
    metrics::Metrics,
    names::{PoolName, VsName},
};

/// The lanes of one clone section to the members of its pool.
pub struct ClonePool {
    vs: VsName,
    pool: PoolName,
    recipe: Recipe,
    inline_body_bytes: u64,
    /// Members want TLS.
    tls: bool,
    /// Ordered by address.
    members: Vec<Arc<Member>>,
    counts: Arc<PoolCounts>,
    losses: Mutex<LossLog>,
}

impl ClonePool {
    /// Connections are opened when the first copies come. Once `retired` is cancelled, those without work end;
    /// copies that are under way then, or come later, are still sent.
    pub fn new(
        section: &CloneSection,
        members: &config::Pool,
        vs: &VsName,
        metrics: &Metrics,
        retired: CancellationToken,
    ) -> Arc<Self> {
        let (vs_name, pool) = (vs.as_str(), section.pool.as_str());
        let lanes = section.connections_per_server.get();
        let settings = Settings {
            inline_body_bytes: section.inline_body_bytes,
            depth: section.pipeline_depth.get(),
            on_overflow: section.on_overflow,
            max_streams: lanes * STREAMS_PER_LANE,
            connect_timeout: members.connect_timeout,
            answer_timeout: members.read_timeout,
            idle_timeout: members.idle_timeout,
        };
        let counts = PoolCounts::new(metrics, vs_name, pool);
        let gauge = metrics.clone_buffered_bytes.with_label_values(&[pool]);
        let budget = Budget::new(section.max_buffered_bytes, gauge);
        let member = |server: &config::Server| {
            Arc::new(Member {
                pool: section.pool.clone(),
                addr: server.addr,
                settings: settings.clone(),
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
        Arc::new(Self {
            vs: vs.clone(),
            pool: section.pool.clone(),
            recipe: Recipe::new(section, vs),
            inline_body_bytes: section.inline_body_bytes as u64,
            tls: members.enable_ssl,
            members: by_address,
            counts,
            losses,
        })
    }

    /// The pool that the copies go to.
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// Opens a copy of a request to a member. A request without body is complete with this. `None`: the copy
    /// was dropped and counted. Call it once for a request, however often that is tried.
    pub fn tap(&self, to: SocketAddr, head: &CopyHead<'_>) -> Option<Tap> {
        let Some(member) = self.member(to) else {
            self.counts.dropped(DropReason::UnknownServer);
            return None;
        };
        self.open(member, head).map_err(|reason| member.counts.dropped(reason)).ok()
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

    fn member(&self, addr: SocketAddr) -> Option<&Arc<Member>> {
        let member = self.members.binary_search_by_key(&addr, |member| member.addr);
        member.ok().map(|member| &self.members[member])
    }

    fn open(&self, member: &Arc<Member>, head: &CopyHead<'_>) -> Result<Tap, DropReason> {
        if self.tls {
            return Err(DropReason::Tls);
        }
        let head_request = head.method == Method::HEAD;
        let lane = member.lane_of(head.session);
        let length = match head.body {
            BodyKind::None | BodyKind::Length(0) => {
                let copy = Copy { head_request, ..Copy::default() };
                Lane::push(member, lane, copy, 0, |out| {
                    self.recipe.write(head, out)?;
                    let announced = [Method::POST, Method::PUT, Method::PATCH].contains(head.method);
                    if announced { Framing::Length(0) } else { Framing::None }.write(out);
                    Ok(())
                })?;
                return Ok(Tap::done());
            }
            BodyKind::Length(length) => Some(length),
            BodyKind::Unknown => None,
        };
        let mut bytes = Vec::with_capacity(HEAD_CAPACITY);
        self.recipe.write(head, &mut bytes)?;
        if length.is_some_and(|length| length > self.inline_body_bytes) {
            let slot = member.stream_slot().ok_or(DropReason::Streams)?;
            return Ok(Tap::streaming(Stream::start(member, slot, bytes, head_request, length)));
        }
        Gathering::begin(member, lane, bytes, head_request, length).map(Tap::gathering)
    }
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
