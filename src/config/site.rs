//! This node's site.

use crate::names::{ClusterUuid, SiteName};

/// The site that this node belongs to. A file without a `site` has the name `local` and no cluster uuid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub name: SiteName,
    pub cluster_uuid: Option<ClusterUuid>,
}
