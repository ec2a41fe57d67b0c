//! Certificates that their authority has taken back.
//!
//! OpenSSL has verified the chain before anything is looked up here, and the lists' signatures were verified when
//! they were loaded. OpenSSL's own lookup is not used: neither Pingora's connector nor the `openssl` crate hands it
//! lists, and its time cannot be an argument.

use std::time::SystemTime;

use openssl::x509::{CrlStatus, X509Crl, X509NameRef, X509Ref, X509VerifyResult};
use openssl_sys::{X509_V_ERR_CERT_REVOKED, X509_V_ERR_CRL_HAS_EXPIRED, X509_V_ERR_UNABLE_TO_GET_CRL};

use crate::config::{common_name, is_current};

/// Why a certificate that an authority has signed is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Revocation {
    #[error("the certificate of `{subject}` is revoked")]
    Revoked { subject: String },
    #[error(
        "the revocation list of `{issuer}` expired at {expired}; fetch the current one into the file that `crls` \
         names, and reload"
    )]
    Expired { issuer: String, expired: String },
    #[error("there is no revocation list of `{issuer}`; add it to `crls` of the PKI profile")]
    NoList { issuer: String },
}

impl Revocation {
    /// The reason as OpenSSL knows it: the alert that ends the handshake tells it to the peer.
    pub(super) fn openssls(&self) -> X509VerifyResult {
        let number = match self {
            Self::Revoked { .. } => X509_V_ERR_CERT_REVOKED,
            Self::Expired { .. } => X509_V_ERR_CRL_HAS_EXPIRED,
            Self::NoList { .. } => X509_V_ERR_UNABLE_TO_GET_CRL,
        };
        // SAFETY: the numbers are OpenSSL's own constants.
        unsafe { X509VerifyResult::from_raw(number) }
    }
}

/// Looks up every certificate of a chain that is not its own issuer. Without any list, nothing is looked up.
pub(super) fn check<'a>(
    chain: impl IntoIterator<Item = &'a X509Ref>,
    crls: &[X509Crl],
    now: SystemTime,
) -> Result<(), Revocation> {
    if crls.is_empty() {
        return Ok(());
    }
    let is_root = |it: &&X509Ref| same(it.issuer_name(), it.subject_name());
    chain.into_iter().filter(|it| !is_root(it)).try_for_each(|certificate| look_up(certificate, crls, now))
}

/// An authority may have several lists, as after a change of its key: none may have the certificate, and one has
/// to be current.
fn look_up(certificate: &X509Ref, crls: &[X509Crl], now: SystemTime) -> Result<(), Revocation> {
    let issuer = certificate.issuer_name();
    let lists = || crls.iter().filter(|crl| same(crl.issuer_name(), issuer));
    if lists().any(|crl| matches!(crl.get_by_serial(certificate.serial_number()), CrlStatus::Revoked(_))) {
        return Err(Revocation::Revoked { subject: common_name(certificate.subject_name()) });
    }
    let issuer = common_name(issuer);
    let Some(last) = lists().last() else { return Err(Revocation::NoList { issuer }) };
    match lists().any(|crl| is_current(crl, now)) {
        true => Ok(()),
        false => {
            let expired = last.next_update().map(ToString::to_string).unwrap_or_default();
            Err(Revocation::Expired { issuer, expired })
        }
    }
}

fn same(a: &X509NameRef, b: &X509NameRef) -> bool {
    a.try_cmp(b).is_ok_and(|order| order.is_eq())
}
