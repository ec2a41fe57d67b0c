//! Handing the site cookie to a client: the `Set-Cookie` value and what an answer that carries it says to
//! caches.
//!
//! Attributes are those of RFC 6265bis and draft-cutler-httpbis-partitioned-cookies. Avi writes `; path=/`
//! and no more, which `avi_compatible` asks for.

use std::{borrow::Cow, fmt::Write};

use crate::config::{CookieOptions, SameSite};

/// Renders `Set-Cookie` for one profile.
#[derive(Clone, Debug)]
pub struct SetCookie {
    name: String,
    /// What follows the value, for a client that came in clear and for one that came over TLS.
    plain: String,
    secure: String,
}

impl SetCookie {
    pub fn new(options: &CookieOptions) -> Self {
        Self {
            name: options.name.clone(),
            plain: attributes(options, false),
            secure: attributes(options, true),
        }
    }

    /// The header's value. `secure`: the client came over TLS.
    pub fn render(&self, value: &str, secure: bool) -> String {
        let attributes = if secure { &self.secure } else { &self.plain };
        [&self.name, "=", value, attributes].concat()
    }
}

/// What `Cache-Control` must become on an answer that sets a cookie; `None`: it may stay as it is. `present`
/// is the value of all fields joined.
pub fn private_cache_control(present: Option<&str>) -> Option<Cow<'static, str>> {
    let Some(present) = present else { return Some(PRIVATE.into()) };
    if directives(present).any(|directive| is_any(directive, &[PRIVATE, "no-store"])) {
        return None;
    }
    let mut value = String::from(PRIVATE);
    // These speak of shared caches, and contradict us; `private="field"` is narrower than what we say.
    let kept = |directive: &&str| !is_any(name(directive), &["public", "s-maxage", PRIVATE, ""]);
    for directive in directives(present).filter(kept) {
        value.push_str(", ");
        value.push_str(directive);
    }
    Some(value.into())
}

fn attributes(options: &CookieOptions, tls: bool) -> String {
    if options.avi_compatible {
        return "; path=/".into();
    }
    let host_only = options.name.starts_with("__Host-");
    let mut text = String::new();
    let mut put = |attribute: std::fmt::Arguments<'_>| {
        write!(text, "; {attribute}").expect("a String takes every write");
    };
    put(format_args!("Path={}", if host_only { "/" } else { &options.path }));
    if let Some(domain) = options.domain.as_ref().filter(|_| !host_only) {
        put(format_args!("Domain={domain}"));
    }
    if let Some(lifetime) = options.timeout.filter(|_| options.persistent) {
        put(format_args!("Max-Age={}", lifetime.as_secs()));
    }
    if options.http_only {
        put(format_args!("HttpOnly"));
    }
    put(format_args!(
        "SameSite={}",
        match options.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        }
    ));
    if tls || host_only || options.partitioned || options.same_site == SameSite::None {
        put(format_args!("Secure"));
    }
    if options.partitioned {
        put(format_args!("Partitioned"));
    }
    text
}

/// The directives of a `Cache-Control` value; a comma between quotes does not end one (RFC 9110, section
/// 5.6).
fn directives(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |character| {
            let ends = character == ',' && !quoted;
            quoted ^= character == '"' && !escaped;
            escaped = quoted && character == '\\' && !escaped;
            ends
        })
        .map(str::trim)
}

fn name(directive: &str) -> &str {
    directive.split('=').next().unwrap_or_default().trim_end()
}

fn is_any(word: &str, words: &[&str]) -> bool {
    words.iter().any(|other| word.eq_ignore_ascii_case(other))
}

const PRIVATE: &str = "private";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::gslb::fixtures;

    fn rendered(secure: bool, change: impl FnOnce(&mut CookieOptions)) -> String {
        let mut options = fixtures::cookie_options();
        change(&mut options);
        SetCookie::new(&options).render("v", secure)
    }

    #[test]
    fn the_default_is_lax_http_only_and_secure_over_tls() {
        assert_eq!(rendered(false, |_| ()), "FOO=v; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(rendered(true, |_| ()), "FOO=v; Path=/; HttpOnly; SameSite=Lax; Secure");
    }

    #[test]
    fn every_option_is_rendered() {
        type Change = fn(&mut CookieOptions);
        let cases: [(Change, &str); 9] = [
            (|o| o.path = "/pay".into(), "FOO=v; Path=/pay; HttpOnly; SameSite=Lax"),
            (|o| o.domain = Some("a.com".into()), "FOO=v; Path=/; Domain=a.com; HttpOnly; SameSite=Lax"),
            (|o| o.same_site = SameSite::Strict, "FOO=v; Path=/; HttpOnly; SameSite=Strict"),
            (|o| o.same_site = SameSite::None, "FOO=v; Path=/; HttpOnly; SameSite=None; Secure"),
            (|o| o.partitioned = true, "FOO=v; Path=/; HttpOnly; SameSite=Lax; Secure; Partitioned"),
            (|o| o.http_only = false, "FOO=v; Path=/; SameSite=Lax"),
            (|o| o.persistent = true, "FOO=v; Path=/; Max-Age=28800; HttpOnly; SameSite=Lax"),
            (|o| (o.persistent, o.timeout) = (true, None), "FOO=v; Path=/; HttpOnly; SameSite=Lax"),
            (
                |o| {
                    o.name = "__Host-FOO".into();
                    o.path = "/pay".into();
                    o.domain = Some("a.com".into());
                },
                "__Host-FOO=v; Path=/; HttpOnly; SameSite=Lax; Secure",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(rendered(false, change), expected);
        }
        assert_eq!(fixtures::cookie_options().timeout, Some(Duration::from_secs(28800)));
    }

    #[test]
    fn avis_own_shape_is_exact() {
        for secure in [false, true] {
            let value = rendered(secure, |o| {
                o.avi_compatible = true;
                o.partitioned = true;
                o.persistent = true;
            });
            assert_eq!(value, "FOO=v; path=/");
        }
    }

    #[test]
    fn an_answer_with_the_cookie_is_private() {
        for (present, expected) in [
            (None, Some("private")),
            (Some(""), Some("private")),
            (Some("private"), None),
            (Some("max-age=5, Private"), None),
            (Some("no-store"), None),
            (Some("no-cache"), Some("private, no-cache")),
            (Some("public, max-age=60"), Some("private, max-age=60")),
            (Some("Public,S-MaxAge=9 , max-age=60,"), Some("private, max-age=60")),
            (Some("private=\"x\", max-age=1"), Some("private, max-age=1")),
            (Some("no-cache=\"a, private, no-store\""), Some("private, no-cache=\"a, private, no-store\"")),
            (Some("x=\"\\\", private\""), Some("private, x=\"\\\", private\"")),
        ] {
            assert_eq!(private_cache_control(present).as_deref(), expected, "{present:?}");
        }
    }

    proptest! {
        #[test]
        fn once_private_always_private(present in "[a-z\"\\\\,=é -]{0,30}") {
            if let Some(value) = private_cache_control(Some(&present)) {
                prop_assert_eq!(private_cache_control(Some(&value)), None);
            }
        }
    }
}
