//! Certificates, made anew for every test: self-signed ones, and authorities that sign others.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

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

/// A private authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
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
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
