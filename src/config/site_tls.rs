//! This site's certificate of the federated PKI profile, by which it proves itself to its peers over TLS.
//!
//! One certificate does for both directions. Peers that connect here ask for the DNS name
//! [`server_name`] in SNI and verify it as every TLS client does, before a byte of a request is sent. Here, a
//! connecting peer is known by the URI [`SiteTls::uri`], which names the cluster as its hop headers do.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use openssl::{
    error::ErrorStack,
    pkey::{PKey, Private},
    stack::Stack,
    x509::{X509, X509StoreContext, store::X509StoreBuilder, verify::X509VerifyFlags},
};

use super::{
    CaCerts, Certificate, Gslb, Site,
    federation::Federation,
    problem::{Place, shown},
    read::{Object, Reference},
    table::Table,
    tls::read_pair,
    words,
};
use crate::names::SiteName;

/// What this site shows to its peers, and what it demands of them.
pub struct SiteTls {
    /// The SNI on which peers are asked for their certificates.
    pub server_name: String,
    /// The federation; a peer's certificate names a cluster of it.
    pub federation_id: String,
    /// This site's certificate, then its issuers in order.
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
    pub ca_certs: CaCerts,
    /// Peers without a certificate are not believed. `false` while sites get theirs.
    pub required: bool,
    fingerprint: u64,
}

/// The name by which peers ask for a site: `sp.` and the site's name in lower case.
pub fn server_name(site: &SiteName) -> String {
    format!("sp.{}", site.as_str().to_ascii_lowercase())
}

impl SiteTls {
    /// `None`: there is no certificate in the chain, or OpenSSL cannot write one.
    pub fn new(
        site: &SiteName,
        federation_id: &str,
        (chain, key): (Vec<X509>, PKey<Private>),
        ca_certs: CaCerts,
        required: bool,
    ) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        if chain.is_empty() {
            return None;
        }
        // The key is the one of the first certificate.
        for certificate in &chain {
            certificate.to_der().ok()?.hash(&mut hasher);
        }
        let server_name = server_name(site);
        (&server_name, federation_id, ca_certs.fingerprint(), required).hash(&mut hasher);
        Some(Self {
            server_name,
            federation_id: federation_id.to_owned(),
            chain,
            key,
            ca_certs,
            required,
            fingerprint: hasher.finish(),
        })
    }

    /// The SAN URI of a site's certificate; the rest of it is the site's cluster uuid.
    pub fn uri(federation_id: &str, cluster_uuid: &str) -> String {
        format!("homing://{federation_id}/{cluster_uuid}")
    }

    /// Tells connections that were made under this from others.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl PartialEq for SiteTls {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for SiteTls {}

impl fmt::Debug for SiteTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteTls")
            .field("server_name", &self.server_name)
            .field("federation_id", &self.federation_id)
            .field("ca_certs", &self.ca_certs)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

/// The site's reference to its certificate. `None`: there is none, or it names nothing, which is reported.
pub(super) fn read_reference(
    o: &mut Object<'_>,
    certificates: &Table<Arc<Certificate>>,
) -> Option<(Arc<Certificate>, Place)> {
    let Reference { name, place } = o.reference("ssl_key_and_certificate_ref")?;
    let reference = Reference { name, place: place.clone() };
    Some((certificates.resolve(&reference, o.source.report)?.clone(), place))
}

/// Puts the site's certificate and the federation's profile together, and checks that they fit.
pub(super) fn join(
    o: &Object<'_>,
    site: &Site,
    certificate: Option<(Arc<Certificate>, Place)>,
    federation: Option<&Federation>,
) -> Option<Arc<SiteTls>> {
    let report = o.source.report;
    let Some((certificate, place)) = certificate else {
        if federation.is_some_and(Federation::has_tls) {
            let what =
                "sites with TLS have no certificate for one another and believe the signed header alone";
            let help = "name this site's under `site` as `ssl_key_and_certificate_ref`";
            report.warning(o.place_of("site"), what, help);
        }
        return None;
    };
    let Some((federation, gslb)) = federation.and_then(|it| Some((it, it.gslb.as_ref()?))) else {
        let what = "a site's certificate, and no federation to show it to";
        report.problem(place, what, "add `federation: …`, or leave it out");
        return None;
    };
    let profile = federation.pki_profile()?;
    let Some(ca_certs) = profile.ca_certs.clone() else {
        let what =
            "a site's certificate, but the federated PKI profile has no `ca_certs` to verify peers' by";
        report.problem(place, what, "name the file of the authority there, or leave this out");
        return None;
    };
    let pair = read_pair(o, &certificate)?;
    for wrong in misfits(site, gslb, &pair.0, &ca_certs) {
        let what = format!("certificate {} {}", shown(&certificate.name), wrong.0);
        report.problem(place.clone(), what, wrong.1);
    }
    SiteTls::new(&site.name, &gslb.federation_id, pair, ca_certs, profile.certificates_required).map(Arc::new)
}

/// Why peers would refuse the certificate, and how to mend it.
fn misfits(site: &Site, gslb: &Gslb, chain: &[X509], ca_certs: &CaCerts) -> Vec<(String, String)> {
    let Some(leaf) = chain.first() else { return Vec::new() };
    let mut misfits = Vec::new();
    for name in gslb.sites.iter().map(|site| &site.name).filter(|name| !words::is_host(&server_name(name))) {
        let what = format!("is for sites, of which {} has a name that SNI cannot have", shown(name.as_str()));
        misfits.push((what, "write site names with letters, digits, `-`, `_` and `.`".into()));
    }
    let alternatives = leaf.subject_alt_names();
    let mut has = |wanted: &str, text: String| {
        let names = alternatives.iter().flatten();
        let mut found = names.filter_map(|name| if wanted == "DNS" { name.dnsname() } else { name.uri() });
        if !found.any(|name| name.eq_ignore_ascii_case(&text)) {
            let what = format!("is not for the {wanted} name {text}, by which peers know this site");
            misfits.push((what, format!("issue it with the subject alternative name {wanted}:{text}")));
        }
    };
    has("DNS", server_name(&site.name));
    if let Some(cluster_uuid) = &site.cluster_uuid {
        has("URI", SiteTls::uri(&gslb.federation_id, cluster_uuid.as_str()));
    }
    if let Ok(Some(reason)) = untrusted(leaf, &chain[1..], ca_certs) {
        let what = format!("is not of the federated PKI profile: {reason}");
        misfits.push((
            what,
            "have it signed by one of its `ca_certs`, and put the issuers between them into its file".into(),
        ));
    }
    misfits
}

/// Why the authorities do not stand for a certificate. Dates are no question here: they change by themselves.
fn untrusted(leaf: &X509, issuers: &[X509], ca_certs: &CaCerts) -> Result<Option<String>, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for authority in ca_certs.certificates().iter() {
        store.add_cert(authority.clone())?;
    }
    store.set_flags(X509VerifyFlags::NO_CHECK_TIME)?;
    let mut chain = Stack::new()?;
    for issuer in issuers {
        chain.push(issuer.clone())?;
    }
    X509StoreContext::new()?.init(&store.build(), leaf, &chain, |context| {
        Ok((!context.verify_cert()?).then(|| context.error().error_string().to_owned()))
    })
}
