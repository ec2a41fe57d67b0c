//! The ids of requests and traces, from end to end.

use serde_json::json;

use crate::{
    sites::ask_as,
    support::{
        client::{Answer, Request},
        config::{Federation, Site},
        copies::{self, Mark},
        homing::Homing,
        lines::{self, line, logged},
        origin::Origin,
        site_cookie::B,
    },
};

/// What takes over the ids of clients on this machine.
const TRUSTING: &str = "request_id: {trusted_peers: [127.0.0.0/8], to_client: true}";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_trusted_peers_id_is_the_same_at_the_server_the_clone_member_and_in_the_log() {
    let (app, member) = (Origin::start("app").await, Origin::start("member").await);
    let site = Site::new(&[&app]).clone_to(&[&member]).http(TRUSTING);
    let homing = logged(site, "").start().await;
    let id = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    let answer = Request::get("/").header("X-Request-Id", id).send(homing.addr).await;
    assert_eq!(answer.headers.all("x-request-id"), [id]);
    assert_eq!(app.requests()[0].headers.all("x-request-id"), [id]);
    let (_, copy) = copies::copies(&[&member], 1).await.remove(0);
    assert_eq!((Mark::of(&copy).id.as_str(), copy.headers.all("x-request-id")), (id, vec![id]));
    assert_eq!(line(&homing).await["request_id"], id);
}

#[tokio::test]
async fn an_id_that_nobody_trusts_or_that_could_not_travel_is_replaced() {
    let app = Origin::start("app").await;
    let of_others = logged(Site::new(&[&app]).http("request_id: {trusted_peers: [203.0.113.0/24]}"), "");
    let trusting = logged(Site::new(&[&app]).http(TRUSTING), "");
    let nobodys = logged(Site::new(&[&app]), "");
    for (site, ids) in [
        (nobodys, &["forged"][..]),
        (of_others, &["forged"]),
        (trusting.clone(), &["a;mac=1"]),
        (trusting.clone(), &["one", "two"]),
        (trusting, &[]),
    ] {
        let homing = site.start().await;
        let request = ids.iter().fold(Request::get("/"), |request, id| request.header("X-Request-Id", id));
        request.send(homing.addr).await;
        let line = line(&homing).await;
        let id = line["request_id"].as_str().expect("it has one");
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(app.take()[0].headers.all("x-request-id"), [id], "{ids:?}");
    }
}

#[tokio::test]
async fn without_an_access_log_an_id_is_a_field_like_any_other_unless_it_is_wanted() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    Request::get("/").header("X-Request-Id", "theirs").send(homing.addr).await;
    assert_eq!(app.take()[0].headers.all("x-request-id"), ["theirs"]);
    let homing = Site::new(&[&app]).http("request_id: {to_server: true}").start().await;
    Request::get("/").header("X-Request-Id", "theirs").send(homing.addr).await;
    let told = app.take()[0].headers.get("x-request-id").map(str::to_owned).expect("the server is told");
    assert!(told != "theirs" && told.len() == 16, "{told}");
    let homing = logged(Site::new(&[&app]).http("request_id: {to_server: false}"), "").start().await;
    Request::get("/").send(homing.addr).await;
    assert_eq!(app.take()[0].headers.all("x-request-id"), Vec::<&str>::new());
}

#[tokio::test]
async fn an_answer_of_homing_itself_tells_the_id_too() {
    let gone = Origin::absent("gone").await;
    let homing = logged(Site::new(&[&gone]).http(TRUSTING), "").start().await;
    let answer: Answer = Request::get("/").header("X-Request-Id", "mine").send(homing.addr).await;
    assert_eq!((answer.status, answer.header("x-request-id")), (503, Some("mine")));
}

#[tokio::test]
async fn a_trusted_id_crosses_the_federation() {
    let fed = Federation::new();
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let b = logged(fed.site_b(&[&app_b]), "").start().await;
    let a: Homing = logged(fed.site_a(&[&app_a]).http(TRUSTING), "").start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    let cookie = crate::support::site_cookie::Cookie::of(B).seal();
    let request = Request::get("/").cookie(&format!("FOO={cookie}")).header("X-Request-Id", "order-4711");
    assert_eq!(request.send(a.addr).await.server(), "b");
    let (entry, home) = (line(&a).await, line(&b).await);
    assert_eq!([&entry["request_id"], &home["request_id"]], ["order-4711", "order-4711"]);
    assert_eq!(app_b.requests()[0].headers.all("x-request-id"), ["order-4711"]);
    ask_as(B, &a).await;
    let (entry, home) = (lines::lines(&a, 2).await, lines::lines(&b, 2).await);
    assert_eq!(entry[1]["request_id"], home[1]["request_id"]);
    assert_ne!(entry[1]["request_id"], "order-4711");
}

#[tokio::test]
async fn a_trace_goes_on_as_it_came_and_is_told() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]), "").start().await;
    let traces = [(TRACE, json!("4bf92f3577b34da6a3ce929d0e0e4736")), ("00-nonsense", json!(null))];
    for (n, (trace, id)) in traces.into_iter().enumerate() {
        let request = Request::get("/").header("traceparent", trace).header("tracestate", "a=1,b=2");
        request.send(homing.addr).await;
        let got = app.take().remove(0);
        assert_eq!([got.header("traceparent"), got.header("tracestate")], [Some(trace), Some("a=1,b=2")]);
        // Each line before the next request: lines of two connections may come in any order.
        assert_eq!(lines::lines(&homing, n + 1).await[n]["trace_id"], id);
    }
}
