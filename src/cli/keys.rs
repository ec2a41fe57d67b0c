//! `homing keys new`: a fresh key for site cookies.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use rand::{TryRngCore, rngs::OsRng};
use zeroize::Zeroizing;

#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Makes a key for site cookies: its uuid, and 64 hex digits for its key_file
    New {
        /// Write the digits to FILE, mode 0600, instead of printing them
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// A key that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--out {0} exists; a key is never overwritten, name another file")]
    Exists(PathBuf),
    #[error("--out {0} cannot be written: {1}")]
    Write(PathBuf, #[source] io::Error),
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] rand::rand_core::OsError),
}

/// Makes what is asked for and returns what to print.
pub fn keys(keys: Keys) -> Result<String, Error> {
    let Keys::New { out } = keys;
    let mut secret = Zeroizing::new([0; 32]);
    let mut uuid = [0; 16];
    OsRng.try_fill_bytes(&mut *secret)?;
    OsRng.try_fill_bytes(&mut uuid)?;
    let digits = Zeroizing::new(hex(&*secret));
    let (uuid, file) = (uuid_v4(uuid), out.as_deref().unwrap_or(Path::new("FILE")));
    let entry = format!("- {{ uuid: {uuid}, key_file: {}, state: next }}", file.display());
    match &out {
        Some(file) => {
            write(file, &digits)?;
            Ok(format!("{entry}\n"))
        }
        None => Ok(format!("{}\n\n# with these digits in FILE, mode 0600:\n{entry}\n", digits.as_str())),
    }
}

fn write(path: &Path, digits: &str) -> Result<(), Error> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(digits.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::Write(path.to_owned(), error),
    })
}

/// A random uuid (RFC 9562, version 4) of these bytes.
fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        assert_eq!(uuid_v4([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid_v4([0; 16]), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn a_new_key_is_written_for_its_owner_only_and_never_over_another() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("site-cookie.key");
        let printed = keys(Keys::New { out: Some(file.clone()) }).expect("written");
        let written = fs::read_to_string(&file).expect("readable");
        assert!(written.len() == 65 && written.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!printed.contains(written.trim_end()), "the secret is not printed");
        assert!(printed.contains(&file.display().to_string()));
        let again = keys(Keys::New { out: Some(file.clone()) });
        assert!(matches!(again, Err(Error::Exists(_))));
        assert_eq!(fs::read_to_string(&file).expect("readable"), written);
    }

    #[test]
    fn a_new_key_can_be_printed_and_is_another_each_time() {
        let one = keys(Keys::New { out: None }).expect("printed");
        let two = keys(Keys::New { out: None }).expect("printed");
        assert_eq!(one.lines().next().map(str::len), Some(64));
        assert_ne!(one.lines().next(), two.lines().next());
    }
}
