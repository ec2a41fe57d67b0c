//! Who may use the admin API: everyone on this machine, and beyond it who knows the token.

use std::{fs, io, path::Path, sync::Arc};

use arc_swap::ArcSwapOption;
use axum::{
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::api::failure;

/// What `Authorization: Bearer` must carry.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<String>>);

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("token_file {0} cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
    #[error("token_file {0} holds {1} characters; use at least {MIN}, such as `openssl rand -hex 32` prints", MIN = Token::SHORTEST)]
    TooShort(String, usize),
}

impl Token {
    const SHORTEST: usize = 16;

    /// Reads a token from a file; space around it does not count.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let name = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => return Err(TokenError::Unreadable(name, error)),
        };
        let token = Zeroizing::new(text.trim().to_owned());
        match token.chars().count() {
            length if length < Self::SHORTEST => Err(TokenError::TooShort(name, length)),
            _ => Ok(Self(Arc::new(token))),
        }
    }

    /// Takes as long for a near miss as for a far one.
    fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

/// The token that is asked for, if one is; a reload may put another in its place. Clones share it.
#[derive(Clone, Default)]
pub struct CurrentToken(Arc<ArcSwapOption<Token>>);

impl CurrentToken {
    pub fn set(&self, token: Option<Token>) {
        self.0.store(token.map(Arc::new));
    }
}

/// The rule that one listener keeps.
#[derive(Clone)]
pub(super) struct Access {
    /// Else it is loopback or a Unix socket, whose reach the machine's own permissions limit.
    reachable_from_elsewhere: bool,
    token: CurrentToken,
}

impl Access {
    pub(super) fn new(reachable_from_elsewhere: bool, token: CurrentToken) -> Self {
        Self { reachable_from_elsewhere, token }
    }
}

/// Lets a request pass, or says what it lacks.
pub(super) async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    if !access.reachable_from_elsewhere {
        return next.run(request).await;
    }
    match access.token.0.load_full() {
        Some(token) if bearer(&request).is_some_and(|given| token.matches(given)) => next.run(request).await,
        Some(_) => {
            let why = "this needs the token of admin.token_file as `Authorization: Bearer TOKEN`";
            ([(WWW_AUTHENTICATE, "Bearer")], failure(StatusCode::UNAUTHORIZED, why)).into_response()
        }
        None => failure(
            StatusCode::FORBIDDEN,
            "beyond loopback this needs a token; set admin.token_file, or listen on loopback or unix:PATH",
        ),
    }
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
