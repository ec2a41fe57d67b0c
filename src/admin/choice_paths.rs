//! The paths about the choice of members: GSLB services as configured, accounts of choices, orders to resume, and what
//! sites ask one another.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    ChoiceQuestion, Source,
    api::{failure, named, unknown},
    view,
    write::Peer,
};
use crate::gslb::choice::{Client, Family};

pub(super) async fn gslb_services<S: Source>(
    State(source): State<Arc<S>>,
) -> Json<Vec<view::GslbServiceConfig>> {
    Json(source.gslb_service_configs())
}

pub(super) async fn gslb_service<S: Source>(
    State(source): State<Arc<S>>,
    Path(name): Path<String>,
) -> Response {
    named("GSLB service", &name, source.gslb_service_configs(), |service| &service.name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    /// An address, or a network as in an EDNS client subnet.
    client: String,
    name: String,
    #[serde(rename = "type")]
    record_type: Option<String>,
}

pub(super) async fn explain<S: Source>(
    State(source): State<Arc<S>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return failure(
            StatusCode::BAD_REQUEST,
            "the query takes client=ADDRESS and name=NAME, each once, and type=A or type=AAAA",
        );
    };
    let Some(client) = client(&query.client) else {
        let error = format!(
            "client {} is not an address; write 192.0.2.1, or a network as in 192.0.2.0/24",
            query.client
        );
        return failure(StatusCode::BAD_REQUEST, error);
    };
    let family = match query.record_type.as_deref() {
        None => Family::V4,
        Some(word) if word.eq_ignore_ascii_case("a") => Family::V4,
        Some(word) if word.eq_ignore_ascii_case("aaaa") => Family::V6,
        Some(word) => {
            let error = format!("type {word} is not chosen by services; write A or AAAA");
            return failure(StatusCode::BAD_REQUEST, error);
        }
    };
    let name = query.name.trim_end_matches('.').to_ascii_lowercase();
    match source.explain_choice(&ChoiceQuestion { client, name, family }) {
        Some(explanation) => Json(explanation).into_response(),
        None => {
            let enabled = source.gslb_service_configs().into_iter().filter(|service| service.enabled);
            let names: Vec<_> = enabled.flat_map(|service| service.domain_names).collect();
            unknown("domain name", &query.name, names.iter().map(String::as_str))
        }
    }
}

/// A network is what an EDNS client subnet would say.
fn client(text: &str) -> Option<Client> {
    let Some((address, prefix)) = text.split_once('/') else { return Some(Client::at(text.parse().ok()?)) };
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= if address.is_ipv4() { 32 } else { 128 })?;
    let network = ipnet::IpNet::new(address, prefix).ok()?.trunc();
    Some(Client::subnet(network.addr(), prefix))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResumeQuery {
    member: Option<String>,
}

pub(super) async fn resume<S: Source>(
    State(source): State<Arc<S>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<ResumeQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return failure(StatusCode::BAD_REQUEST, "the query takes member=NAME, or nothing for all members");
    };
    match source.resume_members(&name, query.member.as_deref(), &peer.to_string()) {
        Some(resumed) => Json(resumed).into_response(),
        None => {
            let enabled = source.gslb_service_configs().into_iter().filter(|service| service.enabled);
            let names: Vec<_> = enabled.map(|service| service.name).collect();
            unknown("GSLB service", &name, names.iter().map(String::as_str))
        }
    }
}

pub(super) async fn site_health<S: Source>(State(source): State<Arc<S>>) -> Json<view::SiteHealth> {
    Json(source.site_health())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network() {
        for (text, address, prefix, from_ecs) in [
            ("192.0.2.1", "192.0.2.1", 32, false),
            ("::ffff:192.0.2.1", "192.0.2.1", 32, false),
            ("2001:db8::1", "2001:db8::1", 128, false),
            ("192.0.2.77/24", "192.0.2.0", 24, true),
            ("2001:db8::/56", "2001:db8::", 56, true),
        ] {
            let expected = Client { address: address.parse().unwrap(), prefix, from_ecs };
            assert_eq!(client(text), Some(expected), "{text}");
        }
        for text in ["", "a.com", "192.0.2.1/33", "192.0.2.0/", "::/129"] {
            assert_eq!(client(text), None, "{text}");
        }
    }
}
