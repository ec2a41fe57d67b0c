//! `tls`: a session is what its client resumes.

use std::collections::BTreeSet;

use super::{servers, site};
use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    homing::run,
    tls::{Profile, TlsClient},
};

#[tokio::test]
async fn a_tls_session_keeps_its_server_over_connections_that_resume_it() {
    let servers = servers().await;
    for profile in [Profile::TLS13, Profile::TLS12] {
        let homing =
            site(&servers.each_ref(), "persistence_type: tls").tls(&cert_for(&["a.com"])).start().await;
        let mut used = BTreeSet::new();
        for _ in 0..3 {
            let client = TlsClient::new(profile);
            let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
            let home = connection.ask(&Request::get("/")).await.server().to_owned();
            for _ in 0..3 {
                assert_eq!(connection.ask(&Request::get("/")).await.server(), home);
            }
            for _ in 0..3 {
                let mut resumed = Connection::over(client.resume(homing.addr, "a.com").await);
                assert_eq!(resumed.ask(&Request::get("/")).await.server(), home, "{profile:?}");
            }
            used.insert(home);
        }
        assert_eq!(used.len(), 3, "{profile:?}: new sessions are balanced");
    }
}

#[tokio::test]
async fn a_session_does_not_end_while_its_connection_is_open() {
    let servers = servers().await;
    let profile = "persistence_type: tls, tls_persistence_profile: { timeout: 1ms }";
    let homing = site(&servers.each_ref(), profile).tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile::TLS13);
    let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
    let home = connection.ask(&Request::get("/")).await.server().to_owned();
    for _ in 0..5 {
        assert_eq!(connection.ask(&Request::get("/")).await.server(), home);
    }
}

#[tokio::test]
async fn persistence_by_tls_without_tls_is_dubious() {
    let servers = servers().await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = site(&servers.each_ref(), "persistence_type: tls").write(dir.path());
    let output = run(&["check", "--config", &file.display().to_string()]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    assert!(output.text().contains("persistence profile `sticky` is of type tls"), "{}", output.text());
}
