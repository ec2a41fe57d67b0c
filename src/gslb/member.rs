//! The identity of a member of a GSLB service, as cookies carry it and `show pool` prints it.
//!
//! Avi calls it `prst_hdr_val`. It says nothing about addresses, so a member keeps it when it moves.

use std::fmt;

use crate::{
    names::{ClusterUuid, VsUuid},
    site_cookie::member_id,
};

/// The SHA-256 of `<cluster uuid>:<virtual service uuid>`; shown as 64 hex digits. A third party's member has an fqdn
/// in place of both, and is the SHA-256 of `:<fqdn>`. Cookies that name it are made by its own site, with the service's
/// key and in the published format.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberId([u8; 32]);

impl MemberId {
    /// The identity of a virtual service of a cluster.
    pub fn of(cluster: &ClusterUuid, vs: &VsUuid) -> Self {
        Self(member_id(cluster.as_str(), vs.as_str()))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for MemberId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_prst_hdr_val_that_avi_prints() {
        let id = MemberId::of(
            &"cluster-1e560f44-c898-41c3-818b-3433edbf9391".into(),
            &"virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a".into(),
        );
        assert_eq!(id.to_string(), "16077db5be5a5402f8185e02769756a3f0deffcdc0ab28fe8a60ac13d0219e32");
        assert_eq!(MemberId::from(*id.as_bytes()), id);
    }
}
