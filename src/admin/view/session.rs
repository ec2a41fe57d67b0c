//! The shapes of the session tables and of what is in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OperStatus, Timestamp};

/// The session tables, and the entries of the one that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sessions {
    pub tables: Vec<SessionTable>,
    /// At most 1000.
    pub entries: Vec<SessionEntry>,
    /// There are more entries than are listed.
    #[serde(default)]
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionTable {
    /// `ssl`, `clone:<virtual service>:<pool>`, or as rules named it.
    pub name: String,
    pub entries: u64,
}

/// One session. Its token is not kept, only a hash of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionEntry {
    /// The hash that copies carry in `X-Homing-Clone`.
    pub session: String,
    /// The hash of the key under which it was found; a session may have several.
    pub key: String,
    /// The clone member, or what a rule stored.
    pub value: String,
    /// How it came by its value, as the end of a sentence: `chosen when the session began`.
    pub why: String,
    /// Since when it has its value.
    pub since: Timestamp,
    /// Requests so far.
    pub requests: u64,
    /// An entry in use does not expire.
    pub in_use: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it ends if nobody uses it; absent while it is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// One session and what it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    pub table: String,
    /// Whose clone section the table is of; absent where rules made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<String>,
    /// The token that named it, as in YAML and without its value: `cookie:SID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(flatten)]
    pub entry: SessionEntry,
    /// How the member is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_status: Option<OperStatus>,
}

impl Sessions {
    /// The most entries in one answer; a table may hold millions.
    pub const MOST: usize = 1_000;
}
