//! Reads a node's file and the federation file that it names, and makes the configuration of them.

use std::{io, path::Path, sync::Arc, time::Duration};

use serde_yaml::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    AccessLog, Admin, ApplicationProfile, Certificate, Config, Dns, DnsResolver, ErrorPageProfile,
    EventFormat, Gslb, HealthMonitor, LogFormat, Pool, Problem, Problems, RuleSpec, Site, SslProfile,
    VirtualService,
    app_persistence::Profiles,
    federation::Federation,
    files::{Disk, Files, Source, unreadable},
    gslb::Unfederated,
    listeners, persistence,
    pki::PkiProfile,
    pool,
    pool_tls::Proofs,
    problem::{Place, Report},
    read::{FileKind, Object},
    seen::{Seen, Watched},
    site_tls,
    table::Table,
    units::{self, days, hours, seconds},
    virtual_service::{Known, Placed},
    words,
    yaml::{Data, Node},
};
use crate::site_cookie::Secret;

/// A configuration that can be run, and what is dubious about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

/// Loads a configuration from disk. `registered`: the names of the rules that this program has.
///
/// # Errors
///
/// Everything that is wrong, at once; see [`Problem`] for how each is written.
pub fn load(file: &Path, registered: &[&str]) -> Result<Loaded, Problems> {
    load_from(&Disk, file, registered)
}

/// [`load`], and which files it read, whether that went well or not.
pub fn load_seen(file: &Path, registered: &[&str]) -> (Result<Loaded, Problems>, Seen) {
    load_watched(&Disk, file, registered)
}

/// [`load`], from files of the caller's choice. Certificates are read again when listeners start, from disk.
///
/// # Errors
///
/// As [`load`].
pub fn load_from(files: &dyn Files, file: &Path, registered: &[&str]) -> Result<Loaded, Problems> {
    load_watched(files, file, registered).0
}

fn load_watched(files: &dyn Files, file: &Path, registered: &[&str]) -> (Result<Loaded, Problems>, Seen) {
    let (report, files) = (Report::default(), Watched::new(files));
    let config = read(&files, file, registered, &report);
    let seen = files.seen();
    let loaded = report.into_result().map(|warnings| {
        let config = config.expect("a configuration that cannot be read is a problem");
        Loaded { config: Config { seen: seen.clone(), ..config }, warnings }
    });
    (loaded, seen)
}

fn read(files: &dyn Files, file: &Path, registered: &[&str], report: &Report) -> Option<Config> {
    let site = Source { file: file.into(), files, report };
    let tree = match parse(&site) {
        Ok(tree) => tree?,
        Err(error) => {
            let (what, help) = unreadable(file, &error);
            let help = match error.kind() {
                io::ErrorKind::NotFound => "create it, or name another with `--config`",
                _ => help,
            };
            report.problem(site.place(1), what, help);
            return None;
        }
    };
    let config = Object::read_root(&site, &tree, |o| read_site(o, registered))?;
    Some(Config { checksum: checksum(&tree), ..config })
}

/// The tree of a file; `None`: it is not YAML, which is reported.
fn parse(source: &Source<'_>) -> io::Result<Option<Node>> {
    let bytes = source.files.read(&source.file)?;
    let report = |line, what: String, help: String| {
        source.report.problem(source.place(line), what, help);
        None
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(report(1, "not UTF-8".into(), "save the file as UTF-8 text".into()));
    };
    Ok(Node::parse(&text).map_or_else(|(line, wrong)| report(line, wrong.what, wrong.help), Some))
}

pub(super) fn read_site(o: &mut Object<'_>, registered: &[&str]) -> Config {
    let report = o.source.report;
    let mut monitors = Table::new("health monitor");
    let federation = read_federation(o, &mut monitors);
    o.each("health_monitors", |o| HealthMonitor::read(o, FileKind::Site, &mut monitors));
    pool::refuse_groups(o);

    let mut known = Known {
        pools: Table::new("pool"),
        rules: Table::new("rule"),
        profiles: Table::new("application profile"),
        ssl_profiles: Table::new("SSL profile"),
        certificates: Table::new("certificate"),
        error_pages: Table::new("error page profile"),
    };
    o.each("ssl_keys_and_certificates", |o| Certificate::read(o, &mut known.certificates));
    let federated = federation.as_ref().map_or(&[][..], |federation| &federation.profiles);
    let mut profiles = Profiles { own: Table::new("application persistence profile"), federated };
    o.each("application_persistence_profiles", |o| profiles.read(o));
    let mut pki_profiles = Table::new("PKI profile");
    o.each("pki_profiles", |o| PkiProfile::read_own(o, &mut pki_profiles));
    let proofs = Proofs { pki_profiles: &pki_profiles, certificates: &known.certificates };
    let pools = o.objects("pools", |o| Pool::read(o, &monitors, &profiles, &proofs, &mut known.pools));
    let rules = o.objects("rules", |o| RuleSpec::read(o, registered, &mut known.rules));
    o.each("application_profiles", |o| ApplicationProfile::read(o, &pki_profiles, &mut known.profiles));
    o.each("ssl_profiles", |o| SslProfile::read(o, &mut known.ssl_profiles));
    o.each("error_page_profiles", |o| ErrorPageProfile::read(o, &mut known.error_pages));
    let mut names = Table::new("virtual service");
    let virtual_services = o.objects("virtual_services", |o| VirtualService::read(o, &known, &mut names));
    for key in ["gslb", "gslb_services"] {
        o.misplaced(
            key,
            "a federated object in a site's own file",
            "move it to the file that `federation` names",
        );
    }

    let site = o.object("site", |o| (Site::read(o), site_tls::read_reference(o, &known.certificates)));
    let (site, site_certificate) = site.unwrap_or_default();
    let admin = o.object("admin", Admin::read).unwrap_or_default();
    let admin_place = o.has("admin").then(|| o.place_of("admin"));
    let access_log = o.object("access_log", AccessLog::read).flatten();
    warn_of_lost_headers(&virtual_services, access_log.as_ref(), report);
    let log_format = o.object("log", EventFormat::read).unwrap_or_default();
    let gslb = federation.as_ref().and_then(|federation| federation.gslb.as_ref());
    let dns = o.object("dns", |o| Dns::read(o, gslb)).flatten();
    let dns_place = o.place_of("dns");
    let dns_resolver = o.object("dns_resolver", DnsResolver::read).unwrap_or_default();
    let alone =
        listeners::Alone { admin: (&admin, admin_place), dns: dns.as_ref().map(|dns| (dns, dns_place)) };
    listeners::check(&virtual_services, alone, report);
    if let Some(federation) = &federation {
        federation.check((&site, o.place_of("site")), &virtual_services, &pools, report);
    }
    let site_tls = site_tls::join(o, &site, site_certificate, federation.as_ref());
    Config {
        file: o.source.file.to_path_buf(),
        seen: Seen::default(),
        checksum: String::new(),
        site,
        admin,
        access_log,
        log_format,
        threads: o.field("threads", units::whole(1..=1024)).unwrap_or_else(cores),
        max_connections: o.field("max_connections", units::whole(1..=10_000_000)),
        grace_period: o
            .field("grace_period", units::duration(Duration::ZERO..=days(1)))
            .unwrap_or(seconds(20)),
        watch: o.field("watch", units::flag).unwrap_or(false),
        so_reuseport: o.field("so_reuseport", units::flag).unwrap_or(false),
        upgrade_sock: o.field("upgrade_sock", words::file_name).map(|path| o.source.beside(&path)),
        session_snapshot: o.field("session_snapshot", words::file_name).map(|path| o.source.beside(&path)),
        session_snapshot_interval: o
            .field("session_snapshot_interval", units::duration(seconds(1)..=days(1)))
            .unwrap_or(seconds(30)),
        session_entries: o.field("session_entries", units::whole(1..=1_000_000_000)).unwrap_or(1_000_000),
        session_ticket_rotation: o
            .field("session_ticket_rotation", units::duration(seconds(60)..=days(30)))
            .unwrap_or(hours(12)),
        session_ticket_secrets: read_ticket_secrets(o),
        clone_mark_key: o
            .key_file("clone_mark_key_file")
            .and_then(|file| persistence::secret(o, "clone_mark_key_file", file)),
        gslb_state_file: o.field("gslb_state_file", words::file_name).map(|path| o.source.beside(&path)),
        dns_resolver,
        pools,
        virtual_services: virtual_services.into_iter().map(|placed| placed.vs).collect(),
        rules,
        gslb: federation
            .and_then(|federation| federation.gslb)
            .map(|gslb| Arc::new(Gslb { site_tls, ..gslb })),
        dns: dns.map(Arc::new),
    }
}

/// One on each line, the one that seals first.
fn read_ticket_secrets(o: &mut Object<'_>) -> Vec<Secret> {
    const KEY: &str = "session_ticket_keys_file";
    let Some((path, content)) = o.key_file(KEY) else { return Vec::new() };
    let content = Zeroizing::new(content);
    o.warn_if_others_read(KEY, &path);
    if o.has("session_ticket_rotation") {
        let help = "leave one of the two out: who writes the file changes the keys";
        o.dubious("session_ticket_rotation", "no effect beside `session_ticket_keys_file`", help);
    }
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let secrets: Option<Vec<_>> = lines.map(Secret::from_key_file).collect();
    secrets.filter(|secrets| !secrets.is_empty()).unwrap_or_else(|| {
        let what =
            format!("file {} is not a list of keys of 64 hex digits, one on each line", path.display());
        o.wrong(KEY, what, "make each with `homing keys new`; the first seals, the others open");
        Vec::new()
    })
}

/// Full logs that would go nowhere.
fn warn_of_lost_headers(virtual_services: &[Placed], log: Option<&AccessLog>, report: &Report) {
    let (what, help) = match log {
        Some(log) if log.format == LogFormat::Json => return,
        Some(_) => ("this access log has no header fields", "write `format: json` in `access_log`"),
        None => ("there is no access log to write to", "add `access_log: { path: … }`"),
    };
    for vs in virtual_services.iter().filter(|placed| placed.vs.analytics.full_client_logs.enabled) {
        let path = format!("{}.analytics_policy.full_client_logs", vs.place.path);
        report.warning(Place { path, ..vs.place.clone() }, what, help);
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn read_federation(o: &mut Object<'_>, monitors: &mut Table<Arc<HealthMonitor>>) -> Option<Federation> {
    let path = o.source.beside(&o.field("federation", words::file_name)?);
    let unfederated = Unfederated {
        monitors: o.names("health_monitors"),
        profiles: o.names("application_persistence_profiles"),
    };
    let source = Source { file: path.as_path().into(), ..o.source.clone() };
    match parse(&source) {
        Ok(tree) => {
            let tree = tree?;
            Object::read_root(&source, &tree, |o| {
                Federation::read(o, monitors, &unfederated, checksum(&tree))
            })
        }
        Err(error) => {
            let (what, help) = unreadable(&path, &error);
            o.wrong("federation", what, help);
            None
        }
    }
}

/// SHA-256 of what a file says, whatever its comments and its style. Sites compare it, as do those who look at metrics.
fn checksum(tree: &Node) -> String {
    let mut hash = Sha256::new();
    digest(tree, &mut hash);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Kinds and lengths go before contents, so that no two trees are the same bytes.
fn digest(tree: &Node, hash: &mut Sha256) {
    let mut say = |kind: u8, len: usize, content: &[u8]| {
        hash.update([kind]);
        hash.update((len as u64).to_be_bytes());
        hash.update(content);
    };
    match &tree.data {
        Data::Scalar(Value::String(text)) => say(b's', text.len(), text.as_bytes()),
        Data::Scalar(Value::Bool(flag)) => say(b'b', 1, &[u8::from(*flag)]),
        Data::Scalar(Value::Number(number)) => {
            let digits = number.to_string();
            say(b'n', digits.len(), digits.as_bytes());
        }
        Data::Scalar(_) => say(b'0', 0, &[]),
        Data::List(items) => {
            say(b'l', items.len(), &[]);
            items.iter().for_each(|item| digest(item, hash));
        }
        Data::Map(entries) => {
            say(b'm', entries.len(), &[]);
            for entry in entries {
                hash.update((entry.key.len() as u64).to_be_bytes());
                hash.update(&entry.key);
                digest(&entry.value, hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::yaml::fixture::node;

    #[test]
    fn a_checksum_tells_what_a_file_says_and_not_how() {
        let of = |text: &str| checksum(&node(text));
        let plain = of("a: [1, {b: c}]\nd: true\ne:\n");
        for same in ["a:   # one\n  - 1\n  - b: 'c'\nd: true\ne: ~\n", "{a: [1, {b: c}], d: true, e: null}"] {
            assert_eq!(of(same), plain, "{same}");
        }
        let mut seen = HashSet::from([plain]);
        for other in [
            "a: [1, {b: c}]\nd: false\ne:\n",
            "a: ['1', {b: c}]\nd: true\ne:\n",
            "a: [1, {b: c}, d]\ntrue: e\n",
            "a: [1, {b: c, d: true}]\ne:\n",
            "a: [1, {bc: ''}]\nd: true\ne:\n",
            "a: [1, [b, c]]\nd: true\ne:\n",
            "a: [1, {b: c}]\nd: true\ne: ''\n",
            "a: [1, {b: c}]\nd: true\n",
            "a: [1.5, {b: c}]\nd: true\ne:\n",
        ] {
            assert!(seen.insert(of(other)), "{other}");
        }
    }
}
