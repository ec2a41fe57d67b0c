//! Certificates of listeners, and of the authorities that sign those of sites and servers.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::Arc,
};

use openssl::{
    pkey::{PKey, Private},
    x509::{X509, X509Crl},
};

use super::{
    dates::{Validity, shown},
    read::Object,
    table::Table,
};

/// A certificate chain and its key, PEM files. `load` has shown that both exist, parse and belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub name: String,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// Of the server's own; `None`: its times cannot be read.
    pub validity: Option<Validity>,
}

/// Certificates of authorities, of which one has to have signed a peer's certificate, and what they have revoked.
/// Avi: the `ca_certs` and `crls` of a PKI profile.
#[derive(Clone)]
pub struct CaCerts {
    certificates: Arc<Box<[X509]>>,
    crls: Arc<[X509Crl]>,
    fingerprint: u64,
}

impl CaCerts {
    /// `None`: there is no certificate.
    pub fn new(certificates: Vec<X509>) -> Option<Self> {
        Self::with_crls(certificates, Vec::new())
    }

    /// Authorities and their revocation lists, which they have signed. With one list at least, every certificate
    /// needs one of its authority.
    pub fn with_crls(certificates: Vec<X509>, crls: Vec<X509Crl>) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        for certificate in &certificates {
            certificate.to_der().ok()?.hash(&mut hasher);
        }
        for crl in &crls {
            crl.to_der().ok()?.hash(&mut hasher);
        }
        let fingerprint = hasher.finish();
        (!certificates.is_empty()).then(|| Self {
            certificates: Arc::new(certificates.into()),
            crls: crls.into(),
            fingerprint,
        })
    }

    /// The revocation lists; none: nothing is looked up.
    pub fn crls(&self) -> &[X509Crl] {
        &self.crls
    }

    /// As Pingora takes them.
    pub fn certificates(&self) -> &Arc<Box<[X509]>> {
        &self.certificates
    }

    /// Tells connections that were verified against these certificates from others.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl PartialEq for CaCerts {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for CaCerts {}

impl fmt::Debug for CaCerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificates, crls, fingerprint } = self;
        write!(f, "CaCerts({}, {} crls, {fingerprint:016x})", certificates.len(), crls.len())
    }
}

impl Certificate {
    pub(super) fn read(o: &mut Object<'_>, certificates: &mut Table<Arc<Self>>) {
        let name = o.name();
        let chain = o.required_file("certificate_file");
        let key = o.required_file("key_file");
        let mut validity = None;
        if let (Some((_, chain)), Some((path, key))) = (&chain, &key) {
            validity = check_pair(o, chain, key);
            o.warn_if_others_read("key_file", path);
        }
        let Some(name) = name else { return };
        let path = |file: Option<(PathBuf, Vec<u8>)>| file.map(|(path, _)| path).unwrap_or_default();
        let certificate =
            Self { name: name.clone(), certificate_file: path(chain), key_file: path(key), validity };
        certificates.define(o, "name", &name, Arc::new(certificate));
    }
}

/// That the files can be read and belong together was found, or reported, with the certificate.
pub(super) fn read_pair(o: &Object<'_>, certificate: &Certificate) -> Option<(Vec<X509>, PKey<Private>)> {
    let read = |path| o.source.files.read(path).ok();
    let chain = X509::stack_from_pem(&read(&certificate.certificate_file)?).ok()?;
    // A callback that gives no passphrase, lest OpenSSL asks for one at the terminal.
    let key = PKey::private_key_from_pem_callback(&read(&certificate.key_file)?, |_| Ok(0)).ok()?;
    Some((chain, key))
}

/// OpenSSL's own words are left out: they name none of what an operator could mend.
fn check_pair(o: &Object<'_>, chain: &[u8], key: &[u8]) -> Option<Validity> {
    let chain = X509::stack_from_pem(chain).unwrap_or_default();
    if chain.is_empty() {
        let help = "write PEM: the server's certificate first, then the intermediate ones";
        o.wrong("certificate_file", "the file holds no certificate", help);
    }
    for certificate in &chain {
        let concern = Validity::of(certificate).and_then(|validity| validity.concern(o.source.files.now()));
        if let Some(concern) = concern {
            o.dubious("certificate_file", format!("{} {concern}", shown(certificate)), concern.help());
        }
    }
    // A callback that gives no passphrase, lest OpenSSL asks for one at the terminal.
    let key = PKey::private_key_from_pem_callback(key, |_| Ok(0));
    if key.is_err() {
        let help = "write PEM, without a passphrase; the file's mode protects it";
        o.wrong("key_file", "the file holds no private key that can be read", help);
    }
    if let (Some(leaf), Ok(key)) = (chain.first(), key)
        && !leaf.public_key().is_ok_and(|public| public.public_eq(&key))
    {
        let help = "name the key that the first certificate of `certificate_file` was made for";
        o.wrong("key_file", "the key does not belong to the certificate", help);
    }
    Validity::of(chain.first()?)
}
