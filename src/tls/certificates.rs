//! Certificates with their keys, and which one a client is shown.
//!
//! Files are read here once more after the configuration was checked, because they may have changed since. Renewal
//! is a new [`CertificateStore`], handed to the acceptor while it runs.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use openssl::{
    error::ErrorStack,
    nid::Nid,
    pkey::{PKey, Private},
    x509::X509,
};

use crate::config::{self, Validity};

/// A certificate, what leads from it to a root, and its private key.
pub struct CertifiedKey {
    pub name: String,
    pub(super) leaf: X509,
    pub(super) intermediates: Vec<X509>,
    pub(super) key: PKey<Private>,
}

impl CertifiedKey {
    /// Reads the PEM files of a configured certificate: the server's own first, then its issuers in order.
    pub fn load(certificate: &config::Certificate) -> Result<Self, CertificateError> {
        let chain_file = &certificate.certificate_file;
        let mut chain = X509::stack_from_pem(&read(chain_file)?)
            .map_err(|source| CertificateError::NotACertificate { file: chain_file.clone(), source })?
            .into_iter();
        let leaf = chain.next().ok_or_else(|| CertificateError::Empty(chain_file.clone()))?;
        let key_file = &certificate.key_file;
        // An empty passphrase, so that an encrypted key is an error and not a prompt on the terminal.
        let key = PKey::private_key_from_pem_passphrase(&read(key_file)?, b"")
            .map_err(|source| CertificateError::NotAKey { file: key_file.clone(), source })?;
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            return Err(CertificateError::Strangers { key: key_file.clone(), chain: chain_file.clone() });
        }
        Ok(Self { name: certificate.name.clone(), leaf, intermediates: chain.collect(), key })
    }

    /// The DNS names that the certificate is for, in lower case; its common name if it has none.
    pub fn names(&self) -> Vec<String> {
        if let Some(names) = self.leaf.subject_alt_names() {
            return names.iter().filter_map(|name| name.dnsname()).map(str::to_ascii_lowercase).collect();
        }
        let common = self.leaf.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        common
            .and_then(|name| name.data().to_string().ok())
            .map(|name| name.to_ascii_lowercase())
            .into_iter()
            .collect()
    }

    /// When it, or an issuer that is sent with it, expires, in seconds since 1970; `None` for a time that OpenSSL
    /// cannot read.
    pub fn not_after(&self) -> Option<i64> {
        chain_not_after([&self.leaf].into_iter().chain(&self.intermediates))
    }
}

/// When the first of these certificates expires, in seconds since 1970.
pub fn chain_not_after<'a>(chain: impl IntoIterator<Item = &'a X509>) -> Option<i64> {
    let end =
        chain.into_iter().filter_map(|certificate| Validity::of(certificate)).map(|it| it.until()).min()?;
    i64::try_from(end.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// The certificates of a listener by the names that clients ask for.
pub struct CertificateStore {
    default: Arc<CertifiedKey>,
    configured: ByName,
    own: ByName,
}

#[derive(Default)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.a.com` by its `a.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl CertificateStore {
    /// A store that shows `default` to clients that ask for no name or an unknown one.
    pub fn new(default: Arc<CertifiedKey>) -> Self {
        let mut store =
            Self { default: default.clone(), configured: ByName::default(), own: ByName::default() };
        store.add(default, &[]);
        store
    }

    /// Adds a certificate for `domain_names` (`a.com`, `*.a.com`), as configured, and for its own names. Configured
    /// names win over certificates' own, earlier ones over later ones, exact ones over wildcards.
    pub fn add(&mut self, certificate: Arc<CertifiedKey>, domain_names: &[String]) {
        self.configured.add(domain_names.iter().map(|name| name.to_ascii_lowercase()), &certificate);
        self.own.add(certificate.names().into_iter(), &certificate);
    }

    /// Every certificate that a client may be shown, some more than once.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let tables = [&self.configured, &self.own].into_iter();
        let named = tables.flat_map(|names| names.exact.values().chain(names.wildcard.values()));
        [&self.default].into_iter().chain(named)
    }

    /// The certificate for the name that a client asks for.
    pub fn find(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = server_name else { return &self.default };
        let name = name.to_ascii_lowercase();
        self.configured.find(&name).or_else(|| self.own.find(&name)).unwrap_or(&self.default)
    }
}

impl ByName {
    fn add(&mut self, names: impl Iterator<Item = String>, certificate: &Arc<CertifiedKey>) {
        for name in names {
            let (table, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent.to_owned()),
                None => (&mut self.exact, name),
            };
            table.entry(name).or_insert_with(|| certificate.clone());
        }
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        self.exact.get(name).or_else(|| parents.into_iter().find_map(|parent| self.wildcard.get(parent)))
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}: is not a PEM certificate chain: {source}", file.display())]
    NotACertificate { file: PathBuf, source: ErrorStack },
    #[error("{}: holds no certificate; begin with the server's own, then its issuers, in PEM", _0.display())]
    Empty(PathBuf),
    #[error("{}: is not an unencrypted PEM private key: {source}", file.display())]
    NotAKey { file: PathBuf, source: ErrorStack },
    #[error(
        "{}: is not the key of the first certificate in {}; put the server's own certificate first",
        key.display(),
        chain.display()
    )]
    Strangers { key: PathBuf, chain: PathBuf },
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(file).map_err(|source| CertificateError::Unreadable { file: file.to_owned(), source })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A self-signed certificate in files that live as long as the directory.
    pub fn self_signed(directory: &Path, name: &str, dns: &[&str]) -> config::Certificate {
        let dns: Vec<_> = dns.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(dns).unwrap();
        let files = config::Certificate {
            name: name.to_owned(),
            certificate_file: directory.join(format!("{name}.pem")),
            key_file: directory.join(format!("{name}.key")),
            validity: None,
        };
        fs::write(&files.certificate_file, made.cert.pem()).unwrap();
        fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn load(directory: &Path, name: &str, dns: &[&str]) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::load(&self_signed(directory, name, dns)).unwrap())
    }

    #[test]
    fn the_best_name_chooses_the_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let load = |name, dns| load(directory.path(), name, dns);
        let mut store = CertificateStore::new(load("default", &["default.com"]));
        store.add(load("a", &["a.com", "*.a.com"]), &[]);
        store.add(load("b", &["a.com", "B.com"]), &["www.a.com".into(), "*.shop.a.com".into()]);
        for (asked, shown) in [
            (None, "default"),
            (Some("unknown.org"), "default"),
            (Some("default.com"), "default"),
            (Some("A.com"), "a"),
            (Some("x.a.com"), "a"),
            (Some("www.a.com"), "b"),
            (Some("x.shop.a.com"), "b"),
            (Some("b.COM"), "b"),
            (Some("com"), "default"),
        ] {
            assert_eq!(store.find(asked).name, shown, "{asked:?}");
        }
    }

    #[test]
    fn files_that_cannot_serve_say_why() {
        let directory = tempfile::tempdir().unwrap();
        let a = self_signed(directory.path(), "a", &["a.com"]);
        let b = self_signed(directory.path(), "b", &["b.com"]);
        let message = |certificate_file: &Path, key_file: &Path| {
            let files = config::Certificate {
                name: "x".into(),
                certificate_file: certificate_file.into(),
                key_file: key_file.into(),
                validity: None,
            };
            CertifiedKey::load(&files).err().expect("the files do not fit").to_string()
        };
        let empty = directory.path().join("empty");
        fs::write(&empty, "").unwrap();
        let missing = directory.path().join("missing");
        for (message, parts) in [
            (message(&missing, &a.key_file), ["missing: ", "No such file"]),
            (message(&empty, &a.key_file), ["empty: ", "holds no certificate"]),
            (
                message(&a.certificate_file, &a.certificate_file),
                ["a.pem: ", "not an unencrypted PEM private key"],
            ),
            (message(&a.certificate_file, &b.key_file), ["b.key: ", "not the key of the first certificate"]),
        ] {
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    fn a_certificate_tells_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.com".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2033, 5, 18);
        let key = rcgen::KeyPair::generate().unwrap();
        let files = self_signed(directory.path(), "a", &["a.com"]);
        fs::write(&files.certificate_file, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.key_file, key.serialize_pem()).unwrap();
        assert_eq!(CertifiedKey::load(&files).unwrap().not_after(), Some(1_999_987_200));
    }
}
