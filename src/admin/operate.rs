//! The paths by which operators look for one session, and change sessions and servers.
//!
//! Tokens travel in the query, which nothing here logs.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    ServerError, SessionError, Source,
    api::failure,
    sessions::{Scope, Wanted},
    write::Peer,
};
use crate::{pool::AdminState, session::MoveError};

/// Which session is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionQuery {
    table: Option<String>,
    vs: Option<String>,
    #[serde(alias = "key")]
    token: Option<String>,
    /// Where it is to go; of a move only, as the next.
    server: Option<String>,
    force: Option<bool>,
}

type Asked = Result<Query<SessionQuery>, QueryRejection>;

pub(super) async fn explain_session<S: Source>(State(source): State<Arc<S>>, asked: Asked) -> Response {
    match asked.ok().and_then(|Query(query)| query.alone()) {
        Some(wanted) => walking(move || source.explain_sessions(&wanted)).await,
        None => failure(StatusCode::BAD_REQUEST, ONE),
    }
}

pub(super) async fn delete_session<S: Source>(
    State(source): State<Arc<S>>,
    Extension(peer): Extension<Peer>,
    asked: Asked,
) -> Response {
    match asked.ok().and_then(|Query(query)| query.alone()) {
        Some(wanted) => walking(move || source.delete_session(&wanted, &peer.to_string())).await,
        None => failure(StatusCode::BAD_REQUEST, ONE),
    }
}

pub(super) async fn move_session<S: Source>(
    State(source): State<Arc<S>>,
    Extension(peer): Extension<Peer>,
    asked: Asked,
) -> Response {
    let Ok(Query(mut query)) = asked else { return failure(StatusCode::BAD_REQUEST, MOVE) };
    let (server, force) = (query.server.take(), query.force.take().unwrap_or(false));
    let (Some(server), Some(wanted)) = (server, query.alone()) else {
        return failure(StatusCode::BAD_REQUEST, MOVE);
    };
    let Ok(server) = server.parse::<SocketAddr>() else {
        return failure(StatusCode::BAD_REQUEST, format!("server {server} is not an address; give IP:PORT"));
    };
    walking(move || source.move_session(&wanted, server, force, &peer.to_string())).await
}

pub(super) async fn order_server<S: Source>(
    State(source): State<Arc<S>>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Response {
    let Ok(Path((pool, server, verb))) = path else {
        return failure(StatusCode::BAD_REQUEST, "the path is not UTF-8");
    };
    let state = match verb.as_str() {
        "enable" => AdminState::Enabled,
        "drain" => AdminState::Draining,
        "disable" => AdminState::Disabled,
        _ => {
            let error = format!("server {server} cannot {verb}; known: enable, drain, disable");
            return failure(StatusCode::NOT_FOUND, error);
        }
    };
    match source.order_server(&pool, &server, state, &peer.to_string()) {
        Ok(server) => Json(server).into_response(),
        Err(error) => error.into_response(),
    }
}

impl SessionQuery {
    /// The session, where nothing else is asked.
    fn alone(self) -> Option<Wanted> {
        let scope = match (self.table, self.vs) {
            (None, None) => Scope::Everywhere,
            (Some(table), None) => Scope::Table(table),
            (None, Some(vs)) => Scope::VirtualService(vs),
            (Some(_), Some(_)) => return None,
        };
        let token = self.token.filter(|token| !token.is_empty())?;
        (self.server.is_none() && self.force.is_none()).then_some(Wanted { scope, token })
    }
}

/// Runs what may walk the whole session table where no request waits for it.
async fn walking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Response
where
    T: serde::Serialize + Send + 'static,
    E: IntoResponse + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(view)) => Json(view).into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(error) => {
            tracing::error!(%error, "admin: an answer cannot be made");
            failure(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be made; see the log")
        }
    }
}

impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::UnknownVirtualService { .. }
            | Self::NoSection(_)
            | Self::UnknownTable { .. }
            | Self::NoSession { .. }
            | Self::Move(MoveError::Unknown { .. }) => StatusCode::NOT_FOUND,
            Self::NotAMember { .. } | Self::NoPool(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Several { .. }
            | Self::Disabled { .. }
            | Self::Down { .. }
            | Self::Draining { .. }
            | Self::Move(MoveError::NoServer { .. }) => StatusCode::CONFLICT,
        };
        failure(status, self.to_string())
    }
}

impl IntoResponse for ServerError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::UnknownPool { .. } | Self::UnknownServer { .. } => StatusCode::NOT_FOUND,
            Self::SitePool(_) | Self::DisabledInConfiguration { .. } => StatusCode::CONFLICT,
        };
        failure(status, self.to_string())
    }
}

const ONE: &str = "the query takes token=TOKEN, and table=NAME or vs=NAME, each at most once";
const MOVE: &str =
    "the query takes token=TOKEN, server=IP:PORT, table=NAME or vs=NAME, and force=true, each at most once";
