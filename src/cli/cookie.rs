//! `homing cookie inspect`: what a site cookie says, and what this site would do with it.

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::UNIX_EPOCH};

use clap::Subcommand;
use serde::Serialize;

use super::{Error, check, print, table};
use crate::{
    config::{Config, GslbMember, GslbService, HmDownRecovery},
    server::Builder,
    site_cookie::{Codec, KeyRing, Opened, Refusal, member_id},
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
    let ring = KeyRing::new(profile.cookie.keys.clone()).ok()?;
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
            format!("like no cookie: served here and issued anew; {}", refusal.why(claims.as_ref(), now))
        }
    };
    Some(Inspection {
        verdict: verdict.map_or_else(|refusal| refusal.to_string(), |_| VALID.into()),
        meaning,
        key_id: key_id.map(Into::into),
        key_uuid: key.map(|key| key.uuid.clone()),
        key_state: key.map(|key| key.state.as_str()),
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

fn describe(config: &Config, id: &[u8; 32], home: Option<&GslbMember>) -> Member {
    let own = home.and_then(|member| {
        config.virtual_services.iter().find(|vs| vs.uuid.as_ref() == Some(&member.vs_uuid))
    });
    Member {
        prst_hdr_val: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        site_name: home.and_then(|member| site_name(config, member)),
        vs_uuid: home.map(|member| member.vs_uuid.to_string()),
        vs_name: own.map(|vs| vs.name.to_string()),
        ip: home.and_then(|member| member.ip),
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::config;

    /// The published vector: site_B's member, issued 1517875922, to 1517879522, drain epoch 7.
    const VECTOR: &str = "1S509ceebd-0913-4aAAECAwQFBgcICQoLmnZHMZnVTx__oXoTk4Lg2jQyj7iaVeKOqJw6VRTSEdjYp3UJX7CF4lZHuLrsMTaLkW-I53Is_xTYDZ_ZHxankKQ-lt5TgwW21-MFBZtRZRU";
    const NOW: u64 = 1_517_876_000;

    fn config(site: &str, epoch: u32, recovery: &str) -> Config {
        let cluster = if site == "site_A" { CLUSTER_A } else { CLUSTER_B };
        let own = format!("site: {{ name: {site}, cluster_uuid: {cluster} }}\nfederation: federation.yaml\n");
        let federation = FEDERATION.replace("EPOCH", &epoch.to_string()).replace("RECOVERY", recovery);
        let key: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
        let files = [("site.yaml", own), ("federation.yaml", federation), ("site-cookie.key", key)];
        let files: BTreeMap<PathBuf, Vec<u8>> =
            files.into_iter().map(|(name, text)| (name.into(), text.into_bytes())).collect();
        match config::load_from(&files, Path::new("site.yaml"), &[]) {
            Ok(loaded) => loaded.config,
            Err(problems) => panic!("{problems}"),
        }
    }

    const CLUSTER_A: &str = "cluster-3a179b95-dff9-444b-9986-ba89c4e19c44";
    const CLUSTER_B: &str = "cluster-1e560f44-c898-41c3-818b-3433edbf9391";
    const FEDERATION: &str = "
gslb:
  federation_id: demo
  sites:
    - { name: site_A, cluster_uuid: cluster-3a179b95-dff9-444b-9986-ba89c4e19c44 }
    - { name: site_B, cluster_uuid: cluster-1e560f44-c898-41c3-818b-3433edbf9391 }
pki_profiles: [{ name: gpki-server, is_federated: true, ca_certs: [] }]
application_persistence_profiles:
  - name: gap-1
    is_federated: true
    persistence_type: gslb_site
    server_hm_down_recovery: RECOVERY
    http_cookie_persistence_profile:
      cookie_name: FOO
      timeout: 8h
      keys: [{ uuid: 509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69, key_file: site-cookie.key, state: active }]
gslb_services:
  - name: gs-1
    uuid: gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6
    domain_names: [a.com]
    is_federated: true
    site_persistence_enabled: true
    application_persistence_profile_ref: gap-1
    groups:
      - name: group1
        priority: 10
        members:
          - cluster_uuid: cluster-3a179b95-dff9-444b-9986-ba89c4e19c44
            vs_uuid: virtualservice-dc871051-35e8-4bec-bd1f-3c63fb6b7087
            ip: 127.0.0.11
            services: [{ port: 80 }]
          - cluster_uuid: cluster-1e560f44-c898-41c3-818b-3433edbf9391
            vs_uuid: virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a
            ip: 127.0.0.12
            services: [{ port: 80 }]
            drain_epoch: EPOCH
";

    #[test]
    fn a_cookie_is_told_whole() {
        let inspection = inspect(&config("site_A", 7, "pick_new_server"), VECTOR, NOW);
        table::golden("cookie-inspect.txt", &table::fields(&inspection));
    }

    #[test]
    fn what_a_valid_cookie_leads_to_depends_on_the_site_and_the_recovery() {
        for (site, recovery, meaning) in [
            ("site_B", "pick_new_server", "this site is the client's home and serves it"),
            (
                "site_A",
                "pick_new_server",
                "proxied to site_B; while that is down, served here and issued anew",
            ),
            ("site_A", "abort_connection", "proxied to site_B; while that is down, answered 503"),
            ("site_A", "continue_persistent_server", "proxied to site_B, even while that is down"),
        ] {
            let inspection = inspect(&config(site, 0, recovery), VECTOR, NOW);
            assert_eq!((inspection.verdict.as_str(), inspection.meaning.as_str()), (VALID, meaning));
        }
        let late = inspect(&config("site_B", 0, "pick_new_server"), VECTOR, 1_517_879_521);
        assert!(late.meaning.ends_with("; issued anew with the next answer"), "{}", late.meaning);
    }

    #[test]
    fn a_cookie_that_is_like_none_says_why() {
        let changed = VECTOR.replace("RZRU", "RZRV");
        let other_key = VECTOR.replace("509ceebd", "00000000");
        for (value, epoch, now, verdict, why) in [
            (VECTOR, 7, 1_517_879_522, "expired", "its time is over"),
            (VECTOR, 8, NOW, "expired", "its drain_epoch is below its member's"),
            (VECTOR, 7, 1_517_875_000, "future", "ahead of this machine's clock"),
            (&changed, 7, NOW, "undecryptable", "cut or changed"),
            (&other_key, 7, NOW, "unknown_key", "no configured key has its key id"),
            ("1S", 7, NOW, "undecryptable", "cut or changed"),
            ("", 7, NOW, "undecryptable", "cut or changed"),
            ("ä", 7, NOW, "undecryptable", "cut or changed"),
        ] {
            let inspection = inspect(&config("site_A", epoch, "pick_new_server"), value, now);
            assert_eq!(inspection.verdict, verdict, "{value}");
            assert!(inspection.meaning.contains(why), "{}", inspection.meaning);
        }
    }

    #[test]
    fn a_configuration_without_federation_has_no_key() {
        let files = BTreeMap::from([(PathBuf::from("site.yaml"), b"threads: 1\n".to_vec())]);
        let config = config::load_from(&files, Path::new("site.yaml"), &[]).expect("it loads").config;
        assert_eq!(inspect(&config, VECTOR, NOW).verdict, "unknown_key");
    }
}
