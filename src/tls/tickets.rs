//! The keys of TLS session tickets. One seals; those that sealed before it still open what they sealed, so that a
//! change of keys ends no session, and with it no identity. Who gets hold of a key reads what was said in sessions
//! that its tickets resumed, so none should live long.
//!
//! An instance makes its own keys and changes them by the clock, or it has them from a file that nodes share, and
//! whoever writes that file changes them. nginx has `ssl_session_ticket_key`, HAProxy `tls-ticket-keys`.
//!
//! The form of a ticket is OpenSSL's own (AES-256-CBC and HMAC-SHA-256), and so is the form of a key.

use std::{
    ffi::{c_char, c_int, c_uchar},
    fmt, ptr, slice,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use foreign_types::ForeignTypeRef;
use hkdf::Hkdf;
use openssl::{
    error::ErrorStack,
    ex_data::Index,
    rand::rand_bytes,
    ssl::{SslContext, SslContextBuilder, SslRef, SslVersion},
};
use openssl_sys::{EVP_CIPHER_CTX, EVP_MAC_CTX, OSSL_PARAM, SSL, SSL_CTX};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::site_cookie::Secret;

/// The keys of an instance, one set for all its listeners, so that a client's session is the same on each. Clones are
/// the same keys.
#[derive(Clone)]
pub struct TicketKeys(Arc<ArcSwap<Ring>>);

/// The first seals. It is never empty.
struct Ring {
    keys: Vec<Arc<TicketKey>>,
    /// They are from a file.
    shared: bool,
}

struct TicketKey {
    bytes: Zeroizing<[u8; LENGTH]>,
    /// When the last ticket that it sealed is over; `None`: it seals, or is in the file.
    until: Option<Instant>,
}

impl TicketKeys {
    /// A new key, from OpenSSL's generator.
    ///
    /// # Errors
    /// It has no random bytes.
    pub fn random() -> Result<Self, ErrorStack> {
        Ok(Self::of(vec![TicketKey::random()?]))
    }

    /// The keys of another process, whose clients' sessions are to go on here, as [`expose`](Self::expose) gave them.
    /// `None`: they are none.
    pub fn saved(bytes: &[u8], now: Instant) -> Option<Self> {
        let (keys, []) = bytes.as_chunks::<LENGTH>() else { return None };
        let key = |(n, bytes): (usize, &[u8; LENGTH])| TicketKey {
            bytes: Zeroizing::new(*bytes),
            until: (n > 0).then(|| now + LIFETIME),
        };
        (!keys.is_empty()).then(|| Self::of(keys.iter().enumerate().map(key).collect()))
    }

    /// For a process that is to take over from this one.
    pub fn expose(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.load().keys.iter().flat_map(|key| key.bytes.iter().copied()).collect())
    }

    /// Seals with a new key from now on.
    ///
    /// # Errors
    /// OpenSSL has no random bytes; the keys stay.
    pub fn rotate(&self, now: Instant) -> Result<(), ErrorStack> {
        self.replace(vec![TicketKey::random()?], false, now);
        Ok(())
    }

    /// Uses the keys of these secrets, the first to seal; without any, keys of its own.
    ///
    /// # Errors
    /// OpenSSL has no random bytes; the keys stay.
    pub fn follow(&self, secrets: &[Secret], now: Instant) -> Result<(), ErrorStack> {
        match (secrets.is_empty(), self.0.load().shared) {
            (true, false) => Ok(()),
            (true, true) => self.rotate(now),
            (false, _) => {
                self.replace(secrets.iter().map(TicketKey::shared).collect(), true, now);
                Ok(())
            }
        }
    }

    fn of(keys: Vec<TicketKey>) -> Self {
        let ring = Ring { keys: keys.into_iter().map(Arc::new).collect(), shared: false };
        Self(Arc::new(ArcSwap::from_pointee(ring)))
    }

    /// Puts keys before those that there are; the latter open until their tickets are over.
    fn replace(&self, keys: Vec<TicketKey>, shared: bool, now: Instant) {
        let mut keys: Vec<_> = keys.into_iter().map(Arc::new).collect();
        for old in &self.0.load().keys {
            let until = old.until.unwrap_or(now + LIFETIME);
            if until > now && keys.iter().all(|key| key.name() != old.name()) {
                keys.push(Arc::new(TicketKey { bytes: old.bytes.clone(), until: Some(until) }));
            }
        }
        self.0.store(Arc::new(Ring { keys, shared }));
    }

    /// The one that seals.
    fn sealing(&self) -> Option<Arc<TicketKey>> {
        self.0.load().keys.first().cloned()
    }

    /// The one of a name, and whether it is the one that seals.
    fn named(&self, name: &[u8]) -> Option<(Arc<TicketKey>, bool)> {
        let ring = self.0.load();
        let at = ring.keys.iter().position(|key| key.name() == name)?;
        Some((ring.keys[at].clone(), at == 0))
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(…)")
    }
}

impl TicketKey {
    fn random() -> Result<Self, ErrorStack> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        rand_bytes(&mut *bytes)?;
        Ok(Self { bytes, until: None })
    }

    /// The key that every node makes of a secret.
    fn shared(secret: &Secret) -> Self {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let derived =
            Hkdf::<Sha256>::new(None, secret.expose()).expand(b"homing session tickets", &mut *bytes);
        derived.expect("HKDF gives much more than a key");
        Self { bytes, until: None }
    }

    /// By which a ticket tells its key.
    fn name(&self) -> &[u8] {
        &self.bytes[..NAME]
    }

    fn mac(&self) -> &[u8] {
        &self.bytes[NAME..NAME + 32]
    }

    fn cipher(&self) -> &[u8] {
        &self.bytes[NAME + 32..]
    }
}

/// Has a context seal and open its tickets with these keys, whatever they are at the time.
pub(super) fn use_keys(context: &mut SslContextBuilder, keys: &TicketKeys) -> Result<(), ErrorStack> {
    let index = (*KEYS).as_ref().map_err(Clone::clone)?;
    context.set_ex_data(*index, keys.clone());
    // SAFETY: the context is alive and not in use yet; `key_of_ticket` is a function of the type that OpenSSL calls.
    let set = unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(key_of_ticket)) };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// OpenSSL asks for the key of a new ticket, or of one that a client brings.
extern "C" fn key_of_ticket(
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut EVP_MAC_CTX,
    seals: c_int,
) -> c_int {
    // SAFETY: OpenSSL calls this in a handshake with the connection's own `SSL`, which nobody else uses meanwhile, and
    // with room for a name and for an initial vector of the longest kind (`SSL_CTX_set_tlsext_ticket_key_evp_cb`(3)).
    let (ssl, name, iv) = unsafe {
        (SslRef::from_ptr(ssl), slice::from_raw_parts_mut(name, NAME), slice::from_raw_parts_mut(iv, IV))
    };
    let keys = (*KEYS).as_ref().ok().and_then(|index| ssl.ssl_context().ex_data(*index));
    let Some(keys) = keys else { return FAILED };
    if seals == 1 {
        let Some(key) = keys.sealing() else { return FAILED };
        name.copy_from_slice(key.name());
        return match rand_bytes(iv).is_ok() && set_keys(&key, iv, cipher, mac, true) {
            true => FITS,
            false => FAILED,
        };
    }
    match keys.named(name) {
        None => UNKNOWN,
        Some((key, _)) if !set_keys(&key, iv, cipher, mac, false) => FAILED,
        // A ticket of TLS 1.3 is for one use: two connections with the same could be told to be of one client.
        Some((_, seals)) => match seals && ssl.version2() != Some(SslVersion::TLS1_3) {
            true => FITS,
            false => FITS_BUT_RENEW,
        },
    }
}

fn set_keys(
    key: &TicketKey,
    iv: &[u8],
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut EVP_MAC_CTX,
    seals: bool,
) -> bool {
    let (secret, iv) = (key.cipher().as_ptr(), iv.as_ptr());
    // SAFETY: both contexts are OpenSSL's own, made for this ticket. It copies the key, the vector and the digest's
    // name, which have the lengths that the algorithms want and outlive the calls.
    unsafe {
        let kind = openssl_sys::EVP_aes_256_cbc();
        let ready = match seals {
            true => openssl_sys::EVP_EncryptInit_ex(cipher, kind, ptr::null_mut(), secret, iv),
            false => openssl_sys::EVP_DecryptInit_ex(cipher, kind, ptr::null_mut(), secret, iv),
        };
        let digest = [
            OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), c"SHA256".as_ptr().cast_mut(), 0),
            openssl_sys::OSSL_PARAM_construct_end(),
        ];
        let secret = key.mac();
        ready == 1 && openssl_sys::EVP_MAC_init(mac, secret.as_ptr(), secret.len(), digest.as_ptr()) == 1
    }
}

/// Where a context has its keys: a number, the same in the whole process.
static KEYS: LazyLock<Result<Index<SslContext, TicketKeys>, ErrorStack>> =
    LazyLock::new(SslContext::new_ex_index);

/// Name, MAC key and cipher key.
const LENGTH: usize = 80;
const NAME: usize = 16;
const IV: usize = 16;
/// OpenSSL's sessions are resumed so long after they began.
const LIFETIME: Duration = Duration::from_secs(2 * 3600);

const FAILED: c_int = -1;
const UNKNOWN: c_int = 0;
const FITS: c_int = 1;
const FITS_BUT_RENEW: c_int = 2;

type KeyOfTicket = extern "C" fn(
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut EVP_MAC_CTX,
    seals: c_int,
) -> c_int;

// OpenSSL 3.0 and later, `openssl/ssl.h` and `openssl/params.h`.
unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(context: *mut SSL_CTX, callback: Option<KeyOfTicket>) -> c_int;
    fn OSSL_PARAM_construct_utf8_string(key: *const c_char, text: *mut c_char, length: usize) -> OSSL_PARAM;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keys: &TicketKeys) -> Vec<Vec<u8>> {
        keys.0.load().keys.iter().map(|key| key.name().to_vec()).collect()
    }

    #[test]
    fn a_key_opens_as_long_as_there_are_tickets_of_it() {
        let (keys, begun) = (TicketKeys::random().unwrap(), Instant::now());
        let first = names(&keys);
        keys.rotate(begun).unwrap();
        assert_eq!((names(&keys).len(), names(&keys)[1..].to_vec()), (2, first.clone()));
        keys.rotate(begun + LIFETIME / 2).unwrap();
        assert_eq!(names(&keys).len(), 3);
        keys.rotate(begun + LIFETIME).unwrap();
        assert!(names(&keys).len() == 3 && !names(&keys).contains(&first[0]), "its last ticket is over");
    }

    #[test]
    fn nodes_with_the_same_secrets_have_the_same_keys() {
        let (one, two, now) = (TicketKeys::random().unwrap(), TicketKeys::random().unwrap(), Instant::now());
        let secrets = [Secret::new([1; 32]), Secret::new([2; 32])];
        let own = names(&one);
        one.follow(&secrets, now).unwrap();
        two.follow(&secrets, now).unwrap();
        assert_eq!(names(&one)[..2], names(&two)[..2]);
        assert_eq!(names(&one)[2..], own, "what was begun before goes on");
        one.follow(&secrets[1..], now + LIFETIME).unwrap();
        assert_eq!(names(&one)[0], names(&two)[1]);
        two.follow(&[], now).unwrap();
        assert!(!names(&one).contains(&names(&two)[0]), "without a file the keys are its own");
        let before = names(&two);
        two.follow(&[], now).unwrap();
        assert_eq!(names(&two), before);
    }

    #[test]
    fn saved_keys_are_the_same_and_others_are_none() {
        let (keys, now) = (TicketKeys::random().unwrap(), Instant::now());
        keys.rotate(now).unwrap();
        let saved = TicketKeys::saved(&keys.expose(), now).expect("they are whole");
        assert_eq!(names(&saved), names(&keys));
        saved.rotate(now + LIFETIME).unwrap();
        assert_eq!(
            names(&saved)[1..],
            names(&keys)[..1],
            "the tickets of those that sealed no more are over"
        );
        for spoilt in [&b""[..], &[0; 79], &[0; 81]] {
            assert!(TicketKeys::saved(spoilt, now).is_none());
        }
    }
}
