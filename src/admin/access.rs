//! Who may use the admin API: everyone on this machine, and beyond it who knows the token.
//!
//! On loopback a browser stands for everyone whose pages it shows: a page may come by a name that its owner has since
//! pointed at 127.0.0.1 (DNS rebinding). So there requests are for an address, for localhost, or for a name that
//! the configuration has.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwap;
use axum::{
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::api::failure;
use crate::config::{self, SHORTEST_TOKEN};

/// What `Authorization: Bearer` must carry.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<String>>);

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("token_file {0} cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
    #[error("token_file {0} holds {1} characters; use at least {MIN}, such as `openssl rand -hex 32` prints", MIN = SHORTEST_TOKEN)]
    TooShort(String, usize),
}

impl Token {
    /// Reads a token from a file; space around it does not count.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let name = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => return Err(TokenError::Unreadable(name, error)),
        };
        let token = Zeroizing::new(text.trim().to_owned());
        match token.len() {
            length if length < SHORTEST_TOKEN => Err(TokenError::TooShort(name, length)),
            _ => Ok(Self(Arc::new(token))),
        }
    }

    /// Takes as long for a near miss as for a far one.
    fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

/// What the configuration says of who is let in.
#[derive(Default)]
pub struct Terms {
    token: Option<Token>,
    domain_names: Vec<String>,
}

impl Terms {
    /// Reads the token's file anew.
    pub fn read(admin: &config::Admin) -> Result<Self, TokenError> {
        let token = admin.token_file.as_deref().map(Token::read).transpose()?;
        Ok(Self { token, domain_names: admin.domain_names.clone() })
    }

    fn names(&self, host: &str) -> bool {
        self.domain_names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// The terms in force; a reload may put others in their place. Clones share them.
#[derive(Clone, Default)]
pub struct CurrentTerms(Arc<ArcSwap<Terms>>);

impl CurrentTerms {
    pub fn set(&self, terms: Terms) {
        self.0.store(Arc::new(terms));
    }
}

/// From where a listener can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// By whom the permissions of the socket's file let.
    File,
    /// By every process of this machine, browsers among them.
    Loopback,
    Elsewhere,
}

/// The rule that one listener keeps.
#[derive(Clone)]
pub(super) struct Access {
    reach: Reach,
    terms: CurrentTerms,
}

impl Access {
    pub(super) fn new(reach: Reach, terms: CurrentTerms) -> Self {
        Self { reach, terms }
    }
}

/// Lets a request pass, or says what it lacks.
pub(super) async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    let refused = refusal(access.reach, &access.terms.0.load(), &request);
    match refused {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

/// Why a request is not let in; who knows the token always is.
fn refusal(reach: Reach, terms: &Terms, request: &Request) -> Option<Response> {
    let token = terms.token.as_ref();
    if token.is_some_and(|token| bearer(request).is_some_and(|given| token.matches(given))) {
        return None;
    }
    match reach {
        Reach::File => None,
        Reach::Loopback => {
            let host = request.headers().get(HOST)?;
            let name = host.to_str().map_or(Some("unreadable"), domain_name)?;
            let why = format!(
                "host {} is not known here; ask by an address or localhost, or add the name to admin.domain_names",
                name.escape_debug()
            );
            (!terms.names(name)).then(|| failure(StatusCode::FORBIDDEN, why))
        }
        Reach::Elsewhere if token.is_some() => {
            let why = "this needs the token of admin.token_file as `Authorization: Bearer TOKEN`";
            let asked = [(WWW_AUTHENTICATE, "Bearer")];
            Some((asked, failure(StatusCode::UNAUTHORIZED, why)).into_response())
        }
        Reach::Elsewhere => {
            let why = "beyond loopback this needs a token; set admin.token_file, or listen on loopback or unix:PATH";
            Some(failure(StatusCode::FORBIDDEN, why))
        }
    }
}

/// The name that a Host field has, without its port; `None`: an address, or localhost, to which only this machine
/// answers.
pub(super) fn domain_name(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(name);
    let is_address = address.parse::<IpAddr>().is_ok() || host.parse::<SocketAddr>().is_ok();
    (!is_address && !name.eq_ignore_ascii_case("localhost")).then_some(name)
}

fn bearer(request: &Request) -> Option<&[u8]> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_must_be_readable_and_long_enough() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("token");
        assert!(Token::read(&file).is_err_and(|error| error.to_string().contains("cannot be read")));
        fs::write(&file, "short\n").expect("written");
        assert!(Token::read(&file).is_err_and(|error| error.to_string().contains("holds 5 characters")));
        fs::write(&file, " 0123456789abcdef\n").expect("written");
        let token = Token::read(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in ["", "0123456789abcdeg", "0123456789abcdef0", "0123456789abcde"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_told_from_an_address_and_from_localhost() {
        for (host, name) in [
            ("127.0.0.1:9901", None),
            ("127.0.0.1", None),
            ("[::1]:9901", None),
            ("[::1]", None),
            ("localhost", None),
            ("LocalHost:9901", None),
            ("localhost.:9901", None),
            ("evil.example:9901", Some("evil.example")),
            ("localhost.evil.example", Some("localhost.evil.example")),
            ("127.0.0.1.evil.example:9901", Some("127.0.0.1.evil.example")),
            ("a:b", Some("a:b")),
            ("", Some("")),
        ] {
            assert_eq!(domain_name(host), name, "{host}");
        }
    }

    #[test]
    fn the_bearer_scheme_is_read_without_case() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("", None),
        ] {
            let request = Request::builder().header(AUTHORIZATION, value).body(Default::default());
            let request = request.expect("a valid request");
            assert_eq!(bearer(&request), token.map(str::as_bytes), "{value}");
        }
    }
}
