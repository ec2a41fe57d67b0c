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
        in_service.min_by_key(|peer| self.sp_pool.server(peer.addr).map_or(0, |server| server.load()))
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        gslb::{
            Censuses, SpPool,
            fixtures::{self, A, B, C, NOW, TestSite},
        },
        pool::Health,
    };

    /// site_A among three sites that are all in service.
    fn site() -> SiteSetup {
        let gslb = fixtures::gslb_with(|members| members[2].enabled = true);
        let membership = fixtures::membership_in(A, &gslb);
        let SpPool { uuid, pool } = SpPool::of(&fixtures::vs(A), &membership, &gslb);
        SiteSetup {
            census: Censuses::default().of(membership.own),
            membership: Arc::new(membership),
            sp_pool: Pool::new(&pool, &Metrics::new(), None, UNIX_EPOCH),
            sp_pool_uuid: uuid.into(),
            replay: Arc::default(),
            drains: Arc::default(),
        }
    }

    fn id(site: TestSite) -> MemberId {
        MemberId::of(&site.cluster.into(), &site.vs.into())
    }

    #[test]
    fn sessions_begin_at_the_peer_in_service_that_has_the_fewest_requests() {
        let site = site();
        let chosen = |now| site.peer_in_service(now).map(|peer| peer.site.to_string());
        let [b, c] = site.sp_pool.servers() else { panic!("two peers") };
        assert_eq!(chosen(NOW).as_deref(), Some("site_B"), "the highest priority of equals");
        let lease = b.lease();
        assert_eq!(chosen(NOW).as_deref(), Some("site_C"));
        drop(lease);
        b.set_health(Health::Down { reason: "it is".into() }, UNIX_EPOCH);
        assert_eq!(chosen(NOW).as_deref(), Some("site_C"));
        site.drains.drain(&C.cluster.into(), NOW, Duration::from_secs(60));
        assert_eq!(chosen(NOW), None, "site_C is being emptied");
        assert!(c.is_up());
    }

    #[test]
    fn a_peer_stands_as_monitors_and_operators_say() {
        let site = site();
        let drain = |of: TestSite| site.drains.drain(&of.cluster.into(), NOW, Duration::from_secs(60));
        assert_eq!(site.standing(&id(B), NOW), Standing::InService);
        drain(B);
        assert_eq!(site.standing(&id(B), NOW), Standing::Leaving);
        assert_eq!(site.standing(&id(B), NOW + 60), Standing::Left);
        site.sp_pool.servers()[0].set_health(Health::Down { reason: "it is".into() }, UNIX_EPOCH);
        assert_eq!(site.standing(&id(B), NOW), Standing::Down);
        assert_eq!(site.standing(&id(A), NOW), Standing::Left, "who is no peer");
        assert_eq!(site.own_standing(NOW), Standing::InService);
        drain(A);
        assert_eq!(
            (site.own_standing(NOW), site.own_standing(NOW + 60)),
            (Standing::Leaving, Standing::Left)
        );
    }

    #[test]
    fn a_disabled_peer_is_asked_for_its_minute() {
        let gslb = fixtures::gslb();
        let membership = fixtures::membership_in(A, &gslb);
        let pool = SpPool::of(&fixtures::vs(A), &membership, &gslb).pool;
        let site = SiteSetup {
            sp_pool: Pool::new(&pool, &Metrics::new(), None, UNIX_EPOCH),
            membership: Arc::new(membership),
            ..site()
        };
        assert_eq!(site.standing(&id(C), NOW + 59), Standing::Leaving);
        assert_eq!(site.standing(&id(C), NOW + 60), Standing::Left);
    }
}
