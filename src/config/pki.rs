//! PKI profiles: the authorities that sign the certificates by which sites prove themselves to one another.

use openssl::x509::{X509, X509Crl};

use super::{
    CaCerts,
    files::unreadable,
    problem::Place,
    read::{FileKind, Object},
    words,
};

/// The federated profile, as read.
pub(super) struct PkiProfile {
    pub(super) name: String,
    pub(super) ca_certs: Option<CaCerts>,
    /// Peers have to show a certificate; else they may.
    pub(super) certificates_required: bool,
    pub(super) place: Place,
}

impl PkiProfile {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let name = o.name().unwrap_or_default();
        o.is_federated(FileKind::Federation);
        let authorities = read_ca_certs(o);
        let crls = read_crls(o, &authorities);
        let modes = [
            ("require", "SSL_CLIENT_CERTIFICATE_REQUIRE", true),
            ("request", "SSL_CLIENT_CERTIFICATE_REQUEST", false),
        ];
        let mode = o.field("ssl_client_certificate_mode", words::choice(&modes));
        Self {
            name,
            ca_certs: CaCerts::with_crls(authorities, crls),
            certificates_required: mode.unwrap_or(true),
            place: o.place.clone(),
        }
    }
}

fn read_ca_certs(o: &mut Object<'_>) -> Vec<X509> {
    let mut certificates = Vec::new();
    each_file(o, "ca_certs", |path, pem| match X509::stack_from_pem(pem).unwrap_or_default() {
        found if found.is_empty() => {
            Err((format!("file {path} holds no certificate"), "write PEM certificates into it"))
        }
        found => {
            certificates.extend(found);
            Ok(())
        }
    });
    certificates
}

/// Signatures are checked here and not in each handshake; so the authority itself has to be at hand.
fn read_crls(o: &mut Object<'_>, authorities: &[X509]) -> Vec<X509Crl> {
    let mut crls = Vec::new();
    each_file(o, "crls", |path, bytes| {
        let Ok(crl) = X509Crl::from_pem(bytes).or_else(|_| X509Crl::from_der(bytes)) else {
            let help = "write one, in PEM or DER, as the authority publishes it";
            return Err((format!("file {path} holds no certificate revocation list"), help));
        };
        let signed = |authority: &X509| {
            authority.public_key().and_then(|key| crl.verify(&key)).is_ok_and(|is_signed| is_signed)
        };
        if !authorities.iter().any(signed) {
            let what = format!("the revocation list in {path} is signed by none of the `ca_certs`");
            return Err((what, "add its authority's certificate there, or take the list out"));
        }
        crls.push(crl);
        Ok(())
    });
    crls
}

/// Reads each file of a list; `take` says what is wrong with one, and how to mend it.
fn each_file(
    o: &mut Object<'_>,
    key: &'static str,
    mut take: impl FnMut(&str, &[u8]) -> Result<(), (String, &'static str)>,
) {
    for (path, place) in o.placed_list(key, words::file_name).unwrap_or_default() {
        let path = o.source.beside(&path);
        let taken = match o.source.files.read(&path) {
            Ok(bytes) => take(&path.display().to_string(), &bytes),
            Err(error) => Err(unreadable(&path, &error)),
        };
        if let Err((what, help)) = taken {
            o.source.report.problem(place, what, help);
        }
    }
}
