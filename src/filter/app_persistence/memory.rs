//! What a pool's sessions are remembered by: an entry of the session table for each, or a cookie that the client keeps.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use crate::prelude::*;

pub(super) enum Memory {
    Table(SessionsInTable),
    Cookie(Box<CarriedServer>),
}

/// What of a request may name its session.
pub(super) struct Asked<'a> {
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
}

/// What is known of a request's session.
pub(super) enum Known {
    /// Nothing names it.
    Nothing,
    /// It is new: it has no server, and the key in the table that it is to have one under, where there is a table.
    New(Option<Vec<u8>>),
    /// It has a server, and perhaps a key. `is_stale`: its cookie should be renewed.
    At { server: SocketAddr, key: Option<Vec<u8>>, is_stale: bool },
    /// Its cookie is not believed, for this reason: as good as new.
    Refused(&'static str),
}

impl Known {
    /// The server that it had when the request came.
    pub fn server(&self) -> Option<SocketAddr> {
        match self {
            Self::At { server, .. } => Some(*server),
            _ => None,
        }
    }

    /// The server has just given it a name.
    pub fn begin(&mut self) {
        if matches!(self, Self::Nothing) {
            *self = Self::New(None);
        }
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::New(key) | Self::At { key, .. } => key.as_deref(),
            _ => None,
        }
    }
}

impl Memory {
    pub fn of(pool: &Pool, profile: &PersistenceProfile) -> Self {
        match &profile.by {
            PersistBy::HttpCookie { cookie, always_send } => Self::Cookie(Box::new(CarriedServer {
                server: ServerCookie::new(pool.config(), cookie),
                set: SetCookie::new(cookie),
                name: cookie.name.clone(),
                always_send: *always_send,
            })),
            by => Self::Table(SessionsInTable {
                name: profile.table(pool.name()).unwrap_or_default(),
                timeout: by.timeout().unwrap_or_default(),
                tokens: match by {
                    PersistBy::AppCookie { name, .. } => {
                        vec![Token::Cookie(name.clone()), Token::Query(name.clone())]
                    }
                    PersistBy::Header { name, .. } => vec![Token::Header(name.clone())],
                    PersistBy::Tls { .. } => vec![Token::TlsSessionId],
                    _ => Vec::new(),
                },
                mask: match by {
                    PersistBy::ClientIp { mask, .. } => *mask,
                    _ => ClientMask::default(),
                },
            }),
        }
    }

    /// What is known of a session, and its use of the table from now on if it has a server that it `keeps`.
    pub fn recall(
        &self,
        exchange: &Exchange,
        asked: &Asked<'_>,
        keeps: impl Fn(SocketAddr) -> bool,
    ) -> (Known, Option<Assigned>) {
        match self {
            Self::Cookie(cookie) => (cookie.read(exchange, asked.headers), None),
            Self::Table(table) => table.recall(exchange, asked, keeps),
        }
    }

    /// Takes note that the session has a server: the one that it `keeps`, or the one that was `selected`. `None`: no
    /// table has it.
    pub fn assign(
        &self,
        exchange: &Exchange,
        known: &Known,
        selected: SocketAddr,
        keeps: impl Fn(SocketAddr) -> bool,
    ) -> Option<Assigned> {
        match self {
            Self::Cookie(_) => None,
            Self::Table(table) => table.assign(exchange, known.key()?, keeps, Some(selected)),
        }
    }
}

/// An entry of the session table for each session.
pub(super) struct SessionsInTable {
    name: String,
    /// What names a session: the first of these that a request has,
    tokens: Vec<Token>,
    /// or where there are none, its client's network.
    mask: ClientMask,
    timeout: Duration,
}

impl SessionsInTable {
    fn recall(
        &self,
        exchange: &Exchange,
        asked: &Asked<'_>,
        keeps: impl Fn(SocketAddr) -> bool,
    ) -> (Known, Option<Assigned>) {
        let Some(key) = self.key(exchange, asked) else { return (Known::Nothing, None) };
        let had = Cell::new(None);
        let keeps = |server| {
            had.set(Some(server));
            keeps(server)
        };
        let assigned = self.assign(exchange, &key, keeps, None);
        let known = match had.get() {
            Some(server) => Known::At { server, key: Some(key), is_stale: false },
            None => Known::New(Some(key)),
        };
        (known, assigned)
    }

    fn assign(
        &self,
        exchange: &Exchange,
        key: &[u8],
        keeps: impl Fn(SocketAddr) -> bool,
        selected: Option<SocketAddr>,
    ) -> Option<Assigned> {
        let assign = Assign { timeout: self.timeout, lifetime: None, refresh: Refresh::Request };
        exchange.session().assign(&self.name, key, assign, keeps, || selected)
    }

    /// The key of a request's session, in the words in which operators name tokens: `source_ip=192.0.2.1`,
    /// `cookie:SID=abc`.
    fn key(&self, exchange: &Exchange, asked: &Asked<'_>) -> Option<Vec<u8>> {
        if self.tokens.is_empty() {
            let network = self.mask.network(exchange.client_ip());
            let whole = network.prefix_len() == network.max_prefix_len();
            let name = if whole { network.addr().to_string() } else { network.to_string() };
            return Some(token::key(&Token::SourceIp, name.as_bytes()));
        }
        let facts = token::Facts {
            tls_session_id: exchange.tls_session_id(),
            headers: asked.headers,
            query: asked.query,
            client: exchange.client_ip(),
        };
        let (_, value) = token::find(&self.tokens, &facts)?;
        // Wherever the value stands, it is the same session.
        Some(token::key(self.tokens.first()?, &value))
    }

    /// Learns the names that a server gives to a session with its answer; whether there is one.
    pub fn learn(&self, response: &Response<'_>, server: SocketAddr) -> bool {
        let Some(token) = self.tokens.first() else { return false };
        let values: Vec<_> = match token {
            Token::Cookie(name) => set_cookies(response.headers(), name).collect(),
            Token::Header(name) => {
                response.headers().get(name).map(|value| value.as_bytes()).into_iter().collect()
            }
            _ => return false,
        };
        for value in values.iter().filter(|value| !value.is_empty()) {
            let is_its = |known| known == server;
            drop(self.assign(response, &token::key(token, value), is_its, Some(server)));
        }
        values.iter().any(|value| !value.is_empty())
    }
}

/// The values that an answer gives to a cookie.
fn set_cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all("set-cookie").iter().filter_map(move |field| {
        let pair = field.as_bytes().split(|byte| *byte == b';').next()?;
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..at].trim_ascii() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii())
    })
}

/// A cookie of ours that brings the server with each request.
pub(super) struct CarriedServer {
    server: ServerCookie,
    set: SetCookie,
    name: String,
    always_send: bool,
}

/// The last cookie that a connection brought, opened.
#[derive(Clone, Default)]
struct LastServer(LastOpened);

impl CarriedServer {
    pub fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, exchange: &Exchange, headers: &HeaderMap) -> Known {
        let mut values = cookie_values(super::own_cookie::fields(headers), &self.name).peekable();
        if values.peek().is_none() {
            return Known::New(None);
        }
        let now = exchange.clock().unix_seconds();
        let named = exchange.with_connection_value(|LastServer(last)| self.server.read(values, now, last));
        match named {
            NamedServer::None => Known::New(None),
            NamedServer::Refused(Refusal::WrongService) => Known::Refused("unknown_server"),
            NamedServer::Refused(refusal) => Known::Refused(refusal.as_str()),
            NamedServer::Server { addr, is_stale } => Known::At { server: addr, key: None, is_stale },
        }
    }

    /// The `Set-Cookie` value that is due with an answer of this server.
    pub fn due(&self, response: &Response<'_>, known: &Known, server: SocketAddr) -> Option<String> {
        let holds = matches!(known, Known::At { server: named, is_stale: false, .. } if *named == server);
        if holds && !self.always_send {
            return None;
        }
        let now = response.clock().unix_seconds();
        let value = self.server.issue(server, now, response.random_bytes())?;
        Some(self.set.render(&value, response.is_secure()))
    }
}
