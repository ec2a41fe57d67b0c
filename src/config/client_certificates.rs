//! What is asked of clients' certificates.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{CaCerts, pki::PkiProfile, read::Object, table::Table, words};

/// Clients are asked for a certificate that one of these authorities has signed and not revoked.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificates {
    pub ca_certs: CaCerts,
    /// The profile that has them.
    pub pki_profile: String,
    /// Who has none does not get in.
    pub required: bool,
}

/// Avi's `ssl_client_certificate_mode`.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    None,
    Request,
    Require,
}

impl ClientCertificates {
    /// From `ssl_client_certificate_mode` and `pki_profile_ref`. `None`: nobody is asked.
    pub(super) fn read(o: &mut Object<'_>, profiles: &Table<PkiProfile>) -> Option<Self> {
        let modes = [
            ("none", "SSL_CLIENT_CERTIFICATE_NONE", Mode::None),
            ("request", "SSL_CLIENT_CERTIFICATE_REQUEST", Mode::Request),
            ("require", "SSL_CLIENT_CERTIFICATE_REQUIRE", Mode::Require),
        ];
        let mode = o.field("ssl_client_certificate_mode", words::choice(&modes)).unwrap_or(Mode::None);
        let profile = o.reference("pki_profile_ref");
        match (mode, &profile) {
            (Mode::None, Some(_)) if !o.has("ssl_client_certificate_mode") => {
                let help = "add `ssl_client_certificate_mode: require` or `request`, or leave the key out";
                o.wrong("pki_profile_ref", "no client is asked for a certificate", help);
            }
            (Mode::Request | Mode::Require, None) => o.is_missed("pki_profile_ref"),
            _ => {}
        }
        let profile = profiles.resolve(&profile?, o.source.report)?;
        let ca_certs = profile.ca_certs.clone().filter(|_| mode != Mode::None)?;
        Some(Self { ca_certs, pki_profile: profile.name.clone(), required: mode == Mode::Require })
    }

    /// Tells what was verified by these from what was not.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.ca_certs.fingerprint(), self.required).hash(&mut hasher);
        hasher.finish()
    }
}

impl Eq for ClientCertificates {}
