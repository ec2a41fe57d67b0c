//! PKI profiles: the authorities that sign the certificates by which sites prove themselves to one another, those of
//! clients, and those of servers.

use std::time::SystemTime;

use openssl::x509::{X509, X509Crl};

use super::{
    CaCerts,
    dates::{common_name, is_current, misdated},
    files::unreadable,
    problem::{Place, Report},
    read::{FileKind, Object},
    table::Table,
    words,
};

/// The federated profile, or one of a site's own, as read.
pub(super) struct PkiProfile {
    pub(super) name: String,
    pub(super) ca_certs: Option<CaCerts>,
    /// Peers have to show a certificate; else they may.
    pub(super) certificates_required: bool,
    pub(super) place: Place,
}

impl PkiProfile {
    /// One of this site alone, for its clients and its servers.
    pub(super) fn read_own(o: &mut Object<'_>, profiles: &mut Table<Self>) {
        let name = o.name();
        o.is_federated(FileKind::Site);
        o.demand_items("ca_certs");
        let authorities = read_ca_certs(o);
        let crls = read_crls(o, &authorities);
        let Some(name) = name else { return };
        let profile = Self {
            name: name.clone(),
            ca_certs: CaCerts::with_crls(authorities, crls),
            certificates_required: true,
            place: o.place.clone(),
        };
        profiles.define(o, "name", &name, profile);
    }

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
    let mut certificates: Vec<X509> = Vec::new();
    each_file(o, "ca_certs", |file| match X509::stack_from_pem(&file.content).unwrap_or_default() {
        found if found.is_empty() => {
            Err((format!("file {} holds no certificate", file.path), "write PEM certificates into it"))
        }
        found => {
            for what in found.iter().filter_map(|certificate| misdated(certificate, file.now)) {
                let what = format!("in {}, {what}", file.path);
                let help = "put the authority's new one beside it; nothing that this one signed is believed";
                file.report.warning(file.place.clone(), what, help);
            }
            certificates.extend(found);
            Ok(())
        }
    });
    certificates
}

/// Signatures are checked here and not in each handshake; so the authority itself has to be at hand.
fn read_crls(o: &mut Object<'_>, authorities: &[X509]) -> Vec<X509Crl> {
    let mut crls: Vec<(X509Crl, File<'_>)> = Vec::new();
    each_file(o, "crls", |file| {
        let Ok(crl) = X509Crl::from_pem(&file.content).or_else(|_| X509Crl::from_der(&file.content)) else {
            let help = "write one, in PEM or DER, as the authority publishes it";
            return Err((format!("file {} holds no certificate revocation list", file.path), help));
        };
        let signed = |authority: &X509| {
            authority.public_key().and_then(|key| crl.verify(&key)).is_ok_and(|is_signed| is_signed)
        };
        if !authorities.iter().any(signed) {
            let what = format!("the revocation list in {} is signed by none of the `ca_certs`", file.path);
            return Err((what, "add its authority's certificate there, or take the list out"));
        }
        crls.push((crl, file));
        Ok(())
    });
    warn_of_expired(&crls);
    crls.into_iter().map(|(crl, _)| crl).collect()
}

/// Of several lists of one authority one has to be current.
fn warn_of_expired(crls: &[(X509Crl, File<'_>)]) {
    let issuer = |crl: &X509Crl| common_name(crl.issuer_name());
    for (crl, file) in crls {
        let mut alike = crls.iter().filter(|(other, _)| issuer(other) == issuer(crl));
        if !alike.any(|(other, file)| is_current(other, file.now)) {
            let wrong = match crl.next_update() {
                Some(date) => format!("expired at {date}"),
                None => "does not say until when it is good".into(),
            };
            let what = format!("the revocation list of `{}` in {} {wrong}", issuer(crl), file.path);
            let help =
                "fetch the current one and reload; until then every peer that it is to tell of is refused";
            file.report.warning(file.place.clone(), what, help);
        }
    }
}

/// One file of a list of files.
struct File<'a> {
    path: String,
    place: Place,
    content: Vec<u8>,
    report: &'a Report,
    now: SystemTime,
}

/// Reads each file of a list; `take` says what is wrong with one, and how to mend it.
fn each_file<'a>(
    o: &mut Object<'a>,
    key: &'static str,
    mut take: impl FnMut(File<'a>) -> Result<(), (String, &'static str)>,
) {
    let (report, now) = (o.source.report, o.source.files.now());
    for (path, place) in o.placed_list(key, words::file_name).unwrap_or_default() {
        let path = o.source.beside(&path);
        let taken = match o.source.files.read(&path) {
            Ok(content) => {
                let path = path.display().to_string();
                take(File { path, place: place.clone(), content, report, now })
            }
            Err(error) => Err(unreadable(&path, &error)),
        };
        if let Err((what, help)) = taken {
            report.problem(place, what, help);
        }
    }
}
