//! `homing cookie inspect`: what a site cookie says, and what this site would do with it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use clap::Subcommand;
use serde::Serialize;

use super::{Error, check, print, table};
use crate::{
    config::{Config, GslbMember, GslbService},
    server::Builder,
    site_cookie::{Codec, Key, KeyRing, KeyState, Opened, Refusal, member_id},
};

#[derive(Subcommand, Debug)]
pub enum Cookie {
    /// Decrypts a site cookie with the configured keys and says what it means; exit code 1 where it is like none
    Inspect {
        /// The cookie's value, or NAME=VALUE
        value: String,
        /// The configuration with the keys
        #[arg(long, value_name = "FILE", default_value = "conf/homing.yaml")]
        config: PathBuf,
    },
}

/// What there is to say about a cookie, in the order of the table.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Inspection {
    /// `valid`, or the outcome that the metrics count.
    verdict: String,
    meaning: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gslb_service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Member>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_epoch: Option<u32>,
}

/// The virtual service that the cookie calls the client's home.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Member {
    prst_hdr_val: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    site_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vs_uuid: Option<String>,
    /// Where the virtual service is this node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    vs_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
}

/// Inspects the cookie at this machine's time.
pub fn cookie(builder: &Builder, Cookie::Inspect { value, config }: Cookie) -> Result<ExitCode, Error> {
    let config = check::load(builder, &config)?.config;
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let value = value.split_once('=').map_or(value.as_str(), |(_, value)| value);
    let inspection = inspect(&config, value, now);
    print(table::fields(&inspection))?;
    Ok(if inspection.verdict == VALID { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inspect(config: &Config, value: &str, now: u64) -> Inspection {
    let services = config.gslb.iter().flat_map(|gslb| &gslb.services);
    // Which service a cookie belongs to is authenticated, not written: only its own can open it.
    let tried = services.filter_map(|service| inspect_as(config, service, value, now));
    let best = tried.max_by_key(|tried| (tried.gslb_service.is_some(), tried.key_uuid.is_some()));
    best.unwrap_or_else(|| Inspection {
        verdict: Refusal::UnknownKey.to_string(),
        meaning: "no GSLB service of this configuration has site persistence, so there is no key".into(),
        ..Inspection::default()
    })
}

/// What the cookie means if it is one of this service; `None` where the service issues no cookies.
fn inspect_as(config: &Config, service: &GslbService, value: &str, now: u64) -> Option<Inspection> {
    let profile = service.site_persistence.as_deref()?;
    let ring = key_ring(&profile.cookie.keys)?;
    let codec =
        Codec::new(&ring, service.uuid.as_str(), &profile.cookie.name, profile.cookie.domain.as_deref());
    let key_id = value.strip_prefix("1S").and_then(|rest| rest.get(..KEY_ID_LEN));
    let key = ring.keys().iter().find(|key| {
        key.uuid.get(..KEY_ID_LEN).zip(key_id).is_some_and(|(own, id)| own.to_ascii_lowercase() == id)
    });
    let member = |id: &[u8; 32]| members(service).find(|member| identity(member) == *id);
    let claims = codec.unseal(value.as_bytes()).ok().map(|opened| opened.claims);
    let home = claims.and_then(|claims| member(&claims.member_id));
    let verdict = codec.open(value.as_bytes(), now, |id| member(id).map(|member| member.drain_epoch));
    let meaning = match &verdict {
        Ok(opened) => accepted(config, opened, home, profile.recovery, now),
        Err(refusal) => {
            format!("like no cookie: served here and issued anew; {}", refused(*refusal, claims, now))
        }
    };
    Some(Inspection {
        verdict: verdict.map_or_else(|refusal| refusal.to_string(), |_| VALID.into()),
        meaning,
        key_id: key_id.map(Into::into),
        key_uuid: key.map(|key| key.uuid.clone()),
        key_state: key.map(|key| state(key.state)),
        gslb_service: claims.map(|_| service.name.to_string()),
        member: claims.map(|claims| describe(config, &claims.member_id, home)),
        issued: claims.map(|claims| table::date(claims.iat, None)),
        expires: claims.map(|claims| match claims.exp {
            0 => "never".into(),
            seconds => table::date(seconds, None),
        }),
        drain_epoch: claims.map(|claims| claims.drain_epoch),
    })
}

fn accepted(
    config: &Config,
    opened: &Opened,
    home: Option<&GslbMember>,
    recovery: HmDownRecovery,
    now: u64,
) -> String {
    let is_own = |member: &GslbMember| Some(&member.cluster_uuid) == config.site.cluster_uuid.as_ref();
    let site = home.and_then(|member| site_name(config, member)).unwrap_or_else(|| "its home".into());
    let renewed = if opened.is_stale(now) { "; issued anew with the next answer" } else { "" };
    let where_to = match (home.is_some_and(is_own), recovery) {
        (true, _) => "this site is the client's home and serves it".into(),
        (false, HmDownRecovery::PickNewServer) => {
            format!("proxied to {site}; while that is down, served here and issued anew")
        }
        (false, HmDownRecovery::AbortConnection) => {
            format!("proxied to {site}; while that is down, answered 503")
        }
        (false, HmDownRecovery::ContinuePersistentServer) => {
            format!("proxied to {site}, even while that is down")
        }
    };
    where_to + renewed
}

fn refused(refusal: Refusal, claims: Option<Claims>, now: u64) -> &'static str {
    match refusal {
        Refusal::Undecryptable => {
            "it is cut or changed, or made for another key, GSLB service, cookie name or domain"
        }
        Refusal::UnknownKey => "no configured key has its key id",
        Refusal::Future => "it was issued ahead of this machine's clock",
        Refusal::Expired if claims.is_some_and(|claims| claims.exp == 0 || now < claims.exp) => {
            "its drain_epoch is below its member's"
        }
        Refusal::Expired => "its time is over",
        Refusal::WrongService => "it names no member of this GSLB service",
    }
}

fn describe(config: &Config, id: &[u8; 32], home: Option<&GslbMember>) -> Member {
    let own = home.and_then(|member| {
        config.virtual_services.iter().find(|vs| vs.uuid.as_ref() == Some(&member.vs_uuid))
    });
    Member {
        prst_hdr_val: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        site_name: home.and_then(|member| site_name(config, member)),
        vs_uuid: home.map(|member| member.vs_uuid.to_string()),
        vs_name: own.map(|vs| vs.name.to_string()),
        ip: home.map(|member| member.ip),
    }
}

fn members(service: &GslbService) -> impl Iterator<Item = &GslbMember> {
    service.groups.iter().flat_map(|group| &group.members)
}

fn identity(member: &GslbMember) -> [u8; 32] {
    member_id(member.cluster_uuid.as_str(), member.vs_uuid.as_str())
}

fn site_name(config: &Config, member: &GslbMember) -> Option<String> {
    let mut sites = config.gslb.iter().flat_map(|gslb| &gslb.sites);
    sites.find(|site| site.cluster_uuid == member.cluster_uuid).map(|site| site.name.to_string())
}

const VALID: &str = "valid";

/// Characters of a key's uuid that name it in a cookie.
const KEY_ID_LEN: usize = 16;
