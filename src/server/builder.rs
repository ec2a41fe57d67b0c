//! What an instance is made of: the rules that its configurations may name, and what an earlier process left.

use std::{path::Path, sync::Arc};

use super::{Homing, inheritance::Inheritance};
use crate::{
    clock::Clock,
    config::{self, Config},
    metrics::Metrics,
    rule::{Registry, Rule, RuleError, Setup},
    session::SessionTable,
    site_cookie::ReplayGuard,
    snapshot::{BuildError, Live, Parts, Snapshot},
    tls::TicketKeys,
};

/// Collects the rules that configurations may name, then builds instances.
#[derive(Clone, Default)]
pub struct Builder {
    pub(super) registry: Registry,
    after_load: Option<fn()>,
}

impl Builder {
    /// Registers a rule under the name that configurations use for it.
    pub fn rule(mut self, name: &str, rule: impl Rule) -> Self {
        self.registry.rule(name, rule);
        self
    }

    /// Registers a rule that is made anew for each virtual service that names it, with its `config`.
    pub fn rule_factory(
        mut self,
        name: &str,
        factory: impl Fn(&Setup<'_>) -> Result<Arc<dyn Rule>, RuleError> + Send + Sync + 'static,
    ) -> Self {
        self.registry.factory(name, factory);
        self
    }

    /// What is to be done when a configuration was loaded or reloaded, and the memory that this took is free again.
    pub fn after_load(self, then: fn()) -> Self {
        Self { after_load: Some(then), ..self }
    }

    pub(super) fn loaded(&self) {
        if let Some(then) = self.after_load {
            then();
        }
    }

    /// Loads a configuration that may name the registered rules.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, file: &Path) -> Result<config::Loaded, config::Problems> {
        config::load(file, &self.registry.names())
    }

    /// Builds an instance that begins with nothing.
    ///
    /// # Errors
    /// A rule refuses its configuration.
    pub fn build(&self, config: Config) -> Result<Homing, BuildError> {
        self.build_heir(config, Inheritance::none()?)
    }

    /// Builds an instance that goes on with what an earlier process left.
    ///
    /// # Errors
    /// A rule refuses its configuration.
    pub fn build_heir(&self, config: Config, inheritance: Inheritance) -> Result<Homing, BuildError> {
        let Inheritance { keys, legacy } = inheritance;
        let metrics = Metrics::new();
        let clock = Clock::system();
        let capacity = config.session_entries;
        let sessions = Arc::new(SessionTable::new(capacity, keys.seed, &metrics, clock.now()));
        let saved = keys.tickets(clock.now());
        let ticket_keys = saved.map_or_else(TicketKeys::random, Ok).map_err(BuildError::Chance)?;
        ticket_keys.follow(&config.session_ticket_secrets, clock.now()).map_err(BuildError::Chance)?;
        let replay = Arc::new(ReplayGuard::new());
        let (drains, censuses) = Default::default();
        let mark_key = keys.mark;
        let (words, memories, server_names, unseen) = Default::default();
        let parts = Parts {
            metrics,
            clock,
            sessions,
            ticket_keys,
            replay,
            drains,
            censuses,
            words,
            memories,
            server_names,
            unseen,
            mark_key,
        };
        let snapshot = Snapshot::build(Arc::new(config), &self.registry, &parts, None)?;
        self.loaded();
        Ok(Homing { live: Arc::new(Live::new(snapshot, parts)), builder: self.clone(), legacy })
    }
}
