//! App persistence profiles: by what a pool knows its sessions, so that each stays at its server.
//!
//! Avi's objects, of which a pool names one. Profiles of GSLB site persistence are in `persistence`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderName;
use ipnet::IpNet;

use super::{
    CookieOptions, HmDownRecovery,
    persistence::RECOVERIES,
    problem::{Report, Wrong, shown},
    read::{FileKind, Object},
    table::Table,
    units::{self, days, milliseconds, seconds},
    words,
    yaml::Node,
};
use crate::names::PoolName;

/// How a pool keeps sessions at their servers.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistenceProfile {
    pub name: String,
    pub by: PersistBy,
    /// What becomes of a session whose server is down. One whose server was disabled or removed gets another anyway.
    pub recovery: HmDownRecovery,
}

/// What a session is known by.
#[derive(Clone, Debug, PartialEq)]
pub enum PersistBy {
    /// The client's network.
    ClientIp { mask: ClientMask, timeout: Duration },
    /// A cookie of ours that names the server.
    HttpCookie { cookie: CookieOptions, always_send: bool },
    /// A cookie of the app's; where a request has none, the query's parameter of that name.
    AppCookie { name: String, timeout: Duration },
    /// A header field of requests, or one that servers give to their answers first.
    Header { name: HeaderName, timeout: Duration },
    /// The TLS session.
    Tls { timeout: Duration },
}

/// How many bits of a client's address tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientMask {
    pub ipv4: u8,
    pub ipv6: u8,
}

impl PersistenceProfile {
    /// The name of the session table that it has at a pool; `None`: cookies carry its sessions.
    pub fn table(&self, pool: &PoolName) -> Option<String> {
        self.cookie_name().is_none().then(|| format!("persist:{pool}"))
    }

    /// The cookie of ours that carries its sessions, if one does.
    pub fn cookie_name(&self) -> Option<&str> {
        match &self.by {
            PersistBy::HttpCookie { cookie, .. } => Some(&cookie.name),
            _ => None,
        }
    }
}

/// Whole addresses.
impl Default for ClientMask {
    fn default() -> Self {
        Self { ipv4: 32, ipv6: 128 }
    }
}

impl ClientMask {
    /// The network that stands for a client.
    pub fn network(self, client: IpAddr) -> IpNet {
        let client = client.to_canonical();
        let bits = if client.is_ipv4() { self.ipv4 } else { self.ipv6 };
        IpNet::new(client, bits).map_or_else(|_| client.into(), |network| network.trunc())
    }
}

impl PersistBy {
    /// As it is written in YAML.
    pub fn as_str(&self) -> &'static str {
        words::word(&KINDS, self.kind())
    }

    /// The idle timeout of what is remembered here of a session; of a cookie its lifetime. `None`: none.
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::HttpCookie { cookie, .. } => cookie.timeout,
            Self::ClientIp { timeout, .. }
            | Self::AppCookie { timeout, .. }
            | Self::Header { timeout, .. }
            | Self::Tls { timeout } => Some(*timeout),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::ClientIp { .. } => Kind::ClientIp,
            Self::HttpCookie { .. } => Kind::HttpCookie,
            Self::AppCookie { .. } => Kind::AppCookie,
            Self::Header { .. } => Kind::Header,
            Self::Tls { .. } => Kind::Tls,
        }
    }
}

/// The profiles that a site's pools may name.
pub(super) struct Profiles<'a> {
    pub(super) own: Table<Arc<PersistenceProfile>>,
    /// Names of those in the federation's file, which GSLB services name.
    pub(super) federated: &'a [String],
}

impl Profiles<'_> {
    pub(super) fn read(&mut self, o: &mut Object<'_>) {
        let name = o.name();
        o.is_federated(FileKind::Site);
        let kind = o.required("persistence_type", words::choice(&KINDS));
        let recovery = o.field("server_hm_down_recovery", words::choice(&RECOVERIES)).unwrap_or_default();
        let by = read_by(o, kind);
        let (Some(name), Some(by)) = (name, by) else { return };
        let profile = PersistenceProfile { name: name.clone(), by, recovery };
        self.own.define(o, "name", &name, Arc::new(profile));
    }

    /// The profile that a pool names.
    pub(super) fn of_pool(&self, o: &mut Object<'_>, pool: &str) -> Option<Arc<PersistenceProfile>> {
        let report: &Report = o.source.report;
        let reference = o.reference("application_persistence_profile_ref")?;
        if self.own.find(&reference.name).is_none() && self.federated.contains(&reference.name) {
            let what = format!(
                "pool {} names persistence profile {}, which is of type gslb_site",
                shown(pool),
                shown(&reference.name)
            );
            let help = "leave it out; a gslb_site profile is named by a GSLB service in the federation file";
            report.problem(reference.place, what, help);
            return None;
        }
        self.own.resolve(&reference, report).cloned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClientIp,
    HttpCookie,
    AppCookie,
    Header,
    Tls,
    GslbSite,
}

/// Reads the part of the profile that belongs to its type, and refuses the others.
fn read_by(o: &mut Object<'_>, kind: Option<Kind>) -> Option<PersistBy> {
    let ip = o.object(IP, |o| (read_mask(o), o.field("ip_persistent_timeout", timeouts())));
    let http_cookie = o.object(HTTP_COOKIE, read_http_cookie);
    let app_cookie = o.object(APP_COOKIE, |o| {
        let name = o.required("prst_hdr_name", |node| words::cookie_name(&words::text(node)?));
        (name, o.field("timeout", timeouts()))
    });
    let header = o.object(HEADER, |o| {
        let name = o.required("prst_hdr_name", |node| words::header_name(&words::text(node)?));
        (name, o.field("timeout", timeouts()))
    });
    let tls = o.object(TLS, |o| o.field("timeout", timeouts())).flatten();
    let kind = kind?;
    for (key, of) in PARTS.into_iter().filter(|(key, of)| o.has(key) && kind != *of && kind != Kind::GslbSite)
    {
        let what = format!("no effect with `persistence_type: {}`", words::word(&KINDS, kind));
        o.wrong(key, what, format!("write `persistence_type: {}`, or leave it out", words::word(&KINDS, of)));
    }
    let needed = [(HTTP_COOKIE, Kind::HttpCookie), (APP_COOKIE, Kind::AppCookie), (HEADER, Kind::Header)];
    needed.into_iter().filter(|(_, of)| *of == kind).for_each(|(key, _)| o.is_missed(key));
    let timeout = |written: Option<Duration>| written.unwrap_or(TIMEOUT);
    Some(match kind {
        Kind::ClientIp => {
            let (mask, timeout) = ip.unwrap_or_default();
            PersistBy::ClientIp { mask, timeout: timeout.unwrap_or(IP_TIMEOUT) }
        }
        Kind::HttpCookie => http_cookie?,
        Kind::AppCookie => {
            let (name, written) = app_cookie?;
            PersistBy::AppCookie { name: name?, timeout: timeout(written) }
        }
        Kind::Header => {
            let (name, written) = header?;
            PersistBy::Header { name: name?, timeout: timeout(written) }
        }
        Kind::Tls => PersistBy::Tls { timeout: timeout(tls) },
        Kind::GslbSite => {
            let help = "move it to the file that `federation` names, with `is_federated: true`";
            o.wrong("persistence_type", "a profile of type gslb_site that is not federated", help);
            return None;
        }
    })
}

fn read_mask(o: &mut Object<'_>) -> ClientMask {
    let default = ClientMask::default();
    ClientMask {
        ipv4: o.field("ip_mask", units::whole(0..=32)).unwrap_or(default.ipv4),
        ipv6: o.field("ipv6_mask", units::whole(0..=128)).unwrap_or(default.ipv6),
    }
}

fn read_http_cookie(o: &mut Object<'_>) -> PersistBy {
    let cookie = CookieOptions::read_of_server(o);
    let always_send = o.field("always_send_cookie", units::flag).unwrap_or(false);
    o.misplaced("server_tag", "this cookie names a server in any case", "leave it out");
    if cookie.keys.is_empty() && cookie.timeout.is_some() && !cookie.persistent {
        let what = "a cookie without `keys` does not say when it ends, and browsers are not told";
        o.wrong("timeout", what, "add `persistent: true`, or `keys`");
    }
    PersistBy::HttpCookie { cookie, always_send }
}

fn timeouts() -> impl Fn(&Node) -> Result<Duration, Wrong> {
    units::duration(milliseconds(1)..=days(40))
}

const IP: &str = "ip_persistence_profile";
const HTTP_COOKIE: &str = "http_cookie_persistence_profile";
const APP_COOKIE: &str = "app_cookie_persistence_profile";
const HEADER: &str = "hdr_persistence_profile";
const TLS: &str = "tls_persistence_profile";

const PARTS: [(&str, Kind); 5] = [
    (IP, Kind::ClientIp),
    (HTTP_COOKIE, Kind::HttpCookie),
    (APP_COOKIE, Kind::AppCookie),
    (HEADER, Kind::Header),
    (TLS, Kind::Tls),
];

/// Avi's, as the next.
const IP_TIMEOUT: Duration = seconds(300);
const TIMEOUT: Duration = seconds(1200);

const KINDS: [(&str, &str, Kind); 6] = [
    ("client_ip", "PERSISTENCE_TYPE_CLIENT_IP_ADDRESS", Kind::ClientIp),
    ("http_cookie", "PERSISTENCE_TYPE_HTTP_COOKIE", Kind::HttpCookie),
    ("app_cookie", "PERSISTENCE_TYPE_APP_COOKIE", Kind::AppCookie),
    ("custom_http_header", "PERSISTENCE_TYPE_CUSTOM_HTTP_HEADER", Kind::Header),
    ("tls", "PERSISTENCE_TYPE_TLS", Kind::Tls),
    ("gslb_site", "PERSISTENCE_TYPE_GSLB_SITE", Kind::GslbSite),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_makes_one_of_the_clients_of_a_network() {
        let mask = ClientMask { ipv4: 24, ipv6: 56 };
        for (client, mask, network) in [
            ("192.0.2.77", mask, "192.0.2.0/24"),
            ("::ffff:192.0.2.77", mask, "192.0.2.0/24"),
            ("2001:db8:1:2ff::9", mask, "2001:db8:1:200::/56"),
            ("192.0.2.77", ClientMask::default(), "192.0.2.77/32"),
            ("2001:db8::9", ClientMask::default(), "2001:db8::9/128"),
            ("192.0.2.77", ClientMask { ipv4: 0, ipv6: 0 }, "0.0.0.0/0"),
        ] {
            let client: IpAddr = client.parse().expect("an address");
            assert_eq!(mask.network(client).to_string(), network);
        }
    }
}
