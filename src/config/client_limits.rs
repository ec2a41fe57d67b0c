//! How many connections a virtual service takes, and how often clients may come and ask.

use std::fmt;

use http::HeaderName;

use super::{
    problem::{Wrong, shown},
    read::Object,
    units::{self, days, milliseconds, seconds},
    words,
    yaml::Node,
};
use crate::buckets::Rate;

/// What one client may do at a port before anything is known of it but its address. Virtual services that share a
/// listener must agree on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections open at a time.
    pub max_concurrent_connections_per_client: Option<u32>,
    /// New connections in a second.
    pub max_cps_per_client: Option<u32>,
}

/// How often requests may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRate {
    pub per: RatePer,
    pub rate: Rate,
    pub action: RateAction,
}

/// Whose requests count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RatePer {
    /// An address, or an IPv6 network of a household.
    Client,
    /// The value of a field; requests without it by their client.
    Header(HeaderName),
    VirtualService,
}

/// What becomes of a request that is over the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateAction {
    /// It is answered with this status.
    Respond(u16),
    /// Its connection is closed.
    Close,
}

impl ClientLimits {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let mut most = |key| o.field(key, units::whole(1..=MOST));
        Self {
            max_concurrent_connections_per_client: most("max_concurrent_connections_per_client"),
            max_cps_per_client: most("max_cps_per_client"),
        }
    }

    /// Whether there is none.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

impl RequestRate {
    pub(super) fn read_all(o: &mut Object<'_>) -> Vec<Self> {
        o.object_or_objects("requests_rate_limit", Self::read)
    }

    fn read(o: &mut Object<'_>) -> Option<Self> {
        let per = o.field("per", RatePer::parse).unwrap_or(RatePer::Client);
        let rate = o.required_object("rate_limiter", read_rate);
        let action = o.object("action", RateAction::read).unwrap_or(RateAction::Respond(429));
        Some(Self { per, rate: rate??, action })
    }
}

fn read_rate(o: &mut Object<'_>) -> Option<Rate> {
    let count = o.required("count", units::whole(1..=MOST));
    let period = o.field("period", units::duration(milliseconds(1)..=days(1))).unwrap_or(seconds(1));
    let burst = o.field("burst_sz", units::whole(1..=MOST));
    Some(Rate { count: count?, period, burst: burst.or(count)? })
}

impl fmt::Display for RatePer {
    /// As it is written in YAML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client_ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::VirtualService => f.write_str("virtual_service"),
        }
    }
}

impl RatePer {
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let text = words::text(node)?;
        match text.split_once(':') {
            Some(("header", name)) => words::header_name(name).map(Self::Header),
            None if text == "client_ip" => Ok(Self::Client),
            None if text == "virtual_service" => Ok(Self::VirtualService),
            _ => {
                let what = format!("{} is nothing that requests are counted by", shown(&text));
                Err(Wrong::new(what, "write `client_ip`, `header:NAME` or `virtual_service`"))
            }
        }
    }
}

impl RateAction {
    fn read(o: &mut Object<'_>) -> Self {
        let closes = o.field("type", words::choice(&ACTIONS)).unwrap_or(false);
        let status = o.field("status_code", units::whole(400..=599));
        match (closes, status) {
            (true, None) => Self::Close,
            (true, Some(_)) => {
                o.wrong(
                    "status_code",
                    "a connection that is closed is not answered",
                    "leave it out, or write `type: local_response`",
                );
                Self::Close
            }
            (false, status) => Self::Respond(status.unwrap_or(429)),
        }
    }
}

impl RateAction {
    /// Its `type`, as it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&ACTIONS, self == Self::Close)
    }
}

/// Whether the connection is closed.
const ACTIONS: [(&str, &str, bool); 2] =
    [("local_response", "RL_ACTION_LOCAL_RSP", false), ("close_conn", "RL_ACTION_CLOSE_CONN", true)];

/// More than there are is the same as no limit.
const MOST: u32 = 10_000_000;
