//! `homing keys new`: a fresh key for site cookies. `homing keys list`: those that a configuration has. `homing keys ds`:
//! what vouches for the keys that sign DNS answers.

use std::{path::PathBuf, time::SystemTime};

use clap::Subcommand;
use rand::Rng;

use super::{Error, check, client::Client, table};
use crate::{
    admin::view,
    config::{AdminListen, AdminUrl, Config},
    server::{Builder, delegation_signers},
    site_cookie::{KeyConcern, KeyFileError, Secret, write_new_secret},
};

#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Makes a key for site cookies: its uuid, and 64 hex digits for its key_file
    New {
        /// Write the digits to FILE, mode 0600, instead of printing them
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Leave FILE as it is where there is one, for scripts that run more than once
        #[arg(long, requires = "out")]
        keep: bool,
    },
    /// Prints the DS records that the zones above the DNS responder's zones are to have, as zone files have them
    Ds {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "conf/homing.yaml")]
        config: PathBuf,
    },
    /// Lists the keys of a configuration, their states and ages, never their secrets; with what a running homing
    /// has sealed with each, if one answers
    List {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "conf/homing.yaml")]
        config: PathBuf,
        /// Where the running homing's admin API listens, http://HOST:PORT or unix:PATH; as configured if not given
        #[arg(long, value_name = "URL", env = "HOMING_ADMIN")]
        admin: Option<AdminUrl>,
        /// The file with the token that the admin API asks for beyond loopback; as configured if not given
        #[arg(
            long,
            visible_alias = "admin-token-file",
            value_name = "FILE",
            env = "HOMING_ADMIN_TOKEN_FILE"
        )]
        token_file: Option<PathBuf>,
    },
}

/// Does what is asked for and returns what to print.
pub async fn keys(builder: &Builder, keys: Keys) -> Result<String, Error> {
    match keys {
        Keys::New { out: Some(file), keep: true } if file.exists() => {
            Ok(format!("{} is kept\n", file.display()))
        }
        Keys::New { out, .. } => Ok(new(out)?),
        Keys::Ds { config } => {
            let config = check::load(builder, &config)?.config;
            Ok(match &*delegation_signers(&config) {
                [] => "Nothing is signed: `dns` has no `dnssec`, or no zone.\n".to_owned(),
                lines => lines.iter().map(|line| format!("{line}\n")).collect(),
            })
        }
        Keys::List { config, admin, token_file } => {
            let config = check::load(builder, &config)?.config;
            // One that does not run, or will not tell, is no failure: the column stays empty.
            let running = running(&config, admin, token_file).await.unwrap_or_default();
            Ok(list(&config, &running, SystemTime::now()))
        }
    }
}

/// What a running homing says of its keys.
async fn running(
    config: &Config,
    admin: Option<AdminUrl>,
    token_file: Option<PathBuf>,
) -> Option<Vec<view::SiteCookieKey>> {
    let configured = || match &config.admin.listen {
        AdminListen::Tcp(addr) => Some(AdminUrl::Tcp(addr.to_string())),
        AdminListen::Unix(path) => Some(AdminUrl::Unix(path.clone())),
        AdminListen::None => None,
    };
    let token_file = token_file.or_else(|| config.admin.token_file.clone());
    let client = Client::new(admin.or_else(configured)?, token_file.as_deref()).ok()?;
    client.get("/api/v1/keys").await.ok()
}

fn list(config: &Config, running: &[view::SiteCookieKey], now: SystemTime) -> String {
    let keys = config.gslb.iter().flat_map(|gslb| gslb.site_cookie_keys());
    let rows = keys.map(|(profile, key)| {
        let kid = key.kid();
        let seals = running.iter().find(|running| running.key_id == kid).map(|running| running.seals);
        let concerns = KeyConcern::ALL.into_iter().filter(|it| key.causes(*it, seals.unwrap_or(0), now));
        [
            kid,
            profile.name.clone(),
            key.state.as_str().to_owned(),
            key.age(now).map_or(String::new(), age),
            seals.map_or(String::new(), |seals| seals.to_string()),
            concerns.map(KeyConcern::as_str).collect::<Vec<_>>().join(", "),
        ]
    });
    table::list(["Key", "Profile", "State", "Age", "Seals here", "Wants care"], rows.collect())
}

/// In the largest unit that says something: `3d`, `5h`, `12m`, `7s`.
fn age(age: std::time::Duration) -> String {
    let seconds = age.as_secs();
    let units = [(24 * 3600, 'd'), (3600, 'h'), (60, 'm')];
    match units.into_iter().find(|(length, _)| seconds >= *length) {
        Some((length, unit)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}

fn new(out: Option<PathBuf>) -> Result<String, KeyFileError> {
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
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

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
        let printed = new(Some(file.clone())).expect("written");
        let written = fs::read_to_string(&file).expect("readable");
        assert!(written.len() == 65 && written.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!printed.contains(written.trim_end()), "the secret is not printed");
        assert!(printed.contains(&file.display().to_string()));
        let again = new(Some(file.clone())).expect_err("the file exists");
        assert!(again.to_string().contains("cannot be written: File exists"), "{again}");
        assert_eq!(fs::read_to_string(&file).expect("readable"), written);
    }

    #[test]
    fn a_new_key_can_be_printed_and_is_another_each_time() {
        let one = new(None).expect("printed");
        let two = new(None).expect("printed");
        assert_eq!(one.lines().next().map(str::len), Some(64));
        assert_ne!(one.lines().next(), two.lines().next());
    }

    #[test]
    fn keys_are_listed_without_their_secrets() {
        let federation = FEDERATION.replace("KEYS", &format!("- {{uuid: {OLD}, key_file: old.key, state: active}}\n      - {{uuid: {NEW}, key_file: new.key, state: next}}"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let now = SystemTime::now();
        for (file, digits, days) in [("old.key", "0f", 11), ("new.key", "f0", 0)] {
            let path = dir.path().join(file);
            fs::write(&path, digits.repeat(32)).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
            let file = fs::File::options().append(true).open(&path).expect("opened");
            file.set_modified(now - Duration::from_secs(days * 86_400)).expect("dated");
        }
        fs::write(dir.path().join("federation.yaml"), federation).expect("written");
        let site = dir.path().join("homing.yaml");
        fs::write(&site, "site: {name: a, cluster_uuid: c-a}\nfederation: federation.yaml\n")
            .expect("written");
        let config = crate::config::load(&site, &[]).unwrap_or_else(|problems| panic!("{problems}")).config;
        let running = [view::SiteCookieKey {
            key_id: OLD[..16].into(),
            seals: 7,
            ..view::example::site_cookie_keys().remove(0)
        }];
        table::golden("keys-list.txt", &list(&config, &running, now));
        table::golden("keys-list-not-running.txt", &list(&config, &[], now));
    }

    #[test]
    fn an_age_is_told_in_the_largest_unit() {
        for (seconds, told) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_300, "2h"), (86_400 * 11, "11d")] {
            assert_eq!(age(Duration::from_secs(seconds)), told);
        }
    }

    const OLD: &str = "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69";
    const NEW: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
    const FEDERATION: &str = "
gslb: {federation_id: demo, sites: [{name: a, cluster_uuid: c-a}]}
pki_profiles: [{name: gpki, is_federated: true}]
application_persistence_profiles:
  - name: gap-1
    is_federated: true
    persistence_type: gslb_site
    http_cookie_persistence_profile:
      cookie_name: FOO
      keys:
      KEYS
gslb_services:
  - name: gs-1
    uuid: gslbservice-1
    domain_names: [a.com]
    is_federated: true
    site_persistence_enabled: true
    application_persistence_profile_ref: gap-1
    groups: [{name: g, members: [{cluster_uuid: c-a, vs_uuid: vs-a, ip: 127.0.0.1, services: [{port: 80}]}]}]
";
}
