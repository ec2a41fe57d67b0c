//! Monitors: active probes of a pool's servers, whose results decide who is up.
//!
//! One task per server and monitor: probe at once, then at a random offset into `send_interval`, so that the
//! probes of many servers do not march in step, then every `send_interval`. The first result decides alone, later
//! ones by the monitor's thresholds; a server is up while all monitors of its pool say so. What real traffic
//! has to say of a server's health is not looked at here.
//!
//! At most [`OpenFiles::probes`] are under way at a time, lest a thousand servers that are silent take the files and
//! the attention that clients need. A probe that fails for want of something of our own says nothing of the server.
//!
//! Avi says health monitor, Pingora and HAProxy health check.

mod connect;
mod icmp;
mod ping;
mod probe;
mod threshold;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pingora::connectors::http::v1::Connector;
use rand::Rng;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::ping::{PingRefused, may_ping};
use self::{
    probe::{Failure, Probe},
    threshold::{Found, Threshold},
};
use super::{Health, Pool, Server};
use crate::{
    clock::{Clock, Episode},
    config::HealthMonitor,
    limits::OpenFiles,
};

/// The monitors of a running instance. One for all pools, because all probes can share its TLS context.
pub struct Monitors {
    connector: Arc<Connector>,
    clock: Clock,
    prober: Arc<Prober>,
    followed: Mutex<Vec<Followed>>,
}

/// A pool whose servers are probed, until this is dropped.
struct Followed {
    pool: Arc<Pool>,
    _stop: DropGuard,
}

impl Monitors {
    /// Builds the TLS context, which reads the system's certificates: some 10 ms. `clock` dates the changes.
    pub fn new(clock: Clock, files: OpenFiles) -> Self {
        let prober = Prober {
            places: Semaphore::new(files.probes()),
            shortage: Episode::default(),
            clock: clock.clone(),
        };
        let connector = Arc::new(Connector::new(None));
        Self { connector, clock, prober: Arc::new(prober), followed: Mutex::default() }
    }

    /// Probes the enabled servers of these pools from now on, and those of no others. The monitors of a pool that
    /// was among them before go on as if nothing had happened. `rng` gives the offsets of the second probes.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn follow(&self, pools: &[Arc<Pool>], rng: &mut impl Rng) {
        let mut followed = self.followed.lock();
        let identity = |pool: &Arc<Pool>| Arc::as_ptr(pool);
        let wanted: HashSet<_> = pools.iter().map(identity).collect();
        // The old ones end first: both would speak for the same servers.
        followed.retain(|old| wanted.contains(&identity(&old.pool)));
        let known: HashSet<_> = followed.iter().map(|old| identity(&old.pool)).collect();
        let mut begun = 0;
        for pool in pools.iter().filter(|pool| !known.contains(&identity(pool))) {
            let stop = CancellationToken::new();
            self.spawn(pool, rng, &stop, &mut begun);
            followed.push(Followed { pool: pool.clone(), _stop: stop.drop_guard() });
        }
    }

    /// Probes the enabled servers of a pool until `cancel`. A pool without monitors is left alone. `begun`: how many
    /// probes have begun with it.
    fn spawn(&self, pool: &Pool, rng: &mut impl Rng, cancel: &CancellationToken, begun: &mut u32) {
        for server in pool.servers().iter().filter(|server| server.is_watched()) {
            let monitors = &pool.config().monitors;
            // After a reload all monitors start with what is known of the server.
            let known = server.health();
            let said = Mutex::new(vec![known.clone(); monitors.len()]);
            let enough = pool.config().min_health_monitors_up.map_or(monitors.len(), |min| min as usize);
            let enough = enough.min(monitors.len());
            let verdict =
                Arc::new(Verdict { server: server.clone(), said, enough, clock: self.clock.clone() });
            for (index, monitor) in monitors.iter().enumerate() {
                let watch = Watch {
                    probe: Probe::new(&self.connector, pool, server.config(), monitor, &self.clock, rng),
                    threshold: Threshold::new(monitor.successful_checks, monitor.failed_checks, &known),
                    start: turn(*begun).min(monitor.send_interval),
                    offset: monitor.send_interval.mul_f64(rng.random()),
                    monitor: monitor.clone(),
                    verdict: verdict.clone(),
                    prober: self.prober.clone(),
                    index,
                };
                *begun += 1;
                let cancel = cancel.clone();
                tokio::spawn(async move { cancel.run_until_cancelled(watch.run()).await });
            }
        }
    }
}

/// One monitor of one server.
struct Watch {
    monitor: Arc<HealthMonitor>,
    probe: Probe,
    threshold: Threshold,
    /// When the first probe is due.
    start: Duration,
    /// When the second probe is due, from then on.
    offset: Duration,
    verdict: Arc<Verdict>,
    /// Which of the server's monitors it is.
    index: usize,
    prober: Arc<Prober>,
}

impl Watch {
    async fn run(mut self) {
        if !self.start.is_zero() {
            tokio::time::sleep(self.start).await;
        }
        let mut due = interval_at(Instant::now() + self.offset, self.monitor.send_interval);
        // A probe that took longer than the interval is not made up for.
        due.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let result = self.prober.run(&mut self.probe).await;
            let found = match &result {
                Ok(()) => Some(Found::Up),
                Err(Failure::Ours { .. }) => None,
                Err(Failure::Maintenance(_)) => Some(Found::Maintenance),
                Err(_) => Some(Found::Down),
            };
            if found.is_some_and(|found| self.threshold.observe(found)) {
                let reason = |failure| format!("{}: {failure}", self.monitor.name);
                let health = match result {
                    Ok(()) => Health::Up,
                    Err(failure @ Failure::Maintenance(_)) => Health::Maintenance { reason: reason(failure) },
                    Err(failure) => Health::Down { reason: reason(failure) },
                };
                self.verdict.say(self.index, health);
            }
            due.tick().await;
        }
    }
}

/// Lets so many probes run at a time.
struct Prober {
    places: Semaphore,
    /// Probes could not be made.
    shortage: Episode,
    clock: Clock,
}

impl Prober {
    async fn run(&self, probe: &mut Probe) -> Result<(), Failure> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let result = probe.run().await;
        let now = self.clock.now();
        if let Err(Failure::Ours { error, help }) = &result {
            if self.shortage.seen(now) {
                tracing::error!(error, "servers cannot be probed and keep the state that they had; {help}");
            }
        } else if self.shortage.is_over(now) {
            tracing::info!("servers can be probed again");
        }
        result
    }
}

/// When a probe begins that so many others begin with: a few at once and the rest after them, so that thousands of
/// servers are no storm.
fn turn(before: u32) -> Duration {
    BURST_INTERVAL * (before / BURST)
}

/// How many probes begin at once.
const BURST: u32 = 100;

const BURST_INTERVAL: Duration = Duration::from_millis(50);

/// What the monitors of one server say.
struct Verdict {
    server: Arc<Server>,
    said: Mutex<Vec<Health>>,
    /// How many of them have to pass.
    enough: usize,
    clock: Clock,
}

impl Verdict {
    /// One monitor has changed its mind.
    fn say(&self, monitor: usize, health: Health) {
        let mut said = self.said.lock();
        said[monitor] = health;
        if let Some(health) = together(&said, self.enough) {
            self.server.set_health(health, self.clock.wall());
        }
    }
}

/// Up when `enough` say so, down when so many do not that there cannot be enough; until then nothing is decided. Of a
/// server that is not down, one monitor is enough to know that it is in maintenance.
fn together(said: &[Health], enough: usize) -> Option<Health> {
    let is_down = |health: &&Health| matches!(health, Health::Down { .. });
    if said.iter().filter(is_down).count() > said.len() - enough {
        return said.iter().find(is_down).cloned();
    }
    if let Some(maintenance) = said.iter().find(|health| matches!(health, Health::Maintenance { .. })) {
        return Some(maintenance.clone());
    }
    (said.iter().filter(|health| **health == Health::Up).count() >= enough).then_some(Health::Up)
}

#[cfg(test)]
mod tests;
