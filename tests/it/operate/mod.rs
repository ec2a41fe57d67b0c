//! Operating it with the real program: what the commands do, and who may say so.

mod servers;
mod sessions;

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::{
    client::Request,
    config::{APP, Site},
    eventually,
    homing::{Homing, Output, run},
    origin::Origin,
};

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let (homing, app, [a, b]) = two_members(|site| site).await;
    ask(&homing, "1").await;
    let home = home_of(&[&a, &b], "1").await;
    let other = if home.addr == a.addr { b.addr } else { a.addr };
    let own = homing.admin.to_string();
    let writes = [
        ("POST", format!("/api/v1/pools/app/servers/{}/disable", app.addr)),
        ("POST", format!("/api/v1/sessions/move?token=1&server={other}")),
        ("DELETE", "/api/v1/sessions?token=1".to_owned()),
    ];
    for (method, path) in &writes {
        for (name, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
            let request = Request::new(method, path).host(&own).header(name, value);
            let answer = request.send(homing.admin).await;
            assert_eq!(answer.status, 403, "{method} {path} {name}");
        }
    }
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string());
    assert_eq!(ask(&homing, "1").await, 200);
    eventually("refused writes are logged too", async || {
        homing.log().lines().filter(|line| line.contains("admin write") && line.contains("403")).count() == 6
    })
    .await;
    for (method, path) in &writes {
        let request = Request::new(method, path).host(&own).header("Origin", &format!("http://{own}"));
        assert_eq!(request.send(homing.admin).await.status, 200, "its own page may: {method} {path}");
    }
}

#[tokio::test]
async fn over_a_unix_socket_the_user_is_the_author() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = format!("unix:{}", dir.path().join("admin.sock").display());
    let site = Site::new(&[&app]).with(|yaml| yaml["admin"]["listen"] = socket.as_str().into());
    let homing = Homing::spawn(&site).await;
    let addr = app.addr.to_string();
    let drain = ["pool", APP, "server", &addr, "drain", "--output", "json", "--admin", &socket];
    let mut said = String::new();
    eventually("it can be commanded", async || {
        let output = run(&drain).await;
        said = output.stdout.clone();
        output.code == Some(0)
    })
    .await;
    let server: Value = serde_json::from_str(&said).expect("JSON");
    let uid = std::fs::metadata(dir.path()).expect("it is there").uid();
    assert_eq!(server["admin_state"]["by"], format!("uid {uid}"));
    eventually("the author is in the log", async || homing.log().contains(&format!("uid {uid}"))).await;
}

/// An app and two clone members, which [`Site::clone_to`] names, with a change of the site.
async fn two_members(change: impl FnOnce(Site) -> Site) -> (Homing, Origin, [Origin; 2]) {
    let app = Origin::start("app").await;
    let members = [Origin::start("c0").await, Origin::start("c1").await];
    let homing = change(Site::new(&[&app]).clone_to(&members.each_ref())).start().await;
    (homing, app, members)
}

async fn ask(homing: &Homing, session: &str) -> u16 {
    Request::get("/").cookie(&format!("SID={session}")).send(homing.addr).await.status
}

/// The member that a session has.
async fn home_of<'a>(members: &[&'a Origin], token: &str) -> &'a Origin {
    let cookie = format!("SID={token}");
    let got = |member: &&&Origin| member.requests().iter().any(|copy| copy.cookies() == cookie);
    eventually("a member gets the session", async || members.iter().any(|member| got(&member))).await;
    members.iter().find(got).expect("one got it")
}

/// Where sessions `NAME-0`, `NAME-1`, … are.
async fn homes(homing: &Homing, name: &str, sessions: usize) -> Vec<String> {
    let mut homes = Vec::new();
    for session in 0..sessions {
        let found = explain(homing, &[&format!("{name}-{session}")]).await;
        homes.push(found["value"].as_str().expect("a member").to_owned());
    }
    homes
}

async fn session(homing: &Homing, args: &[&str]) -> Output {
    homing.command(&[&["session"], args].concat()).await
}

/// The one session that is meant.
async fn explain(homing: &Homing, args: &[&str]) -> Value {
    let output = session(homing, &[&["explain", "--output", "json"], args].concat()).await;
    assert_eq!(output.code, Some(0), "{args:?}: {}", output.text());
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{args:?}: {found}");
    found[0].clone()
}

/// Commands a server; what it is then.
async fn order(homing: &Homing, pool: &str, server: &Origin, verb: &str) -> Value {
    let addr = server.addr.to_string();
    let output = homing.command(&["pool", pool, "server", &addr, verb, "--output", "json"]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    serde_json::from_str(&output.stdout).expect("JSON")
}
