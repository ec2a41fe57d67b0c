//! App persistence: sessions that stay at their servers, by whatever they are known.

mod cookies;
mod rules;
mod servers;
mod tables;
mod tls;

use crate::support::{
    client::{Connection, Request},
    config::{APP, Site},
    homing::Homing,
    origin::{Origin, hex},
};

/// Three servers that take turns, so that a session which is not kept is seen to move at once.
async fn servers() -> [Origin; 3] {
    [Origin::start("a").await, Origin::start("b").await, Origin::start("c").await]
}

/// A site whose pool keeps sessions by this profile: its keys as YAML, without the name.
fn site(servers: &[&Origin], profile: &str) -> Site {
    keeping(Site::new(servers), profile)
}

/// The same of any site.
fn keeping(site: Site, profile: &str) -> Site {
    site.file("app-cookie.key", &hex(&[7; 32]))
        .push("application_persistence_profiles", &format!("{{name: sticky, {profile}}}"))
        .with(|yaml| yaml["pools"][0]["application_persistence_profile_ref"] = "sticky".into())
}

/// A sealed cookie `APP` of homing's.
const COOKIE: &str = "persistence_type: http_cookie, http_cookie_persistence_profile: { cookie_name: APP,
    keys: [{ uuid: 509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69, key_file: app-cookie.key, state: active }] }";

const HEADER: &str =
    "persistence_type: custom_http_header, hdr_persistence_profile: { prst_hdr_name: X-Session }";

/// A request of a session that a header names.
fn of(session: &str) -> Request {
    Request::get("/").header("X-Session", session)
}

/// The server that answers it, on a connection of its own.
async fn server_of(homing: &Homing, request: &Request) -> String {
    let answer = request.send(homing.addr).await;
    assert_eq!(answer.status, 200);
    answer.server().to_owned()
}

/// The server that answers it, so many times on one connection.
async fn stays(homing: &Homing, request: &Request, times: usize) -> String {
    let mut client = Connection::open(homing.addr).await;
    let first = client.ask(request).await.server().to_owned();
    for n in 1..times {
        assert_eq!(client.ask(request).await.server(), first, "request {n} of {request:?}");
    }
    first
}

/// Has an operator say something of a server of the app.
async fn order(homing: &Homing, server: &Origin, verb: &str) {
    let output = homing.command(&["pool", APP, "server", &server.addr.to_string(), verb]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
}

/// How many requests' sessions had this outcome.
async fn settles(homing: &Homing, outcome: &str, at: f64) {
    homing.settles("homing_pool_persistence_total", &[("pool", APP), ("outcome", outcome)], at).await;
}
