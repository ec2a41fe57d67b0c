//! What the admin API answers: an entry per path in [`operations`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    ChoiceQuestion, Peer, ServerError, SessionError,
    access::{self, Access},
    choice_paths,
    openapi::document,
    operate,
    operation::Operation,
    sessions::Wanted,
    site_paths, view, write,
};
use crate::{names::same_name, pool::AdminState};

/// The live state, as far as the admin API shows and changes it. Looking changes nothing: no session is touched.
pub trait Source: Send + Sync + 'static {
    /// The page that Prometheus scrapes, text format 0.0.4.
    fn metrics(&self) -> String;

    /// What this node still waits for before it should get traffic, each as a sentence; empty: it is ready.
    fn missing(&self) -> Vec<String>;

    fn virtual_services(&self) -> Vec<view::VirtualService>;

    /// Site-persistence pools first, as Avi lists them.
    fn pools(&self) -> Vec<view::Pool>;

    fn gslb_services(&self) -> Vec<view::GslbRuntime>;

    /// GSLB services as they are configured.
    fn gslb_service_configs(&self) -> Vec<view::GslbServiceConfig>;

    /// How DNS would answer; `None`: no enabled service has the name.
    fn explain_choice(&self, question: &ChoiceQuestion) -> Option<view::ChoiceExplanation>;

    /// On behalf of `by`, lets members that wait for an operator have clients again, one of a service or all; `None`:
    /// there is no such service.
    fn resume_members(&self, service: &str, member: Option<&str>, by: &str) -> Option<view::Resumed>;

    /// What this site tells the others of itself.
    fn site_health(&self) -> view::SiteHealth;

    /// The sites of the federation.
    fn sites(&self) -> Vec<view::Site>;

    /// Empties a site, of which sessions may stay for `how_long`; `None`: there is no such site.
    fn drain(&self, site: &str, how_long: Duration) -> Option<view::Site>;

    /// Puts a site into service again; `None`: there is no such site.
    fn undrain(&self, site: &str) -> Option<view::Site>;
    /// Which configuration is in force.
    fn configuration(&self) -> view::Configuration;

    /// Loads the configuration again. What came of it is in the view, refused or not.
    fn reload(&self) -> impl Future<Output = view::Reload> + Send;
    /// The name of this site.
    fn site_name(&self) -> String;

    /// The other sites that have a member of a GSLB service.
    fn peers(&self, service: &str) -> Vec<Peer>;

    /// What becomes of a request with this site cookie; `None`: no virtual service of this name is enabled.
    fn explain(&self, vs: &str, cookie: &str) -> Option<view::Explanation>;

    fn site_cookie_keys(&self) -> Vec<view::SiteCookieKey>;

    fn session_tables(&self) -> Vec<view::SessionTable>;

    /// Entries of one of [`Source::session_tables`]: the one under `key`, or any
    /// [`view::Sessions::MOST`] of them, with one more where there are more.
    fn session_entries(&self, table: &str, key: Option<&str>) -> Vec<view::SessionEntry>;

    /// Each session that an operator may mean; at least one.
    fn explain_sessions(&self, wanted: &Wanted) -> Result<Vec<view::Explained>, SessionError>;

    /// Moves a session on behalf of `by`, with `force` to a server that is down; what it is now.
    fn move_session(
        &self,
        wanted: &Wanted,
        server: SocketAddr,
        force: bool,
        by: &str,
    ) -> Result<view::Explained, SessionError>;

    /// Ends a session on behalf of `by`; what it was.
    fn delete_session(&self, wanted: &Wanted, by: &str) -> Result<view::Explained, SessionError>;

    /// Commands a server of a pool on behalf of `by`; what it is now.
    fn order_server(
        &self,
        pool: &str,
        server: &str,
        state: AdminState,
        by: &str,
    ) -> Result<view::Server, ServerError>;
}

/// Everything that can be asked.
fn operations<S: Source>() -> Vec<Operation<S>> {
    vec![
        Operation::get("/metrics", metrics::<S>).says("The page that Prometheus scrapes"),
        Operation::get("/healthz", async || "ok\n").says("The process runs"),
        Operation::get("/readyz", readyz::<S>)
            .says("This node is ready for traffic")
            .or(503, "What it waits for, a line each"),
        Operation::get("/api/v1/openapi.json", openapi::<S>).shows::<Map<String, Value>>("This description"),
        Operation::get("/api/v1/virtualservices", virtual_services::<S>)
            .shows::<Vec<view::VirtualService>>("All virtual services"),
        Operation::get("/api/v1/virtualservices/{name}", virtual_service::<S>)
            .shows::<view::VirtualService>("A virtual service"),
        Operation::get("/api/v1/virtualservices/{name}/explain", explain::<S>)
            .shows::<view::Explanation>("What becomes of a request with a certain site cookie")
            .needs("cookie", "The site cookie's value, or NAME=VALUE"),
        Operation::get("/api/v1/pools", pools::<S>).shows::<Vec<view::Pool>>("All pools"),
        Operation::get("/api/v1/pools/{name}", pool::<S>).shows::<view::Pool>("A pool"),
        Operation::post("/api/v1/pools/{name}/servers/{addr}/{order}", operate::order_server::<S>)
            .shows::<view::Server>("Commands a server, IP:PORT: enable, disable or drain"),
        Operation::get("/api/v1/gslbservices/{name}/runtime", site_paths::gslb_runtime::<S>)
            .shows::<view::GslbRuntime>("A GSLB service, its members and what became of its requests")
            .takes("scope", "site: only what this site knows itself; left out: all sites are asked"),
        Operation::get("/api/v1/gslbservices", choice_paths::gslb_services::<S>)
            .shows::<Vec<view::GslbServiceConfig>>("The GSLB services as they are configured"),
        Operation::get("/api/v1/gslbservices/{name}", choice_paths::gslb_service::<S>)
            .shows::<view::GslbServiceConfig>("A GSLB service as it is configured"),
        Operation::post("/api/v1/gslbservices/{name}/resume", choice_paths::resume::<S>)
            .shows::<view::Resumed>("Lets members that came up again be answered with")
            .takes("member", "The one member that is meant; left out: all"),
        Operation::get("/api/v1/gslb/explain", choice_paths::explain::<S>)
            .shows::<view::ChoiceExplanation>("Which member DNS answers a client with, and why")
            .needs("client", "The client's address, or a network as in an EDNS client subnet")
            .needs("name", "The domain name that it asks for")
            .takes("type", "A or AAAA; left out: A"),
        Operation::get("/api/v1/gslb/health", choice_paths::site_health::<S>)
            .shows::<view::SiteHealth>("What this site knows of its members' health; for other sites"),
        Operation::get("/api/v1/gslb/sites", site_paths::sites::<S>)
            .shows::<Vec<view::Site>>("The sites of the federation"),
        Operation::get("/api/v1/gslb/sites/{name}", site_paths::site::<S>).shows::<view::Site>("A site"),
        Operation::post("/api/v1/gslb/sites/{name}/drain", site_paths::drain::<S>)
            .shows::<view::Site>("Empties a site")
            .needs("for", "How long its sessions may stay, such as 30m"),
        Operation::post("/api/v1/gslb/sites/{name}/undrain", site_paths::undrain::<S>)
            .shows::<view::Site>("Puts a site into service again"),
        Operation::get("/api/v1/keys", site_cookie_keys::<S>)
            .shows::<Vec<view::SiteCookieKey>>("The keys of the site cookies, never their secrets"),
        Operation::get("/api/v1/sessions", sessions::<S>)
            .shows::<view::Sessions>("The session tables, or entries of one")
            .takes("table", "The table whose entries are wanted")
            .takes("key", "The key of the one entry that is wanted; only with a table"),
        Operation::delete("/api/v1/sessions", operate::delete_session::<S>)
            .shows::<view::Explained>("Ends a session; what it was")
            .needs("token", TOKEN)
            .takes("table", TABLE)
            .takes("vs", VS),
        Operation::get("/api/v1/sessions/explain", operate::explain_session::<S>)
            .shows::<Vec<view::Explained>>("Where a session is, and why")
            .needs("token", TOKEN)
            .takes("table", TABLE)
            .takes("vs", VS),
        Operation::post("/api/v1/sessions/move", operate::move_session::<S>)
            .shows::<view::Explained>("Gives a session another server")
            .needs("token", TOKEN)
            .needs("server", "The server, IP:PORT")
            .takes("table", TABLE)
            .takes("vs", VS)
            .takes("force", "true: also to a server that drains or is down"),
        Operation::get("/api/v1/configuration", configuration::<S>)
            .shows::<view::Configuration>("Which configuration is in force"),
        Operation::post("/api/v1/reload", reload::<S>)
            .shows::<view::Reload>("Loads the configuration again; what changed")
            .or(422, "The configuration is refused, and the one before goes on; what is wrong"),
    ]
}

const TOKEN: &str =
    "The session: a token such as cookie:SID=abc, its value alone, or the session as copies carry it";
const TABLE: &str = "The session table in which it is looked for";
const VS: &str = "The virtual service in whose session tables it is looked for";

/// Every path.
pub(super) fn router<S: Source>(source: Arc<S>, access: Access) -> Router {
    let (open, guarded): (Vec<_>, Vec<_>) = operations::<S>().into_iter().partition(|it| it.is_open);
    let add = |router: Router<Arc<S>>, it: Operation<S>| router.route(it.path, it.handler);
    let guarded = guarded
        .into_iter()
        .fold(Router::new(), add)
        .layer(middleware::from_fn_with_state(access, access::admit))
        .layer(middleware::from_fn(write::guard));
    open.into_iter()
        .fold(guarded, add)
        .fallback(unknown_path::<S>)
        .method_not_allowed_fallback(unknown_method)
        .with_state(source)
}

/// An error that says what is wrong, in the shape of [`view::Failure`].
pub(super) fn failure(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(view::Failure { error: error.into() })).into_response()
}

async fn metrics<S: Source>(State(source): State<Arc<S>>) -> Response {
    // It counts the open files of the process, which may be many, and this thread may be one that serves requests.
    match tokio::task::spawn_blocking(move || source.metrics()).await {
        Ok(page) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(_) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, "the page of metrics panicked; the log has more")
        }
    }
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

#[derive(Deserialize)]
struct ExplainQuery {
    cookie: String,
}

async fn explain<S: Source>(
    State(source): State<Arc<S>>,
    Path(name): Path<String>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return failure(StatusCode::BAD_REQUEST, "the query takes cookie=VALUE, once");
    };
    match source.explain(&name, &query.cookie) {
        Some(explanation) => Json(explanation).into_response(),
        None => {
            let enabled = source.virtual_services().into_iter().filter(|vs| vs.enabled);
            let enabled: Vec<_> = enabled.map(|vs| vs.name).collect();
            unknown("virtual service", &name, enabled.iter().map(String::as_str))
        }
    }
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
    let name = table.name.clone();
    // It may walk the whole table, which requests on this thread must not wait for.
    let key = query.key.clone();
    let listed = tokio::task::spawn_blocking(move || source.session_entries(&name, key.as_deref())).await;
    let Ok(mut entries) = listed else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "the entries cannot be listed; see the log");
    };
    if query.key.is_some() && entries.is_empty() {
        let error = format!("session table {} has no entry under this key", table.name);
        return failure(StatusCode::NOT_FOUND, error);
    }
    let truncated = entries.len() > view::Sessions::MOST;
    entries.truncate(view::Sessions::MOST);
    Json(view::Sessions { tables: vec![table], entries, truncated }).into_response()
}

async fn configuration<S: Source>(State(source): State<Arc<S>>) -> Json<view::Configuration> {
    Json(source.configuration())
}

async fn reload<S: Source>(State(source): State<Arc<S>>) -> Response {
    let done = source.reload().await;
    let status = match done.result {
        view::ReloadResult::Success => StatusCode::OK,
        view::ReloadResult::Failure => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, Json(done)).into_response()
}

async fn openapi<S: Source>() -> Json<Value> {
    Json(document(&operations::<S>()))
}

async fn unknown_path<S: Source>(uri: Uri) -> Response {
    let known: Vec<_> = operations::<S>().iter().map(Operation::in_short).collect();
    let error = format!("path {} is not known; known: {}", uri.path(), known.join(", "));
    failure(StatusCode::NOT_FOUND, error)
}

async fn unknown_method(method: Method) -> Response {
    let help = match method {
        Method::GET | Method::HEAD => "this path is for a change; use POST",
        _ => "this path can only be read; use GET",
    };
    failure(StatusCode::METHOD_NOT_ALLOWED, help)
}

/// The object of that name, whatever the case in which it is asked for.
pub(super) fn named<T: Serialize>(
    kind: &str,
    name: &str,
    objects: Vec<T>,
    name_of: impl Fn(&T) -> &String,
) -> Response {
    match find(name, objects, &name_of) {
        Ok(object) => Json(object).into_response(),
        Err(objects) => unknown(kind, name, objects.iter().map(|object| name_of(object).as_str())),
    }
}

/// The same, or what there is instead.
pub(super) fn find<T>(name: &str, mut objects: Vec<T>, name_of: impl Fn(&T) -> &String) -> Result<T, Vec<T>> {
    let exact = objects.iter().position(|object| name_of(object) == name);
    match exact.or_else(|| objects.iter().position(|object| same_name(name_of(object), name))) {
        Some(at) => Ok(objects.swap_remove(at)),
        None => Err(objects),
    }
}

pub(super) fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Response {
    let known: Vec<_> = known.collect();
    let known =
        if known.is_empty() { "there are none".into() } else { format!("known: {}", known.join(", ")) };
    failure(StatusCode::NOT_FOUND, format!("{kind} {name} is not known; {known}"))
}
