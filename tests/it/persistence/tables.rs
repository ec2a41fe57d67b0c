//! Sessions in the session table: `client_ip`, `app_cookie`, `custom_http_header`.

use std::{collections::BTreeSet, net::IpAddr};

use bytes::Bytes;

use super::{HEADER, of, server_of, servers, settles, site, stays};
use crate::support::{
    client::{Answer, Connection, Request},
    config::APP,
    eventually,
    homing::Homing,
    lines::{lines, logged},
    origin::{Mode, Origin},
};

const CLIENT_IP: &str = "persistence_type: client_ip";
const APP_COOKIE: &str =
    "persistence_type: app_cookie, app_cookie_persistence_profile: { prst_hdr_name: SID }";

/// What a client at this address is answered, on a connection of its own.
async fn from(homing: &Homing, address: [u8; 4]) -> Answer {
    let client = Connection::open_from(IpAddr::from(address), homing.addr).await;
    client.expect("all of 127.0.0.0/8 is this machine").ask(&Request::get("/")).await
}

#[tokio::test]
async fn a_client_keeps_its_server_and_another_has_its_own() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), CLIENT_IP).start().await;
    let mut used = BTreeSet::new();
    for last in 1..=3 {
        let home = from(&homing, [127, 7, 7, last]).await.server().to_owned();
        for _ in 0..5 {
            assert_eq!(from(&homing, [127, 7, 7, last]).await.server(), home);
        }
        used.insert(home);
    }
    assert_eq!(used.len(), 3, "new sessions are balanced");
    settles(&homing, "new", 3.0).await;
    settles(&homing, "kept", 15.0).await;
    let output = homing.command(&["show", "session", "persist:app", "source_ip=127.7.7.2"]).await;
    let server = from(&homing, [127, 7, 7, 2]).await.server().to_owned();
    let server = servers.iter().find(|it| it.name == server).expect("one of them").addr.to_string();
    assert!(output.code == Some(0) && output.stdout.contains(&server), "{}", output.text());
}

#[tokio::test]
async fn a_mask_makes_one_client_of_a_network() {
    let servers = servers().await;
    let profile =
        "persistence_type: PERSISTENCE_TYPE_CLIENT_IP_ADDRESS, ip_persistence_profile: { ip_mask: 24 }";
    let homing = site(&servers.each_ref(), profile).start().await;
    let home = from(&homing, [127, 7, 7, 1]).await.server().to_owned();
    for last in 2..10 {
        assert_eq!(from(&homing, [127, 7, 7, last]).await.server(), home);
    }
    let neighbours = [from(&homing, [127, 7, 8, 1]).await, from(&homing, [127, 7, 9, 1]).await];
    assert!(neighbours.iter().all(|answer| answer.server() != home), "they take their turns");
}

#[tokio::test]
async fn a_session_that_is_silent_for_its_timeout_is_forgotten() {
    let servers = servers().await;
    let profile = "persistence_type: client_ip, ip_persistence_profile: { ip_persistent_timeout: 300ms }";
    let homing = site(&servers.each_ref(), profile).start().await;
    from(&homing, [127, 7, 7, 1]).await;
    eventually("the session has ended", async || {
        homing.json("/api/v1/sessions?table=persist:app").await["entries"]
            .as_array()
            .is_some_and(Vec::is_empty)
    })
    .await;
    from(&homing, [127, 7, 7, 1]).await;
    settles(&homing, "new", 2.0).await;
}

#[tokio::test]
async fn requests_that_begin_a_session_at_the_same_time_go_to_one_server() {
    let servers = servers().await;
    for server in &servers {
        server.set(Mode::Held);
    }
    let homing = site(&servers.each_ref(), HEADER).start().await;
    for round in 0..5 {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(Connection::open(homing.addr).await);
        }
        let request = of(&format!("session-{round}"));
        for client in &mut clients {
            client.send(&request).await.expect("the request is read");
        }
        let total = || servers.iter().map(|server| server.requests().len()).sum::<usize>();
        eventually("all have come", async || total() == 8).await;
        let got = servers.each_ref().map(|server| server.take().len());
        assert!(got.contains(&8), "one session is split: {got:?}");
        servers.iter().zip(got).for_each(|(server, got)| server.release(got));
        for client in &mut clients {
            assert_eq!(client.answer().await.expect("an answer").status, 200);
        }
    }
    eventually("each request is accounted for", async || {
        homing.metric("homing_pool_persistence_total", &[("pool", APP)]).await == 40.0
    })
    .await;
}

/// An answer that gives the session a name by a header field.
fn naming(server: &str, field: &str) -> Mode {
    Mode::Raw(Bytes::from(format!(
        "HTTP/1.1 200 OK\r\nX-Server: {server}\r\n{field}\r\nContent-Length: 0\r\n\r\n"
    )))
}

#[tokio::test]
async fn a_cookie_that_the_app_sets_brings_its_client_back_to_who_set_it() {
    let servers = servers().await;
    for server in &servers {
        let set = format!("Set-Cookie: SID=of-{}; Path=/; HttpOnly", server.name);
        server.set(naming(&server.name, &set));
    }
    let homing = site(&servers.each_ref(), APP_COOKIE).start().await;
    for _ in 0..3 {
        assert!(Request::get("/login").send(homing.addr).await.cookie("SID").is_some());
    }
    settles(&homing, "new", 3.0).await;
    servers.iter().for_each(|server| server.set(Mode::Ok));
    for server in &servers {
        let request = Request::get("/").cookie(&format!("theme=dark; SID=of-{}", server.name));
        assert_eq!(stays(&homing, &request, 4).await, server.name);
        let query = Request::get(&format!("/?a=b&SID=of-{}", server.name));
        assert_eq!(stays(&homing, &query, 2).await, server.name, "a client without cookies");
        assert!(
            servers
                .iter()
                .flat_map(Origin::take)
                .all(|it| it.cookies().is_empty() || it.cookies().contains("SID="))
        );
    }
}

#[tokio::test]
async fn an_app_cookie_that_nobody_was_seen_to_set_keeps_its_session_from_its_first_use() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), APP_COOKIE).start().await;
    let homes = [
        stays(&homing, &Request::get("/").cookie("SID=1"), 4).await,
        stays(&homing, &Request::get("/").cookie("SID=2"), 4).await,
        stays(&homing, &Request::get("/").cookie("SID=3"), 4).await,
    ];
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3, "{homes:?}");
    for _ in 0..3 {
        server_of(&homing, &Request::get("/").cookie("other=1; SID=")).await;
    }
    settles(&homing, "none", 3.0).await;
    assert_eq!(
        servers.each_ref().map(|server| server.requests().len()),
        [5; 3],
        "without a session they take turns"
    );
}

#[tokio::test]
async fn a_login_that_changes_the_cookie_stays_where_it_was() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), APP_COOKIE).start().await;
    let home = server_of(&homing, &Request::get("/").cookie("SID=guest")).await;
    let server = servers.iter().find(|server| server.name == home).expect("one of them answered");
    server.set(naming(&home, "Set-Cookie: SID=known"));
    server_of(&homing, &Request::get("/login").cookie("SID=guest")).await;
    server.set(Mode::Ok);
    assert_eq!(stays(&homing, &Request::get("/").cookie("SID=known"), 4).await, home);
}

#[tokio::test]
async fn a_header_names_a_session_and_servers_may_give_it_first() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), HEADER).start().await;
    let homes = [
        stays(&homing, &of("1"), 4).await,
        stays(&homing, &of("2"), 4).await,
        stays(&homing, &of("3"), 4).await,
    ];
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3, "{homes:?}");
    for server in &servers {
        server.set(naming(&server.name, &format!("X-Session: given-by-{}", server.name)));
    }
    for _ in 0..3 {
        server_of(&homing, &Request::get("/begin")).await;
    }
    servers.iter().for_each(|server| server.set(Mode::Ok));
    for server in &servers {
        assert_eq!(stays(&homing, &of(&format!("given-by-{}", server.name)), 3).await, server.name);
    }
}

#[tokio::test]
async fn clients_of_different_sessions_share_a_connection_and_keep_their_servers() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), HEADER).start().await;
    let mut client = Connection::open(homing.addr).await;
    let mut homes = Vec::new();
    for session in ["1", "2", "3"] {
        homes.push(client.ask(&of(session)).await.server().to_owned());
    }
    for _ in 0..4 {
        for (session, home) in ["1", "2", "3"].iter().zip(&homes) {
            assert_eq!(client.ask(&of(session)).await.server(), home);
        }
    }
}

#[tokio::test]
async fn the_access_log_and_show_tell_of_persistence() {
    let servers = servers().await;
    let homing = logged(site(&servers.each_ref(), HEADER), "").start().await;
    // On one connection, so that the lines are in order.
    stays(&homing, &of("1"), 2).await;
    let said = lines(&homing, 2).await;
    let said: Vec<_> = said.iter().map(|line| line["persistence"].as_str()).collect();
    assert_eq!(said, [None, Some("kept")]);
    let pool = homing.json("/api/v1/pools/app").await;
    assert_eq!(pool["app_persistence"]["application_persistence_profile_ref"], "sticky", "{pool:#}");
    assert_eq!(pool["app_persistence"]["persistence_type"], "custom_http_header");
    assert_eq!(pool["app_persistence"]["session_table"], "persist:app");
    let vs = homing.json("/api/v1/virtualservices/web").await;
    assert_eq!(vs["application_persistence_profile_ref"], "sticky", "{vs:#}");
    let output = homing.command(&["show", "pool", "app"]).await;
    assert!(output.stdout.contains("custom_http_header"), "{}", output.text());
}
