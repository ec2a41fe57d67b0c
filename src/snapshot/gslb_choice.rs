//! The members of GSLB services, as DNS chooses among them: the directory, and how each member stands right now.
//!
//! Two sources speak of a member: monitors that probe it from here, and its own site. Either can say that it is down.
//! A site that does not answer is believed to be down where no monitor knows better. Where neither has said anything
//! yet, a member is what it was before the last restart, if that is known, else up.
//!
//! Monitors that the SP pool of a virtual service here has anyway are not run twice.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{Before, Parts, VirtualService};
use crate::{
    config::{self, Config, Gslb},
    gslb::{
        Change, Drains, Memory, MemoryKey, SiteWord, Word,
        choice::{self, Availability, Directory, Health, ServiceChoice},
        probe_pool,
    },
    names::{ClusterUuid, PoolName},
    pool::{self, Pool, Server},
};

/// What DNS chooses by.
pub struct GslbChoice {
    directory: Arc<Directory>,
    /// By [`choice::Member::number`].
    members: Box<[Member]>,
    drains: Arc<Drains>,
    probe_pools: Vec<Arc<Pool>>,
}

/// What is known of a member.
pub struct Member {
    /// The server that monitors here probe.
    probed: Option<Arc<Server>>,
    site: Site,
    memory: Arc<Memory>,
    /// Once down, it waits for an operator.
    manual_resume: bool,
}

/// Who speaks for a member's site.
enum Site {
    /// Nobody is asked.
    Unasked,
    /// This one: the virtual service is here, if it is enabled.
    Own(Option<Arc<VirtualService>>),
    Other(Arc<SiteWord>),
}

/// Who says something of a member's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Monitors that probe it from here.
    Monitors,
    /// Its own site.
    Site,
}

impl Source {
    pub const ALL: [Self; 2] = [Self::Monitors, Self::Site];

    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monitors => "monitors",
            Self::Site => "site",
        }
    }
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    pub is_up: bool,
    /// Why, as an operator reads it.
    pub reason: String,
}

impl GslbChoice {
    pub(super) fn build(
        gslb: &Gslb,
        config: &Config,
        virtual_services: &[Arc<VirtualService>],
        before: &Before<'_>,
        parts: &Parts,
    ) -> Self {
        let directory = Directory::new(gslb);
        let mut probes = Probes { pools: HashMap::new(), before, parts };
        let here = Here { gslb, config, virtual_services };
        let mut members = Vec::new();
        for (service, member) in directory.members() {
            let group = &service.config().groups[usize::from(member.group)];
            let member_config = service.config_of(member);
            let min_up = group.choosing.min_health_monitors_up;
            let probed = here
                .sp_server(service, member)
                .filter(|_| min_up.is_none())
                .or_else(|| probes.server(probe_pool(service.config(), member_config, min_up)?));
            let key = key(service, member);
            members.push(Member {
                probed,
                site: here.site(service, member, parts),
                memory: parts.memories.of(&key),
                manual_resume: group.choosing.manual_resume,
            });
        }
        let mut probe_pools: Vec<_> = probes.pools.into_values().collect();
        probe_pools.sort_by(|a, b| a.name().cmp(b.name()));
        Self {
            directory: Arc::new(directory),
            members: members.into(),
            drains: parts.drains.clone(),
            probe_pools,
        }
    }

    /// The services by name.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Pools that are there to be probed.
    pub fn probe_pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.probe_pools.iter()
    }

    /// What is known of a member.
    pub fn member(&self, member: &choice::Member) -> &Member {
        &self.members[member.number]
    }

    /// Looks at all members, and tells the log of those that have come or gone. To be called now and then.
    pub fn look(&self) {
        for (service, member) in self.directory.members() {
            let known = self.member(member);
            if known.has_result(member) {
                known.memory.is_known();
            }
            let is_down = known.availability(member) == Availability::Down;
            let holds = known.manual_resume && member.off.is_none();
            let (name, service) = (&*member.name, service.config().name.as_str());
            match known.memory.look(is_down, holds) {
                Some(Change::WentDown) => {
                    let reason = known.reason(member).unwrap_or_default();
                    tracing::warn!(service, member = name, reason, "GSLB member is down");
                }
                Some(Change::CameUp) if holds => tracing::warn!(
                    service,
                    member = name,
                    "GSLB member is up again and waits for `homing gslb resume {service}`"
                ),
                Some(Change::CameUp) => tracing::info!(service, member = name, "GSLB member is up"),
                None => {}
            }
        }
    }

    /// Lets members that wait for an operator have clients again: those of a service, or one of them. Which they were.
    pub fn resume(&self, service: &ServiceChoice, name: Option<&str>) -> Vec<String> {
        let members = service.members().iter();
        let wanted = members.filter(|member| name.is_none_or(|name| *member.name == *name));
        let held = wanted.filter(|member| self.member(member).memory.resume());
        held.map(|member| member.name.to_string()).collect()
    }

    /// What would be remembered over a restart: who was down, and who waits for an operator.
    pub fn remembered(&self) -> impl Iterator<Item = (MemoryKey, &Memory)> {
        self.directory.members().map(|(service, member)| (key(service, member), &*self.member(member).memory))
    }
}

impl Health for GslbChoice {
    fn of(&self, member: &choice::Member, _: Instant) -> Availability {
        if self.drains.until(&member.cluster_uuid).is_some() {
            return Availability::Leaving;
        }
        self.member(member).availability(member)
    }
}

impl Member {
    /// How it stands, but for what was commanded here.
    fn availability(&self, member: &choice::Member) -> Availability {
        if self.memory.is_assumed_down() {
            return Availability::Down;
        }
        let monitors = self.probed.as_ref().map(|server| server.is_up());
        match (monitors, self.site.word(member)) {
            (Some(false), _) | (_, Some(Word::Down)) | (None, Some(Word::Silent)) => Availability::Down,
            (_, Some(Word::Leaving)) => Availability::Leaving,
            _ if self.manual_resume && self.memory.is_held() => Availability::Held,
            _ => Availability::Up,
        }
    }

    /// Whether somebody has found something out since the start.
    fn has_result(&self, member: &choice::Member) -> bool {
        let probed = self.probed.as_ref().is_some_and(|server| server.health() != pool::Health::Unchecked);
        let unprobed = self.probed.is_none();
        probed || (unprobed && (self.site.word(member).is_some() || matches!(self.site, Site::Unasked)))
    }

    /// Why it is down, if it is.
    fn reason(&self, member: &choice::Member) -> Option<String> {
        let opinions = Source::ALL.iter().filter_map(|source| self.opinion(*source, member));
        let bad = opinions.filter(|opinion| !opinion.is_up).map(|opinion| opinion.reason).next();
        bad.or_else(|| self.memory.is_assumed_down().then(|| "down before the last restart".into()))
    }

    /// What a source says of it; `None`: it is not asked, or has not said anything yet.
    pub fn opinion(&self, source: Source, member: &choice::Member) -> Option<Opinion> {
        match source {
            Source::Monitors => {
                let server = self.probed.as_ref()?;
                let reason = match server.health() {
                    pool::Health::Unchecked => return None,
                    pool::Health::Up => "monitors passed".into(),
                    pool::Health::Down { reason } | pool::Health::Maintenance { reason } => reason,
                };
                Some(Opinion { is_up: server.is_up(), reason })
            }
            Source::Site => {
                let word = self.site.word(member)?;
                let reason = self.site.reason(member).unwrap_or_else(|| "its site says so".into());
                Some(Opinion { is_up: matches!(word, Word::Up | Word::Leaving), reason })
            }
        }
    }
}

impl Site {
    fn word(&self, member: &choice::Member) -> Option<Word> {
        match self {
            Self::Unasked => None,
            Self::Own(vs) => {
                Some(if vs.as_ref().is_some_and(|vs| serves(vs)) { Word::Up } else { Word::Down })
            }
            Self::Other(word) => word.about(&member.vs_uuid),
        }
    }

    fn reason(&self, member: &choice::Member) -> Option<String> {
        match self {
            Self::Unasked => None,
            Self::Own(None) => Some("its virtual service is not enabled here".into()),
            Self::Own(Some(vs)) => (!serves(vs)).then(|| "no server of its pool takes new sessions".into()),
            Self::Other(word) => word.reason(&member.vs_uuid),
        }
    }
}

/// Whether a virtual service can take new clients. One without a pool is served by rules.
fn serves(vs: &VirtualService) -> bool {
    vs.pool.as_ref().is_none_or(|pool| pool.active_servers().next().is_some())
}

/// This site, as far as members are on it or are probed by it anyway.
struct Here<'a> {
    gslb: &'a Gslb,
    config: &'a Config,
    virtual_services: &'a [Arc<VirtualService>],
}

impl Here<'_> {
    /// The server of an SP pool here whose monitors are the service's.
    fn sp_server(&self, service: &ServiceChoice, member: &choice::Member) -> Option<Arc<Server>> {
        self.virtual_services.iter().find_map(|vs| {
            let site =
                vs.site.as_ref().filter(|site| site.membership.service.uuid == service.config().uuid)?;
            let is_it = |peer: &&crate::gslb::PeerMember| {
                peer.cluster_uuid == member.cluster_uuid && peer.vs_uuid == member.vs_uuid
            };
            let peer = site.membership.peers.iter().find(is_it)?;
            site.sp_pool.server(peer.addr).filter(|server| server.is_watched()).cloned()
        })
    }

    fn site(&self, service: &ServiceChoice, member: &choice::Member, parts: &Parts) -> Site {
        if !service.config().controller_health_status_enabled || member.cluster_uuid.as_str().is_empty() {
            return Site::Unasked;
        }
        if self.config.site.cluster_uuid.as_ref() == Some(&member.cluster_uuid) {
            let vs = self.virtual_services.iter().find(|vs| vs.config.uuid.as_ref() == Some(&member.vs_uuid));
            return Site::Own(vs.cloned());
        }
        match asked(self.gslb, &member.cluster_uuid) {
            true => Site::Other(parts.words.of(&member.cluster_uuid)),
            false => Site::Unasked,
        }
    }
}

fn asked(gslb: &Gslb, site: &ClusterUuid) -> bool {
    gslb.sites.iter().any(|known| known.cluster_uuid == *site && known.admin.is_some())
}

fn key(service: &ServiceChoice, member: &choice::Member) -> MemoryKey {
    (service.config().uuid.clone(), member.cluster_uuid.clone(), member.vs_uuid.clone())
}

/// The pools that are there to be probed, each once.
struct Probes<'a> {
    pools: HashMap<PoolName, Arc<Pool>>,
    before: &'a Before<'a>,
    parts: &'a Parts,
}

impl Probes<'_> {
    fn server(&mut self, pool: config::Pool) -> Option<Arc<Server>> {
        let Self { pools, before, parts } = self;
        let made = pools.entry(pool.name.clone());
        let made = made.or_insert_with(|| before.probe_pool(&Arc::new(pool), parts));
        made.servers().first().cloned()
    }
}
