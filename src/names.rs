//! Names of configured objects, each a type of its own, so that a pool's name cannot be taken for a site's.
//!
//! Names compare exactly here; commands that operators type compare them without case ([`same_name`]).

use std::{borrow::Borrow, fmt, sync::Arc};

macro_rules! name {
    ($($(#[$doc:meta])* $type:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $type {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )*};
}

name! {
    /// A pool: of an app, of clone members, or the SP pool of a GSLB member.
    PoolName;
    /// A virtual service.
    VsName;
    /// A site: one cluster of homing nodes.
    SiteName;
    /// The uuid of a site's cluster, `cluster-…`.
    ClusterUuid;
    /// The uuid of a virtual service, `virtualservice-…`.
    VsUuid;
    /// A GSLB service.
    GslbServiceName;
    /// The uuid of a GSLB service, `gslbservice-…`.
    GslbServiceUuid;
    /// A health monitor.
    MonitorName;
    /// A rule, as registered and as named in YAML.
    RuleName;
}

/// Whether two names are the same to an operator who types one of them: ASCII case is ignored.
pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}
