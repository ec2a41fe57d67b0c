//! Sessions as operators name them: which one is meant, why it is where it is, taking it elsewhere, ending it.
//!
//! A token is hashed here, as soon as it has come, and neither kept, answered nor logged.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::SystemTime};

use super::{pools, view};
use crate::{
    clone::token,
    config::{CloneSection, Token},
    names::{VsName, same_name},
    pool::{AdminState, Pool, Server},
    session::{MoveError, SessionTable, SessionView},
    snapshot::{Live, Snapshot},
};

/// The session that an operator means.
pub struct Wanted {
    pub scope: Scope,
    /// A token as clone sections name it (`cookie:SID=abc`), its value alone, the hash of a key, or the session as
    /// copies carry it.
    pub token: String,
}

/// Where it is looked for.
pub enum Scope {
    Everywhere,
    Table(String),
    /// The tables of its clone sections.
    VirtualService(String),
}

/// Why a session is not shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("virtual service {name} is not known; known: {}", known.join(", "))]
    UnknownVirtualService { name: String, known: Vec<String> },
    #[error("virtual service {0} has no clone section, and so no session table")]
    NoSection(VsName),
    #[error("session table {name} is not known; {}", among(known))]
    UnknownTable { name: String, known: Vec<String> },
    #[error(
        "no session is known by this token; it may have ended or not begun; looked in {} for {}",
        shown(tables),
        shown(tokens)
    )]
    NoSession { tables: Vec<String>, tokens: Vec<String> },
    #[error("this token names {} sessions; say which table: {}", tables.len(), tables.join(", "))]
    Several { tables: Vec<String> },
    #[error("server {server} is not a member of clone pool {pool}; members: {}", members.join(", "))]
    NotAMember { server: SocketAddr, pool: String, members: Vec<String> },
    #[error("server {0} is in no pool; add it to one, or name another")]
    NoPool(SocketAddr),
    #[error("server {server} of pool {pool} is {reason}; enable it first")]
    Disabled { server: SocketAddr, pool: String, reason: String },
    #[error(
        "server {server} of pool {pool} is down ({reason}), and the session's next request would move it on; use force \
         if the server is about to return"
    )]
    Down { server: SocketAddr, pool: String, reason: String },
    #[error("server {server} of pool {pool} drains and is to get no new sessions; enable it, or use force")]
    Draining { server: SocketAddr, pool: String },
    #[error(transparent)]
    Move(#[from] MoveError),
}

/// A session that was found.
struct Found<'a> {
    row: SessionView,
    token: Option<&'a Token>,
    section: Option<Section<'a>>,
}

/// A clone section and where it stands.
#[derive(Clone, Copy)]
struct Section<'a> {
    vs: &'a VsName,
    section: &'a CloneSection,
}

/// One session table among which is looked.
struct Place<'a> {
    table: String,
    section: Option<Section<'a>>,
}

/// Every session that the token names; at least one.
pub(super) fn explain(live: &Live, wanted: &Wanted) -> Result<Vec<view::Explained>, SessionError> {
    let snapshot = live.snapshot();
    let found = find(live, &snapshot, wanted)?;
    Ok(found.into_iter().map(|found| explained(found, &snapshot, live.clock.wall())).collect())
}

/// Gives the session another server; what it is now. See [`SessionTable::move_to`] for what becomes of its copies.
pub(super) fn move_to(
    live: &Live,
    wanted: &Wanted,
    server: SocketAddr,
    force: bool,
    by: &str,
) -> Result<view::Explained, SessionError> {
    let snapshot = live.snapshot();
    let mut found = only(find(live, &snapshot, wanted)?)?;
    let (table, from) = (&found.row.table, &found.row.value);
    if from.parse::<SocketAddr>().is_err() {
        return Err(MoveError::NoServer { table: table.clone() }.into());
    }
    may_have_sessions(&snapshot, found.section, server, force)?;
    let moved = live.sessions.move_to(table, &found.row.key, server, live.clock.now())?;
    let session = format!("{:016x}", moved.session);
    tracing::info!(table, session, from, to = %server, by, "session is moved by an operator");
    found.row = moved;
    Ok(explained(found, &snapshot, live.clock.wall()))
}

/// Ends the session; what it was.
pub(super) fn delete(live: &Live, wanted: &Wanted, by: &str) -> Result<view::Explained, SessionError> {
    let snapshot = live.snapshot();
    let mut found = only(find(live, &snapshot, wanted)?)?;
    let table = found.row.table.clone();
    let Some(was) = live.sessions.remove(&table, &found.row.key, live.clock.now()) else {
        return Err(MoveError::Unknown { table }.into());
    };
    let session = format!("{:016x}", was.session);
    tracing::info!(table, session, from = was.value, by, "session is deleted by an operator");
    found.row = was;
    Ok(explained(found, &snapshot, live.clock.wall()))
}

/// One row of a table.
pub(super) fn entry(row: SessionView, wall: SystemTime) -> view::SessionEntry {
    view::SessionEntry {
        session: format!("{:016x}", row.session),
        key: row.key,
        value: row.value,
        why: row.why.as_str().to_owned(),
        since: (wall - row.since).into(),
        requests: row.requests,
        in_use: row.in_use > 0,
        created: Some((wall - row.age).into()),
        expires: (row.in_use == 0).then(|| (wall + row.expires_in).into()),
    }
}

fn explained(found: Found<'_>, snapshot: &Snapshot, wall: SystemTime) -> view::Explained {
    let Found { row, token, section } = found;
    let pool = section.and_then(|section| section.pool(snapshot));
    let server = row.value.parse().ok().and_then(|server| pool?.server(server));
    view::Explained {
        table: row.table.clone(),
        virtual_service: section.map(|section| section.vs.to_string()),
        pool_ref: section.map(|section| section.section.pool.to_string()),
        token: token.map(Token::to_string),
        server_status: server.map(|server| pools::server_status(server)),
        entry: entry(row, wall),
    }
}

/// Each session that the token names, once for each table that has it.
fn find<'a>(live: &Live, snapshot: &'a Snapshot, wanted: &Wanted) -> Result<Vec<Found<'a>>, SessionError> {
    let places = places(live, snapshot, &wanted.scope)?;
    let (sessions, now) = (&live.sessions, live.clock.now());
    let made: HashSet<String> = sessions.tables().into_iter().map(|(name, _)| name).collect();
    let mut all: Vec<Found<'a>> = Vec::new();
    // Asking for a key makes its table, which looking must not.
    for place in places.iter().filter(|place| made.contains(&place.table)) {
        for (token, key) in place.keys(sessions, &wanted.token) {
            for row in sessions.view(Some(&place.table), Some(&key), MOST_AT_A_KEY, now) {
                let is_known =
                    |known: &Found<'_>| (&known.row.table, known.row.session) == (&row.table, row.session);
                if !all.iter().any(is_known) {
                    all.push(Found { row, token, section: place.section });
                }
            }
        }
    }
    if all.is_empty() {
        let row = number(&wanted.token).and_then(|session| sessions.numbered(session, now));
        let place = row.as_ref().and_then(|row| places.iter().find(|place| place.table == row.table));
        if let (Some(row), Some(place)) = (row, place) {
            all.push(Found { row, token: None, section: place.section });
        }
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err(SessionError::NoSession { tokens: tokens(&places), tables: names(&places) }),
    }
}

fn only(mut found: Vec<Found<'_>>) -> Result<Found<'_>, SessionError> {
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        (last, _) => {
            let tables = found.iter().chain(&last).map(|found| found.row.table.clone());
            Err(SessionError::Several { tables: tables.collect() })
        }
    }
}

fn places<'a>(live: &Live, snapshot: &'a Snapshot, scope: &Scope) -> Result<Vec<Place<'a>>, SessionError> {
    let sections = sections(snapshot);
    if let Scope::VirtualService(name) = scope {
        let all = &snapshot.config.virtual_services;
        let Some(vs) = all.iter().find(|vs| same_name(vs.name.as_str(), name)) else {
            let known = all.iter().map(|vs| vs.name.to_string()).collect();
            return Err(SessionError::UnknownVirtualService { name: name.clone(), known });
        };
        let own: Vec<_> = sections.into_iter().filter(|place| place.is_of(&vs.name)).collect();
        return if own.is_empty() { Err(SessionError::NoSection(vs.name.clone())) } else { Ok(own) };
    }
    // Tables of sections may not be there yet; those of rules, and of sections that are gone, are no section's.
    let mut all = sections;
    for (table, _) in live.sessions.tables() {
        if all.iter().all(|place| place.table != table) {
            all.push(Place { table, section: None });
        }
    }
    if let Scope::Table(name) = scope {
        let known = names(&all);
        all.retain(|place| same_name(&place.table, name));
        if all.is_empty() {
            return Err(SessionError::UnknownTable { name: name.clone(), known });
        }
    }
    Ok(all)
}

fn sections(snapshot: &Snapshot) -> Vec<Place<'_>> {
    let virtual_services = snapshot.config.virtual_services.iter();
    let sections =
        virtual_services.flat_map(|vs| vs.clones.iter().map(|section| Section { vs: &vs.name, section }));
    sections.map(|own| Place { table: own.section.table(own.vs), section: Some(own) }).collect()
}

/// Whether a server may get a session that it did not have.
fn may_have_sessions(
    snapshot: &Snapshot,
    section: Option<Section<'_>>,
    addr: SocketAddr,
    force: bool,
) -> Result<(), SessionError> {
    let (pool, server) = match section.and_then(|section| section.pool(snapshot)) {
        Some(pool) => match pool.server(addr) {
            Some(server) => (pool, server),
            None => {
                let members = pool.servers().iter().map(|server| server.name().to_owned()).collect();
                return Err(SessionError::NotAMember {
                    server: addr,
                    pool: pool.name().to_string(),
                    members,
                });
            }
        },
        // What a rule stores may be of any pool.
        None => {
            let mut known = snapshot.pools.iter().filter_map(|pool| Some((pool, pool.server(addr)?)));
            known.next().ok_or(SessionError::NoPool(addr))?
        }
    };
    refusal(pool, server, force).map_or(Ok(()), Err)
}

fn refusal(pool: &Pool, server: &Server, force: bool) -> Option<SessionError> {
    let (addr, pool, reason) = (server.addr(), pool.name().to_string(), server.status().reason);
    if !server.is_enabled_in_configuration() || server.admin_state() == AdminState::Disabled {
        Some(SessionError::Disabled { server: addr, pool, reason })
    } else if force || server.takes_new() {
        None
    } else if server.is_up() {
        Some(SessionError::Draining { server: addr, pool })
    } else {
        Some(SessionError::Down { server: addr, pool, reason })
    }
}

impl<'a> Section<'a> {
    fn pool(self, snapshot: &Snapshot) -> Option<&Arc<Pool>> {
        snapshot.pools.iter().find(|pool| *pool.name() == self.section.pool)
    }
}

impl<'a> Place<'a> {
    fn is_of(&self, vs: &VsName) -> bool {
        self.section.is_some_and(|section| section.vs == vs)
    }

    /// The keys that an operator's words may stand for here, those of the token chain first.
    fn keys(&self, sessions: &SessionTable, typed: &str) -> Vec<(Option<&'a Token>, String)> {
        let chain = self.section.map(|section| section.section.tokens.as_slice()).unwrap_or_default();
        let hashed = |key: &[u8]| sessions.key(&self.table, key).to_string();
        let of_chain =
            chain.iter().filter_map(|token| Some((Some(token), hashed(&token::typed(token, typed)?))));
        // Rules take the identity of a TLS session as it is.
        let id = typed.strip_prefix("tls_session_id=").unwrap_or(typed);
        let raw = token::bytes_of_hex(id).map(|id| (None, hashed(&id)));
        of_chain.chain(raw).chain([(None, typed.to_owned())]).collect()
    }
}

fn names(places: &[Place<'_>]) -> Vec<String> {
    places.iter().map(|place| place.table.clone()).collect()
}

/// What is looked for: the tokens of the chains, each once, and what needs no chain.
fn tokens(places: &[Place<'_>]) -> Vec<String> {
    let sections = places.iter().filter_map(|place| place.section);
    let mut tokens: Vec<_> =
        sections.flat_map(|section| &section.section.tokens).map(Token::to_string).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens.push("hashes of keys and sessions".to_owned());
    tokens
}

/// A session as copies carry it: 16 hex digits.
fn number(text: &str) -> Option<u64> {
    let is_number = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_number { u64::from_str_radix(text, 16).ok() } else { None }
}

fn among(known: &[String]) -> String {
    if known.is_empty() { "there are none".to_owned() } else { format!("known: {}", known.join(", ")) }
}

/// The first of them, for a message.
fn shown(names: &[String]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let first = names[..names.len() - more].join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// A key names one session of a table; two tables may differ in case only.
const MOST_AT_A_KEY: usize = 4;

/// Names in one message.
const MOST_NAMED: usize = 8;
