//! TLS with a pool's servers: by whom they are vouched for, what they are shown, what they are called. Key names are
//! Avi's; those of [`Pool`](super::Pool) itself are older.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use openssl::{
    pkey::{PKey, Private},
    x509::X509,
};

use super::{
    CaCerts, Certificate, pki::PkiProfile, read::Object, table::Table, tls::read_pair, units, words,
};

/// What a pool with `enable_ssl` says beyond that.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolTls {
    /// The authorities that are trusted in place of the system's, and what they have revoked.
    pub ca_certs: Option<CaCerts>,
    /// The profile that has them.
    pub pki_profile: Option<String>,
    /// What servers are shown that ask who connects.
    pub certificate: Option<Arc<OwnCertificate>>,
    /// A server's certificate has to be for the name that it is asked for by; default true.
    pub host_check: bool,
    /// That name is sent in SNI, unless it is an address; default true.
    pub sni: bool,
}

/// The `Host` that servers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HostHeader {
    #[default]
    AsSent,
    /// The pool's name for SNI.
    Sni,
    /// The server's own `hostname`, else its address.
    ServerName,
}

impl Default for PoolTls {
    fn default() -> Self {
        Self { ca_certs: None, pki_profile: None, certificate: None, host_check: true, sni: true }
    }
}

/// A certificate by which homing proves itself to servers, with its issuers and its key.
pub struct OwnCertificate {
    pub name: String,
    /// Its own, then its issuers in order; not empty.
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
    fingerprint: u64,
}

/// What the objects of a pool may refer to.
pub(super) struct Proofs<'a> {
    pub(super) pki_profiles: &'a Table<PkiProfile>,
    pub(super) certificates: &'a Table<Arc<Certificate>>,
}

impl PoolTls {
    pub(super) fn read(o: &mut Object<'_>, known: &Proofs<'_>) -> Self {
        let report = o.source.report;
        let profile = o.reference("pki_profile_ref");
        let certificate = o.reference("ssl_key_and_certificate_ref");
        let certificate = certificate.and_then(|it| known.certificates.resolve(&it, report).cloned());
        let profile = profile.and_then(|it| known.pki_profiles.resolve(&it, report));
        Self {
            // Without certificates it has been reported.
            ca_certs: profile.and_then(|profile| profile.ca_certs.clone()),
            pki_profile: profile.map(|profile| profile.name.clone()),
            certificate: certificate.and_then(|it| OwnCertificate::read(o, &it)).map(Arc::new),
            host_check: o.field("host_check_enabled", units::flag).unwrap_or(true),
            sni: o.field("sni_enabled", units::flag).unwrap_or(true),
        }
    }

    /// Whether it says anything of its own about certificates.
    pub fn has_proofs(&self) -> bool {
        self.ca_certs.is_some() || self.certificate.is_some() || !self.host_check
    }
}

/// The name for SNI, by our key or by Avi's.
pub(super) fn read_sni(o: &mut Object<'_>) -> Option<String> {
    let (sni, server_name) = (o.field("sni", words::host), o.field("server_name", words::host));
    if o.has("sni") && o.has("server_name") {
        o.wrong("server_name", "`sni` says the same", "leave one of the two out");
    }
    sni.or(server_name)
}

impl HostHeader {
    pub(super) fn read(o: &mut Object<'_>, sni: Option<&String>) -> Self {
        const SNI: &str = "rewrite_host_header_to_sni";
        const NAME: &str = "rewrite_host_header_to_server_name";
        let mut flag = |key| o.field(key, units::flag).unwrap_or(false);
        let (to_sni, to_name) = (flag(SNI), flag(NAME));
        match (to_sni, to_name) {
            (true, true) => {
                o.wrong(NAME, format!("`{SNI}` says otherwise"), "leave one of the two out");
                Self::AsSent
            }
            (true, false) if sni.is_none() => {
                o.wrong(SNI, "the pool has no name for SNI", "add `sni: NAME`, or leave it out");
                Self::AsSent
            }
            (true, false) => Self::Sni,
            (false, true) => Self::ServerName,
            (false, false) => Self::AsSent,
        }
    }
}

/// Refuses what says nothing, because the pool has no TLS or verifies nothing.
pub(super) fn check(o: &Object<'_>, enable_ssl: bool, verify: bool) {
    let of_tls = ["sni", "server_name", "verify", "sni_enabled", "ssl_key_and_certificate_ref"];
    let of_verifying = ["pki_profile_ref", "host_check_enabled"];
    let (keys, what, help): (Vec<_>, _, _) = match (enable_ssl, verify) {
        (true, true) => return,
        (true, false) => (
            of_verifying.to_vec(),
            "no effect with `verify: false`",
            "leave `verify` out, so that certificates are verified, or leave this out",
        ),
        (false, _) => (
            [&of_tls[..], &of_verifying].concat(),
            "the pool's servers are connected to without TLS",
            "add `enable_ssl: true`, or leave it out",
        ),
    };
    keys.into_iter().filter(|key| o.has(key)).for_each(|key| o.wrong(key, what, help));
}

impl OwnCertificate {
    /// That the files can be read and belong together was found, or reported, with the certificate.
    fn read(o: &Object<'_>, certificate: &Certificate) -> Option<Self> {
        let (chain, key) = read_pair(o, certificate)?;
        Self::new(&certificate.name, chain, key)
    }

    /// `None`: there is no certificate in the chain.
    pub fn new(name: &str, chain: Vec<X509>, key: PKey<Private>) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        for certificate in &chain {
            certificate.to_der().ok()?.hash(&mut hasher);
        }
        let fingerprint = hasher.finish();
        (!chain.is_empty()).then(|| Self { name: name.to_owned(), chain, key, fingerprint })
    }

    /// Tells connections that were made with it from others.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl PartialEq for OwnCertificate {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.fingerprint) == (&other.name, other.fingerprint)
    }
}

impl Eq for OwnCertificate {}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnCertificate({}, {:016x})", self.name, self.fingerprint)
    }
}
