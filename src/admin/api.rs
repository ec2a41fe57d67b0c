//! What the admin API answers: one line per path in [`router`].

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{
    access::{self, Access},
    view,
};
use crate::names::same_name;

/// The live state, as far as the admin API shows it. Looking changes nothing: no session is touched.
pub trait Source: Send + Sync + 'static {
    /// The page that Prometheus scrapes, text format 0.0.4.
    fn metrics(&self) -> String;

    /// What this node still waits for before it should get traffic, each as a sentence; empty: it is ready.
    fn missing(&self) -> Vec<String>;

    fn virtual_services(&self) -> Vec<view::VirtualService>;

    /// Site-persistence pools first, as Avi lists them.
    fn pools(&self) -> Vec<view::Pool>;

    fn gslb_services(&self) -> Vec<view::GslbRuntime>;

    fn site_cookie_keys(&self) -> Vec<view::SiteCookieKey>;

    fn session_tables(&self) -> Vec<view::SessionTable>;

    /// Entries of one of [`Source::session_tables`]: the one under `key`, or any
    /// [`view::Sessions::MOST`] of them, with one more where there are more.
    fn session_entries(&self, table: &str, key: Option<&str>) -> Vec<view::SessionEntry>;
}

/// Every path. What is above the access check answers everyone.
pub(super) fn router<S: Source>(source: Arc<S>, access: Access) -> Router {
    Router::new()
        .route("/api/v1/virtualservices", get(virtual_services::<S>))
        .route("/api/v1/virtualservices/{name}", get(virtual_service::<S>))
        .route("/api/v1/pools", get(pools::<S>))
        .route("/api/v1/pools/{name}", get(pool::<S>))
        .route("/api/v1/gslbservices/{name}/runtime", get(gslb_runtime::<S>))
        .route("/api/v1/keys", get(site_cookie_keys::<S>))
        .route("/api/v1/sessions", get(sessions::<S>))
        .layer(middleware::from_fn_with_state(access, access::admit))
        .route("/metrics", get(metrics::<S>))
        .route("/healthz", get("ok\n"))
        .route("/readyz", get(readyz::<S>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(source)
}

/// An error that says what is wrong, in the shape of [`view::Failure`].
pub(super) fn failure(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(view::Failure { error: error.into() })).into_response()
}

async fn metrics<S: Source>(State(source): State<Arc<S>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], source.metrics())
}

async fn readyz<S: Source>(State(source): State<Arc<S>>) -> Response {
    match source.missing() {
        missing if missing.is_empty() => "ready\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

async fn virtual_services<S: Source>(State(source): State<Arc<S>>) -> Json<Vec<view::VirtualService>> {
    Json(source.virtual_services())
}

async fn virtual_service<S: Source>(State(source): State<Arc<S>>, Path(name): Path<String>) -> Response {
    named("virtual service", &name, source.virtual_services(), |vs| &vs.name)
}

async fn pools<S: Source>(State(source): State<Arc<S>>) -> Json<Vec<view::Pool>> {
    Json(source.pools())
}

async fn pool<S: Source>(State(source): State<Arc<S>>, Path(name): Path<String>) -> Response {
    named("pool", &name, source.pools(), |pool| &pool.name)
}

async fn gslb_runtime<S: Source>(State(source): State<Arc<S>>, Path(name): Path<String>) -> Response {
    named("GSLB service", &name, source.gslb_services(), |service| &service.name)
}

async fn site_cookie_keys<S: Source>(State(source): State<Arc<S>>) -> Json<Vec<view::SiteCookieKey>> {
    Json(source.site_cookie_keys())
}

#[derive(Deserialize)]
struct SessionQuery {
    table: Option<String>,
    key: Option<String>,
}

async fn sessions<S: Source>(
    State(source): State<Arc<S>>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return failure(StatusCode::BAD_REQUEST, "the query takes table=NAME and key=KEY, each at most once");
    };
    let tables = source.session_tables();
    let Some(wanted) = query.table else {
        return match query.key {
            Some(_) => failure(StatusCode::BAD_REQUEST, "a key is looked up in a table; add table=NAME"),
            None => Json(view::Sessions { tables, ..Default::default() }).into_response(),
        };
    };
    let Some(table) = tables.iter().find(|table| same_name(&table.name, &wanted)).cloned() else {
        return unknown("session table", &wanted, tables.iter().map(|table| table.name.as_str()));
    };
    let mut entries = source.session_entries(&table.name, query.key.as_deref());
    if query.key.is_some() && entries.is_empty() {
        let error = format!("session table {} has no entry under this key", table.name);
        return failure(StatusCode::NOT_FOUND, error);
    }
    let truncated = entries.len() > view::Sessions::MOST;
    entries.truncate(view::Sessions::MOST);
    Json(view::Sessions { tables: vec![table], entries, truncated }).into_response()
}

async fn unknown_path(uri: Uri) -> Response {
    let known = "/metrics, /healthz, /readyz, /api/v1/virtualservices[/NAME], /api/v1/pools[/NAME], \
                 /api/v1/gslbservices/NAME/runtime, /api/v1/keys, /api/v1/sessions?table=&key=";
    failure(StatusCode::NOT_FOUND, format!("path {} is not known; known: {known}", uri.path()))
}

async fn unknown_method() -> Response {
    failure(StatusCode::METHOD_NOT_ALLOWED, "this path can only be read; use GET")
}

/// The object of that name, whatever the case in which it is asked for.
fn named<T: Serialize>(kind: &str, name: &str, objects: Vec<T>, name_of: impl Fn(&T) -> &String) -> Response {
    let exact = objects.iter().find(|object| name_of(object) == name);
    match exact.or_else(|| objects.iter().find(|object| same_name(name_of(object), name))) {
        Some(object) => Json(object).into_response(),
        None => unknown(kind, name, objects.iter().map(|object| name_of(object).as_str())),
    }
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Response {
    let known: Vec<_> = known.collect();
    let known =
        if known.is_empty() { "there are none".into() } else { format!("known: {}", known.join(", ")) };
    failure(StatusCode::NOT_FOUND, format!("{kind} {name} is not known; {known}"))
}
