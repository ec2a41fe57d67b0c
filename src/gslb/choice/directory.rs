//! The names that DNS answers for.

use std::{collections::HashMap, sync::Arc};

use super::{
    asker::Places,
    networks::NetworkMap,
    service::{Member, ServiceChoice},
};
use crate::{config::Gslb, names::SiteName};

/// The enabled services of a federation, by name.
#[derive(Debug)]
pub struct Directory {
    services: Box<[ServiceChoice]>,
    exact: HashMap<Box<str>, u32>,
    /// Names that stand for all names below them.
    below: HashMap<Box<str>, u32>,
    /// The length of the longest of them.
    longest: usize,
    members: usize,
}

impl Directory {
    pub fn new(gslb: &Gslb) -> Self {
        let places = Arc::new(Places::new(gslb));
        let mut directory = Self {
            services: Box::default(),
            exact: HashMap::new(),
            below: HashMap::new(),
            longest: 0,
            members: 0,
        };
        let mut services = Vec::new();
        for config in gslb.services.iter().filter(|service| service.enabled) {
            let place = services.len() as u32;
            for name in &config.domain_names {
                directory.add(name, config.wildcard_match, place);
            }
            let service = ServiceChoice::new(config, gslb, &places, (services.len(), directory.members));
            directory.members += service.members().len();
            services.push(service);
        }
        directory.services = services.into();
        directory
    }

    /// The first service that has a name keeps it.
    fn add(&mut self, name: &str, wildcard_match: bool, service: u32) {
        let parent = name.strip_prefix("*.");
        if parent.is_none() {
            self.exact.entry(name.into()).or_insert(service);
        }
        if parent.is_some() || wildcard_match {
            let name = parent.unwrap_or(name);
            self.longest = self.longest.max(name.len());
            self.below.entry(name.into()).or_insert(service);
        }
    }

    /// The service of a name, in lower case and without the dot at its end: the one that has it, else the one with the
    /// longest name that stands for all below it.
    pub fn find(&self, name: &str) -> Option<&ServiceChoice> {
        let found = self.exact.get(name).or_else(|| self.above(name))?;
        Some(&self.services[*found as usize])
    }

    fn above(&self, name: &str) -> Option<&u32> {
        if self.below.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            // A long name of many labels is nobody's, and looking it up costs.
            if parent.len() <= self.longest
                && let Some(found) = self.below.get(parent)
            {
                return Some(found);
            }
            rest = parent;
        }
        None
    }

    pub fn services(&self) -> &[ServiceChoice] {
        &self.services
    }

    /// A service by its own name.
    pub fn service(&self, name: &str) -> Option<&ServiceChoice> {
        self.services.iter().find(|service| service.config().name.as_str() == name)
    }

    /// All members, by [`Member::number`].
    pub fn members(&self) -> impl Iterator<Item = (&ServiceChoice, &Member)> {
        self.services.iter().flat_map(|service| service.members().iter().map(move |member| (service, member)))
    }
}

impl Places {
    fn new(gslb: &Gslb) -> Self {
        let place = |name: &SiteName| gslb.sites.iter().position(|site| site.name == *name);
        let lists = gslb
            .topology
            .iter()
            .map(|rule| rule.sites.iter().filter_map(|name| Some(place(name)? as u16)).collect());
        let rules = gslb.topology.iter().zip(0..);
        Self {
            private: NetworkMap::new(gslb.private_networks.iter().map(|network| (*network, ()))),
            topology: NetworkMap::new(
                rules.flat_map(|(rule, list)| rule.networks.iter().map(move |network| (*network, list))),
            ),
            lists: lists.collect(),
            geo: gslb.geo_database.clone(),
        }
    }
}
