//! TLS for clients' connections: certificates chosen by SNI, and an identity of a TLS session that survives its
//! resumption; and for homing's own connections to clone members.
//!
//! It knows streams and nothing of listeners or requests: an [`Acceptor`] makes a TLS stream of an accepted one, a
//! [`Connector`] of one that homing opened.
//! Known elsewhere as: BIG-IP's client SSL profile and `SSL::sessionid`, Avi's SSL profile, Envoy's downstream TLS
//! context.

mod acceptor;
mod binding;
mod certificate_watch;
mod certificates;
mod client_certificate;
mod connector;
mod examination;
mod handshake;
mod identity;
mod revocation;
mod site;
mod tickets;
mod trust;

pub use acceptor::{Acceptor, AcceptorError};
pub use certificate_watch::CertificateWatch;
pub use certificates::{CertificateError, CertificateStore, CertifiedKey, chain_not_after};
pub use client_certificate::{ClientCertificate, ClientVerifier, ClientVerifiers};
pub use connector::{ConnectError, Connector, Server, ServerStream};
pub use examination::{handshake_failure, why_refused};
pub use handshake::{HandshakeError, HandshakeReason};
pub use identity::TlsFacts;
pub use revocation::Revocation;
pub use site::{PeerRefusal, PeerTls, PeerVerifier};
pub use tickets::TicketKeys;
pub use trust::ServerTls;
