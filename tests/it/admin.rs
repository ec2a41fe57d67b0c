//! Seeing it: metrics, readiness, the JSON views, and the commands that show them.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use crate::{
    sites::{Sites, ask_as},
    support::{
        after,
        client::Request,
        config::{APP, CLONES, Federation, Site},
        eventually,
        homing::{run, run_in},
        origin::Origin,
        site_cookie::{A, B, Cookie},
    },
};

#[tokio::test]
async fn it_is_ready_when_the_first_health_results_are_in() {
    let app = Origin::start("app").await;
    app.set(crate::support::origin::Mode::NeverRead);
    let site = Site::new(&[&app]).monitored(APP, "http").with(|yaml| {
        yaml["health_monitors"][0]["receive_timeout"] = "60s".into();
    });
    let homing = crate::support::homing::Homing::spawn(&site).await;
    let get = async |path: &str| match tokio::net::TcpStream::connect(homing.admin).await {
        Ok(stream) => {
            let mut client = crate::support::client::Connection::over(stream);
            client.try_ask(&Request::get(path).host("admin")).await.map(|answer| answer.status).unwrap_or(0)
        }
        Err(_) => 0,
    };
    eventually("it is alive", async || get("/healthz").await == 200).await;
    app.began_connection(1).await;
    assert_eq!(get("/readyz").await, 503, "no health result yet");
    let health = homing.command(&["health"]).await;
    let said = format!("not ready:\npool {APP} has no health result yet\n");
    assert_eq!((health.code, health.stdout, health.stderr), (Some(1), String::new(), said));
    app.down().await;
    app.set(crate::support::origin::Mode::Ok);
    app.up().await;
    eventually("it is ready", async || get("/readyz").await == 200).await;
    let health = homing.command(&["health"]).await;
    assert_eq!((health.code, health.text()), (Some(0), "ready\n".to_owned()));
    let health = homing.command(&["health", "--output", "json"]).await;
    assert!(health.stdout.contains(r#""ready": true"#), "{health:?}");
    let admin = homing.admin;
    homing.stop().await;
    let health = run(&["health", "--admin", &format!("http://{admin}")]).await;
    assert!(health.code == Some(1) && health.stderr.contains("is it running?"), "{health:?}");
}

#[tokio::test]
async fn virtual_services_and_pools_are_shown() {
    let (app, clone) = (Origin::start("app").await, Origin::absent("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).monitored(CLONES, "tcp").start().await;
    homing.sees(CLONES, clone.addr, false).await;

    let all = homing.json("/api/v1/virtualservices").await;
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    let one = homing.json("/api/v1/virtualservices/WEB").await;
    assert_eq!(one, all[0], "names compare without case");
    assert_eq!((&one["name"], &one["pool_ref"]), (&"web".into(), &APP.into()));
    assert_eq!(one["services"][0]["port"], homing.addr.port());
    assert_eq!(one["oper_status"]["state"], "OPER_UP");

    let pool = homing.json(&format!("/api/v1/pools/{CLONES}")).await;
    assert_eq!((&pool["num_servers"], &pool["num_servers_up"]), (&1.into(), &0.into()));
    assert_eq!(pool["oper_status"]["state"], "OPER_DOWN");
    assert_eq!(pool["servers"][0]["port"], clone.addr.port());
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!(
        (&pool["num_servers_up"], &pool["servers"][0]["ip"]),
        (&1.into(), &app.addr.ip().to_string().into())
    );

    let unknown = homing.get("/api/v1/pools/nowhere").await;
    let said = String::from_utf8_lossy(&unknown.body).into_owned();
    assert_eq!(unknown.status, 404);
    assert!(said.contains("nowhere") && said.contains(APP), "what there is is named: {said}");

    for (args, shown) in [
        (&["show", "virtualservice"][..], vec!["web", APP, "OPER_UP"]),
        (&["show", "virtualservice", "Web"], vec!["web", "a.com"]),
        (&["show", "pool"], vec![APP, CLONES, "OPER_DOWN", "0/1", "1/1"]),
        (&["show", "pool", APP], vec!["round_robin", "OPER_UP"]),
        (&["show", "pool", APP, "--output", "json"], vec!["\"lb_algorithm\"", "\"num_servers_up\""]),
    ] {
        let output = homing.command(args).await;
        assert_eq!(output.code, Some(0), "{args:?}: {}", output.text());
        for part in shown {
            assert!(output.stdout.contains(part), "{args:?} shows {part}:\n{}", output.stdout);
        }
    }
    let output = homing.command(&["show", "pool", "nowhere"]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("nowhere") && output.stderr.contains(APP), "{}", output.text());
}

#[tokio::test]
async fn sessions_are_shown_without_their_tokens_and_looking_touches_none() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    for _ in 0..3 {
        Request::get("/").cookie("SID=very-secret").send(homing.addr).await;
    }
    Request::get("/").cookie("SID=another").send(homing.addr).await;
    let session = crate::support::copies::Mark::of(&clone.got(1).await[0]).session;
    let tables = homing.json("/api/v1/sessions").await;
    let table = format!("clone:web:{CLONES}");
    assert_eq!(tables["tables"][0]["name"], table);
    assert_eq!(tables["tables"][0]["entries"], 2);
    let query = format!("/api/v1/sessions?table={table}&key=cookie:SID=very-secret");
    let first = homing.json(&query).await["entries"][0].clone();
    assert_eq!(first["value"], clone.addr.to_string());
    assert_eq!((&first["requests"], &first["session"]), (&3.into(), &session.into()));
    let seconds = |entry: &serde_json::Value| entry["expires"]["secs"].as_u64().expect("it expires");
    after(Duration::from_secs(2)).await;
    let again = homing.json(&query).await["entries"][0].clone();
    assert!(seconds(&again) <= seconds(&first) + 1, "looking puts nothing off: {first} {again}");

    for (args, shown) in [
        (vec!["show", "session"], table.as_str()),
        (vec!["show", "session", &table], &clone.addr.to_string()),
        (vec!["show", "session", &table, "cookie:SID=very-secret"], &clone.addr.to_string()),
    ] {
        let output = homing.command(&args).await;
        assert_eq!(output.code, Some(0), "{args:?}: {}", output.text());
        assert!(output.stdout.contains(shown), "{args:?}: {}", output.stdout);
        assert!(!output.stdout.contains("very-secret"), "{args:?}: {}", output.stdout);
    }
}

#[tokio::test]
async fn a_gslb_service_and_its_site_persistence_pools_are_shown() {
    let sites = Sites::start(Federation::new()).await;
    for member in [A, B, B, B] {
        ask_as(member, &sites.a).await;
    }
    sites.a.settles("homing_sp_requests_total", &[], 4.0).await;
    let runtime = sites.a.json("/api/v1/gslbservices/gs/runtime").await;
    assert_eq!((&runtime["requests"]["proxied"], &runtime["requests"]["local"]), (&3.into(), &1.into()));
    assert_eq!(runtime["fraction_proxied"], 0.75);
    assert_eq!(runtime["groups"].as_array().map(Vec::len), Some(2));
    assert_eq!(runtime["groups"][0]["members"][0]["site_name"], "site_A", "the highest priority first");

    let pool = sites.a.json("/api/v1/pools/SP-gs-web@site_A").await;
    assert_eq!((&pool["gslb_sp_enabled"], &pool["num_servers_up"]), (&true.into(), &1.into()));
    assert_eq!(
        pool["servers"][0]["prst_hdr_val"],
        "16077db5be5a5402f8185e02769756a3f0deffcdc0ab28fe8a60ac13d0219e32"
    );
    assert_eq!(pool["request_queue_depth"], 128);
    let vs = sites.a.json("/api/v1/virtualservices/web@site_A").await;
    assert_eq!(vs["sp_pool_refs"][0], "SP-gs-web@site_A");

    for args in [
        &["show", "gslbservice", "gs", "runtime"][..],
        &["show", "gslbservice", "gs", "runtime", "filter", "sp_status"],
    ] {
        let output = sites.a.command(args).await;
        assert_eq!(output.code, Some(0), "{}", output.text());
        for part in ["SP-gs-web@site_A", "0.75", "site_B"] {
            assert!(output.stdout.contains(part), "{args:?} shows {part}:\n{}", output.stdout);
        }
    }
}

#[tokio::test]
async fn a_site_pool_cannot_be_referred_to() {
    let (app, fed) = (Origin::start("app").await, Federation::new());
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let site = fed.site_a(&[&app]).vs("pool_ref", "SP-gs-web@site_A");
    let path = site.write(dir.path());
    let output = run(&["check", "--config", path.to_str().expect("a path")]).await;
    assert_eq!(output.code, Some(2), "{}", output.text());
    assert!(output.stderr.contains("SP-gs-web@site_A"), "{}", output.text());
}

#[tokio::test]
async fn a_site_cookie_is_explained() {
    let (app, fed) = (Origin::start("app").await, Federation::new());
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = fed.site_a(&[&app]).write(dir.path());
    let path = path.to_str().expect("temporary paths are text");
    let inspect = async |value: &str| run(&["cookie", "inspect", value, "--config", path]).await;

    let output = inspect(&Cookie::of(B).seal()).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    for part in ["site_B", "gs"] {
        assert!(output.stdout.contains(part), "it says {part}: {}", output.stdout);
    }
    let expired = Cookie { iat: 1517875922, exp: 1517879522, ..Cookie::of(A) }.seal();
    assert!(inspect(&expired).await.text().contains("expired"), "{}", inspect(&expired).await.text());
    let tampered = Cookie::of(B).seal().replace(|c: char| c.is_ascii_uppercase(), "A");
    assert_ne!(inspect(&tampered).await.code, Some(0));
    assert_ne!(inspect("garbage").await.code, Some(0));
}

#[tokio::test]
async fn a_new_key_is_for_its_owner_alone_and_never_overwrites() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let output = run_in(dir.path(), &["keys", "new", "--out", "site.key"]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    let path = dir.path().join("site.key");
    let mode = std::fs::metadata(&path).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let digits = std::fs::read_to_string(&path).expect("the file is readable");
    assert!(digits.trim().len() == 64 && digits.trim().chars().all(|digit| digit.is_ascii_hexdigit()));
    assert!(!output.text().contains(digits.trim()), "the secret stays in the file");
    assert_eq!(run_in(dir.path(), &["keys", "new", "--out", "site.key"]).await.code, Some(1));
    assert_eq!(std::fs::read_to_string(&path).expect("the file is readable"), digits);
    let other = run_in(dir.path(), &["keys", "new", "--out", "other.key"]).await;
    assert_eq!(other.code, Some(0));
    assert_ne!(std::fs::read_to_string(dir.path().join("other.key")).expect("readable"), digits);
}

#[tokio::test]
async fn a_command_that_finds_nobody_says_so() {
    let nobody = crate::support::net::free_addr();
    let output = run(&["show", "pool", "--admin", &format!("http://{nobody}")]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains(&nobody.to_string()), "{}", output.text());
    assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.text());
}
