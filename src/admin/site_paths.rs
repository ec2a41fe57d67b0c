//! The paths about sites: how a GSLB service goes on all of them, and sites that are emptied.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    Source,
    api::{failure, find, named, unknown},
    peers, view,
};

#[derive(Deserialize)]
pub(super) struct RuntimeQuery {
    scope: Option<Scope>,
}

/// How far a question about a GSLB service goes.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// What this site knows itself: what sites ask one another.
    Site,
}

pub(super) async fn gslb_runtime<S: Source>(
    State(source): State<Arc<S>>,
    Path(name): Path<String>,
    query: Result<Query<RuntimeQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return failure(StatusCode::BAD_REQUEST, "the query takes scope=site, or nothing for all sites");
    };
    let own = match find(&name, source.gslb_services(), |service| &service.name) {
        Ok(own) => own,
        Err(services) => return unknown("GSLB service", &name, services.iter().map(|it| it.name.as_str())),
    };
    match query.scope {
        Some(Scope::Site) => Json(own).into_response(),
        None => {
            let others = peers::ask(source.peers(&own.name), &own.name).await;
            Json(own.with_sites(&source.site_name(), others)).into_response()
        }
    }
}

pub(super) async fn sites<S: Source>(State(source): State<Arc<S>>) -> Json<Vec<view::Site>> {
    Json(source.sites())
}

pub(super) async fn site<S: Source>(State(source): State<Arc<S>>, Path(name): Path<String>) -> Response {
    named("site", &name, source.sites(), |site| &site.name)
}

#[derive(Deserialize)]
pub(super) struct DrainQuery {
    /// As in YAML: `30m`.
    #[serde(rename = "for")]
    how_long: String,
}

pub(super) async fn drain<S: Source>(
    State(source): State<Arc<S>>,
    Path(name): Path<String>,
    query: Result<Query<DrainQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(DrainQuery { how_long })) = query else {
        return failure(StatusCode::BAD_REQUEST, "the query says how long sessions may stay; add for=30m");
    };
    match humantime::parse_duration(&how_long) {
        Err(_) => {
            let error = format!("`{how_long}` is not a duration; write digits and a unit, as in 30m or 90s");
            failure(StatusCode::BAD_REQUEST, error)
        }
        Ok(long) if long > LONGEST_DRAIN => {
            let most = humantime::format_duration(LONGEST_DRAIN);
            failure(StatusCode::BAD_REQUEST, format!("{how_long} is too long; write at most {most}"))
        }
        Ok(how_long) => changed_site(&*source, &name, source.drain(&name, how_long)),
    }
}

pub(super) async fn undrain<S: Source>(State(source): State<Arc<S>>, Path(name): Path<String>) -> Response {
    changed_site(&*source, &name, source.undrain(&name))
}

fn changed_site(source: &impl Source, name: &str, site: Option<view::Site>) -> Response {
    match site {
        Some(site) => Json(site).into_response(),
        None => unknown("site", name, source.sites().iter().map(|site| site.name.as_str())),
    }
}

/// Who wants it longer disables the member in the federation's file.
const LONGEST_DRAIN: Duration = Duration::from_secs(30 * 86_400);
