//! Federations of three sites, clients, and who is ill.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Instant};

use super::super::*;
use crate::{
    config::{Gslb, GslbAlgorithm, GslbGroup, GslbMember, GslbService, Location, MemberPort},
    gslb::fixtures,
};

/// Members that are not up, by name.
#[derive(Clone, Default)]
pub struct Ill(pub BTreeMap<String, Availability>);

impl Ill {
    pub fn of(members: &[(&str, Availability)]) -> Self {
        Self(members.iter().map(|(name, how)| ((*name).to_owned(), *how)).collect())
    }
}

impl Health for Ill {
    fn of(&self, member: &Member, _: Instant) -> Availability {
        self.0.get(&*member.name).copied().unwrap_or(Availability::Up)
    }
}

pub const WELL: Ill = Ill(BTreeMap::new());

pub fn member(site: usize, ip: &str) -> GslbMember {
    let sites = fixtures::gslb().sites;
    GslbMember {
        cluster_uuid: sites[site].cluster_uuid.clone(),
        vs_uuid: format!("virtualservice-{site}").as_str().into(),
        ip: Some(ip.parse().unwrap()),
        public_ip: None,
        fqdn: None,
        services: vec![MemberPort { port: 80, enable_ssl: false }],
        ratio: 1,
        preference_order: 1,
        location: None,
        enabled: true,
        drain_epoch: 0,
    }
}

pub fn group(priority: u32, algorithm: GslbAlgorithm, members: Vec<GslbMember>) -> GslbGroup {
    let choosing = Default::default();
    GslbGroup { name: format!("group{priority}"), priority, enabled: true, algorithm, choosing, members }
}

/// Three sites, at Berlin, Paris and Sydney, with a member each in one group, without site persistence.
pub fn three(algorithm: GslbAlgorithm, change: impl FnOnce(&mut GslbService, &mut Gslb)) -> Directory {
    let mut gslb = fixtures::gslb();
    for (site, (latitude, longitude)) in
        gslb.sites.iter_mut().zip([(52.5, 13.4), (48.9, 2.4), (-33.9, 151.2)])
    {
        site.location = Some(Location { latitude, longitude });
    }
    let members = vec![member(0, "10.0.0.1"), member(1, "10.0.0.2"), member(2, "10.0.0.3")];
    let mut service = GslbService {
        site_persistence: None,
        groups: vec![group(10, algorithm, members)],
        domain_names: vec!["x.foo.com".into()],
        ..(*gslb.services[0]).clone()
    };
    change(&mut service, &mut gslb);
    gslb.services = vec![Arc::new(service)];
    Directory::new(&gslb)
}

pub fn service(directory: &Directory) -> &ServiceChoice {
    directory.find("x.foo.com").expect("it has the name")
}

pub fn at(address: &str) -> Client {
    Client::at(address.parse().unwrap())
}

/// The names of the members in an answer, and why.
pub fn choose(directory: &Directory, client: &Client, health: &Ill, seed: u64) -> (String, Reason) {
    let choice = service(directory).choose(client, Family::V4, health, Instant::now(), seed);
    let names = match &choice.answer {
        ChoiceAnswer::Addresses(addresses) => {
            let names = addresses.iter().map(|ip| {
                let members = service(directory).members();
                let of = members.iter().find(|member| [member.ip, member.public_ip].contains(&Some(*ip)));
                of.map_or(ip.to_string(), |member| member.name.to_string())
            });
            names.collect::<Vec<_>>().join(" ")
        }
        ChoiceAnswer::Cname(name) => format!("cname {name}"),
        ChoiceAnswer::Empty => "empty".into(),
        ChoiceAnswer::Silent => "silent".into(),
    };
    (names, choice.reason)
}

pub fn shares(directory: &Directory, health: &Ill, picks: u32) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for seed in 0..picks {
        // Neighbouring clients, such as many resolvers have, and seeds that count.
        let client = Client::at(IpAddr::V4((0xc612_0000 + seed).into()));
        *counts.entry(choose(directory, &client, health, seed.into()).0).or_insert(0.0) += 1.0;
    }
    counts.values_mut().for_each(|count| *count /= f64::from(picks));
    counts
}

pub fn assert_shares(shares: &BTreeMap<String, f64>, expected: &[(&str, f64)], off: f64) {
    assert_eq!(shares.keys().collect::<Vec<_>>(), expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, share) in expected {
        assert!((shares[*name] - share).abs() < off, "{name}: {shares:?}");
    }
}
