//! The identity of a TLS session: the same on every connection that resumes it, under TLS 1.2 and 1.3, with and
//! without tickets.
//!
//! TLS itself has no such thing: a server session id is empty with TLS 1.2 tickets and new on every TLS 1.3
//! connection. What does travel with a session, in its ticket or in the server's cache, is OpenSSL's *ticket
//! application data*. A new session is given a random token there, and the server name that the client asked for,
//! which a resumed TLS 1.2 handshake no longer tells. BIG-IP calls the identity `SSL::sessionid`.
//!
//! The bindings that `openssl` lacks are declared here; the others are in `binding` and `tickets`.

use std::{
    ffi::{c_int, c_uchar, c_void},
    ptr, slice,
    sync::Arc,
};

use foreign_types::ForeignTypeRef;
use openssl::{
    error::ErrorStack,
    rand::rand_bytes,
    ssl::{NameType, SslContextBuilder, SslRef, SslSessionRef},
};
use openssl_sys::{SSL, SSL_CTX, SSL_SESSION};
use pingora::protocols::tls::SslDigest;

use super::ClientCertificate;

/// What a handshake settled. It is the extension of Pingora's `SslDigest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The identity: random, the same on resumption, new with every full handshake.
    pub session_id: [u8; 16],
    pub resumed: bool,
    /// The server name that the client asked for, on this connection or when the session began.
    pub sni: Option<String>,
    /// `TLSv1.2`, `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// The application protocol chosen by ALPN: `h2`, `http/1.1`.
    pub alpn: Option<String>,
    /// The cluster of the peer site that the client has proven to be, by its certificate.
    pub site: Option<String>,
    /// The certificate that the client has shown, where its virtual service asks for one.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

impl TlsFacts {
    /// The facts of a connection that an [`Acceptor`](super::Acceptor) made.
    pub fn of(digest: &SslDigest) -> Option<&Self> {
        digest.extension.get()
    }

    /// Reads them off a finished handshake.
    pub(super) fn read(ssl: &SslRef) -> Self {
        let known = ssl.session().and_then(Identity::of);
        let alpn = ssl.selected_alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        let sni = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
        Self {
            // A session without a token is one that the client cannot resume: any new token names it.
            session_id: known.as_ref().map_or_else(|| token().unwrap_or_default(), |known| known.token),
            resumed: ssl.session_reused(),
            sni: sni.or_else(|| known.and_then(|known| known.sni)),
            version: ssl.version_str(),
            cipher: ssl.current_cipher().map_or("", |cipher| cipher.name()),
            alpn,
            site: None,
            client_certificate: None,
        }
    }
}

/// What is kept with a session: the token, then the server name.
struct Identity {
    token: [u8; TOKEN_LENGTH],
    sni: Option<String>,
}

impl Identity {
    fn of(session: &SslSessionRef) -> Option<Self> {
        let (token, name) = appdata(session).split_first_chunk()?;
        let sni = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned);
        Some(Self { token: *token, sni })
    }
}

/// Gives the session of a handshake an identity, if it has none. To be called where a full handshake picks its
/// certificate: the session is new then, and no other connection knows it.
pub(super) fn name_session(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    let Some(session) = ssl.session() else { return Ok(()) };
    if Identity::of(session).is_some() {
        return Ok(());
    }
    let mut data = token()?.to_vec();
    data.extend(ssl.servername(NameType::HOST_NAME).unwrap_or_default().bytes());
    // SAFETY: the session lives as long as `ssl`, which is borrowed; OpenSSL copies the data. Writing needs the
    // session to ourselves: this is called in a full handshake before the session is in any cache or ticket, or with
    // the copy that OpenSSL makes for a further ticket.
    let set = unsafe { SSL_SESSION_set1_ticket_appdata(session.as_ptr(), data.as_ptr().cast(), data.len()) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Names sessions also when a ticket is made: after a hello retry request (TLS 1.3) the session is another one than
/// the one that the certificate was picked for.
pub(super) fn name_sessions_in_tickets(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // SAFETY: the context is alive and not in use yet; `make_ticket` is a function of the type that OpenSSL calls,
    // and takes no argument of ours. Without a function for decrypting, OpenSSL treats tickets as usual.
    let set =
        unsafe { SSL_CTX_set_session_ticket_cb(context.as_ptr(), Some(make_ticket), None, ptr::null_mut()) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

extern "C" fn make_ticket(ssl: *mut SSL, _argument: *mut c_void) -> c_int {
    // SAFETY: OpenSSL calls this in a handshake with the connection's own `SSL`, which nobody else uses meanwhile.
    let ssl = unsafe { SslRef::from_ptr_mut(ssl) };
    c_int::from(name_session(ssl).is_ok())
}

fn appdata(session: &SslSessionRef) -> &[u8] {
    let (mut data, mut length) = (ptr::null_mut(), 0);
    // SAFETY: the session is alive; OpenSSL writes where its data is, which the session owns, and its length. A
    // session in use by several connections is not written to (see `name_session`), so the data stays as it is.
    unsafe {
        SSL_SESSION_get0_ticket_appdata(session.as_ptr(), &raw mut data, &raw mut length);
        if data.is_null() { &[] } else { slice::from_raw_parts(data.cast(), length) }
    }
}

fn token() -> Result<[u8; TOKEN_LENGTH], ErrorStack> {
    let mut token = [0; TOKEN_LENGTH];
    rand_bytes(&mut token)?;
    Ok(token)
}

const TOKEN_LENGTH: usize = 16;

type GenerateTicket = unsafe extern "C" fn(ssl: *mut SSL, argument: *mut c_void) -> c_int;
type DecryptTicket = unsafe extern "C" fn(
    ssl: *mut SSL,
    session: *mut SSL_SESSION,
    key_name: *const c_uchar,
    key_name_length: usize,
    status: c_int,
    argument: *mut c_void,
) -> c_int;

// OpenSSL 1.1.1 and later, `openssl/ssl.h`.
unsafe extern "C" {
    fn SSL_CTX_set_session_ticket_cb(
        context: *mut SSL_CTX,
        generate: Option<GenerateTicket>,
        decrypt: Option<DecryptTicket>,
        argument: *mut c_void,
    ) -> c_int;
    fn SSL_SESSION_set1_ticket_appdata(
        session: *mut SSL_SESSION,
        data: *const c_void,
        length: usize,
    ) -> c_int;
    fn SSL_SESSION_get0_ticket_appdata(
        session: *mut SSL_SESSION,
        data: *mut *mut c_void,
        length: *mut usize,
    ) -> c_int;
}
