//! A running instance: the live state and the parts that act on it.

use std::{sync::Arc, time::SystemTime};

use parking_lot::Mutex;

use super::{Builder, Trigger, changes, ports::Ports};
use crate::{
    admin::{Control, CurrentTerms, view},
    config::{Config, Seen},
    dns,
    limits::OpenFiles,
    listen::{Listeners, Room, Workers},
    pool::monitor::Monitors,
    proxy::{App, Proxy},
    snapshot::Live,
};

pub(super) struct Instance {
    pub live: Arc<Live>,
    pub builder: Builder,
    pub ports: Ports,
    pub dns: dns::Ports,
    pub monitors: Monitors,
    pub admin: CurrentTerms,
    /// Held by the reload that is under way.
    pub reloading: tokio::sync::Mutex<()>,
    /// Nothing is put in force any more. Held while something is.
    pub stopping: Mutex<bool>,
    pub history: Mutex<History>,
    /// What it was started with, of which some holds until a restart.
    started_with: Arc<Config>,
}

/// What was loaded.
pub(super) struct History {
    /// When the configuration in force was.
    pub loaded: SystemTime,
    pub last_reload: Option<view::Reload>,
    /// The files that were read last, whether they were good or not.
    pub seen: Arc<Seen>,
}

impl Instance {
    pub fn new(live: Arc<Live>, builder: Builder, workers: Workers<App>) -> Self {
        let files = OpenFiles::allowed();
        let room = Room::new(files, live.snapshot().config.max_connections);
        tracing::info!(open_files = files.shown(), clients = room.clients(), "room for clients");
        live.metrics.listeners.limit.set(room.clients().try_into().unwrap_or(i64::MAX));
        let events = Arc::new(Proxy::new(live.clone()));
        let config = live.snapshot().config.clone();
        let loaded = live.clock.wall();
        let history = History { loaded, last_reload: None, seen: Arc::new(config.seen.clone()) };
        let dns = dns::Ports::new(workers.runtimes(), live.clock.clone(), &live.metrics, rand::random());
        let instance = Self {
            dns,
            ports: Ports::new(
                Listeners::new(workers, events, live.clock.clone(), room, live.metrics.clone()),
                live.metrics.config.clone(),
            ),
            monitors: Monitors::new(live.clock.clone(), files),
            admin: CurrentTerms::default(),
            reloading: tokio::sync::Mutex::default(),
            stopping: Mutex::new(false),
            history: Mutex::new(history),
            started_with: config,
            live,
            builder,
        };
        instance.count_loaded(loaded);
        for result in [view::ReloadResult::Success, view::ReloadResult::Failure] {
            instance.live.metrics.config.reloads.with_label_values(&[result.as_str()]).inc_by(0);
        }
        instance
    }

    /// What the configuration in force asks for in vain.
    pub fn needs_restart(&self, config: &Config) -> Vec<String> {
        changes::needs_restart(&self.started_with, config)
    }

    /// A configuration is in force since then.
    pub fn count_loaded(&self, at: SystemTime) {
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let config = self.live.snapshot().config.clone();
        let metrics = &self.live.metrics.config;
        metrics.last_reload_successful.set(1);
        metrics.last_reload_success_timestamp.set(seconds);
        metrics.in_force(&config.checksum, config.gslb.as_ref().map_or("", |gslb| &gslb.checksum));
    }
}

impl Control for Instance {
    fn missing(&self) -> Vec<String> {
        self.ports.missing().into_iter().collect()
    }

    fn configuration(&self) -> view::Configuration {
        let config = self.live.snapshot().config.clone();
        let history = self.history.lock();
        view::Configuration {
            file: config.file.display().to_string(),
            loaded: history.loaded.into(),
            watch: config.watch,
            needs_restart: self.needs_restart(&config),
            last_reload: history.last_reload.clone(),
        }
    }

    async fn reload(self: &Arc<Self>) -> view::Reload {
        Instance::reload(self, Trigger::Admin).await
    }
}
