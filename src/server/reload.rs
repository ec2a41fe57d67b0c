//! Loads the configuration of a running instance again.
//!
//! All that can fail comes first and changes nothing: the file is checked as `homing check` does, a snapshot is built
//! that takes over from the current one what stays, certificates are loaded, new sockets bound. What follows cannot
//! fail: the snapshot is swapped, new listeners accept and old ones stop, monitors follow the pools. Requests that
//! are under way keep the snapshot that they began with; connections stay open and use the new one from their next
//! request on.
//!
//! Known elsewhere as: `nginx -s reload` and HAProxy's reload, but within one process; Envoy's xDS.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Instance, StartError, changes, port_watch, ports::Sockets, sources};
use crate::{
    access_log::AccessLog,
    admin::{Terms, TokenError, view},
    config::{self, Problems},
    dns,
    listen::Inherited,
    pool::monitor::may_ping,
    snapshot::{BuildError, Snapshot},
};

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `POST /api/v1/reload`, `homing reload`.
    Admin,
    /// A file changed.
    Watch,
}

impl Trigger {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Admin => "admin",
            Self::Watch => "watch",
        }
    }
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the configuration has problems; nothing was changed")]
    Config(Problems),
    #[error("the configuration cannot be put to work; nothing was changed")]
    Build(#[from] BuildError),
    #[error("the configuration cannot be put to work; nothing was changed")]
    Start(#[from] StartError),
    #[error("the configuration cannot be put to work; nothing was changed")]
    Token(#[from] TokenError),
    #[error("homing is stopping; nothing was changed")]
    Stopping,
    #[error("the reload panicked")]
    Panic,
}

/// Everything that can fail, done.
struct Prepared {
    snapshot: Snapshot,
    sockets: Sockets,
    dns: dns::Prepared,
    admin: Terms,
    access_log: Option<Arc<AccessLog>>,
    warnings: Vec<config::Problem>,
}

/// What a reload that went well has to say.
struct Done {
    warnings: Vec<config::Problem>,
    needs_restart: Vec<String>,
    changes: std::collections::BTreeMap<String, view::Changes>,
}

impl Instance {
    /// Loads the configuration again, all of it or nothing. One reload begins when the one before has ended, and
    /// none is left halfway because nobody waits for it any more.
    pub async fn reload(self: &Arc<Self>, trigger: Trigger) -> view::Reload {
        let instance = self.clone();
        let whole = tokio::spawn(async move {
            let _one_at_a_time = instance.reloading.lock().await;
            let (begun, time) = (instance.live.clock.now(), instance.live.clock.wall());
            // A task of its own: rules that are let go may panic.
            let replacing = instance.clone();
            let outcome = tokio::spawn(async move { replacing.replace().await }).await;
            let took = instance.live.clock.now() - begun;
            instance.conclude(trigger, time, took, outcome.unwrap_or(Err(Refused::Panic)))
        });
        whole.await.expect("what can panic has a task of its own, and nobody cancels this one")
    }

    async fn replace(self: &Arc<Self>) -> Result<Done, Refused> {
        let instance = self.clone();
        // Files, keys and rules' constructors may take their time, which requests must not wait for.
        let prepared = tokio::task::spawn_blocking(move || instance.prepare()).await;
        let done = match prepared.unwrap_or(Err(Refused::Panic)) {
            Ok(prepared) => self.commit(prepared).await,
            Err(refused) => Err(refused),
        };
        // Of objects that are no more, or were built in vain.
        self.live.forget_series();
        let builder = self.builder.clone();
        let _ = tokio::task::spawn_blocking(move || builder.loaded()).await;
        done
    }

    fn prepare(&self) -> Result<Prepared, Refused> {
        let current = self.live.snapshot();
        let (loaded, seen) = config::load_seen(&current.config.file, &self.builder.registry.names());
        self.history.lock().seen = Arc::new(seen);
        let config::Loaded { config, warnings } = loaded.map_err(Refused::Config)?;
        let admin = Terms::read(&config.admin)?;
        let registry = &self.builder.registry;
        let snapshot = Snapshot::build(Arc::new(config), registry, &self.live, Some(&current))?;
        may_ping(&snapshot.probed_pools()).map_err(StartError::from)?;
        sources::check(&snapshot.config).map_err(StartError::from)?;
        let sockets = self.ports.prepare(&self.live, &snapshot, &mut Inherited::default())?;
        let access_log = snapshot.config.access_log.as_ref();
        let access_log = self.live.access_log.prepare(access_log, &self.live.metrics);
        let access_log = access_log.map_err(StartError::from)?;
        let dns = self.prepare_dns(&snapshot, &mut Inherited::default())?;
        Ok(Prepared { snapshot, sockets, dns, admin, access_log, warnings })
    }

    async fn commit(&self, prepared: Prepared) -> Result<Done, Refused> {
        let Prepared { snapshot, sockets, dns, admin, access_log, warnings } = prepared;
        let old = self.live.snapshot();
        let gone = {
            let stopping = self.stopping.lock();
            if *stopping {
                return Err(Refused::Stopping);
            }
            self.live.access_log.set(access_log);
            self.follow_ticket_keys(&snapshot.config);
            let gone = self.live.replace(snapshot);
            self.ports.apply(sockets);
            let room = self.ports.limit_clients(self.live.snapshot().config.max_connections);
            self.live.metrics.listeners.limit.set(room.try_into().unwrap_or(i64::MAX));
            self.dns.apply(dns);
            gone
        };
        let new = self.live.snapshot();
        for addr in port_watch::to_be_closed(&old, &new) {
            self.ports.end_connections(addr);
        }
        self.monitors.follow(&new.probed_pools(), &mut rand::rng());
        self.admin.set(admin);
        for listener in gone {
            let closed = self.ports.remove(listener.addr, new.config.grace_period).await;
            let live = self.live.clone();
            tokio::spawn(async move {
                if let Some(closed) = closed {
                    let _ = closed.await;
                }
                live.forget(&listener);
            });
        }
        let needs_restart = self.needs_restart(&new.config);
        Ok(Done { warnings, needs_restart, changes: changes::between(&old, &new) })
    }

    fn follow_ticket_keys(&self, config: &config::Config) {
        let followed = self.live.ticket_keys.follow(&config.session_ticket_secrets, self.live.clock.now());
        if let Err(error) = followed {
            tracing::error!(%error, "openssl has no random bytes: the keys of session tickets stay as they are");
        }
    }

    /// Counts, logs and keeps what came of a reload.
    fn conclude(
        &self,
        trigger: Trigger,
        time: SystemTime,
        took: Duration,
        outcome: Result<Done, Refused>,
    ) -> view::Reload {
        let in_short = Duration::from_millis(took.as_millis().try_into().unwrap_or(u64::MAX));
        let mut reload = view::Reload {
            result: view::ReloadResult::Success,
            trigger: trigger.as_str().to_owned(),
            time: time.into(),
            duration: in_short,
            error: None,
            problems: Vec::new(),
            warnings: Vec::new(),
            needs_restart: Vec::new(),
            changes: Default::default(),
        };
        match outcome {
            Ok(done) => {
                reload.warnings = done.warnings.iter().map(ToString::to_string).collect();
                reload.needs_restart = done.needs_restart;
                reload.changes = done.changes;
            }
            Err(refused) => {
                reload.result = view::ReloadResult::Failure;
                reload.problems = self.problems(&refused);
                reload.error = Some(refused.to_string());
            }
        }
        let metrics = &self.live.metrics.config;
        metrics.reloads.with_label_values(&[reload.result.as_str()]).inc();
        metrics.last_reload_duration.set(took.as_secs_f64());
        let mut history = self.history.lock();
        match reload.result {
            view::ReloadResult::Success => {
                self.count_loaded(time);
                history.loaded = time;
            }
            view::ReloadResult::Failure => metrics.last_reload_successful.set(0),
        }
        log(&reload);
        history.last_reload = Some(reload.clone());
        reload
    }

    /// A line for each problem, with the file where it is known.
    fn problems(&self, refused: &Refused) -> Vec<String> {
        let file = self.live.snapshot().config.file.display().to_string();
        match refused {
            Refused::Config(problems) => problems.iter().map(ToString::to_string).collect(),
            Refused::Build(error) => vec![format!("{file}: {error}")],
            Refused::Start(error) => vec![format!("{file}: {error}")],
            Refused::Token(error) => vec![format!("{file}: {error}")],
            Refused::Stopping => Vec::new(),
            Refused::Panic => vec![format!("{file}: a rule or homing itself panicked; the log has more")],
        }
    }
}

fn log(reload: &view::Reload) {
    let (trigger, took) = (&*reload.trigger, humantime::format_duration(reload.duration).to_string());
    match &reload.error {
        None => {
            let changes: Vec<_> = reload
                .changes
                .iter()
                .filter(|(_, changes)| !changes.is_of_none())
                .map(|(section, changes)| format!("{section}: {}", changes.in_words()))
                .collect();
            let changes = if changes.is_empty() { "nothing".to_owned() } else { changes.join("; ") };
            tracing::info!(trigger, took, changes, "configuration reloaded");
        }
        Some(error) => tracing::error!(trigger, took, "reload refused: {error}"),
    }
    for problem in &reload.problems {
        tracing::error!("{problem}");
    }
    for warning in &reload.warnings {
        tracing::warn!("{warning}");
    }
    for setting in &reload.needs_restart {
        tracing::warn!("needs a restart: {setting}");
    }
}
