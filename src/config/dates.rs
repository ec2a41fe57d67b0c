//! Dates of certificates and revocation lists.
//!
//! What is out of date is a warning and no problem: dates change by themselves, and a configuration that was good
//! yesterday has to start today, and to take the reload that mends it. Handshakes hold to the dates all the same.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    nid::Nid,
    x509::{X509CrlRef, X509NameRef, X509Ref},
};

/// The time from which and until which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    from: SystemTime,
    until: SystemTime,
}

/// What is wrong with the dates of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateConcern {
    /// Since when.
    Expired(SystemTime),
    /// When: soon.
    Expiring(SystemTime),
    /// From when on it is valid.
    NotYet(SystemTime),
}

impl Validity {
    /// `None`: its dates are none that OpenSSL can read.
    pub fn of(certificate: &X509Ref) -> Option<Self> {
        Some(Self { from: time(certificate.not_before())?, until: time(certificate.not_after())? })
    }

    /// When it expires.
    pub fn until(&self) -> SystemTime {
        self.until
    }

    /// What there is to say at `now`. A certificate expires soon when less than 30 days are left of it; one that is
    /// renewed more often than once in four months, when less than a quarter of its time is.
    pub fn concern(&self, now: SystemTime) -> Option<DateConcern> {
        let lifetime = self.until.duration_since(self.from).unwrap_or_default();
        match self.until.duration_since(now) {
            _ if now < self.from => Some(DateConcern::NotYet(self.from)),
            Err(_) => Some(DateConcern::Expired(self.until)),
            Ok(left) if left < (lifetime / 4).min(SOON) => Some(DateConcern::Expiring(self.until)),
            Ok(_) => None,
        }
    }
}

impl DateConcern {
    /// How to mend it in a certificate that is served.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Expired(_) => "renew it and reload; until then clients and peer sites refuse it",
            Self::Expiring(_) => "renew it and reload",
            Self::NotYet(_) => {
                "set this machine's clock, or serve the one before; until then clients and peer sites refuse it"
            }
        }
    }
}

impl fmt::Display for DateConcern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, time) = match self {
            Self::Expired(time) => ("expired at", time),
            Self::Expiring(time) => ("expires soon, at", time),
            Self::NotYet(time) => ("is not valid before", time),
        };
        match asn1(*time).as_deref() {
            Some(time) => write!(f, "{what} {time}"),
            None => write!(f, "{what} a time that cannot be told"),
        }
    }
}

/// Why a certificate is good for nobody at `now`.
pub(super) fn misdated(certificate: &X509Ref, now: SystemTime) -> Option<String> {
    let concern = Validity::of(certificate)?.concern(now)?;
    let is_soon = matches!(concern, DateConcern::Expiring(_));
    (!is_soon).then(|| format!("{} {concern}", shown(certificate)))
}

/// A certificate, in words.
pub(super) fn shown(certificate: &X509Ref) -> String {
    format!("certificate `{}`", common_name(certificate.subject_name()))
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

fn time(time: &Asn1TimeRef) -> Option<SystemTime> {
    let since = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    // What was before 1970 is long over.
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

const SOON: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
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

    fn day(n: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(n * 86_400)
    }

    #[test]
    fn a_certificate_concerns_before_and_after_its_time_and_near_its_end() {
        use DateConcern::{Expired, Expiring, NotYet};
        for (from, until, now, concern) in [
            (100, 465, 99, Some(NotYet(day(100)))),
            (100, 465, 100, None),
            (100, 465, 435, None),
            (100, 465, 436, Some(Expiring(day(465)))),
            (100, 465, 465, Some(Expiring(day(465)))),
            (100, 465, 466, Some(Expired(day(465)))),
            // Of a short life the last quarter.
            (100, 108, 106, None),
            (100, 108, 107, Some(Expiring(day(108)))),
            // Times that make no sense are over.
            (100, 50, 100, Some(Expired(day(50)))),
        ] {
            let validity = Validity { from: day(from), until: day(until) };
            assert_eq!(validity.concern(day(now)), concern, "{from}..{until} at {now}");
        }
    }
}
