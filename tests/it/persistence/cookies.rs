//! `http_cookie`: the client brings its server along.

use std::collections::BTreeSet;

use super::{COOKIE, order, servers, settles, site};
use crate::support::{
    certs::cert_for,
    client::{Browser, Connection, Request},
    config::{APP, Site, parse},
    eventually,
    homing::Homing,
    http2::Http2,
    origin::{Origin, hex},
    tls::{Profile, TlsClient},
};

#[tokio::test]
async fn a_browser_gets_one_cookie_and_stays_at_its_server() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), COOKIE).start().await;
    let mut used = BTreeSet::new();
    for _ in 0..3 {
        let mut browser = Browser::default();
        browser.cookies.insert("theme".into(), "dark".into());
        let first = browser.get(homing.addr, "/").await;
        let set = first.set_cookie("APP").expect("a cookie");
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
        assert_eq!(first.header("cache-control"), Some("private"));
        assert!(!set.contains(&servers[0].addr.ip().to_string()), "it hides the server");
        for _ in 0..5 {
            let answer = browser.get(homing.addr, "/").await;
            assert_eq!((answer.server(), answer.set_cookie("APP")), (first.server(), None));
            assert_eq!(answer.header("cache-control"), None);
        }
        used.insert(first.server().to_owned());
    }
    assert_eq!(used.len(), 3, "new sessions are balanced");
    for record in servers.iter().flat_map(Origin::requests) {
        assert_eq!(record.cookies(), "theme=dark", "the cookie is homing's own affair");
    }
    settles(&homing, "new", 3.0).await;
    settles(&homing, "kept", 15.0).await;
}

#[tokio::test]
async fn a_cookie_has_the_attributes_of_its_profile_and_is_secure_over_tls() {
    let app = Origin::start("app").await;
    let site = site(&[&app], COOKIE)
        .with(|yaml| {
            let cookie = &mut yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"];
            for (key, value) in
                [("timeout", "8h"), ("persistent", "true"), ("same_site", "strict"), ("path", "/pay")]
            {
                cookie[key] = parse(value);
            }
        })
        .tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    let client = TlsClient::new(Profile::TLS13);
    let answer =
        Connection::over(client.connect(homing.addr, "a.com").await).ask(&Request::get("/pay")).await;
    let set = answer.set_cookie("APP").expect("a cookie");
    let attributes = set.split_once(';').map(|(_, attributes)| attributes);
    assert_eq!(attributes, Some(" Path=/pay; Max-Age=28800; HttpOnly; SameSite=Strict; Secure"));
}

#[tokio::test]
async fn every_node_with_the_key_reads_the_cookie_and_a_restart_forgets_nothing() {
    let servers = servers().await;
    let one = site(&servers.each_ref(), COOKIE).start().await;
    let mut browser = Browser::default();
    let first = browser.get(one.addr, "/").await.server().to_owned();
    one.stop().await;
    let other = site(&servers.each_ref(), COOKIE).start().await;
    for _ in 0..4 {
        let answer = browser.get(other.addr, "/").await;
        assert_eq!((answer.server(), answer.set_cookie("APP")), (&*first, None));
    }
}

#[tokio::test]
async fn sessions_that_share_a_connection_are_told_apart_over_http1_and_http2() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), COOKIE).tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile::TLS13);
    let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let answer = connection.ask(&Request::get("/")).await;
        let cookie = answer.cookie("APP").expect("no session: a new one").to_owned();
        sessions.push((cookie, answer.server().to_owned()));
    }
    let http2 = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let http2 = Http2::over(http2.connect(homing.addr, "a.com").await).await;
    for _ in 0..4 {
        for (cookie, server) in &sessions {
            let request = Request::get("/").cookie("theme=dark").cookie(&format!("APP={cookie}"));
            assert_eq!(http2.ask(&request).await.server(), server);
            let request = Request::post("/", "body").cookie(&format!("theme=dark; APP={cookie}; x=y"));
            assert_eq!(connection.ask(&request).await.server(), server);
        }
    }
}

#[tokio::test]
async fn a_cookie_that_is_not_to_be_believed_is_counted_and_replaced() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), COOKIE).start().await;
    let good = Request::get("/").send(homing.addr).await.cookie("APP").expect("a cookie").to_owned();
    let mut forged = good.clone().into_bytes();
    forged[100] = if forged[100] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("still ASCII");
    let of_other_key = good.replacen("509ceebd", "00000000", 1);
    for (value, reason) in
        [(&*forged, "undecryptable"), ("10.0.0.1:80", "undecryptable"), (&*of_other_key, "unknown_key")]
    {
        let refused = || async {
            let labels = [("pool", APP), ("reason", reason)];
            homing.metric("homing_pool_persistence_cookies_refused_total", &labels).await
        };
        let before = refused().await;
        let answer = Request::get("/").cookie(&format!("APP={value}")).send(homing.addr).await;
        assert_eq!(answer.status, 200);
        assert!(answer.cookie("APP").is_some_and(|new| new != value), "{value}");
        assert_eq!(refused().await, before + 1.0, "{value}");
    }
    // Beside a forged one, that a neighbour set for the whole domain, the good one counts.
    let home = Request::get("/").cookie(&format!("APP={good}")).send(homing.addr).await.server().to_owned();
    for cookies in [format!("APP={forged}; APP={good}"), format!("APP={good}; APP={forged}")] {
        for _ in 0..3 {
            let answer = Request::get("/").cookie(&cookies).send(homing.addr).await;
            assert_eq!((answer.server(), answer.set_cookie("APP")), (&*home, None));
        }
    }
}

#[tokio::test]
async fn a_cookie_is_renewed_in_its_second_half_and_ends() {
    let servers = servers().await;
    let site = site(&servers.each_ref(), COOKIE).with(|yaml| {
        yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"]["timeout"] =
            "3s".into();
    });
    let homing = site.start().await;
    let first = Request::get("/").send(homing.addr).await;
    let request = Request::get("/").cookie(&format!("APP={}", first.cookie("APP").expect("a cookie")));
    eventually("the cookie is renewed, and names the same server", async || {
        let answer = request.send(homing.addr).await;
        let refused = homing.metric("homing_pool_persistence_cookies_refused_total", &[]).await;
        if refused == 0.0 {
            assert_eq!(answer.server(), first.server());
        }
        answer.set_cookie("APP").is_some()
    })
    .await;
    eventually("the first one has ended", async || {
        request.send(homing.addr).await;
        let labels = [("pool", APP), ("reason", "expired")];
        homing.metric("homing_pool_persistence_cookies_refused_total", &labels).await > 0.0
    })
    .await;
}

#[tokio::test]
async fn a_new_key_takes_over_without_a_session_moving() {
    let servers = servers().await;
    let mut site = site(&servers.each_ref(), COOKIE);
    let homing = site.start().await;
    let mut browser = Browser::default();
    let home = browser.get(homing.addr, "/").await.server().to_owned();
    let old = browser.cookies["APP"].clone();
    site = site.file("new.key", &hex(&[8; 32])).with(|yaml| {
        let cookie = &mut yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"];
        cookie["keys"] = parse(
            "[{ uuid: 509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69, key_file: app-cookie.key, state: retiring },
              { uuid: 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed, key_file: new.key, state: active }]",
        );
    });
    homing.reloaded(&site).await;
    assert_eq!(browser.get(homing.addr, "/").await.server(), home);
    assert_ne!(browser.cookies["APP"], old, "sealed anew");
    let answer = browser.get(homing.addr, "/").await;
    assert_eq!((answer.server(), answer.set_cookie("APP")), (&*home, None));
}

#[tokio::test]
async fn a_cookie_without_keys_names_the_server_by_a_hash_and_junk_names_nobody() {
    let servers = servers().await;
    let profile = "persistence_type: http_cookie, http_cookie_persistence_profile: { cookie_name: APP, always_send_cookie: true }";
    let homing = site(&servers.each_ref(), profile).start().await;
    let mut browser = Browser::default();
    let home = browser.get(homing.addr, "/").await.server().to_owned();
    let value = browser.cookies["APP"].clone();
    assert!(value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    for _ in 0..4 {
        let answer = browser.get(homing.addr, "/").await;
        assert_eq!((answer.server(), answer.cookie("APP")), (&*home, Some(&*value)), "always sent");
    }
    let junk = Request::get("/").cookie("APP=0123456789abcdef").send(homing.addr).await;
    assert!(junk.cookie("APP").is_some());
    let labels = [("pool", APP), ("reason", "unknown_server")];
    homing.settles("homing_pool_persistence_cookies_refused_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_session_whose_server_is_down_gets_another_and_a_cookie_for_it() {
    let servers = servers().await;
    let homing = monitored(site(&servers.each_ref(), COOKIE)).await;
    let mut browser = Browser::default();
    let home = browser.get(homing.addr, "/").await.server().to_owned();
    let gone = servers.iter().find(|server| server.name == home).expect("one of them answered");
    gone.down().await;
    // The first may come before the monitor sees it: the refused connection tells.
    let moved = browser.get(homing.addr, "/").await;
    assert_eq!(moved.status, 200);
    assert!(moved.server() != home && moved.set_cookie("APP").is_some());
    homing.sees(APP, gone.addr, false).await;
    assert_eq!(browser.get(homing.addr, "/").await.server(), moved.server());
    gone.up().await;
    homing.sees(APP, gone.addr, true).await;
    for _ in 0..4 {
        let answer = browser.get(homing.addr, "/").await;
        assert_eq!((answer.server(), answer.set_cookie("APP")), (moved.server(), None), "no flap back");
    }
    settles(&homing, "moved", 1.0).await;
}

#[tokio::test]
async fn a_server_that_drains_keeps_its_browsers_and_one_that_is_disabled_does_not() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), COOKIE).start().await;
    let mut browser = Browser::default();
    let home = browser.get(homing.addr, "/").await.server().to_owned();
    let server = servers.iter().find(|server| server.name == home).expect("one of them answered");
    order(&homing, server, "drain").await;
    for _ in 0..4 {
        assert_eq!(browser.get(homing.addr, "/").await.server(), home);
        assert_ne!(Request::get("/").send(homing.addr).await.server(), home, "a new session");
    }
    order(&homing, server, "disable").await;
    let moved = browser.get(homing.addr, "/").await;
    assert!(moved.server() != home && moved.set_cookie("APP").is_some());
}

async fn monitored(site: Site) -> Homing {
    site.monitored(APP, "tcp").start().await
}
