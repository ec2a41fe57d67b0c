//! The configuration as it is meant: loaded, checked, and impossible to get wrong.
//!
//! [`load`] reads a file and the federation file that it names. YAML becomes a tree that knows its lines
//! (`yaml`), objects are read from it field by field (`read`, `units`, `words`), and references are followed (`table`),
//! so that in the structs of this module every reference names something that exists. Nothing stops at the
//! first problem: all are reported at once, see [`Problem`].
//!
//! Object and field names are Avi's; units stand in the values (`300s`, `64KiB`). Unknown keys are refused.

mod access_log;
mod admin;
mod app_persistence;
mod ciphers;
mod client_certificates;
mod client_limits;
mod clone;
mod connections;
mod copied;
mod dates;
mod dns;
mod dnssec;
mod error_page;
mod federation;
mod files;
mod geo;
mod gslb;
mod gslb_choosing;
mod gslb_member;
mod hash_key;
mod health_monitor;
mod http2;
mod http_rule;
mod inline_monitor;
mod lifecycle;
mod listeners;
mod load;
mod patience;
mod persistence;
mod pki;
mod pool;
mod pool_tls;
mod problem;
mod profile;
mod read;
mod request_limits;
mod resolver;
mod retries;
mod rule;
mod schema;
mod seen;
mod shape;
mod site;
mod site_redirect;
mod site_tls;
mod source_address;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod trusted_proxies;
mod units;
mod virtual_service;
mod words;
mod yaml;

pub use access_log::{AccessLog, AnalyticsPolicy, EventFormat, FullClientLogs, LogFormat, LogPath};
pub use admin::{Admin, AdminListen, AdminUrl, NotAnAdminUrl, PeerAdmin, SHORTEST_TOKEN};
pub use app_persistence::{ClientMask, PersistBy, PersistenceProfile};
pub use client_certificates::ClientCertificates;
pub use client_limits::{ClientLimits, RateAction, RatePer, RequestRate};
pub use clone::{CloneRefresh, CloneSection, CloneSelection, OnOverflow, Token};
pub use connections::{Connections, ProxyProtocol};
pub use copied::{Copied, PathPattern, PathPrefix};
pub use dates::{DateConcern, Validity, common_name, is_current};
pub use dns::{CookieSecret, Dns, DnsRateLimit, DnsTcp, DnsZone, NameServer};
pub use dnssec::{Dnssec, DnssecKey};
pub use error_page::{ErrorBody, ErrorPage, ErrorPageProfile};
pub use files::{Disk, Files, LARGEST_FILE};
pub use geo::{GeoDatabase, Location};
pub use gslb::{
    Gslb, GslbAlgorithm, GslbGroup, GslbService, HmDownRecovery, HmScope, PoolAlgorithm, SiteMode, SiteRef,
};
pub use gslb_choosing::{DownResponse, GroupChoosing, PRIVATE_NETWORKS, TopologyRule};
pub use gslb_member::{GslbMember, MemberPort};
pub use hash_key::HashKey;
pub use health_monitor::{HealthMonitor, HttpRequest, Maintenance, MonitorType, ResponseCodes};
pub use http_rule::{
    CloneChoice, FieldEdit, FieldMatch, HeaderAction, HttpAction, HttpAnswer, HttpMatch, HttpRule, OneOf,
    PortRedirect, Redirect, Rewrite, Template, Texts, Variable,
};
pub use http2::Http2;
pub use inline_monitor::InlineMonitor;
pub use lifecycle::{Lifecycle, RequestQueue};
pub use load::{Loaded, load, load_from, load_seen};
pub use patience::Patience;
pub use persistence::{CookieOptions, GslbSitePersistence, SameSite};
pub use pool::{LbAlgorithm, Pool, Server};
pub use pool_tls::{HostHeader, OwnCertificate, PoolTls};
pub use problem::{Place, Problem, Problems};
pub use profile::{ApplicationProfile, RequestIds, SslProfile, TlsVersion};
pub use read::FileKind;
pub use request_limits::{HeadLimits, RequestLimits};
pub use resolver::DnsResolver;
pub use retries::{Retries, RetryBudget};
pub use rule::{OnError, RuleSpec};
pub use schema::schema;
pub use seen::{Look, Seen, Stamp};
pub use site::Site;
pub use site_redirect::SitePersistenceMode;
pub use site_tls::{SiteTls, server_name as site_server_name};
pub use source_address::SourceAddresses;
pub use tls::{CaCerts, Certificate};
pub use trusted_proxies::{TrustedHeader, TrustedProxies};
pub use units::written_share;
pub use virtual_service::{AddressLists, Service, ServiceTls, VirtualService};

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::site_cookie::{KeyState, Secret};

/// Everything that one node is told: its own file and the federation's objects.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was loaded.
    pub file: PathBuf,
    /// It and all others that were read with it.
    pub seen: Seen,
    /// SHA-256 of what the file says, in hexadecimal.
    pub checksum: String,
    pub site: Site,
    pub admin: Admin,
    /// What is written about requests; default: nothing.
    pub access_log: Option<AccessLog>,
    /// The form of homing's own log; default text.
    pub log_format: EventFormat,
    /// Worker threads; default: one per core.
    pub threads: usize,
    /// Client connections at a time; default: as many as the limit of open files allows.
    pub max_connections: Option<usize>,
    /// How long `SIGTERM` waits for what is in flight; default 20 s.
    pub grace_period: Duration,
    /// Load it again when a file that it was read from changes; default false.
    pub watch: bool,
    /// Other processes of the same user may listen on the same ports, and share what comes; default false.
    pub so_reuseport: bool,
    /// Where a new process takes over from this one.
    pub upgrade_sock: Option<PathBuf>,
    /// Where the session table is kept over a restart.
    pub session_snapshot: Option<PathBuf>,
    /// How often it is written there; default 30 s.
    pub session_snapshot_interval: Duration,
    /// The most entries that the session table holds before the least recently used leave; default 1,000,000.
    pub session_entries: u64,
    /// How often the keys of session tickets change, where they are this node's own; default 12 h.
    pub session_ticket_rotation: Duration,
    /// What nodes make the keys of session tickets of, the one that seals first; none: each has its own.
    pub session_ticket_secrets: Vec<Secret>,
    /// What the marks of copies are known by, beside the federation's site cookie keys.
    pub clone_mark_key: Option<Secret>,
    /// Who is asked for the addresses of servers; default: the system's name servers.
    pub dns_resolver: DnsResolver,
    pub pools: Vec<Arc<Pool>>,
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Rules that virtual services name, in the order of the file.
    pub rules: Vec<Arc<RuleSpec>>,
    /// Where it is written which members of GSLB services are down or held, so that a restart knows.
    pub gslb_state_file: Option<PathBuf>,
    /// The federation, where the file names one.
    pub gslb: Option<Arc<Gslb>>,
    /// The responder that answers for the federation's domain names, where this node has one.
    pub dns: Option<Arc<Dns>>,
}

impl Config {
    /// The secrets that nodes share who may get one another's copies, the one that is to make marks first.
    pub fn clone_mark_secrets(&self) -> Vec<&Secret> {
        let services = self.gslb.iter().flat_map(|gslb| &gslb.services);
        let profiles = services.filter_map(|service| service.site_persistence.as_deref());
        let mut keys: Vec<_> = profiles.flat_map(|profile| &profile.cookie.keys).collect();
        keys.sort_by_key(|key| key.state != KeyState::Active);
        self.clone_mark_key.iter().chain(keys.into_iter().map(|key| &key.secret)).collect()
    }
}
