//! The admin API as its clients see it.

mod configured;
mod description;
mod fixtures;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::fixtures::{Running, terms};
use super::{view::example, *};

#[tokio::test]
async fn every_path_answers_with_its_view_or_says_what_is_wrong() {
    let admin = Running::start("127.0.0.1:0", &[], Terms::default()).await;
    for (request, status, part) in [
        ("GET /metrics", 200, "content-type: text/plain; version=0.0.4"),
        ("GET /metrics", 200, "homing_build_info 1"),
        ("GET /healthz", 200, "ok"),
        ("GET /readyz", 200, "ready"),
        ("GET /api/v1/virtualservices", 200, r#"[{"uuid":"virtualservice-dc871051"#),
        ("GET /api/v1/virtualservices/PAY@SITE_a", 200, r#""sp_pool_refs":["SP-gs-1-pay@site_A"]"#),
        (
            "GET /api/v1/virtualservices/pay",
            404,
            r#"{"error":"virtual service pay is not known; known: pay@site_A, ship"}"#,
        ),
        ("GET /api/v1/pools", 200, r#""name":"pay""#),
        ("GET /api/v1/pools/sp-gs-1-pay@site_a", 200, r#""graceful_disable_timeout":"1m""#),
        ("GET /api/v1/pools/pay", 200, r#""reason":"5 failures in a row, the last: refused","time":"1m""#),
        ("GET /api/v1/pools/pya", 404, "known: SP-gs-1-pay@site_A, pay, empty"),
        ("GET /api/v1/gslbservices/GS-1/runtime", 200, r#""fraction_proxied":0.125"#),
        ("GET /api/v1/gslbservices/GS-1/runtime", 200, r#""missing":"not asked: it has no `admin_url`"#),
        ("GET /api/v1/gslbservices/GS-1/runtime?scope=site", 200, r#""fraction_proxied":0.125}"#),
        ("GET /api/v1/gslbservices/GS-1/runtime?scope=all", 400, "the query takes scope=site"),
        ("GET /api/v1/virtualservices/pay@site_A/explain?cookie=1S", 200, r#""outcome":"proxied""#),
        ("GET /api/v1/virtualservices/pay@site_A/explain", 400, "the query takes cookie=VALUE"),
        ("GET /api/v1/virtualservices/ship/explain?cookie=1S", 404, "known: pay@site_A\""),
        ("GET /api/v1/gslbservices/gs-2/runtime", 404, "GSLB service gs-2 is not known; known: gs-1"),
        ("GET /api/v1/keys", 200, r#""state":"active","age_seconds":950400,"seals":7,"concerns":["age"]"#),
        ("GET /api/v1/sessions", 200, r#""entries":[]"#),
        ("GET /api/v1/sessions?table=clone:PAY@site_A:my_clonepool", 200, r#""truncated":true"#),
        ("GET /api/v1/sessions?table=clone%3Apay@site_A%3AMY_CLONEPOOL&key=alice", 200, "60303ae22b998861"),
        ("GET /api/v1/sessions?table=clone:pay@site_A:MY_CLONEPOOL&key=bob", 404, "no entry under this key"),
        ("GET /api/v1/sessions?table=ssl", 200, r#""entries":[],"truncated":false"#),
        ("GET /api/v1/sessions?table=tls", 404, "known: ssl, clone:pay@site_A:MY_CLONEPOOL"),
        ("GET /api/v1/sessions?key=alice", 400, "add table=NAME"),
        ("GET /api/v1/sessions?table=ssl&table=ssl", 400, r#"{"error":"the query takes"#),
        ("GET /api/v1/pool", 404, "path /api/v1/pool is not known; known: /metrics"),
        ("POST /api/v1/pools", 405, r#"{"error":"this path can only be read"#),
        ("DELETE /metrics", 405, "use GET"),
        ("GET /api/v1/gslbservices", 200, r#"[{"uuid":"gslbservice-ff1b4e8d"#),
        ("GET /api/v1/gslbservices/GS-1", 200, r#""down_response":{"type":"none"}"#),
        ("GET /api/v1/gslbservices/gs-2", 404, "GSLB service gs-2 is not known; known: gs-1"),
        ("GET /api/v1/gslb/explain?client=192.0.2.1&name=A.com.", 200, r#""reason":"round_robin""#),
        (
            "GET /api/v1/gslb/explain?client=192.0.2.1&name=b.com",
            404,
            "domain name b.com is not known; known: a.com",
        ),
        ("GET /api/v1/gslb/explain?client=x&name=a.com", 400, "client x is not an address"),
        ("GET /api/v1/gslb/explain?client=::1&name=a.com&type=MX", 400, "write A or AAAA"),
        ("GET /api/v1/gslb/explain?name=a.com", 400, "the query takes client=ADDRESS and name=NAME"),
        ("GET /api/v1/gslb/health", 200, r#""drain_state":"IN_SERVICE","virtual_services":[{"vs_uuid""#),
        ("POST /api/v1/gslbservices/gs-1/resume?member=site_B", 200, r#""resumed":["site_B"]"#),
        ("POST /api/v1/gslbservices/gs-1/resume", 200, r#""resumed":[]"#),
        ("POST /api/v1/gslbservices/gs-2/resume", 404, "known: gs-1"),
        ("GET /api/v1/gslbservices/gs-1/resume", 405, "use POST"),
        ("GET /api/v1/gslb/sites", 200, r#"[{"name":"site_A","cluster_uuid":"cluster-of-site_A"#),
        ("GET /api/v1/gslb/sites/SITE_a", 200, r#""pinned_sessions":412"#),
        ("GET /api/v1/gslb/sites/site_C", 404, "site site_C is not known; known: site_A, site_B"),
        ("POST /api/v1/gslb/sites/site_A/drain?for=30m", 200, r#""drain_state":"DRAINING""#),
        ("POST /api/v1/gslb/sites/site_A/drain?for=0s", 200, r#""is_own":true"#),
        ("POST /api/v1/gslb/sites/site_C/drain?for=30m", 404, "known: site_A, site_B"),
        ("POST /api/v1/gslb/sites/site_A/drain", 400, "add for=30m"),
        ("POST /api/v1/gslb/sites/site_A/drain?for=30", 400, "`30` is not a duration"),
        ("POST /api/v1/gslb/sites/site_A/drain?for=31d", 400, "at most 30days"),
        ("POST /api/v1/gslb/sites/site_A/undrain", 200, r#""name":"site_A""#),
        ("POST /api/v1/gslb/sites/site_C/undrain", 404, "known: site_A, site_B"),
        ("GET /api/v1/gslb/sites/site_A/drain", 405, "use POST"),
        ("GET /api/v1/configuration", 200, r#""file":"conf/homing.yaml""#),
        ("POST /api/v1/reload", 200, r#""added":["new"]"#),
        ("GET /api/v1/reload", 405, "use POST"),
        ("POST /api/v1/reload\nOrigin: http://evil.example\r\n", 403, "for another page"),
        ("GET /api/v1/sessions/explain?token=alice", 200, r#"[{"table":"clone:pay@site_A:MY_CLONEPOOL""#),
        ("GET /api/v1/sessions/explain?vs=pay&key=alice", 200, r#""token":"cookie:SID","session":"60303"#),
        ("GET /api/v1/sessions/explain?token=bob", 404, "no session is known by this token"),
        ("GET /api/v1/sessions/explain?token=", 400, "the query takes token=TOKEN"),
        ("GET /api/v1/sessions/explain?token=a&vs=b&table=c", 400, "table=NAME or vs=NAME"),
        ("GET /api/v1/sessions/explain?token=a&tabel=c", 400, "each at most once"),
        ("GET /api/v1/sessions/move?token=alice&server=127.0.0.1:1", 405, "use POST"),
        ("POST /api/v1/sessions/move?token=alice&server=127.0.0.1:1&force=true", 200, r#""why":"ordered"#),
        ("POST /api/v1/sessions/move?token=alice&server=127.0.0.1:1", 409, "drains"),
        ("POST /api/v1/sessions/move?token=alice&server=here", 400, "server here is not an address"),
        ("POST /api/v1/sessions/move?token=alice", 400, "server=IP:PORT"),
        ("DELETE /api/v1/sessions?token=alice", 200, "60303ae22b998861"),
        ("DELETE /api/v1/sessions?table=t&token=alice", 404, "table t is not known; there are none"),
        ("DELETE /api/v1/sessions", 400, "the query takes token=TOKEN"),
        ("POST /api/v1/pools/pay/servers/127.0.0.1:11301/drain", 200, r#""state":"draining","by":"#),
        ("POST /api/v1/pools/pay/servers/127.0.0.1:11301/stop", 404, "known: enable, drain, disable"),
        ("POST /api/v1/pools/x/servers/y/drain", 404, "pool x has no server y; servers: 127.0.0.1:11301"),
        ("GET /api/v1/pools/pay/servers/127.0.0.1:11301/drain", 405, "use POST"),
        (
            "POST /api/v1/pools/pay/servers/127.0.0.1:11301/drain\nOrigin: http://evil.example\r\n",
            403,
            "for another page",
        ),
        ("DELETE /api/v1/sessions?token=alice\nSec-Fetch-Site: cross-site\r\n", 403, "for another page"),
    ] {
        let (got, answer) = admin.ask(request).await;
        assert_eq!(got, status, "{request}: {answer}");
        assert!(answer.contains(part), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_refused_reload_is_no_success() {
    let admin = Running::start_with("127.0.0.1:0", &[], Terms::default(), example::refused_reload()).await;
    let (status, answer) = admin.ask("POST /api/v1/reload").await;
    assert_eq!(status, 422, "{answer}");
    for part in ["pools[pay].lb_algoritm", r#""error":"the configuration has 2 problems"#] {
        assert!(answer.contains(part), "{answer}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_what_is_missing() {
    let missing = ["pool pay has no health result yet", "listener 127.0.0.1:80 does not accept yet"];
    let admin = Running::start("127.0.0.1:0", &missing, Terms::default()).await;
    let (status, answer) = admin.ask("GET /readyz").await;
    assert_eq!(status, 503);
    assert!(answer.ends_with(&(missing.join("\n") + "\n")), "{answer}");
    assert_eq!(admin.ask("GET /healthz").await.0, 200);
}

#[tokio::test]
async fn beyond_loopback_the_views_ask_for_the_token() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("written");
    let token = || terms(Some(&file), &[]);
    let right = "GET /api/v1/pools\nAuthorization: Bearer 0123456789abcdef\r\n";
    let wrong = "GET /api/v1/pools\nAuthorization: Bearer 0123456789abcdeg\r\n";
    for (listen, terms, request, status) in [
        ("0.0.0.0:0", token(), right, 200),
        ("0.0.0.0:0", token(), wrong, 401),
        ("0.0.0.0:0", token(), "GET /api/v1/pools", 401),
        ("0.0.0.0:0", token(), "POST /api/v1/reload", 401),
        ("0.0.0.0:0", token(), "GET /api/v1/nothing", 404),
        ("0.0.0.0:0", token(), "POST /api/v1/gslb/sites/site_A/undrain", 401),
        ("0.0.0.0:0", Terms::default(), "POST /api/v1/gslb/sites/site_A/undrain", 403),
        ("0.0.0.0:0", token(), "POST /api/v1/pools/pay/servers/127.0.0.1:11301/drain", 401),
        ("0.0.0.0:0", token(), "DELETE /api/v1/sessions?token=alice", 401),
        ("0.0.0.0:0", token(), "GET /metrics", 200),
        ("0.0.0.0:0", token(), "GET /healthz", 200),
        ("0.0.0.0:0", token(), "GET /readyz", 200),
        ("0.0.0.0:0", Terms::default(), right, 403),
        ("0.0.0.0:0", Terms::default(), "GET /metrics", 200),
        ("127.0.0.1:0", token(), "GET /api/v1/pools", 200),
    ] {
        let admin = Running::start(listen, &[], terms).await;
        let (got, answer) = admin.ask(request).await;
        assert_eq!(got, status, "{listen}, {request}: {answer}");
    }
}

#[tokio::test]
async fn on_loopback_a_page_that_came_by_a_name_of_its_own_is_told_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef").expect("written");
    let admin = Running::start("127.0.0.1:0", &[], terms(Some(&file), &["homing.internal"])).await;
    for (request, status) in [
        ("GET /api/v1/pools\nHost: evil.example\r\n", 403),
        ("GET /api/v1/pools\nHost: evil.example:9901\r\n", 403),
        ("POST /api/v1/reload\nHost: evil.example\r\n", 403),
        ("GET /api/v1/pools\nHost: evil.example\r\nAuthorization: Bearer 0123456789abcdef\r\n", 200),
        ("GET /api/v1/pools\nHost: 127.0.0.1:9901\r\n", 200),
        ("GET /api/v1/pools\nHost: localhost:9901\r\n", 200),
        ("GET /api/v1/pools\nHost: Homing.Internal:9901\r\n", 200),
        ("GET /metrics\nHost: evil.example\r\n", 200),
    ] {
        let (got, answer) = admin.ask(request).await;
        assert_eq!(got, status, "{request}: {answer}");
        let says = answer.contains("host evil.example is not known here; ask by an address or localhost");
        assert_eq!(says, status == 403, "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_token_may_change_while_connections_are_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("token");
    let token = |text: &str| {
        std::fs::write(&file, text).expect("written");
        terms(Some(&file), &[])
    };
    let admin = Running::start("0.0.0.0:0", &[], token("0123456789abcdef")).await;
    let request = "GET /api/v1/pools\nAuthorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(admin.ask(request).await.0, 200);
    admin.terms.set(token("fedcba9876543210"));
    assert_eq!(admin.ask(request).await.0, 401);
    admin.terms.set(Terms::default());
    assert_eq!(admin.ask(request).await.0, 403);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let admin = Running::start("127.0.0.1:0", &[], Terms::default()).await;
    let huge = format!("GET /healthz\nX: {}\r\n", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(("127.0.0.1", admin.port)).await.expect("it accepts");
    let request = huge.replacen('\n', " HTTP/1.1\r\n", 1);
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", answer.escape_ascii());
}
