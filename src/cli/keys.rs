//! `homing keys new`: a fresh key for site cookies.

use std::path::PathBuf;

use clap::Subcommand;
use rand::Rng;

use crate::site_cookie::{KeyFileError, Secret, write_new_secret};

#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Makes a key for site cookies: its uuid, and 64 hex digits for its key_file
    New {
        /// Write the digits to FILE, mode 0600, instead of printing them
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Makes what is asked for and returns what to print.
pub fn keys(keys: Keys) -> Result<String, KeyFileError> {
    let Keys::New { out } = keys;
    let mut rng = rand::rng();
    let (secret, uuid) = (Secret::generate(&mut rng), uuid_v4(rng.random()));
    let entry = |file: &str| format!("- {{ uuid: {uuid}, key_file: {file}, state: next }}\n");
    match out {
        Some(file) => {
            write_new_secret(&file, &secret)?;
            Ok(entry(&file.display().to_string()))
        }
        None => Ok(format!(
            "{}\n# with these digits in FILE, mode 0600:\n{}",
            *secret.to_key_file(),
            entry("FILE")
        )),
    }
}

/// A random uuid (RFC 9562, version 4) of these bytes.
fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

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
        let again = keys(Keys::New { out: Some(file.clone()) }).expect_err("the file exists");
        assert!(again.to_string().contains("cannot be written: File exists"), "{again}");
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
