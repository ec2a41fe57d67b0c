//! What a reload changes, object by object, for the people who asked for it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::Arc,
};

use crate::{
    admin::view::Changes,
    config::{AdminListen, Certificate, Config},
    snapshot::{Listener, Snapshot},
};

/// By section of the file, as far as there are such objects, and `listeners`.
pub(super) fn between(old: &Snapshot, new: &Snapshot) -> BTreeMap<String, Changes> {
    let configs = [&*old.config, &*new.config];
    let content_stays = |certificate: &Certificate| {
        let files = [&certificate.certificate_file, &certificate.key_file];
        files.iter().all(|file| old.config.seen.same_content(&new.config.seen, file))
    };
    let same_certificate = |a: &Arc<Certificate>, b: &Arc<Certificate>| a == b && content_stays(b);
    let same_listener = |a: &&Listener, b: &&Listener| {
        let names =
            |listener: &Listener| listener.virtual_services().map(|vs| vs.name().clone()).collect::<Vec<_>>();
        a.profile == b.profile
            && a.address_lists == b.address_lists
            && a.proxy_peers == b.proxy_peers
            && a.client_limits() == b.client_limits()
            && a.tls == b.tls
            && names(a) == names(b)
            && b.tls.iter().all(|(tls, _)| content_stays(&tls.certificate))
    };
    let [old_vs, new_vs] = configs.map(|config| {
        config.virtual_services.iter().map(|vs| (vs.name.to_string(), vs.clone())).collect::<Vec<_>>()
    });
    let [old_pools, new_pools] = [old, new].map(|snapshot| {
        snapshot.pools.iter().map(|pool| (pool.name().to_string(), pool.config().clone())).collect::<Vec<_>>()
    });
    let [old_rules, new_rules] = configs.map(|config| {
        config.rules.iter().map(|rule| (rule.name.to_string(), rule.clone())).collect::<Vec<_>>()
    });
    let [old_gslb, new_gslb] = configs.map(|config| {
        let services = config.gslb.iter().flat_map(|gslb| &gslb.services);
        services.map(|service| (service.name.to_string(), service.clone())).collect::<Vec<_>>()
    });
    let [old_listeners, new_listeners] = [old, new].map(|snapshot| {
        snapshot.listeners.iter().map(|(name, listener)| (name.to_string(), &**listener)).collect::<Vec<_>>()
    });
    let [old_certificates, new_certificates] = configs.map(certificates);
    let [old_settings, new_settings] = configs.map(settings);
    let changes = [
        ("virtual_services", Changes::between(old_vs, new_vs, |a, b| a == b)),
        ("pools", Changes::between(old_pools, new_pools, |a, b| a == b)),
        ("rules", Changes::between(old_rules, new_rules, |a, b| a == b)),
        ("gslb_services", Changes::between(old_gslb, new_gslb, |a, b| a == b)),
        ("listeners", Changes::between(old_listeners, new_listeners, same_listener)),
        ("ssl_keys_and_certificates", Changes::between(old_certificates, new_certificates, same_certificate)),
        ("settings", Changes::between(old_settings, new_settings, |a, b| a == b)),
    ];
    let changes = changes.into_iter().filter(|(_, changes)| !changes.is_empty());
    changes.map(|(section, changes)| (section.to_owned(), changes)).collect()
}

/// What the file says and only a restart puts in force.
pub(super) fn needs_restart(started_with: &Config, config: &Config) -> Vec<String> {
    let was_and_is = [
        ("threads", started_with.threads.to_string(), config.threads.to_string()),
        ("session_entries", started_with.session_entries.to_string(), config.session_entries.to_string()),
        ("upgrade_sock", path(&started_with.upgrade_sock), path(&config.upgrade_sock)),
        ("so_reuseport", started_with.so_reuseport.to_string(), config.so_reuseport.to_string()),
        ("admin.listen", listen(&started_with.admin.listen), listen(&config.admin.listen)),
        ("log.format", started_with.log_format.as_str().into(), config.log_format.as_str().into()),
        ("admin.socket_group", socket_group(started_with), socket_group(config)),
    ];
    let differ = was_and_is.into_iter().filter(|(_, was, is)| was != is);
    differ.map(|(key, was, is)| format!("{key}: {was} until a restart, then {is}")).collect()
}

/// The certificates that are in use.
fn certificates(config: &Config) -> Vec<(String, Arc<Certificate>)> {
    let services = config.virtual_services.iter().flat_map(|vs| &vs.services);
    let certificates = services.filter_map(|service| Some(&service.tls.as_ref()?.certificate));
    certificates.map(|certificate| (certificate.name.clone(), certificate.clone())).collect()
}

/// Keys at the top of the file whose change is in force at once.
fn settings(config: &Config) -> Vec<(String, String)> {
    let token_file = config.admin.token_file.as_ref().map(|file| file.display().to_string());
    let site = (&config.site.name, &config.site.cluster_uuid);
    [
        ("grace_period", humantime::format_duration(config.grace_period).to_string()),
        ("max_connections", config.max_connections.map_or_else(|| "none".into(), |most| most.to_string())),
        ("watch", config.watch.to_string()),
        ("session_snapshot", path(&config.session_snapshot)),
        (
            "session_snapshot_interval",
            humantime::format_duration(config.session_snapshot_interval).to_string(),
        ),
        ("site", format!("{site:?}")),
        ("session_ticket_rotation", humantime::format_duration(config.session_ticket_rotation).to_string()),
        ("session_ticket_keys_file", ticket_keys(config)),
        ("admin.token_file", token_file.unwrap_or_default()),
        ("access_log", config.access_log.as_ref().map(|log| format!("{log:?}")).unwrap_or_default()),
        ("dns", format!("{:?}", config.dns)),
        ("dns_resolver", format!("{:?}", config.dns_resolver)),
        ("admin.domain_names", config.admin.domain_names.join(", ")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Tells the keys from others, and not what they are.
fn ticket_keys(config: &Config) -> String {
    let mut hasher = DefaultHasher::new();
    config.session_ticket_secrets.iter().for_each(|secret| secret.expose().hash(&mut hasher));
    hasher.finish().to_string()
}

fn path(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "none".into(), |path| path.display().to_string())
}

fn socket_group(config: &Config) -> String {
    config.admin.socket_group.clone().unwrap_or("homing's own".into())
}

fn listen(listen: &AdminListen) -> String {
    match listen {
        AdminListen::Tcp(addr) => addr.to_string(),
        AdminListen::Unix(path) => format!("unix:{}", path.display()),
        AdminListen::None => "none".into(),
    }
}
