//! Rules by name: what a virtual service may name in YAML.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{Rule, RuleError, services::Services};
use crate::{
    config, gslb::Membership, metrics::Metrics, names::RuleName, pool::Pool, site_cookie::ReplayGuard,
};

/// Makes a rule for one virtual service.
pub type Factory = Arc<dyn Fn(&Setup<'_>) -> Result<Arc<dyn Rule>, RuleError> + Send + Sync>;

/// What a factory is told.
pub struct Setup<'a> {
    /// The rule's `config` in YAML, `Null` where it has none.
    pub config: &'a serde_yaml::Value,
    pub virtual_service: &'a config::VirtualService,
    pub services: &'a Arc<Services>,
    pub metrics: &'a Metrics,
    /// Present where the virtual service is a member of a site-persistent GSLB service.
    pub site: Option<&'a SiteSetup>,
}

/// A virtual service's part in site persistence.
#[derive(Clone)]
pub struct SiteSetup {
    pub membership: Arc<Membership>,
    /// The pool of its peers on other sites.
    pub sp_pool: Arc<Pool>,
    /// As `show pool` prints it.
    pub sp_pool_uuid: Arc<str>,
    /// Hops that were proven lately, of all virtual services, over reloads.
    pub replay: Arc<ReplayGuard>,
}

impl SiteSetup {
    /// Whether the peer at this address is up.
    pub fn is_up(&self, peer: SocketAddr) -> bool {
        self.sp_pool.server(peer).is_some_and(|server| server.is_up())
    }
}

/// A name in YAML that no rule is registered under.
#[derive(Debug, thiserror::Error)]
#[error("rule `{name}` is not registered; known: {known}")]
pub struct UnknownRule {
    name: RuleName,
    known: String,
}

/// The rules that configurations may name.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<RuleName, Factory>,
}

impl Registry {
    /// Registers a rule that needs no configuration; all virtual services share it.
    pub fn rule(&mut self, name: &str, rule: impl Rule) {
        let rule: Arc<dyn Rule> = Arc::new(rule);
        self.factory(name, move |_| Ok(rule.clone()));
    }

    /// Registers a factory, which is called once for each virtual service that names the rule.
    pub fn factory(
        &mut self,
        name: &str,
        factory: impl Fn(&Setup<'_>) -> Result<Arc<dyn Rule>, RuleError> + Send + Sync + 'static,
    ) {
        self.factories.insert(name.into(), Arc::new(factory));
    }

    /// The registered names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.factories.keys().map(RuleName::as_str).collect()
    }

    /// The factory of a name.
    ///
    /// # Errors
    /// Nothing is registered under it.
    pub fn named(&self, name: &RuleName) -> Result<&Factory, UnknownRule> {
        self.factories
            .get(name)
            .ok_or_else(|| UnknownRule { name: name.clone(), known: self.names().join(", ") })
    }
}
