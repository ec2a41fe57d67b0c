//! The keys of the site cookie: their files, their states, and what is derived from them.
//!
//! A key is 32 random bytes with a uuid. It is never used itself: each GSLB service gets keys of its own from
//! it, by HKDF (RFC 5869), one for cookies and one for the hop between sites, so that what is made for one
//! service or purpose means nothing to another. Keys are derived when the configuration is loaded, not per
//! request. This module does not decide when to rotate.
//!
//! F5 has one passphrase per cookie profile here; Avi makes and spreads its keys itself.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{KeyFile, length_prefixed};

/// One key: its uuid, what it may do, its secret, and the file that the secret came from.
#[derive(Clone, Debug)]
pub struct Key {
    pub uuid: String,
    pub state: KeyState,
    pub secret: Secret,
    pub file: KeyFile,
}

/// What a key may do. A rotation takes a key through the states in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Opens, so that every site knows the key before one seals with it.
    Next,
    /// Seals and opens.
    Active,
    /// Opens what it sealed before.
    Retiring,
}

impl KeyState {
    /// The word in YAML and in what is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
        }
    }
}

/// The keys of one cookie: exactly one is active, and each is told from the others by its id.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// Checks the keys against one another.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyRingError> {
        if let Some(key) = keys.iter().find(|key| !is_uuid(&key.uuid)) {
            return Err(KeyRingError::Uuid(key.uuid.clone()));
        }
        for (n, key) in keys.iter().enumerate() {
            if let Some(twin) = keys[..n].iter().find(|other| other.id() == key.id()) {
                return Err(KeyRingError::SameId(twin.uuid.clone(), key.uuid.clone()));
            }
        }
        let mut active = keys.iter().filter(|key| key.state == KeyState::Active);
        match (active.next(), active.next()) {
            (None, _) => Err(KeyRingError::NoneActive),
            (Some(one), Some(two)) => Err(KeyRingError::SeveralActive(one.uuid.clone(), two.uuid.clone())),
            (Some(_), None) => Ok(Self { keys }),
        }
    }

    /// Every key, in the order given.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

/// A file that was touched still holds the same key.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid && self.state == other.state && self.secret == other.secret
    }
}

impl Eq for Key {}

impl Key {
    /// The key's id as text: what stands in cookies, and by which metrics, logs and tables call a key. No secret.
    pub fn kid(&self) -> String {
        self.uuid.chars().take(KEY_ID_LEN).collect::<String>().to_ascii_lowercase()
    }

    /// What names this key on the wire: the first 16 characters of its uuid, in lower case.
    pub(super) fn id(&self) -> [u8; KEY_ID_LEN] {
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&self.uuid.as_bytes()[..KEY_ID_LEN]);
        id.make_ascii_lowercase();
        id
    }

    /// A key of this key for one purpose and one GSLB service.
    pub(super) fn derive(&self, purpose: &str, service_uuid: &str) -> Zeroizing<[u8; 32]> {
        let mut info = Vec::new();
        let fits =
            length_prefixed(&[purpose.as_bytes(), service_uuid.as_bytes()], |bytes| info.extend(bytes));
        assert!(fits, "a uuid of a configuration has less than 64 KiB");
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(self.uuid.as_bytes()), self.secret.expose())
            .expand(&info, derived.as_mut())
            .expect("HKDF-SHA256 gives up to 8160 bytes");
        derived
    }
}

/// Why keys do not make a ring.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyRingError {
    #[error("key `{0}`: a uuid has at least 16 characters, letters, digits and `-`; make one with `uuidgen`")]
    Uuid(String),
    #[error("keys: none is active; give exactly one of them `state: active`")]
    NoneActive,
    #[error("keys `{0}` and `{1}`: both are active; make one of them `next` or `retiring`")]
    SeveralActive(String, String),
    #[error(
        "keys `{0}` and `{1}`: their first 16 characters agree, and cookies name a key by these; change one"
    )]
    SameId(String, String),
}

/// 32 bytes that no `Debug` shows and that are wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// Of the text of a key file: 64 hex digits, in either case, and at most a line end.
    pub fn from_key_file(text: &[u8]) -> Option<Self> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.len() != HEX_LEN {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |n: usize| char::from(digits[n]).to_digit(16).map(|digit| digit as u8);
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(Self(bytes))
    }

    /// A new secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text of a key file: 64 hex digits and a newline.
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(HEX_LEN + 1));
        for byte in self.0.iter() {
            text.push(HEX_DIGITS[usize::from(byte >> 4)].into());
            text.push(HEX_DIGITS[usize::from(byte & 15)].into());
        }
        text.push('\n');
        text
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Writes a key file that only its owner can read (mode 0600). A file that exists is not touched.
pub fn write_new_secret(path: &Path, secret: &Secret) -> Result<(), KeyFileError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(secret.to_key_file().as_bytes())?;
            file.sync_all()
        })
        .map_err(|source| KeyFileError::Unwritable { path: path.into(), source })
}

/// What is wrong with a key file. The text of the file is never part of it.
#[derive(Debug, Error)]
pub enum KeyFileError {
    #[error("key file `{}` cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

fn is_uuid(text: &str) -> bool {
    text.len() >= KEY_ID_LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Characters of a key's uuid that name the key on the wire.
pub(super) const KEY_ID_LEN: usize = 16;

const HEX_LEN: usize = 64;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn key(uuid: &str, state: KeyState) -> Key {
        Key { uuid: uuid.into(), state, secret: Secret::new([7; 32]), file: KeyFile::default() }
    }

    #[test]
    fn a_ring_has_exactly_one_active_key_and_distinct_ids() {
        use KeyState::{Active, Next, Retiring};
        let (a, b) = ("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed");
        let twin = "509CEEBD-0913-4AFF-0000-000000000000";
        for (keys, expected) in [
            (vec![], Some(KeyRingError::NoneActive)),
            (vec![key(a, Next), key(b, Retiring)], Some(KeyRingError::NoneActive)),
            (vec![key(a, Active), key(b, Active)], Some(KeyRingError::SeveralActive(a.into(), b.into()))),
            (vec![key(a, Active), key(twin, Next)], Some(KeyRingError::SameId(a.into(), twin.into()))),
            (vec![key("short", Active)], Some(KeyRingError::Uuid("short".into()))),
            (vec![key("509ceebd;0913-4a6f", Active)], Some(KeyRingError::Uuid("509ceebd;0913-4a6f".into()))),
            (vec![key(a, Active)], None),
            (vec![key(a, Retiring), key(b, Active)], None),
        ] {
            let uuids: Vec<_> = keys.iter().map(|key| key.uuid.clone()).collect();
            assert_eq!(KeyRing::new(keys).err(), expected, "{uuids:?}");
        }
    }

    #[test]
    fn a_key_file_is_64_hex_digits_and_at_most_a_line_end() {
        let digits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1B1C1D1E1F";
        for (text, good) in [
            (digits.to_owned(), true),
            (format!("{digits}\n"), true),
            (format!("{digits}\r\n"), true),
            (format!("{digits}\n\n"), false),
            (format!(" {digits}"), false),
            (format!("{digits}00"), false),
            (digits[..62].to_owned(), false),
            (digits.replace('a', "g"), false),
            (digits.replace("0a", "+a"), false),
            (String::new(), false),
        ] {
            let last = Secret::from_key_file(text.as_bytes()).map(|secret| secret.expose()[31]);
            assert_eq!(last, good.then_some(0x1f), "{text:?}");
        }
    }

    #[test]
    fn a_new_key_file_is_its_owners_alone_and_never_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let read = |path: &Path| Secret::from_key_file(&fs::read(path).expect("the file")).expect("a key");
        let secret = Secret::generate(&mut StdRng::seed_from_u64(1));
        write_new_secret(&path, &secret).expect("a file");
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).expose(), secret.expose());

        let other = Secret::generate(&mut StdRng::seed_from_u64(2));
        assert_ne!(other.expose(), secret.expose());
        write_new_secret(&path, &other).expect_err("the file exists");
        assert_eq!(read(&path).expose(), secret.expose());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", key("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69", KeyState::Active));
        assert!(shown.contains("secret: Secret,"), "{shown}");
    }

    #[test]
    fn the_derived_key_is_the_published_one() {
        let secret = Secret::new(std::array::from_fn(|n| n as u8));
        let key = Key { secret, ..key("509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69", KeyState::Active) };
        let derived =
            key.derive("homing/site-cookie/1S/key", "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6");
        let published = Secret(derived).to_key_file();
        assert_eq!(&*published, "e97165a27eed0deffab3c0835db727e5ff62d87a0a87d892ec801b4b1c4ef6e0\n");
    }
}
