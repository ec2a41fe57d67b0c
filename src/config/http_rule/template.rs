//! Texts with places for what a request says: `https://{host}{path}`.

use std::fmt;

use crate::config::problem::{Wrong, listed, shown};

/// A text with variables in braces; `{{` and `}}` are braces.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

/// What a request says, as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `http` or `https`.
    Scheme,
    /// Without its port.
    Host,
    /// Of the virtual service, that the client connected to.
    Port,
    /// Without the query.
    Path,
    /// Without `?`; empty where there is none.
    Query,
    Method,
    ClientIp,
    RequestId,
    /// Of the client's certificate, see `ssl_client_certificate_mode`; empty where there is none, as the next three.
    CertSubject,
    CertIssuer,
    CertSerial,
    CertFingerprint,
    /// Of the path, what follows the text that it begins with.
    Rest,
    /// Of the path, a group of the regular expression.
    Group(usize),
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            plain += before;
            if let Some(after) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
                plain.push_str(&rest[at..=at]);
                rest = after;
                continue;
            }
            let (name, after) =
                after.strip_prefix('{').and_then(|name| name.split_once('}')).ok_or_else(|| {
                    let what = format!("{} has a brace without its other", shown(text));
                    Wrong::new(what, "write `{name}` for a variable, `{{` or `}}` for a brace")
                })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Variable(Variable::named(name)?));
            rest = after;
        }
        plain += rest;
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The text, if there are no variables in it.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.0 {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Hands over the pieces in order: texts as they are written, and what is said for the variables.
    pub fn fill(&self, text: &mut String, mut say: impl FnMut(Variable, &mut String)) {
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Variable(variable) => say(*variable, text),
            }
        }
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = Variable> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(variable) => Some(*variable),
        })
    }

    /// Whether what it makes begins with `/`.
    pub(super) fn is_path(&self) -> bool {
        match self.0.first() {
            Some(Piece::Text(text)) => text.starts_with('/'),
            Some(Piece::Variable(Variable::Path)) => true,
            _ => false,
        }
    }

    /// The texts between variables.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Variable(_) => None,
        })
    }
}

impl Variable {
    fn named(name: &str) -> Result<Self, Wrong> {
        if let [digit @ b'1'..=b'9'] = name.as_bytes() {
            return Ok(Self::Group(usize::from(digit - b'0')));
        }
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, variable)| *variable).ok_or_else(|| {
            let known = listed(NAMES.iter().map(|(name, _)| *name));
            let help = format!("known: {known}, and 1 to 9 for groups; write `{{{{` for a brace");
            Wrong::new(format!("{} is no variable", shown(name)), help)
        })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

const NAMES: [(&str, Variable); 13] = [
    ("scheme", Variable::Scheme),
    ("host", Variable::Host),
    ("port", Variable::Port),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("method", Variable::Method),
    ("client_ip", Variable::ClientIp),
    ("request_id", Variable::RequestId),
    ("rest", Variable::Rest),
    ("client_cert_subject", Variable::CertSubject),
    ("client_cert_issuer", Variable::CertIssuer),
    ("client_cert_serial", Variable::CertSerial),
    ("client_cert_fingerprint", Variable::CertFingerprint),
];
