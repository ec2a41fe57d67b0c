//! Whatever can be configured of an object is shown of it.

use std::collections::BTreeSet;

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use super::super::view;
use crate::config::{FileKind, schema};

/// The keys that the configuration's reader takes at the end of a path of keys.
fn configurable(path: &[&str]) -> BTreeSet<String> {
    let mut at = schema(FileKind::Site);
    for key in path {
        at = at["properties"][key].take();
        if let Some(either) = at.get_mut("anyOf") {
            at = either[0].take();
        }
        if at.get("items").is_some() {
            at = at["items"].take();
        }
    }
    keys(&at)
}

fn shown<View: JsonSchema>() -> BTreeSet<String> {
    let mut schema = serde_json::to_value(schema_for!(View)).expect("a schema is JSON");
    let mut found = keys(&schema);
    // What is flattened and may be left out stands beside the rest.
    for part in ["anyOf", "allOf", "oneOf"] {
        for branch in schema[part].as_array_mut().into_iter().flatten() {
            let name =
                branch["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")).map(str::to_owned);
            found.extend(keys(branch));
            found.extend(name.iter().flat_map(|name| keys(&schema_for!(View).as_value()["$defs"][name])));
        }
    }
    found
}

fn keys(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect()
}

/// `elsewhere`: keys that are shown under another name, or that are no more than a way to write another.
fn check<View: JsonSchema>(path: &[&str], elsewhere: &[&str]) {
    let (configurable, shown) = (configurable(path), shown::<View>());
    assert!(configurable.len() > 1, "{path:?} is no object of the configuration");
    let missing: Vec<_> = configurable
        .iter()
        .filter(|key| !shown.contains(*key) && !elsewhere.contains(&key.as_str()))
        .collect();
    assert!(missing.is_empty(), "{path:?}: not shown: {missing:?}; shown: {shown:?}");
    let needless: Vec<_> = elsewhere.iter().filter(|key| !configurable.contains(**key)).collect();
    assert!(needless.is_empty(), "{path:?}: {needless:?}");
}

#[test]
fn every_key_of_an_object_is_shown() {
    check::<view::Pool>(
        &["pools"],
        &["application_persistence_profile_ref", "default_server_port", "server_name"],
    );
    check::<view::InlineDetails>(&["pools", "inline_health_monitor"], &[]);
    check::<view::RetryBudget>(&["pools", "retry_budget"], &[]);
    check::<view::Server>(&["pools", "servers"], &["resolve_server_by_dns"]);
    check::<view::HealthMonitor>(&["health_monitors"], &["is_federated"]);
    check::<view::AppPersistence>(
        &["application_persistence_profiles"],
        &[
            "app_cookie_persistence_profile",
            "hdr_persistence_profile",
            "http_cookie_persistence_profile",
            "ip_persistence_profile",
            "is_federated",
            "name",
            "tls_persistence_profile",
        ],
    );
    check::<view::ServerCookie>(
        &["application_persistence_profiles", "http_cookie_persistence_profile"],
        &["timeout"],
    );
    check::<view::VirtualService>(&["virtual_services"], &["ssl_key_and_certificate_ref", "ssl_profile_ref"]);
    check::<view::Service>(&["virtual_services", "services"], &["port_range_end", "ssl_profile_ref"]);
    check::<view::RequestRate>(&["virtual_services", "requests_rate_limit"], &[]);
    check::<view::RateLimiter>(&["virtual_services", "requests_rate_limit", "rate_limiter"], &[]);
    check::<view::AnalyticsPolicy>(&["virtual_services", "analytics_policy"], &[]);
    check::<view::FullClientLogs>(&["virtual_services", "analytics_policy", "full_client_logs"], &[]);
    check::<view::CloneSection>(&["virtual_services", "clone"], &["host"]);
    check::<view::ApplicationProfile>(&["application_profiles"], &["name"]);
    check::<view::RequestIds>(&["application_profiles", "request_id"], &[]);
    check::<view::Http2>(&["application_profiles", "http2"], &[]);
    check::<view::SslProfile>(&["ssl_profiles"], &["accepted_versions"]);
}
