//! What goes on beside the choice of members: other sites are asked how their virtual services are, members that come
//! and go are told to the log, and what would be missed after a restart is written to a file.
//!
//! Sites are asked over their admin APIs (`admin_url` and `admin_token_file` of the federation's file): one small
//! question for each site, not for each member, at a random moment of every interval.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, view},
    config::SiteRef,
    gslb::Said,
    snapshot::{GslbChoice, Live},
};

/// Members that were down or held, in the file that outlives a restart.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Remembered {
    members: Vec<RememberedMember>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct RememberedMember {
    service_uuid: String,
    cluster_uuid: String,
    vs_uuid: String,
    down: bool,
    /// It waits for `homing gslb resume`.
    held: bool,
}

/// Makes members what they were before the restart, until something is found out. A file that cannot be read is told
/// and changes nothing: all members are as configured then.
pub(super) fn restore(live: &Live) {
    let snapshot = live.snapshot();
    let (Some(gslb), Some(file)) = (&snapshot.gslb, &snapshot.config.gslb_state_file) else { return };
    let read = match std::fs::read(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => Err(error.to_string()),
        Ok(bytes) => serde_json::from_slice::<Remembered>(&bytes).map_err(|error| error.to_string()),
    };
    let remembered = match read {
        Ok(remembered) => remembered,
        Err(error) => {
            let file = file.display().to_string();
            return tracing::warn!(
                file,
                error,
                "GSLB members count as up: what was known of them cannot be read"
            );
        }
    };
    for ((service, cluster, vs), memory) in gslb.remembered() {
        let is_it = |known: &&RememberedMember| {
            known.service_uuid == service.as_str()
                && known.cluster_uuid == cluster.as_str()
                && known.vs_uuid == vs.as_str()
        };
        if let Some(known) = remembered.members.iter().find(is_it) {
            memory.restore(known.down, known.held);
        }
    }
}

/// Looks at the members until `stop`, and keeps the file up to date.
pub(super) async fn look(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK_INTERVAL);
    let mut written = Written::default();
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let snapshot = live.snapshot();
        let Some(gslb) = &snapshot.gslb else { continue };
        gslb.look();
        if let Some(file) = &snapshot.config.gslb_state_file {
            written.keep_up(file, gslb).await;
        }
    }
}

/// What is in the file.
#[derive(Default)]
struct Written {
    file: PathBuf,
    content: String,
    /// It could not be written, which is told once.
    failed: bool,
}

impl Written {
    async fn keep_up(&mut self, file: &Path, gslb: &GslbChoice) {
        let content = content(gslb);
        if self.file == file && self.content == content && !self.failed {
            return;
        }
        let (to, what) = (file.to_owned(), content.clone());
        let done = tokio::task::spawn_blocking(move || replace(&to, &what)).await;
        let done = done.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        match (&done, self.failed) {
            (Err(error), false) => {
                let file = file.display().to_string();
                tracing::warn!(file, %error, "`gslb_state_file` cannot be written; trying on");
            }
            (Ok(()), true) => tracing::info!("`gslb_state_file` is written again"),
            _ => {}
        }
        *self = Self { file: file.to_owned(), content, failed: done.is_err() };
    }
}

fn content(gslb: &GslbChoice) -> String {
    let members = gslb.remembered().map(|((service, cluster, vs), memory)| RememberedMember {
        service_uuid: service.to_string(),
        cluster_uuid: cluster.to_string(),
        vs_uuid: vs.to_string(),
        down: memory.was_down(),
        held: memory.is_held(),
    });
    let mut members: Vec<_> = members.filter(|member| member.down || member.held).collect();
    members.sort();
    serde_json::to_string_pretty(&Remembered { members }).expect("it consists of what JSON has") + "\n"
}

/// In one step: a reader sees the file as it was or as it is.
fn replace(file: &Path, content: &str) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, content)?;
    std::fs::rename(&beside, file)
}

/// Asks other sites until `stop`.
pub(super) async fn ask(live: Arc<Live>, stop: CancellationToken) {
    let mut every = tokio::time::interval(ASK_INTERVAL);
    let mut jitter = Duration::ZERO;
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let snapshot = live.snapshot();
        let Some(gslb) = &snapshot.config.gslb else { continue };
        let is_wanted = |site: &&SiteRef| {
            let members = gslb.services.iter().filter(|it| it.enabled && it.controller_health_status_enabled);
            let mut members = members.flat_map(|service| &service.groups).flat_map(|group| &group.members);
            let is_own = snapshot.config.site.cluster_uuid.as_ref() == Some(&site.cluster_uuid);
            site.admin.is_some() && !is_own && members.any(|member| member.cluster_uuid == site.cluster_uuid)
        };
        let questions = gslb.sites.iter().filter(is_wanted).map(|site| {
            let wait = jitter.mul_f64(rand::rng().random());
            let live = &live;
            async move {
                tokio::time::sleep(wait).await;
                ask_one(site, live).await;
            }
        });
        stop.run_until_cancelled(join_all(questions)).await;
        // The first answers are wanted at once.
        jitter = ASK_INTERVAL / 2;
    }
}

async fn ask_one(site: &SiteRef, live: &Live) {
    let Some(admin) = &site.admin else { return };
    let word = live.words.of(&site.cluster_uuid);
    let name = site.name.as_str();
    match admin::ask_health(admin).await {
        Ok(told) if told.cluster_uuid == site.cluster_uuid.as_str() => {
            if word.is_silent() {
                tracing::info!(site = name, "site answers again");
            }
            word.hear(said(told));
        }
        Ok(told) => {
            if word.miss() {
                let reason = format!("{} is the admin API of {}", admin.url, told.site_name);
                tracing::warn!(site = name, reason, "site does not answer");
            }
        }
        Err(reason) => {
            if word.miss() {
                tracing::warn!(site = name, reason, "site does not answer");
            }
        }
    }
}

fn said(told: view::SiteHealth) -> Said {
    let virtual_services = told.virtual_services.into_iter().map(|vs| {
        let why = (vs.oper_status.state != view::OperState::OperUp)
            .then(|| vs.oper_status.reason.unwrap_or_else(|| "its site says so".into()));
        (vs.vs_uuid.as_str().into(), why)
    });
    let is_leaving = told.drain_state != view::DrainState::InService;
    Said { is_leaving, virtual_services: virtual_services.collect() }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const ASK_INTERVAL: Duration = Duration::from_secs(3);
