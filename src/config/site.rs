//! This node's site.

use super::{read::Object, words};
use crate::names::{ClusterUuid, SiteName};

/// The site that this node belongs to. A file without a `site` has the name `local` and no cluster uuid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub name: SiteName,
    pub cluster_uuid: Option<ClusterUuid>,
}

impl Default for Site {
    fn default() -> Self {
        Self { name: "local".into(), cluster_uuid: None }
    }
}

impl Site {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        Self {
            name: o.name().unwrap_or_default().into(),
            cluster_uuid: o.field("cluster_uuid", words::identifier).map(Into::into),
        }
    }
}
