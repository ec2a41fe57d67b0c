//! Client certificates: which of a listener's virtual services ask for one, how it is verified, and what is known of it.
//!
//! The server name that a client asks for decides whether it is asked. A session is bound to the authorities, the
//! revocation lists and the mode that it began under: where they have changed, or the name is another, it is not
//! resumed, and a full handshake verifies anew. So a resumed session proves as much as a new one. Avi has the profile
//! with `ssl_client_certificate_mode`, nginx `ssl_verify_client`, BIG-IP the client SSL profile's authentication.

use std::{collections::HashMap, fmt::Write, sync::Arc};

use openssl::{
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    ssl::{SslRef, SslVerifyMode},
    x509::{
        X509NameRef, X509Ref, X509StoreContextRef,
        store::{X509Store, X509StoreBuilder},
    },
};
use pingora::tls::ext;

use super::{binding, revocation};
use crate::{clock::Clock, config::ClientCertificates};

/// A client's certificate that was verified: iRules' `SSL::cert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As in RFC 4514, in ASCII: `CN=alice,O=Example`.
    pub subject: String,
    pub issuer: String,
    /// In hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The DNS names that it is for.
    pub dns_names: Vec<String>,
    /// What it was verified by.
    verified_by: u64,
}

impl ClientCertificate {
    /// Whether it was verified as these ask for.
    pub fn satisfies(&self, clients: &ClientCertificates) -> bool {
        self.verified_by == clients.fingerprint()
    }

    fn read(certificate: &X509Ref, verified_by: u64) -> Result<Self, ErrorStack> {
        let names = certificate.subject_alt_names();
        let dns = names.iter().flatten().filter_map(|name| name.dnsname().map(str::to_owned));
        Ok(Self {
            subject: written(certificate.subject_name()),
            issuer: written(certificate.issuer_name()),
            serial: certificate.serial_number().to_bn()?.to_hex_str()?.to_string(),
            fingerprint: hexadecimal(&certificate.digest(MessageDigest::sha256())?),
            dns_names: dns.collect(),
            verified_by,
        })
    }
}

/// Of a listener: who is asked, by the server name.
#[derive(Default)]
pub struct ClientVerifiers {
    exact: HashMap<String, Asks>,
    /// `*.a.com` by its `a.com`.
    wildcard: HashMap<String, Asks>,
    /// For other names, and none.
    default: Asks,
}

type Asks = Option<Arc<ClientVerifier>>;

impl ClientVerifiers {
    /// Adds a virtual service; one without names is for all other names.
    pub fn add(&mut self, domain_names: &[String], verifier: Asks) {
        if domain_names.is_empty() {
            self.default.clone_from(&verifier);
        }
        for name in domain_names {
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.insert(parent.to_owned(), verifier.clone()),
                None => self.exact.insert(name.clone(), verifier.clone()),
            };
        }
    }

    /// What all other names are asked.
    pub fn set_default(&mut self, verifier: Asks) {
        self.default = verifier;
    }

    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<ClientVerifier>> {
        let nameless = self.exact.is_empty() && self.wildcard.is_empty();
        let Some(name) = name.filter(|_| !nameless) else { return self.default.as_ref() };
        let name = name.to_ascii_lowercase();
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        let found =
            self.exact.get(&name).or_else(|| parents.into_iter().find_map(|it| self.wildcard.get(it)));
        found.unwrap_or(&self.default).as_ref()
    }
}

/// Asks clients for their certificates.
pub struct ClientVerifier {
    clients: Arc<ClientCertificates>,
    store: X509Store,
    clock: Clock,
}

impl ClientVerifier {
    /// # Errors
    /// OpenSSL does not take an authority's certificate.
    pub fn new(clients: &Arc<ClientCertificates>, clock: Clock) -> Result<Arc<Self>, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for authority in clients.ca_certs.certificates().iter() {
            store.add_cert(authority.clone())?;
        }
        Ok(Arc::new(Self { clients: clients.clone(), store: store.build(), clock }))
    }

    /// Asks the client of a full handshake. One that shows a certificate which does not hold gets no connection, whether
    /// it had to show one or not.
    pub(super) fn ask(self: &Arc<Self>, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        for authority in self.clients.ca_certs.certificates().iter() {
            ssl.add_client_ca(authority)?;
        }
        ext::ssl_set_verify_cert_store(ssl, &self.store)?;
        let mut mode = SslVerifyMode::PEER;
        if self.clients.required {
            mode |= SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        }
        let verifier = self.clone();
        ssl.set_verify_callback(mode, move |good, context| good && verifier.accepts(context));
        Ok(())
    }

    /// The certificate of a client who shook hands, or of the session that it resumed. A session that was begun under
    /// something else, as when that has changed during the handshake, proves nothing.
    pub(super) fn certificate(&self, ssl: &SslRef) -> Option<Arc<ClientCertificate>> {
        let is_bound = |session| binding::is_bound(session, &binding::context(Some(self.fingerprint())));
        let certificate = ssl.peer_certificate().filter(|_| ssl.session().is_some_and(is_bound))?;
        ClientCertificate::read(&certificate, self.clients.fingerprint()).ok().map(Arc::new)
    }

    /// Tells its sessions from others.
    pub(super) fn fingerprint(&self) -> u64 {
        self.clients.fingerprint()
    }

    /// OpenSSL asks about each certificate, the client's own last; by then it has found the others good.
    fn accepts(&self, context: &mut X509StoreContextRef) -> bool {
        if context.error_depth() > 0 {
            return true;
        }
        let Some(chain) = context.chain() else { return false };
        let Err(refusal) = revocation::check(chain, self.clients.ca_certs.crls(), self.clock.wall()) else {
            return true;
        };
        tracing::debug!("a client certificate is refused: {refusal}");
        context.set_error(refusal.openssls());
        false
    }
}

/// RFC 4514: the last part first, and what is special, or not ASCII, behind a backslash.
fn written(name: &X509NameRef) -> String {
    let mut parts = Vec::new();
    for entry in name.entries() {
        let object = entry.object();
        let kind = match object.nid() {
            Nid::UNDEF => object.to_string(),
            nid => nid.short_name().unwrap_or("?").to_owned(),
        };
        let value = entry.data().to_string().unwrap_or_default();
        parts.push(format!("{kind}={}", escaped(&value)));
    }
    parts.reverse();
    parts.join(",")
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    for (at, byte) in value.bytes().enumerate() {
        let edge = at == 0 || at + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', byte.into()]),
            b' ' if edge => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b' '..=b'~' => text.push(byte.into()),
            // Writing to a text cannot fail.
            _ => drop(write!(text, "\\{byte:02X}")),
        }
    }
    text
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_in_one_way_and_in_ascii() {
        for (value, text) in [
            ("alice", "alice"),
            ("Smith, John", "Smith\\, John"),
            ("a+b=c", "a\\+b=c"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a\r\nb", "a\\0D\\0Ab"),
            ("\u{fc}", "\\C3\\BC"),
        ] {
            assert_eq!(escaped(value), text, "{value:?}");
        }
    }
}
