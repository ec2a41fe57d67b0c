//! Virtual services: what clients connect to.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    AnalyticsPolicy, ApplicationProfile, Certificate, ClientLimits, CloneSection, ErrorPageProfile, HttpRule,
    PersistBy, Pool, PortRedirect, RequestRate, RuleSpec, SslProfile, Token,
    http_rule::{HttpRules, Scope},
    pool::is_sp_pool,
    problem::{Place, Report, shown},
    read::{Object, Reference},
    table::Table,
    units, words,
};
use crate::names::{PoolName, VsName, VsUuid};

/// Names, addresses and ports that clients connect to, and what happens to their requests.
#[derive(Clone, Debug, PartialEq)]
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
    /// Which port is redirected to which HTTPS port.
    pub port_redirects: Vec<PortRedirect>,
    /// What is done with which requests, in order.
    pub http_rules: Vec<HttpRule>,
    /// What clients see where something failed.
    pub error_pages: Option<Arc<ErrorPageProfile>>,
    pub address_lists: AddressLists,
    pub client_limits: ClientLimits,
    /// Nobody listens on its ports while no server of its pool is up; default false.
    pub remove_listening_port_on_vs_down: bool,
    /// A reload that changes it ends its client connections; default false.
    pub close_client_conn_on_config_update: bool,
    /// Client connections at a time.
    pub max_concurrent_connections: Option<u32>,
    /// A request that is over any of them is refused.
    pub request_rates: Vec<RequestRate>,
    /// What the access log has of its requests.
    pub analytics: AnalyticsPolicy,
}

/// One address and port of a virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub addr: SocketAddr,
    /// `None`: plain. Several virtual services on one address bring one certificate each, chosen by SNI.
    pub tls: Option<ServiceTls>,
    /// Who speaks for clients by the PROXY protocol, and nobody else may connect; `None`: clients come themselves.
    pub proxy_peers: Option<Vec<IpNet>>,
}

/// TLS of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What virtual services may refer to.
pub(super) struct Known {
    pub(super) pools: Table<Arc<Pool>>,
    pub(super) rules: Table<Arc<RuleSpec>>,
    pub(super) profiles: Table<Arc<ApplicationProfile>>,
    pub(super) ssl_profiles: Table<Arc<SslProfile>>,
    pub(super) certificates: Table<Arc<Certificate>>,
    pub(super) error_pages: Table<Arc<ErrorPageProfile>>,
}

/// A virtual service, and where its parts stand, for the checks of all of them together.
pub(super) struct Placed {
    pub(super) vs: Arc<VirtualService>,
    pub(super) place: Place,
    /// Of each service.
    pub(super) services: Vec<Place>,
    /// Of each domain name.
    pub(super) domain_names: Vec<Place>,
}

impl VirtualService {
    pub(super) fn read(o: &mut Object<'_>, known: &Known, names: &mut Table<()>) -> Option<Placed> {
        let report = o.source.report;
        let name = o.name();
        let (domain_names, name_places) =
            o.placed_list("domain_names", words::host_pattern).unwrap_or_default().into_iter().unzip();
        let (services, service_places) = read_services(o, known);
        let pool = o.reference("pool_ref");
        let own_name = name.as_deref().unwrap_or_default();
        let clones = read_clones(o, own_name, known, &services);
        let http_rules = HttpRules::read(
            o,
            &Scope {
                vs: own_name,
                services: &services,
                clones: clones.iter().map(|clone| clone.pool.clone()).collect(),
                resolve_pool: &|reference| resolve_pool(reference, own_name, known, report),
            },
        );
        let rules = o.references("rule_refs");
        let rules: Vec<_> =
            rules.iter().filter_map(|reference| known.rules.resolve(reference, report).cloned()).collect();
        if !o.has("pool_ref") && !o.has("rule_refs") && !http_rules.may_serve() {
            let what = "`pool_ref` is missing, and no rule could choose a pool or answer";
            report.problem(o.place.clone(), what, "write `pool_ref: …`, or `rule_refs: […]`");
        }
        refuse_persistence_keys(o, own_name);
        warn_of_persistence_by_tls(o, known, &services);
        let vs = Self {
            name: own_name.into(),
            uuid: o.field("uuid", words::identifier).map(Into::into),
            enabled: o.field("enabled", units::flag).unwrap_or(true),
            domain_names,
            services,
            pool: pool.and_then(|reference| resolve_pool(&reference, own_name, known, report)),
            clones,
            rules,
            profile: application_profile(o, known),
            port_redirects: http_rules.redirects,
            http_rules: http_rules.rules,
            error_pages: o
                .reference("error_page_profile_ref")
                .and_then(|reference| known.error_pages.resolve(&reference, report).cloned()),
            address_lists: AddressLists {
                allow: o.list("allow", words::network).unwrap_or_default(),
                deny: o.list("deny", words::network).unwrap_or_default(),
            },
            client_limits: ClientLimits::read(o),
            remove_listening_port_on_vs_down: o
                .field("remove_listening_port_on_vs_down", units::flag)
                .unwrap_or(false),
            close_client_conn_on_config_update: o
                .field("close_client_conn_on_config_update", units::flag)
                .unwrap_or(false),
            max_concurrent_connections: o.object("performance_limits", read_performance_limits).flatten(),
            request_rates: RequestRate::read_all(o),
            analytics: o.object("analytics_policy", AnalyticsPolicy::read).unwrap_or_default(),
        };
        warn_of_clients_in_clear(o, &vs);
        if let Some(name) = name {
            names.define(o, "name", &name, ());
        }
        let place = o.place.clone();
        Some(Placed { vs: Arc::new(vs), place, services: service_places, domain_names: name_places })
    }
}

/// Who has no certificate could come by a plain port.
fn warn_of_clients_in_clear(o: &Object<'_>, vs: &VirtualService) {
    let required = vs.profile.clients.as_ref().is_some_and(|clients| clients.required);
    let redirected = |port| {
        vs.profile.http_to_https || vs.port_redirects.iter().any(|redirect| redirect.ports.contains(&port))
    };
    let mut plain = vs.services.iter().filter(|service| service.tls.is_none()).map(|it| it.addr.port());
    if let Some(port) = plain.find(|port| required && !redirected(*port)) {
        let what = format!(
            "port {port} has no TLS: there nobody is asked for the certificate that the profile requires"
        );
        let help =
            "give it `enable_ssl: true`, redirect it by `http_to_https: true`, or leave the service out";
        o.dubious("services", what, help);
    }
}

fn read_performance_limits(o: &mut Object<'_>) -> Option<u32> {
    o.field("max_concurrent_connections", units::whole(1..=10_000_000))
}

/// Sessions of plain clients are known by no TLS session.
fn warn_of_persistence_by_tls(o: &Object<'_>, known: &Known, services: &[Service]) {
    let pool = o.peek("pool_ref").and_then(|name| known.pools.find(name));
    let profile = pool.and_then(|pool| pool.persistence.as_deref());
    let by_tls = profile.filter(|profile| matches!(profile.by, PersistBy::Tls { .. }));
    if let Some(profile) = by_tls.filter(|_| services.iter().all(|service| service.tls.is_none())) {
        let what = format!(
            "its persistence profile {} is of type tls, but no service of this virtual service has TLS",
            shown(&profile.name)
        );
        o.dubious("pool_ref", what, "add `enable_ssl: true` to a service, or name a profile of another type");
    }
}

/// Each port is a listener of its own.
const MOST_PORTS: usize = 1024;

/// What site persistence does by itself, and what belongs to the GSLB service.
fn refuse_persistence_keys(o: &mut Object<'_>, name: &str) {
    if let Some(profile) = o.peek("application_persistence_profile_ref") {
        let what =
            format!("virtual service {} names persistence profile {} itself", shown(name), shown(profile));
        let help =
            "name it at the pool; a gslb_site profile is named by a GSLB service in the federation file";
        o.misplaced("application_persistence_profile_ref", &what, help);
    }
    let what = format!("virtual service {} names site-persistence pools itself", shown(name));
    let help = "leave it out; homing gives it one where it is a member of a site-persistent GSLB service";
    o.misplaced("sp_pool_refs", &what, help);
    o.misplaced(
        "pool_group_ref",
        "pool groups are not supported",
        "write `pool_ref: …`, and let a rule choose among pools",
    );
}

fn read_services(o: &mut Object<'_>, known: &Known) -> (Vec<Service>, Vec<Place>) {
    let report = o.source.report;
    let certificate = o.reference("ssl_key_and_certificate_ref");
    let certificate =
        certificate.and_then(|reference| known.certificates.resolve(&reference, report).cloned());
    let has_certificate = o.has("ssl_key_and_certificate_ref");
    let profile = ssl_profile(o, known);
    let services: Vec<Vec<(Service, Place)>> = o.required_objects("services", |o| {
        let address = o.required("address", words::ip);
        let port = o.required("port", units::port);
        let last = o.field("port_range_end", units::port);
        let enable_ssl = o.field("enable_ssl", units::flag).unwrap_or(false);
        let own = o.reference("ssl_key_and_certificate_ref");
        let own = own.and_then(|reference| known.certificates.resolve(&reference, report).cloned());
        let own_profile = ssl_profile(o, known);
        for key in ["ssl_key_and_certificate_ref", "ssl_profile_ref"] {
            if o.has(key) && !enable_ssl {
                o.wrong(key, "this service is plain", "add `enable_ssl: true`, or leave the key out");
            }
        }
        if enable_ssl && !has_certificate && !o.has("ssl_key_and_certificate_ref") {
            let help = "write `ssl_key_and_certificate_ref: …` here or at the virtual service";
            report.problem(o.place.clone(), "a TLS service without a certificate", help);
        }
        let profile = own_profile.or_else(|| profile.clone()).unwrap_or_else(|| default_ssl_profile(known));
        let tls = own.or_else(|| certificate.clone()).filter(|_| enable_ssl);
        let tls = tls.map(|certificate| ServiceTls { certificate, profile });
        let proxy_peers = read_proxy_peers(o);
        let (address, ports) = (address?, port?..=last.or(port)?);
        if ports.is_empty() || ports.len() > MOST_PORTS {
            let what = format!("the range of ports from {} to {}", ports.start(), ports.end());
            let help = format!(
                "write the first port as `port` and the last as `port_range_end`, at most {MOST_PORTS} in all"
            );
            o.wrong("port_range_end", what, help);
            return None;
        }
        let at = |port| Service {
            addr: SocketAddr::new(address, port),
            tls: tls.clone(),
            proxy_peers: proxy_peers.clone(),
        };
        Some(ports.map(|port| (at(port), o.place.clone())).collect())
    });
    let services: Vec<_> = services.into_iter().flatten().collect();
    if has_certificate && certificate.is_some() && services.iter().all(|(service, _)| service.tls.is_none()) {
        let what = "a certificate, but no service of this virtual service has TLS";
        o.dubious("ssl_key_and_certificate_ref", what, "add `enable_ssl: true` to a service");
    }
    services.into_iter().unzip()
}

/// Whoever could connect could say to be anybody, so it has to be named who may.
fn read_proxy_peers(o: &mut Object<'_>) -> Option<Vec<IpNet>> {
    let enabled = o.field("enable_proxy_protocol", units::flag).unwrap_or(false);
    let peers = o.list("proxy_protocol_peers", words::network);
    match (enabled, o.has("proxy_protocol_peers")) {
        (true, true) => o.not_empty("proxy_protocol_peers", "write the networks of the balancers in front"),
        (true, false) => {
            let what = "`proxy_protocol_peers` is missing: nobody could be told from one who lies";
            let help = "write the networks of the balancers in front, as in `[10.0.0.0/24]`";
            o.source.report.problem(o.place.clone(), what, help);
        }
        (false, true) => {
            let help = "add `enable_proxy_protocol: true`, or leave the key out";
            o.wrong("proxy_protocol_peers", "no effect without `enable_proxy_protocol`", help);
        }
        (false, false) => {}
    }
    enabled.then_some(peers.unwrap_or_default())
}

fn read_clones(o: &mut Object<'_>, vs: &str, known: &Known, services: &[Service]) -> Vec<CloneSection> {
    let report = o.source.report;
    let has_tls = services.iter().any(|service| service.tls.is_some());
    let mut clones: Vec<CloneSection> = Vec::new();
    o.object_or_objects("clone", |o| {
        let clone = CloneSection::read(o, |reference| resolve_pool(reference, vs, known, report))?;
        if !clone.pool.as_str().is_empty() && clones.iter().any(|other| other.pool == clone.pool) {
            let what = format!("pool {} already has a clone section here", shown(clone.pool.as_str()));
            o.wrong("pool_ref", what, "merge the two sections, or name another pool");
        }
        if clone.tokens.contains(&Token::TlsSessionId) && !has_tls {
            let what = "the token tls_session_id, but no service of this virtual service has TLS";
            o.dubious("tokens", what, "add `enable_ssl: true` to a service, or leave the token out");
        }
        clones.push(clone);
        Some(())
    });
    clones
}

fn resolve_pool(reference: &Reference, vs: &str, known: &Known, report: &Report) -> Option<PoolName> {
    if is_sp_pool(&reference.name) {
        let what = format!(
            "virtual service {} refers to {}, a site-persistence pool",
            shown(vs),
            shown(&reference.name)
        );
        report.problem(
            reference.place.clone(),
            what,
            "name a pool of your own; homing alone chooses this one",
        );
        return None;
    }
    known.pools.resolve(reference, report).map(|pool| pool.name.clone())
}

fn application_profile(o: &mut Object<'_>, known: &Known) -> Arc<ApplicationProfile> {
    let name = o.reference("application_profile_ref");
    let name = name.filter(|reference| reference.name != ApplicationProfile::DEFAULT);
    let named = name.and_then(|reference| known.profiles.resolve(&reference, o.source.report));
    named.or_else(|| known.profiles.find(ApplicationProfile::DEFAULT)).cloned().unwrap_or_default()
}

fn ssl_profile(o: &mut Object<'_>, known: &Known) -> Option<Arc<SslProfile>> {
    let reference = o.reference("ssl_profile_ref")?;
    if reference.name == SslProfile::DEFAULT {
        return Some(default_ssl_profile(known));
    }
    known.ssl_profiles.resolve(&reference, o.source.report).cloned()
}

fn default_ssl_profile(known: &Known) -> Arc<SslProfile> {
    known.ssl_profiles.find(SslProfile::DEFAULT).cloned().unwrap_or_default()
}
