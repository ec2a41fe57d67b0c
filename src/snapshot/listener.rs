//! Which virtual service a request belongs to: the addresses that are listened on, and the hosts on each.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::VirtualService;
use crate::{
    config::{AddressLists, ApplicationProfile, ClientLimits, ServiceTls},
    listen::ClientCaps,
};

/// One address, and the virtual services that share it.
pub struct Listener {
    pub addr: SocketAddr,
    pub profile: Arc<ApplicationProfile>,
    pub address_lists: AddressLists,
    /// Who speaks for clients by the PROXY protocol; `None`: clients come themselves.
    pub proxy_peers: Option<Vec<IpNet>>,
    /// What one client may have here, where that is limited.
    pub client_caps: Option<Arc<ClientCaps>>,
    /// One for each virtual service, with the names that it serves; empty: plain.
    pub tls: Vec<(ServiceTls, Vec<String>)>,
    exact: HashMap<String, Arc<VirtualService>>,
    /// Suffixes with their dot, the longest first.
    suffixes: Vec<(String, Arc<VirtualService>)>,
    any: Option<Arc<VirtualService>>,
    virtual_services: Vec<Arc<VirtualService>>,
}

impl Listener {
    /// Those that share the address, in the order of the file.
    pub fn virtual_services(&self) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.virtual_services.iter()
    }

    /// What one client may have here.
    pub fn client_limits(&self) -> ClientLimits {
        self.client_caps.as_ref().map(|caps| caps.limits()).unwrap_or_default()
    }

    /// The virtual service of a host, which is lower case and without port: exact names first, then the
    /// longest `*.suffix`, then the virtual service without names.
    pub fn route(&self, host: &str) -> Option<&Arc<VirtualService>> {
        self.exact
            .get(host)
            .or_else(|| self.suffixes.iter().find(|(suffix, _)| is_below(host, suffix)).map(|(_, vs)| vs))
            .or(self.any.as_ref())
    }

    /// The virtual service, if there is only one.
    pub(super) fn only(&self) -> Option<&Arc<VirtualService>> {
        match &*self.virtual_services {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// `a.b.com` is below `.b.com`; `.b.com` itself and `b.com` are not.
fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

/// The listeners of these virtual services, by name.
pub(super) fn listeners(virtual_services: &[Arc<VirtualService>]) -> BTreeMap<Arc<str>, Arc<Listener>> {
    let mut listeners: BTreeMap<Arc<str>, Listener> = BTreeMap::new();
    for vs in virtual_services {
        for service in &vs.config.services {
            let listener = listeners.entry(service.addr.to_string().into()).or_insert_with(|| Listener {
                addr: service.addr,
                profile: vs.config.profile.clone(),
                address_lists: vs.config.address_lists.clone(),
                proxy_peers: service.proxy_peers.clone(),
                client_caps: vs.client_caps.clone(),
                tls: Vec::new(),
                exact: HashMap::new(),
                suffixes: Vec::new(),
                any: None,
                virtual_services: Vec::new(),
            });
            listener.virtual_services.push(vs.clone());
            listener.tls.extend(service.tls.clone().map(|tls| (tls, vs.config.domain_names.clone())));
            for name in &vs.config.domain_names {
                match name.strip_prefix('*') {
                    Some(suffix) => listener.suffixes.push((suffix.to_owned(), vs.clone())),
                    None => drop(listener.exact.insert(name.clone(), vs.clone())),
                }
            }
            if vs.config.domain_names.is_empty() {
                listener.any = Some(vs.clone());
            }
        }
    }
    let sorted = |mut listener: Listener| {
        listener.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Arc::new(listener)
    };
    listeners.into_iter().map(|(name, listener)| (name, sorted(listener))).collect()
}
