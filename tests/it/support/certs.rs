//! Self-signed certificates, made anew for every test.

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
