//! Dates of certificates and revocation lists.
//!
//! What is out of date is a warning and no problem: dates change by themselves, and a configuration that was good
//! yesterday has to start today, and to take the reload that mends it. Handshakes hold to the dates all the same.

use std::time::{SystemTime, UNIX_EPOCH};

use openssl::{
    asn1::Asn1Time,
    nid::Nid,
    x509::{X509CrlRef, X509NameRef, X509Ref},
};

/// Why a certificate is good for nobody at `now`.
pub(super) fn misdated(certificate: &X509Ref, now: SystemTime) -> Option<String> {
    let now = asn1(now)?;
    let name = || common_name(certificate.subject_name());
    match (certificate.not_before(), certificate.not_after()) {
        (_, end) if *end < now => Some(format!("certificate `{}` expired at {end}", name())),
        (begin, _) if *begin > now => Some(format!("certificate `{}` is not valid before {begin}", name())),
        _ => None,
    }
}

/// Whether the authority has not promised a newer list by `now`. RFC 5280 wants that date in every list.
pub fn is_current(crl: &X509CrlRef, now: SystemTime) -> bool {
    crl.next_update().zip(asn1(now)).is_some_and(|(next, now)| *next > now)
}

/// The common name, or what else there is.
pub fn common_name(name: &X509NameRef) -> String {
    let entry = name.entries_by_nid(Nid::COMMONNAME).next().or_else(|| name.entries().last());
    entry.and_then(|entry| entry.data().to_string().ok()).unwrap_or_else(|| "?".into())
}

fn asn1(time: SystemTime) -> Option<Asn1Time> {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Asn1Time::from_unix(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openssl::x509::X509;

    use super::*;

    #[test]
    fn a_certificate_is_good_from_its_first_second_to_its_last() {
        const DAY: u64 = 86_400;
        let mut params = rcgen::CertificateParams::new(["a.com".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a.com");
        params.not_before = rcgen::date_time_ymd(1970, 1, 11);
        params.not_after = rcgen::date_time_ymd(1970, 1, 21);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let certificate = X509::from_der(made.der()).unwrap();
        for (second, said) in [
            (10 * DAY - 1, Some("certificate `a.com` is not valid before Jan 11 00:00:00 1970 GMT")),
            (10 * DAY, None),
            (20 * DAY, None),
            (20 * DAY + 1, Some("certificate `a.com` expired at Jan 21 00:00:00 1970 GMT")),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            assert_eq!(misdated(&certificate, now).as_deref(), said, "{second}");
        }
    }
}
