//! The shape of a site of the federation, and of how it is emptied.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A site of the federation, as the node that is asked sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Site {
    pub name: String,
    pub cluster_uuid: String,
    /// The node that is asked belongs to it.
    pub is_own: bool,
    pub drain_state: DrainState,
    /// Until when its sessions may stay; absent while it is in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Timestamp>,
    /// About how many sessions have their home there: those that this node saw in the last ten minutes, to 1.6 %.
    /// Only the site itself knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_sessions: Option<u64>,
}

/// How far a site has been emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DrainState {
    InService,
    /// Keeps its sessions, while new ones start elsewhere.
    Draining,
    /// The deadline is over: its sessions begin anew elsewhere.
    Drained,
}
