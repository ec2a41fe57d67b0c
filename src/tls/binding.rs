//! Binds TLS sessions to what they were begun under: a session is resumed only where the same is asked for.
//!
//! OpenSSL has the *session id context* for it, and compares it before it resumes. It has to be set when all that is
//! known of the client is its hello, whose server name is read here.

use std::ffi::{c_int, c_uchar, c_uint};

use foreign_types::ForeignTypeRef;
use openssl::{
    error::ErrorStack,
    ssl::{SslRef, SslSessionRef},
};
use openssl_sys::{SSL, SSL_SESSION};

/// The context of sessions that are begun under nothing in particular.
pub(super) const FREE: &[u8] = b"homing";

/// The context of those that are bound to something.
pub(super) fn context(fingerprint: Option<u64>) -> Vec<u8> {
    let bytes = fingerprint.map(u64::to_be_bytes);
    [FREE, bytes.as_ref().map_or(&[], |bytes| bytes)].concat()
}

/// Binds the session that this handshake begins, or may resume.
pub(super) fn bind(ssl: &mut SslRef, context: &[u8]) -> Result<(), ErrorStack> {
    let length = c_uint::try_from(context.len()).unwrap_or(c_uint::MAX);
    // SAFETY: the connection is alive and ours alone during its handshake; OpenSSL copies the bytes, and refuses more
    // than it has room for.
    let set = unsafe { SSL_set_session_id_context(ssl.as_ptr(), context.as_ptr(), length) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Whether a session is bound to this.
pub(super) fn is_bound(session: &SslSessionRef, context: &[u8]) -> bool {
    let mut length = 0;
    // SAFETY: the session is alive; OpenSSL gives its own bytes, which live as long and do not change, and their
    // number.
    let own = unsafe {
        let bytes = SSL_SESSION_get0_id_context(session.as_ptr(), &raw mut length);
        if bytes.is_null() { &[][..] } else { std::slice::from_raw_parts(bytes, length as usize) }
    };
    own == context
}

/// The server name in a client's hello; to be called from the hello's callback only.
pub(super) fn hello_name(ssl: &SslRef) -> Option<&str> {
    let (mut bytes, mut length) = (std::ptr::null(), 0);
    // SAFETY: in its callback the hello is there; OpenSSL says where the extension is, which lives as long as the
    // callback, and its length.
    let extension = unsafe {
        match openssl_sys::SSL_client_hello_get0_ext(
            ssl.as_ptr(),
            SERVER_NAME,
            &raw mut bytes,
            &raw mut length,
        ) {
            1 if !bytes.is_null() => std::slice::from_raw_parts(bytes, length),
            _ => return None,
        }
    };
    first_name(extension)
}

/// The only name of a list (RFC 6066, 3): its length, the kind 0, the name's length, the name.
fn first_name(extension: &[u8]) -> Option<&str> {
    let (list, rest) = extension.split_first_chunk::<2>()?;
    let [0, high, low, name @ ..] = rest else { return None };
    let lengths_fit = usize::from(u16::from_be_bytes(*list)) == rest.len()
        && usize::from(u16::from_be_bytes([*high, *low])) == name.len();
    str::from_utf8(name).ok().filter(|name| lengths_fit && !name.is_empty())
}

const SERVER_NAME: c_uint = 0;

// OpenSSL 1.1.0 and later, `openssl/ssl.h`.
unsafe extern "C" {
    fn SSL_set_session_id_context(ssl: *mut SSL, context: *const c_uchar, length: c_uint) -> c_int;
    fn SSL_SESSION_get0_id_context(session: *const SSL_SESSION, length: *mut c_uint) -> *const c_uchar;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_a_list_of_one() {
        for (extension, name) in [
            (&b"\x00\x08\x00\x00\x05a.com"[..], Some("a.com")),
            (b"\x00\x08\x00\x00\x05a.co", None),
            (b"\x00\x08\x01\x00\x05a.com", None),
            (b"\x00\x09\x00\x00\x05a.com", None),
            (b"\x00\x03\x00\x00\x00", None),
            (b"\x00\x04\x00\x00\x01\xff", None),
            (b"\x00", None),
            (b"", None),
        ] {
            assert_eq!(first_name(extension), name, "{}", extension.escape_ascii());
        }
    }
}
