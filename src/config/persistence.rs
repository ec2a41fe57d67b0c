//! Application persistence profiles. Of these, GSLB site persistence.

use std::time::Duration;

use super::HmDownRecovery;

/// A federated profile of type `gslb_site`.
#[derive(Clone, Debug)]
pub struct GslbSitePersistence {
    pub name: String,
    pub is_federated: bool,
    pub recovery: HmDownRecovery,
    pub cookie: SiteCookieOptions,
}

/// How the site cookie is made; see the attributes in RFC 6265bis.
#[derive(Clone, Debug)]
pub struct SiteCookieOptions {
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
    /// Exactly one of them is active.
    pub keys: Vec<CookieKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SameSite {
    #[default]
    Lax,
    Strict,
    None,
}

/// A key's uuid, state and secret.
#[derive(Clone, Debug)]
pub struct CookieKey {
    pub uuid: String,
    pub state: KeyState,
    pub secret: Secret,
}

/// `next` opens, `active` seals and opens, `retiring` opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Next,
    Active,
    Retiring,
}

/// 32 bytes that no `Debug` shows and that are wiped when dropped.
#[derive(Clone)]
pub struct Secret(pub(crate) zeroize::Zeroizing<[u8; 32]>);

impl Secret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
