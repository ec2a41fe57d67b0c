//! Sessions explained, moved and ended.

use serde_json::Value;

use super::{ask, explain, home_of, order, session, two_members};
use crate::support::{
    client::Request,
    config::{CLONES, Site},
    copies::Mark,
    eventually, net,
    origin::Origin,
};

/// The session table of [`Site::clone_to`].
const TABLE: &str = "clone:web:clones";

#[tokio::test]
async fn a_session_is_explained_by_whatever_an_operator_knows_of_it() {
    let (homing, _app, [a, b]) = two_members(|site| site).await;
    let secret = "very-secret";
    for _ in 0..3 {
        assert_eq!(ask(&homing, secret).await, 200);
    }
    Request::get("/").send(homing.addr).await;
    let home = home_of(&[&a, &b], secret).await;
    let session = Mark::of(&home.requests()[0]).session;
    let first = explain(&homing, &[secret]).await;
    assert_eq!((&first["value"], &first["requests"]), (&home.addr.to_string().into(), &3.into()));
    assert_eq!((&first["token"], &first["table"]), (&"cookie:SID".into(), &TABLE.into()));
    assert_eq!((&first["virtual_service"], &first["pool_ref"]), (&"web".into(), &CLONES.into()));
    assert_eq!(
        (&first["session"], &first["why"]),
        (&session.into(), &"chosen when the session began".into())
    );
    assert_eq!(first["server_status"]["state"], "OPER_UP");
    let seconds = |field: &str| first[field]["secs"].as_u64().unwrap_or_else(|| panic!("{field} of {first}"));
    assert_eq!(seconds("expires") - seconds("since"), 300);

    let key = first["key"].as_str().expect("a key").to_owned();
    let cookie = format!("cookie:SID={secret}");
    for args in [
        &["--vs", "WEB", secret][..],
        &[TABLE, secret],
        &["CLONE:web:clones", &cookie],
        &["--vs", "web", &cookie],
        &[&key],
        &[first["session"].as_str().expect("a session")],
    ] {
        let again = explain(&homing, args).await;
        assert_eq!((&again["key"], &again["requests"]), (&first["key"], &first["requests"]), "{args:?}");
    }
    for token in ["source_ip=127.0.0.1", "127.0.0.1", "source_ip=::ffff:127.0.0.1"] {
        let of_client = explain(&homing, &[token]).await;
        assert_eq!(
            (&of_client["token"], &of_client["requests"]),
            (&"source_ip".into(), &1.into()),
            "{token}"
        );
    }

    let output = homing.command(&["session", "explain", secret]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    for part in ["cookie:SID", "chosen when the session began", &home.addr.to_string(), "OPER_UP"] {
        assert!(output.stdout.contains(part), "it says {part}:\n{}", output.stdout);
    }
    let listed = homing.command(&["show", "session", TABLE]).await;
    assert!(listed.stdout.contains("chosen when the session began"), "{}", listed.text());
    for said in [output.text(), listed.text(), homing.log()] {
        assert!(!said.contains(secret), "no token is shown or logged: {said}");
    }
}

#[tokio::test]
async fn a_session_that_is_not_found_is_told_with_where_it_was_looked_for() {
    let site = |site: Site| site.neighbour("{name: plain, domain_names: [plain.com], pool_ref: app}");
    let (homing, _app, _members) = two_members(site).await;
    assert_eq!(session(&homing, &["explain", "1"]).await.code, Some(1), "nobody has come yet");
    assert_eq!(
        homing.json("/api/v1/sessions").await["tables"],
        Value::Array(vec![]),
        "asking makes no table"
    );
    ask(&homing, "1").await;
    explain(&homing, &["1"]).await;
    for (args, parts) in [
        (&["explain", "nobodys"][..], &["no session is known", TABLE, "cookie:SID", "source_ip"][..]),
        (&["explain", TABLE, "nobodys"], &["no session is known", TABLE]),
        (&["explain", "--vs", "web", "nobodys"], &["no session is known"]),
        (&["explain", "--vs", "wbe", "1"], &["virtual service wbe is not known; known: web, plain"]),
        (&["explain", "--vs", "plain", "1"], &["virtual service plain has no clone section"]),
        (&["explain", "clone:web", "1"], &["session table clone:web is not known; known: clone:web:clones"]),
        (&["explain", "0123456789abcdef"], &["no session is known"]),
        (&["delete", "nobodys"], &["no session is known"]),
        (&["move", "nobodys", "127.0.0.1:1"], &["no session is known"]),
    ] {
        let output = homing.command(&[&["session"], args].concat()).await;
        assert_eq!(output.code, Some(1), "{args:?}: {}", output.text());
        for part in parts {
            assert!(output.stderr.contains(part), "{args:?} says {part}: {}", output.text());
        }
        assert!(!output.stderr.contains("nobodys"), "a token is not repeated: {}", output.text());
    }
    for args in [&["explain", "--vs", "web", TABLE, "1"][..], &["move", "1"], &["move", "1", "there"]] {
        let output = homing.command(&[&["session"], args].concat()).await;
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.text());
    }
}

#[tokio::test]
async fn a_moved_session_goes_on_at_its_new_member_with_its_numbers() {
    let (homing, _app, [a, b]) = two_members(|site| site).await;
    for _ in 0..2 {
        ask(&homing, "1").await;
    }
    let home = home_of(&[&a, &b], "1").await;
    let other = if home.addr == a.addr { &b } else { &a };
    let (addr, stranger) = (other.addr.to_string(), net::free_addr().to_string());
    let seqs = async |member: &Origin, n: usize| {
        member.got(n).await.iter().map(|copy| Mark::of(copy).seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(home, 2).await, [1, 2]);

    let refused = session(&homing, &["move", "--vs", "web", "1", &stranger]).await;
    assert_eq!(refused.code, Some(1));
    let members =
        format!("{} is not a member of clone pool clones; members: {}, {}", stranger, a.addr, b.addr);
    assert!(refused.stderr.contains(&members), "{}", refused.text());
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string(), "it stays");

    let moved = session(&homing, &["move", TABLE, "cookie:SID=1", &addr]).await;
    assert_eq!(moved.code, Some(0), "{}", moved.text());
    assert!(moved.stdout.contains("ordered by an operator"), "{}", moved.stdout);
    for _ in 0..2 {
        ask(&homing, "1").await;
    }
    assert_eq!(seqs(other, 2).await, [3, 4]);
    assert_eq!(seqs(home, 2).await, [1, 2]);
    let now = explain(&homing, &["1"]).await;
    assert_eq!((&now["value"], &now["why"]), (&addr.clone().into(), &"ordered by an operator".into()));
    let log = homing.log();
    let line = log.lines().find(|line| line.contains("session is moved by an operator")).expect(&log);
    for part in [TABLE, &addr, "by=\"127.0.0.1:", now["session"].as_str().expect("a session")] {
        assert!(line.contains(part), "it says {part}: {line}");
    }
    assert!(log.contains("admin write") && log.contains("path=\"/api/v1/sessions/move\""), "{log}");
    assert!(!log.contains("SID=1"), "{log}");
}

#[tokio::test]
async fn a_session_is_not_moved_to_a_member_that_is_down_unless_forced() {
    let (homing, _app, [a, b]) = two_members(|site| site.monitored(CLONES, "tcp")).await;
    ask(&homing, "1").await;
    let home = home_of(&[&a, &b], "1").await;
    let other = if home.addr == a.addr { &b } else { &a };
    let addr = other.addr.to_string();
    order(&homing, CLONES, other, "drain").await;
    let refused = session(&homing, &["move", "1", &addr]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("drains"), "{}", refused.text());
    order(&homing, CLONES, other, "disable").await;
    for args in [&["move", "1", &addr][..], &["move", "--force", "1", &addr]] {
        let refused = session(&homing, args).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("enable it first"), "{}", refused.text());
    }
    order(&homing, CLONES, other, "enable").await;
    other.down().await;
    homing.sees(CLONES, other.addr, false).await;
    let refused = session(&homing, &["move", "1", &addr]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("connection refused"), "{}", refused.text());
    assert!(refused.stderr.contains("use force"), "{}", refused.text());
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string());

    let forced = session(&homing, &["move", "--force", "1", &addr]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.text());
    let at_other = explain(&homing, &["1"]).await;
    assert_eq!(
        (&at_other["value"], &at_other["server_status"]["state"]),
        (&addr.into(), &"OPER_DOWN".into())
    );
    ask(&homing, "1").await;
    let back = explain(&homing, &["1"]).await;
    assert_eq!((&back["value"], &back["requests"]), (&home.addr.to_string().into(), &2.into()));
    assert_eq!(back["why"], "chosen when the server before was not up");
}

#[tokio::test]
async fn a_deleted_session_begins_anew() {
    let (homing, _app, [a, b]) = two_members(|site| site).await;
    for _ in 0..2 {
        ask(&homing, "1").await;
    }
    let home = home_of(&[&a, &b], "1").await.addr;
    let deleted = session(&homing, &["delete", "--vs", "web", "cookie:SID=1"]).await;
    assert_eq!(deleted.code, Some(0), "{}", deleted.text());
    assert!(deleted.stdout.contains(&home.to_string()), "it says what it was: {}", deleted.stdout);
    assert_eq!(session(&homing, &["explain", "1"]).await.code, Some(1));
    assert_eq!(session(&homing, &["delete", "1"]).await.code, Some(1), "it is gone");
    ask(&homing, "1").await;
    assert_eq!(explain(&homing, &["1"]).await["requests"], 1);
    eventually("its copies are numbered from 1 again", async || {
        let copies = [a.requests(), b.requests()].concat();
        copies.iter().filter(|copy| Mark::of(copy).seq == 1).count() == 2
    })
    .await;
    assert!(homing.log().contains("session is deleted by an operator"), "{}", homing.log());
}

#[tokio::test]
async fn a_token_that_names_two_sessions_changes_neither() {
    let site = |site: Site| {
        site.vs(
            "clone",
            "[{pool_ref: clones, tokens: ['cookie:SID']}, {pool_ref: app, tokens: ['cookie:SID']}]",
        )
    };
    let (homing, app, [a, b]) = two_members(site).await;
    ask(&homing, "1").await;
    let output = session(&homing, &["explain", "1", "--output", "json"]).await;
    let both: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(both.as_array().map(Vec::len), Some(2), "{both}");
    for args in [&["delete", "--vs", "web", "1"][..], &["move", "1", &app.addr.to_string()]] {
        let refused = session(&homing, args).await;
        assert_eq!(refused.code, Some(1), "{}", refused.text());
        assert!(
            refused.stderr.contains("say which table: clone:web:clones, clone:web:app"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(session(&homing, &["delete", "clone:web:app", "1"]).await.code, Some(0));
    let home = home_of(&[&a, &b], "1").await;
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string());
}
