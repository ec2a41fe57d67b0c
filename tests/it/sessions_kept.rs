//! The session table over a restart (`session_snapshot`).

use std::{collections::BTreeMap, fs, time::Duration};

use crate::support::{
    after,
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    copies::{Mark, by_session, copies},
    eventually,
    homing::Homing,
    origin::Origin,
    tls::{Profile, TlsClient},
};

const SESSIONS: usize = 40;

/// Members by session, and the highest number of each session's copies.
type Seen = BTreeMap<String, (String, u64)>;

async fn ask_all(homing: &Homing, members: &[&Origin]) -> Seen {
    let before: usize = members.iter().map(|member| member.requests().len()).sum();
    for n in 0..SESSIONS {
        let request = Request::get(&format!("/{n}/")).cookie(&format!("SID={n}"));
        assert_eq!(request.send(homing.addr).await.status, 200);
    }
    let all = copies(members, before + SESSIONS).await;
    let mut seen = Seen::new();
    for (session, at) in by_session(&all) {
        let seqs = all.iter().filter(|(_, copy)| copy.target == format!("/{session}/"));
        let last = seqs.map(|(_, copy)| Mark::of(copy).seq).max().expect("it has a copy");
        let first = at[0].clone();
        assert!(at.iter().all(|member| *member == first), "session {session} moved: {at:?}");
        seen.insert(session, (first, last));
    }
    seen
}

#[tokio::test]
async fn a_restart_keeps_every_session_at_its_member_and_goes_on_numbering() {
    let (app, x, y) = (Origin::start("app").await, Origin::start("x").await, Origin::start("y").await);
    let site = Site::new(&[&app]).clone_to(&[&x, &y]);
    let site = site.with(|yaml| yaml["session_snapshot"] = "sessions.snapshot".into());
    let mut homing = site.start().await;
    let first = ask_all(&homing, &[&x, &y]).await;
    homing.signal(libc::SIGTERM);
    assert!(homing.ended().await.success());
    let homing = homing.beside(&site, &[], None).once_ready().await;
    homing.says("sessions restored").await;
    let second = ask_all(&homing, &[&x, &y]).await;
    for (session, (member, seq)) in &first {
        assert_eq!(second[session], (member.clone(), seq + 1), "session {session}");
    }
}

#[tokio::test]
async fn a_killed_homing_goes_back_to_what_was_written_last() {
    let (app, x, y) = (Origin::start("app").await, Origin::start("x").await, Origin::start("y").await);
    let site = Site::new(&[&app]).clone_to(&[&x, &y]).with(|yaml| {
        yaml["session_snapshot"] = "sessions.snapshot".into();
        yaml["session_snapshot_interval"] = "1s".into();
    });
    let mut homing = site.start().await;
    ask_all(&homing, &[&x, &y]).await;
    let file = homing.dir().join("sessions.snapshot");
    let written = || fs::metadata(&file).and_then(|file| file.modified()).ok();
    for _ in 0..2 {
        // The second one is of a table that had all of them.
        let before = written();
        eventually("the table is written", async || written().is_some_and(|at| Some(at) != before)).await;
    }
    homing.kill().await;
    let homing = homing.beside(&site, &[], None).once_ready().await;
    ask_all(&homing, &[&x, &y]).await;
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_with_one_warning() {
    let (app, x) = (Origin::start("app").await, Origin::start("x").await);
    let site = Site::new(&[&app]).clone_to(&[&x]);
    let site = site.with(|yaml| yaml["session_snapshot"] = "sessions.snapshot".into());
    let mut homing = site.start().await;
    ask_all(&homing, &[&x]).await;
    homing.signal(libc::SIGTERM);
    homing.ended().await;
    let file = homing.dir().join("sessions.snapshot");
    let mut bytes = fs::read(&file).expect("it was written");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("it can be written");
    let homing = homing.beside(&site, &[], None).once_ready().await;
    let log = homing.log();
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(log.contains("it is damaged; set aside as"), "{log}");
    assert!(!file.exists());
    let names = fs::read_dir(homing.dir()).expect("it is there").map(|it| it.expect("readable").file_name());
    let aside = names.filter(|name| name.to_string_lossy().starts_with("sessions.snapshot.damaged-"));
    assert_eq!(aside.count(), 1);
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said_once_and_stops_nothing() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| {
        yaml["session_snapshot"] = "nowhere/sessions.snapshot".into();
        yaml["session_snapshot_interval"] = "1s".into();
    });
    let homing = site.start().await;
    homing.says("cannot be written").await;
    after(Duration::from_millis(2500)).await;
    assert_eq!(homing.log().matches("cannot be written").count(), 1, "{}", homing.log());
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    fs::create_dir(homing.dir().join("nowhere")).expect("it can be made");
    homing.says("can be written again").await;
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn tls_sessions_and_their_members_outlive_a_restart() {
    let (app, x, y) = (Origin::start("app").await, Origin::start("x").await, Origin::start("y").await);
    let site = Site::new(&[&app]).clone_to(&[&x, &y]).tls(&cert_for(&["a.com"]));
    let site = site
        .clone_section("tokens", "[tls_session_id]")
        .with(|yaml| yaml["session_snapshot"] = "sessions.snapshot".into());
    let mut homing = site.start().await;
    let clients: Vec<_> =
        [Profile::TLS12, Profile::TLS13].repeat(4).into_iter().map(TlsClient::new).collect();
    for (n, client) in clients.iter().enumerate() {
        let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
        assert_eq!(connection.ask(&Request::get(&format!("/{n}/"))).await.status, 200);
    }
    homing.signal(libc::SIGTERM);
    homing.ended().await;
    let homing = homing.beside(&site, &[], None).once_ready().await;
    for (n, client) in clients.iter().enumerate() {
        let mut connection = Connection::over(client.resume(homing.addr, "a.com").await);
        assert_eq!(connection.ask(&Request::get(&format!("/{n}/"))).await.status, 200);
    }
    for (session, at) in by_session(&copies(&[&x, &y], 2 * clients.len()).await) {
        assert!(at.len() == 2 && at[0] == at[1], "session {session} moved: {at:?}");
    }
}
