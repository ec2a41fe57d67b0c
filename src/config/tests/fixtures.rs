//! The files that the configurations of the tests refer to.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use super::project;
use crate::config::geo::small::mmdb;

type Memory = BTreeMap<PathBuf, Vec<u8>>;

/// What configurations refer to: certificates, keys and a federation.
pub static FILES: LazyLock<Memory> = LazyLock::new(|| {
    let pair =
        || rcgen::generate_simple_self_signed(["a.com".to_string()]).expect("a name makes a certificate");
    let (own, other) = (pair(), pair());
    let (ca, crl, site) = authority();
    let text = |text: &str| text.as_bytes().to_vec();
    let files = [
        ("a-com.pem", text(&own.cert.pem())),
        ("a-com.key", text(&own.signing_key.serialize_pem())),
        ("ca.pem", text(&ca)),
        ("ca.crl", text(&crl)),
        ("partners-ca.pem", text(&ca)),
        ("partners-ca.crl", text(&crl)),
        ("sp-site-a.pem", text(&site.0)),
        ("sp-site-a.key", text(&site.1)),
        ("other.key", text(&other.signing_key.serialize_pem())),
        ("dnssec.key", text(&other.signing_key.serialize_pem())),
        ("sorry.html", text("<h1>Sorry</h1>\n")),
        ("robots.txt", text("User-agent: *\n")),
        ("geo.mmdb", mmdb(&[("192.0.2.0", 24, 52.5, 13.4)])),
        ("admin.token", text("let-me-in-let-me-in\n")),
        ("empty.token", text("\n")),
        ("site-cookie.key", text(&format!("{}\n", "0f".repeat(32)))),
        ("app-cookie.key", text(&format!("{}\n", "a0".repeat(32)))),
        ("short.key", text("0f0f\n")),
        ("ticket.keys", text(&format!("{}\n{}\n", "0a".repeat(32), "a0".repeat(32)))),
        ("clone-mark.key", text(&format!("{}\n", "f0".repeat(32)))),
        ("dns-cookie.secret", text(&format!("{}\n{}\n", "0d".repeat(16), "d0".repeat(16)))),
        (
            "federation.yaml",
            fs::read(project("conf/two-sites/federation.yaml")).expect("it is in the project"),
        ),
    ];
    files.into_iter().map(|(name, content)| (name.into(), content)).collect()
});

/// An authority, its revocation list, and a certificate for site_A of the reference with its key.
fn authority() -> (String, String, (String, String)) {
    let key = || rcgen::KeyPair::generate().expect("a key can be made");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the sites' authority");
    let ca = rcgen::CertifiedIssuer::self_signed(params, key()).expect("an authority can be made");
    let crl = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let crl = crl.signed_by(&ca).and_then(|crl| crl.pem()).expect("an authority can sign a list");
    let mut params =
        rcgen::CertificateParams::new(["sp.site_a".to_string()]).expect("a name can be in a certificate");
    let uri = "homing://demo/cluster-1".try_into().expect("it is ASCII");
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let site_key = key();
    let site = params.signed_by(&site_key, &ca).expect("an authority can sign");
    (ca.pem(), crl, (site.pem(), site_key.serialize_pem()))
}
