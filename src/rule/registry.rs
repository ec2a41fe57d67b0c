//! Rules by name: what a virtual service may name in YAML.

use std::{collections::BTreeMap, sync::Arc};

use super::{Rule, RuleError, services::Services};
use crate::{
    config,
    gslb::{Census, Drains, Facts, MemberId, Membership, PeerMember, Standing},
    metrics::Metrics,
    names::RuleName,
    pool::Pool,
    site_cookie::ReplayGuard,
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
    /// Which sites are being emptied by command, over reloads.
    pub drains: Arc<Drains>,
    /// The sessions whose home this member is, over reloads.
    pub census: Arc<Census>,
}

impl SiteSetup {
    /// How this site stands at `now`, Unix seconds. It does not ask its own monitors.
    pub fn own_standing(&self, now: u64) -> Standing {
        let until = self.membership.own_until(&self.drains);
        Standing::of(Facts { is_up: true, until }, now)
    }

    /// How a peer stands at `now`, Unix seconds. Who is not known has left.
    pub fn standing(&self, peer: &MemberId, now: u64) -> Standing {
        self.membership.peer(peer).map_or(Standing::Left, |peer| self.standing_of(peer, now))
    }

    fn standing_of(&self, peer: &PeerMember, now: u64) -> Standing {
        // A disabled server is not probed, and goes on for its sessions.
        let is_up = self.sp_pool.server(peer.addr).is_some_and(|server| server.is_up() || !peer.enabled);
        let until = self.membership.peer_until(peer, &self.drains);
        Standing::of(Facts { is_up, until }, now)
    }

    /// Of the peers in service at `now`, the one with the fewest requests of this site in flight; of equals, the one
    /// with the highest priority.
    pub fn peer_in_service(&self, now: u64) -> Option<&PeerMember> {
        let peers = self.membership.peers.iter();
        let in_service = peers.filter(|peer| self.standing_of(peer, now) == Standing::InService);
        in_service.min_by_key(|peer| self.sp_pool.server(peer.addr).map_or(0, |server| server.inflight()))
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
