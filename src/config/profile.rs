//! Profiles that virtual services share.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    ClientCertificates, Http2, RequestLimits, ciphers,
    pki::PkiProfile,
    read::Object,
    table::Table,
    trusted_proxies::TrustedProxies,
    units::{self, days, hours, milliseconds, seconds},
    words,
};

/// HTTP settings of virtual services. Those that share a listener must agree on the two timeouts, the sizes of heads,
/// and HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationProfile {
    pub name: String,
    /// Redirect plain requests to HTTPS.
    pub http_to_https: bool,
    /// From the first byte of a request to the end of its head; default 10 s.
    pub client_header_timeout: Duration,
    /// An idle connection between requests; default 60 s.
    pub keepalive_timeout: Duration,
    pub limits: RequestLimits,
    pub request_ids: RequestIds,
    pub trusted_proxies: TrustedProxies,
    /// Clients of services with TLS are asked for their certificates; default: nobody is.
    pub clients: Option<Arc<ClientCertificates>>,
    pub http2: Http2,
}

/// What becomes of `X-Request-Id`. Every request has an id, in logs, in marks of copies and on the hop to another
/// site; this is about whose it is and who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestIds {
    /// Client networks, of our own proxies, whose ids are taken over.
    pub trusted: Vec<IpNet>,
    /// Servers are told the id; `None`: where there is an access log to look it up in.
    pub to_server: Option<bool>,
    /// Clients are told the id; default false.
    pub to_client: bool,
}

/// TLS settings of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SslProfile {
    pub name: String,
    /// Default: 1.2 and 1.3.
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// Stateless session tickets; without them sessions are kept in a server cache. Default true.
    pub session_tickets: bool,
    /// Offer HTTP/2 by ALPN; default true.
    pub http2: bool,
    /// OpenSSL's list for TLS 1.2; default: Mozilla's "intermediate".
    pub accepted_ciphers: Option<String>,
    /// The same for TLS 1.3; default: OpenSSL's.
    pub ciphersuites: Option<String>,
    /// For the whole of a handshake; default 10 s.
    pub handshake_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl ApplicationProfile {
    /// The profile of virtual services that name none, unless it is defined otherwise; Avi calls it so.
    pub(super) const DEFAULT: &str = "System-HTTP";

    pub(super) fn read(
        o: &mut Object<'_>,
        pki_profiles: &Table<PkiProfile>,
        profiles: &mut Table<Arc<Self>>,
    ) {
        let name = o.name();
        let default = Self::default();
        let profile = Self {
            name: name.clone().unwrap_or_default(),
            http_to_https: o.field("http_to_https", units::flag).unwrap_or(default.http_to_https),
            client_header_timeout: o
                .field("client_header_timeout", units::duration(milliseconds(1)..=hours(1)))
                .unwrap_or(default.client_header_timeout),
            keepalive_timeout: o
                .field("keepalive_timeout", units::duration(milliseconds(1)..=days(1)))
                .unwrap_or(default.keepalive_timeout),
            limits: RequestLimits::read(o),
            request_ids: o.object("request_id", RequestIds::read).unwrap_or_default(),
            trusted_proxies: TrustedProxies::read(o),
            clients: ClientCertificates::read(o, pki_profiles).map(Arc::new),
            http2: o.object("http2", Http2::read).unwrap_or_default(),
        };
        if let Some(name) = name {
            profiles.define(o, "name", &name, Arc::new(profile));
        }
    }
}

impl Default for ApplicationProfile {
    fn default() -> Self {
        Self {
            name: Self::DEFAULT.into(),
            http_to_https: false,
            client_header_timeout: seconds(10),
            keepalive_timeout: seconds(60),
            limits: RequestLimits::default(),
            request_ids: RequestIds::default(),
            trusted_proxies: TrustedProxies::default(),
            clients: None,
            http2: Http2::default(),
        }
    }
}

impl RequestIds {
    fn read(o: &mut Object<'_>) -> Self {
        Self {
            trusted: o.list("trusted_peers", words::network).unwrap_or_default(),
            to_server: o.field("to_server", units::flag),
            to_client: o.field("to_client", units::flag).unwrap_or(false),
        }
    }
}

impl SslProfile {
    /// The profile of services that name none, unless it is defined otherwise; Avi calls it so.
    pub(super) const DEFAULT: &str = "System-Standard";

    pub(super) fn read(o: &mut Object<'_>, profiles: &mut Table<Arc<Self>>) {
        let name = o.name();
        let default = Self::default();
        let oldest = o.field("min_version", words::choice(&VERSIONS));
        let newest = o.field("max_version", words::choice(&VERSIONS));
        let accepted = o.list("accepted_versions", words::choice(&VERSIONS)).unwrap_or_default();
        o.not_empty("accepted_versions", "write `[tls1.2, tls1.3]`, or leave the key out");
        if let Some(key) =
            ["min_version", "max_version"].into_iter().find(|key| o.has(key) && o.has("accepted_versions"))
        {
            o.wrong(
                "accepted_versions",
                format!("the versions are said twice, here and by `{key}`"),
                "leave one of the two out",
            );
        }
        let profile = Self {
            name: name.clone().unwrap_or_default(),
            min_version: oldest.or_else(|| accepted.iter().min().copied()).unwrap_or(default.min_version),
            max_version: newest.or_else(|| accepted.iter().max().copied()).unwrap_or(default.max_version),
            session_tickets: o.field("session_tickets", units::flag).unwrap_or(default.session_tickets),
            http2: o.field("http2", units::flag).unwrap_or(default.http2),
            accepted_ciphers: o.field("accepted_ciphers", ciphers::list),
            ciphersuites: o.field("ciphersuites", ciphers::suites),
            handshake_timeout: o
                .field("handshake_timeout", units::duration(milliseconds(1)..=hours(1)))
                .unwrap_or(default.handshake_timeout),
        };
        if profile.min_version > profile.max_version {
            o.wrong("min_version", "the oldest version is newer than `max_version`", "swap the two");
        }
        if let Some(name) = name {
            profiles.define(o, "name", &name, Arc::new(profile));
        }
    }
}

impl TlsVersion {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&VERSIONS, self)
    }
}

const VERSIONS: [(&str, &str, TlsVersion); 2] = [
    ("tls1.2", "SSL_VERSION_TLS1_2", TlsVersion::Tls12),
    ("tls1.3", "SSL_VERSION_TLS1_3", TlsVersion::Tls13),
];

impl Default for SslProfile {
    fn default() -> Self {
        Self {
            name: Self::DEFAULT.into(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            session_tickets: true,
            http2: true,
            accepted_ciphers: None,
            ciphersuites: None,
            handshake_timeout: seconds(10),
        }
    }
}
