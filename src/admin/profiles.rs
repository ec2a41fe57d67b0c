//! Profiles that virtual services share, as the admin API shows them.

use ipnet::IpNet;

use super::view;
use crate::config;

/// How HTTP clients are met; `logs`: there is an access log.
pub(super) fn application(profile: &config::ApplicationProfile, logs: bool) -> view::ApplicationProfile {
    let (limits, head, ids) = (&profile.limits, &profile.limits.head, &profile.request_ids);
    view::ApplicationProfile {
        http_to_https: profile.http_to_https,
        client_header_timeout: profile.client_header_timeout.into(),
        keepalive_timeout: profile.keepalive_timeout.into(),
        client_max_uri_size: head.client_max_uri_size as u64,
        client_max_header_size: head.client_max_header_size as u64,
        max_header_count: head.max_header_count as u64,
        client_max_request_size: head.client_max_request_size as u64,
        client_max_body_size: limits.client_max_body_size,
        client_body_timeout: limits.client_body_timeout.into(),
        client_body_min_rate: limits.client_body_min_rate,
        request_id: view::RequestIds {
            trusted_peers: networks(&ids.trusted),
            to_server: ids.to_server.unwrap_or(logs),
            to_client: ids.to_client,
        },
        http2: view::Http2 {
            max_concurrent_streams: profile.http2.max_concurrent_streams,
            max_header_list_size: profile.http2.max_header_list_size,
            max_control_frames: profile.http2.max_control_frames,
            prior_knowledge: profile.http2.prior_knowledge,
        },
        trusted_proxies: networks(&profile.trusted_proxies.networks),
        trusted_proxies_header: profile.trusted_proxies.header.as_str().to_owned(),
        ssl_client_certificate_mode: match &profile.clients {
            None => "none",
            Some(clients) if clients.required => "require",
            Some(_) => "request",
        }
        .to_owned(),
        pki_profile_ref: profile.clients.as_ref().map(|clients| clients.pki_profile.clone()),
    }
}

/// How TLS is spoken with clients.
pub(super) fn ssl(profile: &config::SslProfile) -> view::SslProfile {
    view::SslProfile {
        name: profile.name.clone(),
        min_version: profile.min_version.as_str().to_owned(),
        max_version: profile.max_version.as_str().to_owned(),
        session_tickets: profile.session_tickets,
        http2: profile.http2,
        accepted_ciphers: profile.accepted_ciphers.clone(),
        ciphersuites: profile.ciphersuites.clone(),
        handshake_timeout: profile.handshake_timeout.into(),
    }
}

/// Networks as they are written in YAML.
pub(super) fn networks(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(IpNet::to_string).collect()
}
