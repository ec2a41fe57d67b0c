//! Certificates, made anew for every test: self-signed ones, and authorities that sign others.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Cert {
    pub certificate: String,
    pub key: String,
}

/// A certificate for some names.
pub fn cert_for(names: &[&str]) -> Cert {
    let names = names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).expect("a self-signed certificate can be made");
    Cert { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

/// The same, valid from and until some time from now, in days.
pub fn cert_valid(names: &[&str], days: RangeInclusive<i64>) -> Cert {
    let key = key();
    let params = valid(names, days);
    Cert {
        certificate: params.self_signed(&key).expect("it can sign itself").pem(),
        key: key.serialize_pem(),
    }
}

/// A private key that DNS answers can be signed with, PEM.
pub fn dnssec_key() -> String {
    key().serialize_pem()
}

fn valid(names: &[&str], days: RangeInclusive<i64>) -> CertificateParams {
    let names = names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names.clone()).expect("the names can be in a certificate");
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let at = |days: i64| match u32::try_from(days) {
        Ok(days) => now + day * days,
        Err(_) => now - day * u32::try_from(-days).expect("the tests' years are few"),
    };
    (params.not_before, params.not_after) = (at(*days.start()).into(), at(*days.end()).into());
    params
}

/// A private authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// An authority that is good during one year.
    pub fn of_year(name: &str, year: i32) -> Self {
        Self::with(name, |params| of_year(params, year))
    }

    fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        Self(CertifiedIssuer::self_signed(params, key()).expect("an authority can be made"))
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, signed by it.
    pub fn cert_for(&self, name: &str) -> Cert {
        let key = key();
        let params = CertificateParams::new([name.to_owned()]).expect("the name can be in a certificate");
        let certificate = params.signed_by(&key, &self.0).expect("an authority can sign");
        Cert { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The same, valid from and until some time from now, in days.
    pub fn cert_valid(&self, name: &str, days: RangeInclusive<i64>) -> Cert {
        let key = key();
        let certificate = valid(&[name], days).signed_by(&key, &self.0).expect("an authority can sign");
        Cert { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A site's certificate: for `sp.<site>` and the cluster of a federation.
    pub fn site_cert(&self, dns: &str, uri: &str, serial: u64) -> Cert {
        self.sign_site(dns, uri, serial, |_| {})
    }

    /// A site's certificate that is good during one year.
    pub fn site_cert_of_year(&self, dns: &str, uri: &str, year: i32) -> Cert {
        self.sign_site(dns, uri, 1, |params| of_year(params, year))
    }

    fn sign_site(
        &self,
        dns: &str,
        uri: &str,
        serial: u64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Cert {
        let key = key();
        let mut params = CertificateParams::new([dns.to_owned()]).expect("the name can be in a certificate");
        params.distinguished_name.push(DnType::CommonName, dns);
        change(&mut params);
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("URIs are ASCII")));
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.0).expect("an authority can sign");
        Cert { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Its revocation list, PEM, good to the end of a year.
    pub fn crl(&self, revoked: &[u64], year: i32) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 12, 31),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).and_then(|crl| crl.pem()).expect("an authority can sign a list")
    }
}

/// Makes a certificate good during one year.
fn of_year(params: &mut CertificateParams, year: i32) {
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year, 12, 31);
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
