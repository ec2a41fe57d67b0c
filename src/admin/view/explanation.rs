//! Why a request with a certain site cookie goes where it goes.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OperStatus, Timestamp};

/// What a virtual service does with a request of a client that brings a certain site cookie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    pub virtual_service: String,
    /// Absent where it is in no site-persistent GSLB service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gslb_service: Option<String>,
    /// What becomes of the request.
    pub decision: String,
    pub reason: String,
    /// What it is counted as in metrics, and called in the access line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What follows if home fails it; absent where it is not sent to another site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Home>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<SiteCookie>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recovery {
    pub server_hm_down_recovery: String,
    pub if_home_fails: String,
}

/// The virtual service that the cookie calls the client's home.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Home {
    pub site_name: String,
    pub is_this_site: bool,
    pub vs_uuid: String,
    pub prst_hdr_val: String,
    pub ip: IpAddr,
    /// Raising it makes older cookies expired.
    pub drain_epoch: u32,
    /// As this site sees it now; unknown where nothing runs.
    pub oper_status: OperStatus,
}

/// What the cookie says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteCookie {
    pub key_id: String,
    /// Absent where no configured key has this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_state: Option<String>,
    /// What follows is absent where it cannot be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Timestamp>,
    /// Since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// `never`, or in how long, or how long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_epoch: Option<u32>,
}
