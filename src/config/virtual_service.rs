//! Virtual services: what clients connect to.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::{ApplicationProfile, Certificate, CloneSection, RuleSpec, SslProfile};
use crate::names::{PoolName, VsName, VsUuid};

/// Names, addresses and ports that clients connect to, and what happens to their requests.
#[derive(Clone, Debug)]
pub struct VirtualService {
    pub name: VsName,
    pub uuid: Option<VsUuid>,
    pub enabled: bool,
    /// Lower case: `a.com`, `*.a.com`; empty: any Host.
    pub domain_names: Vec<String>,
    pub services: Vec<Service>,
    /// Absent only where rules choose the pool or answer.
    pub pool: Option<PoolName>,
    pub clones: Vec<CloneSection>,
    /// In the order in which they run.
    pub rules: Vec<Arc<RuleSpec>>,
    pub profile: Arc<ApplicationProfile>,
    pub address_lists: AddressLists,
}

/// One address and port of a virtual service.
#[derive(Clone, Debug)]
pub struct Service {
    pub addr: SocketAddr,
    /// `None`: plain. Several virtual services on one address bring one certificate each, chosen by SNI.
    pub tls: Option<ServiceTls>,
}

/// TLS of a service.
#[derive(Clone, Debug)]
pub struct ServiceTls {
    pub certificate: Arc<Certificate>,
    pub profile: Arc<SslProfile>,
}

/// Client networks that a listener takes or refuses before TLS. A client in `deny` is refused; with a
/// non-empty `allow` so is one that is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressLists {
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}
