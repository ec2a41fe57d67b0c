//! Profiles of GSLB site persistence, and the cookies that they and pools make. Profiles that pools name are in
//! `app_persistence`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::{
    HmDownRecovery,
    problem::{Wrong, shown},
    read::{FileKind, Object},
    table::Table,
    units::{self, days, milliseconds, seconds},
    words,
    yaml::Node,
};
use crate::site_cookie::{Key, KeyFile, KeyState, Secret};

/// A federated profile of type `gslb_site`.
#[derive(Clone, Debug, PartialEq)]
pub struct GslbSitePersistence {
    pub name: String,
    pub is_federated: bool,
    pub recovery: HmDownRecovery,
    /// The longest silence of a home that is asked. Longer than its pools' `read_timeout`, or an app that is slow
    /// would pass for a home that is away.
    pub home_read_timeout: Duration,
    pub cookie: CookieOptions,
}

/// How the site cookie is made, or the one that names an app's server; see the attributes in RFC 6265bis.
#[derive(Clone, Debug, PartialEq)]
pub struct CookieOptions {
    pub name: String,
    /// Lifetime; `None`: as long as the browser's session.
    pub timeout: Option<Duration>,
    pub path: String,
    pub domain: Option<String>,
    pub same_site: SameSite,
    pub partitioned: bool,
    pub http_only: bool,
    /// Adds `Max-Age`.
    pub persistent: bool,
    /// Exactly `; path=/`, as Avi writes it.
    pub avi_compatible: bool,
    /// Two-level stickiness: the cookie names the app server at home, too.
    pub server_tag: bool,
    /// Exactly one of them is active. Only a cookie that names an app's server may do without any.
    pub keys: Vec<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SameSite {
    #[default]
    Lax,
    Strict,
    None,
}

impl SameSite {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&SITES, self)
    }
}

const SITES: [(&str, &str, SameSite); 3] =
    [("lax", "Lax", SameSite::Lax), ("strict", "Strict", SameSite::Strict), ("none", "None", SameSite::None)];

impl GslbSitePersistence {
    pub(super) fn read(o: &mut Object<'_>, profiles: &mut Table<Arc<Self>>) {
        let name = o.name();
        let is_federated = o.is_federated(FileKind::Federation);
        o.required("persistence_type", persistence_type);
        let recovery = o.field("server_hm_down_recovery", words::choice(&RECOVERIES)).unwrap_or_default();
        let home_read_timeout = o.field("home_read_timeout", units::duration(milliseconds(1)..=days(1)));
        let cookie = o.required_object("http_cookie_persistence_profile", CookieOptions::read);
        let Some(name) = name else { return };
        let profile = Self {
            name: name.clone(),
            is_federated,
            recovery,
            home_read_timeout: home_read_timeout.unwrap_or(seconds(65)),
            cookie: cookie.unwrap_or_default(),
        };
        profiles.define(o, "name", &name, Arc::new(profile));
    }
}

fn persistence_type(node: &Node) -> Result<(), Wrong> {
    let word = words::text(node)?;
    match word.as_str() {
        "gslb_site" | "PERSISTENCE_TYPE_GSLB_SITE" => Ok(()),
        _ => {
            let what = format!("persistence of type {} is not federated", shown(&word));
            let help = "write `gslb_site`, or move the profile to the site's own file, for a pool";
            Err(Wrong::new(what, help))
        }
    }
}

impl Default for CookieOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            timeout: None,
            path: "/".into(),
            domain: None,
            same_site: SameSite::Lax,
            partitioned: false,
            http_only: true,
            persistent: false,
            avi_compatible: false,
            server_tag: false,
            keys: Vec::new(),
        }
    }
}

impl CookieOptions {
    fn read(o: &mut Object<'_>) -> Self {
        let mut options = Self::attributes(o);
        options.server_tag = o.field("server_tag", units::flag).unwrap_or(false);
        options.keys = o.required_objects("keys", read_key);
        options.check(o);
        options
    }

    /// The same for a cookie that names an app's server.
    pub(super) fn read_of_server(o: &mut Object<'_>) -> Self {
        let mut options = Self::attributes(o);
        options.keys = o.objects("keys", read_key);
        o.not_empty("keys", "write at least one, or leave the key out");
        options.check(o);
        options
    }

    /// All but its keys and what it says.
    fn attributes(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let name = o.required("cookie_name", |node| words::cookie_name(&words::text(node)?));
        Self {
            name: name.unwrap_or_default(),
            timeout: o.field("timeout", units::duration(seconds(1)..=days(400))),
            path: o.field("path", cookie_path).unwrap_or(default.path),
            domain: o.field("domain", words::host),
            same_site: o.field("same_site", words::choice(&SITES)).unwrap_or(default.same_site),
            partitioned: o.field("partitioned", units::flag).unwrap_or(default.partitioned),
            http_only: o.field("http_only", units::flag).unwrap_or(default.http_only),
            persistent: o.field("persistent", units::flag).unwrap_or(default.persistent),
            avi_compatible: o.field("avi_compatible", units::flag).unwrap_or(default.avi_compatible),
            ..default
        }
    }

    /// What the options forbid each other; RFC 6265bis for the prefixes.
    fn check(&self, o: &Object<'_>) {
        let prefix =
            |prefix: &str| self.name.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix));
        let host = prefix("__Host-");
        if host && self.domain.is_some() {
            o.wrong("domain", "a `__Host-` cookie has no domain", "leave it out, or rename the cookie");
        }
        if host && self.path != "/" {
            o.wrong("path", "a `__Host-` cookie has the path `/`", "leave it out, or rename the cookie");
        }
        if self.avi_compatible && (host || prefix("__Secure-")) {
            let what = "exactly `; path=/` lacks the `Secure` that the prefix of the cookie's name asks for";
            o.wrong("avi_compatible", what, "rename the cookie, or leave `avi_compatible` out");
        }
        if self.avi_compatible {
            let attributes = ["path", "domain", "same_site", "partitioned", "http_only", "persistent"];
            for key in attributes.into_iter().filter(|key| o.has(key)) {
                let what = "no effect beside `avi_compatible: true`, which writes exactly `; path=/`";
                o.wrong(key, what, "leave one of the two out");
            }
        }
        if self.persistent && self.timeout.is_none() {
            o.wrong("persistent", "a persistent cookie needs an end", "add `timeout`, as in `timeout: 8h`");
        }
        check_keys(o, &self.keys);
    }
}

fn cookie_path(node: &Node) -> Result<String, Wrong> {
    let path = words::text(node)?;
    if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';') {
        return Ok(path);
    }
    let help = "write visible ASCII without `;` that begins with `/`";
    Err(Wrong::new(format!("{} is not a cookie path", shown(&path)), help))
}

fn read_key(o: &mut Object<'_>) -> Option<Key> {
    let states = [
        ("next", "", KeyState::Next),
        ("active", "", KeyState::Active),
        ("retiring", "", KeyState::Retiring),
    ];
    let uuid = o.required("uuid", words::uuid);
    let state = o.required("state", words::choice(&states));
    let file = o.required_key_file("key_file");
    let facts = file.as_ref().map(|(path, _)| KeyFile {
        modified: o.source.files.modified(path),
        used_by_others: o.source.files.mode_for_others(path).is_some(),
    });
    let secret = file.and_then(|file| secret(o, "key_file", file));
    // A key without secret still counts when the states are checked, so that one mistake is one problem.
    let secret = secret.unwrap_or_else(|| Secret::new([0; 32]));
    Some(Key { uuid: uuid.unwrap_or_default(), state: state?, secret, file: facts.unwrap_or_default() })
}

/// The secret in the file that the field `key` names.
pub(super) fn secret(o: &Object<'_>, key: &str, (path, bytes): (PathBuf, Vec<u8>)) -> Option<Secret> {
    let bytes = Zeroizing::new(bytes);
    o.warn_if_others_read(key, &path);
    let secret = Secret::from_key_file(&bytes);
    if secret.is_none() {
        let what = format!("file {} is not a key of 64 hex digits", path.display());
        o.wrong(key, what, "make one with `homing keys new`");
    }
    secret
}

fn check_keys(o: &Object<'_>, keys: &[Key]) {
    let mut active = keys.iter().filter(|key| key.state == KeyState::Active);
    let wrong = match (active.next(), active.next()) {
        (None, _) if !keys.is_empty() => Some("no key is active".into()),
        (Some(one), Some(two)) => {
            Some(format!("keys {} and {} are both active", shown(&one.uuid), shown(&two.uuid)))
        }
        _ => None,
    };
    if let Some(what) = wrong {
        o.wrong("keys", what, "exactly one seals: make it `active`, the others `next` or `retiring`");
    }
    for (n, key) in keys.iter().enumerate().filter(|(_, key)| !key.uuid.is_empty()) {
        let kid = |key: &Key| key.uuid.get(..16).map(str::to_string);
        if let Some(other) = keys[..n].iter().find(|other| kid(other) == kid(key)) {
            let (one, two) = (shown(&other.uuid), shown(&key.uuid));
            let what = format!("keys {one} and {two} have the same first 16 characters");
            o.wrong(
                "keys",
                what,
                "cookies name keys by these 16 characters: make one with `homing keys new`",
            );
        }
    }
}

impl HmDownRecovery {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&RECOVERIES, self)
    }
}

pub(super) const RECOVERIES: [(&str, &str, HmDownRecovery); 3] = [
    ("pick_new_server", "HM_DOWN_PICK_NEW_SERVER", HmDownRecovery::PickNewServer),
    ("abort_connection", "HM_DOWN_ABORT_CONNECTION", HmDownRecovery::AbortConnection),
    (
        "continue_persistent_server",
        "HM_DOWN_CONTINUE_PERSISTENT_SERVER",
        HmDownRecovery::ContinuePersistentServer,
    ),
];
