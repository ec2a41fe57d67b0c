//! Other sites, asked through their admin APIs. Asking takes a bounded time, and a site that does not answer is told as
//! such and fails nothing.

use std::time::Duration;

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    client::{Client, Error, escaped},
    view::{Answer, SiteHealth},
};
use crate::config::PeerAdmin;

/// Another site with a member of a GSLB service.
pub struct Peer {
    pub site_name: String,
    pub cluster_uuid: String,
    /// How it is asked, where that is configured.
    pub admin: Option<PeerAdmin>,
}

/// Asks all of them at once what they themselves know of a service.
pub(super) async fn ask(peers: Vec<Peer>, service: &str) -> Vec<Answer> {
    let path = format!("/api/v1/gslbservices/{}/runtime?scope=site", escaped(service));
    join_all(peers.into_iter().map(|peer| ask_one(peer, &path))).await
}

async fn ask_one(peer: Peer, path: &str) -> Answer {
    let told = match &peer.admin {
        None => Err("not asked: it has no `admin_url` in the federation's file".into()),
        Some(admin) => match timeout(PATIENCE, get(admin, path)).await {
            Ok(told) => told.map_err(|error| reason(&error)),
            Err(_) => Err(format!("{}: no answer within {} s", admin.url, PATIENCE.as_secs())),
        },
    };
    Answer { site_name: peer.site_name, cluster_uuid: peer.cluster_uuid, told }
}

/// Asks a site how its virtual services are.
///
/// # Errors
/// Why it did not answer, in one line.
pub async fn ask_health(admin: &PeerAdmin) -> Result<SiteHealth, String> {
    match timeout(PATIENCE, get(admin, "/api/v1/gslb/health")).await {
        Ok(told) => told.map_err(|error| reason(&error)),
        Err(_) => Err(format!("{}: no answer within {} s", admin.url, PATIENCE.as_secs())),
    }
}

async fn get<T: DeserializeOwned>(admin: &PeerAdmin, path: &str) -> Result<T, Error> {
    Client::new(admin.url.clone(), admin.token_file.as_deref())?.get(path).await
}

/// In one line, without the hints for a command line.
fn reason(error: &Error) -> String {
    match error {
        Error::Unreachable { url, why } | Error::NotHoming { url, why } => format!("{url}: {why}"),
        Error::Unauthorized(why) | Error::Refused(why) => why.clone(),
        Error::Token(path, why) => format!("admin_token_file {} cannot be read: {why}", path.display()),
    }
}

/// A site that takes longer is left out: whoever looks is waiting.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn peer(url: Option<String>, token_file: Option<&str>) -> Peer {
        let admin = url.map(|url| PeerAdmin {
            url: url.parse().expect("a URL"),
            token_file: token_file.map(Into::into),
        });
        Peer { site_name: "site_B".into(), cluster_uuid: "cluster-b".into(), admin }
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_is_silent_is_left_out_in_time_and_fails_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let silent = format!("http://{}", listener.local_addr().expect("its address"));
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr();
        let dead = format!("http://{}", free.expect("its address"));
        let peers = vec![
            peer(Some(silent.clone()), None),
            peer(Some(dead.clone()), None),
            peer(Some(dead.clone()), Some("/nowhere/token")),
            peer(None, None),
        ];
        let told =
            ask(peers, "gs-1").await.into_iter().map(|answer| answer.told.expect_err("nobody answers"));
        let told: Vec<String> = told.collect();
        assert_eq!(told[0], format!("{silent}: no answer within 2 s"));
        assert_eq!(told[1], format!("{dead}: connection refused"));
        assert!(told[2].starts_with("admin_token_file /nowhere/token cannot be read: "), "{}", told[2]);
        assert_eq!(told[3], "not asked: it has no `admin_url` in the federation's file");
    }
}
