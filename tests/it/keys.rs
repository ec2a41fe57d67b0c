//! The keys of the site cookies: rotation, and what wants an operator's care.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use crate::{
    sites::OUTCOMES,
    support::{
        client::{Browser, Request},
        config::{Federation, parse},
        eventually,
        homing::{Homing, run, run_in},
        origin::{Origin, hex},
        site_cookie::{KEY, Key},
    },
};

pub const NEW: Key = Key { uuid: "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", secret: [42; 32] };

#[tokio::test]
async fn a_key_that_is_there_is_kept_where_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("site-cookie.key");
    let keep = ["keys", "new", "--keep", "--out", "site-cookie.key"];
    let made = run_in(dir.path(), &keep).await;
    assert!(made.code == Some(0) && made.stdout.contains("state: next"), "{made:?}");
    let first = fs::read(&file).expect("written");
    let kept = run_in(dir.path(), &keep).await;
    assert_eq!((kept.code, kept.text()), (Some(0), "site-cookie.key is kept\n".to_owned()));
    assert_eq!(fs::read(&file).expect("still there"), first);
}

#[tokio::test]
async fn keys_are_rotated_site_by_site_and_no_client_changes_its_site() {
    let fed = Federation::new();
    let mut sites = Rotation::start(&fed.with_keys(&[(KEY, "active")])).await;
    sites.everyone_stays_home(KEY).await;
    for (keys, of_old_site, of_new_site) in [
        (&[(KEY, "active"), (NEW, "next")][..], KEY, KEY),
        (&[(KEY, "retiring"), (NEW, "active")], KEY, NEW),
        (&[(NEW, "active")], NEW, NEW),
    ] {
        let fed = fed.with_keys(keys);
        sites.restart_b(&fed).await;
        sites.everyone_goes_on([of_old_site, of_new_site]).await;
        sites.restart_a(&fed).await;
        sites.everyone_stays_home(of_new_site).await;
    }
    for site in [&sites.a, &sites.b] {
        for outcome in ["new", "rehomed", "unknown_key", "undecryptable"] {
            assert_eq!(
                site.metric(OUTCOMES, &[("outcome", outcome)]).await,
                0.0,
                "{outcome}, since the last restart"
            );
        }
    }
}

/// Two sites and clients that began at either.
struct Rotation {
    a: Homing,
    b: Homing,
    apps: [Origin; 2],
    /// With the name of the app server at home.
    clients: Vec<(Browser, &'static str)>,
}

impl Rotation {
    async fn start(fed: &Federation) -> Self {
        let apps = [Origin::start("a").await, Origin::start("b").await];
        let b = fed.site_b(&[&apps[1]]).file("new.key", &hex(&NEW.secret)).start().await;
        let a = fed.site_a(&[&apps[0]]).file("new.key", &hex(&NEW.secret)).start().await;
        let mut clients = Vec::new();
        for (at, home) in [(a.addr, "a"), (b.addr, "b"), (a.addr, "a"), (b.addr, "b")] {
            let mut client = Browser::default();
            assert_eq!(client.get(at, "/").await.server(), home);
            clients.push((client, home));
        }
        let rotation = Self { a, b, apps, clients };
        rotation.see_each_other().await;
        rotation
    }

    async fn restart_a(&mut self, fed: &Federation) {
        self.a.kill().await;
        self.a = fed.site_a(&[&self.apps[0]]).file("new.key", &hex(&NEW.secret)).start().await;
        self.see_each_other().await;
    }

    async fn restart_b(&mut self, fed: &Federation) {
        self.b.kill().await;
        self.b = fed.site_b(&[&self.apps[1]]).file("new.key", &hex(&NEW.secret)).start().await;
        self.see_each_other().await;
    }

    async fn see_each_other(&self) {
        self.a.sees("SP-gs-web@site_A", self.b.addr, true).await;
        self.b.sees("SP-gs-web@site_B", self.a.addr, true).await;
    }

    /// Everyone asks both sites, twice: nobody leaves home. Cookies are of one of the keys.
    async fn everyone_goes_on(&mut self, keys: [Key; 2]) {
        for (client, home) in &mut self.clients {
            for at in [self.a.addr, self.b.addr, self.a.addr, self.b.addr] {
                let answer = client.get(at, "/").await;
                assert_eq!((answer.status, answer.server()), (200, *home));
            }
            let cookie = &client.cookies["FOO"];
            assert!(keys.iter().any(|key| sealed_by(cookie, *key)), "{cookie}");
        }
    }

    /// The same, after which all have a cookie of this key.
    async fn everyone_stays_home(&mut self, key: Key) {
        self.everyone_goes_on([key, key]).await;
    }
}

pub fn sealed_by(cookie: &str, key: Key) -> bool {
    cookie.starts_with(&format!("1S{}", &key.uuid[..16]))
}

pub trait WithKeys {
    /// With these keys and their states.
    fn with_keys(&self, keys: &[(Key, &str)]) -> Federation;
}

impl WithKeys for Federation {
    fn with_keys(&self, keys: &[(Key, &str)]) -> Federation {
        let keys = keys.iter().map(|(key, state)| {
            let file = if key.uuid == KEY.uuid { "site-cookie.key" } else { "new.key" };
            format!("{{uuid: {}, key_file: {file}, state: {state}}}", key.uuid)
        });
        let keys = parse(&format!("[{}]", keys.collect::<Vec<_>>().join(", ")));
        self.clone().with(|yaml| {
            yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"]["keys"] = keys;
        })
    }
}

#[tokio::test]
async fn an_old_key_that_others_can_read_is_told_of_once_counted_and_listed() {
    let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
    let file = elsewhere.path().join("site-cookie.key");
    fs::write(&file, hex(&KEY.secret)).expect("the file can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("permissions can be set");
    let eight_days_ago = std::time::SystemTime::now() - Duration::from_secs(8 * 86_400);
    let opened = fs::File::options().append(true).open(&file).expect("the file can be opened");
    opened.set_modified(eight_days_ago).expect("the file can be dated");
    let app = Origin::start("a").await;
    let fed = Federation::new().with(|yaml| {
        let profile = &mut yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"];
        profile["keys"][0]["key_file"] = file.to_str().expect("temporary paths are text").into();
    });
    let site = fed.site_a(&[&app]);
    let homing = site.start().await;
    let kid = &KEY.uuid[..16];
    for (concern, there) in [("age", 1.0), ("file_mode", 1.0), ("seals", 0.0)] {
        let labels = [("key", kid), ("concern", concern)];
        eventually("the concern is shown", async || {
            homing.has_metric("homing_site_cookie_key_concerns", &labels).await
        })
        .await;
        homing.settles("homing_site_cookie_key_concerns", &labels, there).await;
    }
    let told = |what: &str| homing.log().lines().filter(|line| line.contains(what)).count();
    eventually("both are logged", async || told("older than 7 days") == 1 && told("chmod 600 it") == 1).await;
    for _ in 0..3 {
        assert!(Request::get("/").send(homing.addr).await.site_cookie().is_some());
    }
    homing.settles("homing_site_cookie_seals_total", &[("key", kid)], 3.0).await;

    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let config = site.write(dir.path());
    let list = ["keys", "list", "--config", config.to_str().expect("temporary paths are text")];
    let listed = run(&list).await;
    assert_eq!(listed.code, Some(0), "{}", listed.text());
    let row = listed.stdout.lines().find(|line| line.contains(kid)).expect("the key is listed");
    let cells = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>();
    assert_eq!(cells, [kid, "gap", "active", "8d", "3", "age, file_mode"]);
    assert!(!listed.text().contains(&hex(&KEY.secret)[..16]));

    assert_eq!(homing.stop().await.code(), Some(0));
    let listed = run(&list).await;
    assert_eq!(listed.code, Some(0), "without a running homing: {}", listed.text());
    assert!(listed.stdout.contains("| active | 8d  |            |"), "{}", listed.stdout);
}

#[tokio::test]
async fn a_bad_key_file_refuses_the_reload_and_the_keys_in_force_go_on() {
    let app = Origin::start("a").await;
    let fed = Federation::new();
    let site = fed.site_a(&[&app]);
    let homing = site.start().await;
    let mut client = Browser::default();
    client.get(homing.addr, "/").await;
    let rotated = site.clone().in_federation(&fed.with_keys(&[(KEY, "retiring"), (NEW, "active")]));
    for (content, said) in [
        (None, "new.key does not exist"),
        (Some(String::new()), "new.key is not a key of 64 hex digits"),
        (Some(hex(&NEW.secret)[..63].to_owned()), "new.key is not a key of 64 hex digits"),
        (Some(format!("{}z", &hex(&NEW.secret)[..63])), "new.key is not a key of 64 hex digits"),
        (Some(hex(&NEW.secret).repeat(2)), "new.key is not a key of 64 hex digits"),
    ] {
        let bad = content.iter().fold(rotated.clone(), |site, content| site.file("new.key", content));
        let reload = homing.reload(&bad).await;
        assert_eq!(reload["result"], "failure", "{content:?}");
        let problems = reload["problems"].as_array().expect("problems");
        let problem = problems[0].as_str().expect("a text");
        assert!(problems.len() == 1 && problem.contains(said) && problem.contains("; "), "{problems:?}");
        assert!(!reload.to_string().contains(&hex(&NEW.secret)[..16]), "a secret is never told");
        let answer = client.get(homing.addr, "/").await;
        assert_eq!((answer.server(), answer.site_cookie()), ("a", None), "its cookie is good");
        let first = Browser::default().get(homing.addr, "/").await;
        assert!(sealed_by(first.site_cookie().expect("a cookie"), KEY), "{content:?}");
    }
    homing.reloaded(&rotated.file("new.key", &hex(&NEW.secret))).await;
    let answer = client.get(homing.addr, "/").await;
    assert!(sealed_by(answer.site_cookie().expect("the active key's"), NEW));
    homing.settles(OUTCOMES, &[("outcome", "unknown_key")], 0.0).await;
}

#[tokio::test]
async fn keys_that_make_no_ring_are_refused() {
    const TWIN: Key = Key { uuid: "509ceebd-0913-4aff-0000-000000000000", secret: [42; 32] };
    let app = Origin::start("a").await;
    for (keys, said) in [
        (&[(KEY, "active"), (TWIN, "next")][..], "have the same first 16 characters"),
        (&[(KEY, "active"), (NEW, "active")], "are both active"),
        (&[(KEY, "next"), (NEW, "retiring")], "no key is active"),
    ] {
        let site = Federation::new().with_keys(keys).site_a(&[&app]).file("new.key", &hex(&NEW.secret));
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let config = site.write(dir.path());
        let output = run(&["check", "--config", config.to_str().expect("temporary paths are text")]).await;
        assert_eq!(output.code, Some(2), "{}", output.text());
        assert!(output.stderr.contains(said), "{}", output.text());
    }
}
