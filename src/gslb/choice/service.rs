//! A GSLB service, made ready for choosing: everything that does not depend on who asks is worked out once.

use std::{hash::Hasher, net::IpAddr, ops::Range, sync::Arc};

use siphasher::sip::SipHasher13;

use super::{asker::Places, globe::Point};
use crate::{
    config::{Gslb, GslbAlgorithm, GslbMember, GslbService},
    names::{ClusterUuid, VsUuid},
};

/// A GSLB service that is enabled.
#[derive(Debug)]
pub struct ServiceChoice {
    number: usize,
    pub(super) config: Arc<GslbService>,
    pub(super) places: Arc<Places>,
    /// The highest priority first.
    pub(super) groups: Box<[Group]>,
    /// Of all groups, in their order.
    pub(super) members: Box<[Member]>,
    /// Members that have addresses for clients outside.
    pub(super) has_public: bool,
}

/// A group of members.
#[derive(Debug)]
pub struct Group {
    pub(super) priority: u32,
    pub(super) members: Range<u16>,
    pub(super) algorithm: GslbAlgorithm,
    pub(super) fallback: GslbAlgorithm,
    pub(super) mask: u8,
    pub(super) mask6: u8,
}

/// A member of a service.
#[derive(Debug, PartialEq)]
pub struct Member {
    /// Counts through all members of a directory, from 0.
    pub number: usize,
    /// Counts through the members of its service, from 0.
    pub place: u16,
    /// As metrics and operators call it: its site, where that has one member of the service, else more.
    pub name: Box<str>,
    /// Its group's place among the groups of the service.
    pub group: u16,
    pub cluster_uuid: ClusterUuid,
    pub vs_uuid: VsUuid,
    /// Absent where clients are sent to `fqdn`.
    pub ip: Option<IpAddr>,
    /// For clients outside.
    pub public_ip: Option<IpAddr>,
    pub fqdn: Option<Box<str>>,
    /// Why it is out of the question; `None`: it is not.
    pub off: Option<Off>,
    pub(super) ratio: u16,
    pub(super) preference_order: u8,
    /// Its site's place in the federation's file.
    pub(super) site: Option<u16>,
    pub(super) point: Option<Point>,
    /// The same on every node.
    pub(super) hash: u64,
}

/// What the configuration says against a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    Member,
    Group,
    Site,
}

impl ServiceChoice {
    /// Its number, and that of its first member.
    pub(super) fn new(
        config: &Arc<GslbService>,
        gslb: &Gslb,
        places: &Arc<Places>,
        (own, mut number): (usize, usize),
    ) -> Self {
        let mut members = Vec::new();
        let mut groups = Vec::new();
        for (place, group) in config.groups.iter().enumerate() {
            let first = members.len() as u16;
            for member in &group.members {
                let off = (!group.enabled).then_some(Off::Group);
                let own = members.len() as u16;
                members.push(Member::new(member, (number, own, place as u16), off, gslb));
                number += 1;
            }
            groups.push(Group {
                priority: group.priority,
                members: first..members.len() as u16,
                algorithm: group.algorithm,
                fallback: group.choosing.fallback_algorithm,
                mask: group.choosing.consistent_hash_mask,
                mask6: group.choosing.consistent_hash_mask6,
            });
        }
        name(&mut members);
        Self {
            number: own,
            config: config.clone(),
            places: places.clone(),
            groups: groups.into(),
            has_public: members.iter().any(|member| member.public_ip.is_some()),
            members: members.into(),
        }
    }

    /// Counts through all services of a directory, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What it was made of.
    pub fn config(&self) -> &Arc<GslbService> {
        &self.config
    }

    /// Its members, in the order of their groups' priorities.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The configuration of one of its members.
    pub fn config_of(&self, member: &Member) -> &GslbMember {
        let group = usize::from(member.group);
        let within = member.place - self.groups[group].members.start;
        &self.config.groups[group].members[usize::from(within)]
    }

    /// Whether an EDNS client subnet counts for it.
    pub fn uses_client_subnet(&self) -> bool {
        self.config.use_edns_client_subnet
    }
}

impl Member {
    /// Of the numbers, `group` is its group's place.
    fn new(
        config: &GslbMember,
        (number, place, group): (usize, u16, u16),
        off: Option<Off>,
        gslb: &Gslb,
    ) -> Self {
        let site = gslb.sites.iter().position(|site| site.cluster_uuid == config.cluster_uuid);
        let at = site.map(|place| &gslb.sites[place]);
        let own_site = config.location.or_else(|| at?.location);
        let address = config.public_ip.or(config.ip);
        let location = own_site.or_else(|| gslb.geo_database.as_ref()?.locate(address?).0);
        let off = match (config.enabled, at) {
            (false, _) => Some(Off::Member),
            (true, Some(site)) if !site.enabled => Some(Off::Site),
            _ => off,
        };
        Self {
            number,
            place,
            name: at.map_or(config.vs_uuid.as_str(), |site| site.name.as_str()).into(),
            group,
            cluster_uuid: config.cluster_uuid.clone(),
            vs_uuid: config.vs_uuid.clone(),
            ip: config.ip,
            public_ip: config.public_ip,
            fqdn: config.fqdn.as_deref().map(Into::into),
            off,
            ratio: config.ratio,
            preference_order: config.preference_order,
            site: site.map(|place| place as u16),
            point: location.map(Point::from),
            hash: hash(config),
        }
    }

    /// What a client is told, from outside or not; none of a CNAME.
    pub fn address(&self, outside: bool) -> Option<IpAddr> {
        self.public_ip.filter(|_| outside).or(self.ip)
    }

    /// The name that is its answer.
    pub(super) fn cname(&self) -> Option<&str> {
        self.fqdn.as_deref().filter(|_| self.ip.is_none())
    }

    pub(super) fn preference(&self) -> f64 {
        // The order of the file among equals.
        f64::from(self.preference_order) * 65_536.0 + f64::from(self.place)
    }

    /// How far it is from a client; infinite where nobody knows.
    pub(super) fn apart(&self, client: Point) -> f64 {
        self.point.map_or(f64::INFINITY, |point| point.apart(client))
    }

    /// The same in kilometres.
    pub(super) fn kilometres(&self, client: Point) -> Option<f64> {
        Some(self.point?.kilometres(client))
    }
}

/// Members that share a name get one of their own.
fn name(members: &mut [Member]) {
    let names: Vec<_> = members.iter().map(|member| member.name.clone()).collect();
    for member in members {
        if names.iter().filter(|name| **name == member.name).count() > 1 {
            let own = match &member.ip {
                Some(ip) if member.cluster_uuid.as_str().is_empty() => ip.to_string(),
                _ => member.vs_uuid.to_string(),
            };
            member.name = format!("{}/{own}", member.name).into();
        }
    }
}

/// Of what a member is, not of where it stands: clients stay when others come or go, and on every node alike.
fn hash(config: &GslbMember) -> u64 {
    let mut hasher = SipHasher13::new();
    for part in [config.cluster_uuid.as_str(), config.vs_uuid.as_str()] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    match config.ip {
        Some(IpAddr::V4(ip)) => hasher.write(&ip.octets()),
        Some(IpAddr::V6(ip)) => hasher.write(&ip.octets()),
        None => {}
    }
    hasher.finish()
}
