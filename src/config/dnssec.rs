//! The keys that sign DNS answers.

use std::{fmt, time::Duration};

use hickory_proto::dnssec::{Algorithm, crypto::EcdsaSigningKey};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    read::Object,
    units::{self, days, hours},
};

/// Signing on line: ECDSA P-256 with SHA-256 (RFC 6605), every key at once for the zone and for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnssec {
    /// The first signs; the others are published, and sign the keys. Never empty.
    pub keys: Vec<DnssecKey>,
    /// How long a signature holds.
    pub signature_validity: Duration,
}

/// A private key in PKCS#8.
#[derive(Clone, PartialEq, Eq)]
pub struct DnssecKey(Zeroizing<Vec<u8>>);

impl Dnssec {
    pub(super) fn read(o: &mut Object<'_>) -> Option<Self> {
        let keys = keys(o);
        let validity = o.field("signature_validity", units::duration(hours(1)..=days(30)));
        Some(Self { keys: keys?, signature_validity: validity.unwrap_or(days(2)) })
    }
}

impl DnssecKey {
    fn new(der: &PrivatePkcs8KeyDer<'_>) -> Option<Self> {
        let key = Self(der.secret_pkcs8_der().to_vec().into());
        key.open().map(|_| key)
    }

    /// What signs with it.
    pub fn signing(&self) -> EcdsaSigningKey {
        self.open().expect("it was opened when it was read")
    }

    fn open(&self) -> Option<EcdsaSigningKey> {
        EcdsaSigningKey::from_pkcs8(&self.0.as_slice().into(), Algorithm::ECDSAP256SHA256).ok()
    }
}

impl fmt::Debug for DnssecKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DnssecKey")
    }
}

fn keys(o: &mut Object<'_>) -> Option<Vec<DnssecKey>> {
    let (path, pem) = o.required_file("key_file")?;
    let pem = Zeroizing::new(pem);
    o.warn_if_others_read("key_file", &path);
    let keys: Option<Vec<_>> =
        PrivatePkcs8KeyDer::pem_slice_iter(&pem).map(|der| DnssecKey::new(&der.ok()?)).collect();
    let keys = keys.filter(|keys| !keys.is_empty());
    if keys.is_none() {
        let what = format!("file {} does not have keys for ECDSA P-256 in PKCS#8 PEM", path.display());
        let help = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`";
        o.wrong("key_file", what, help);
    }
    keys
}
