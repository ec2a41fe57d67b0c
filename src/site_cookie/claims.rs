//! What a cookie says, and the 64 bytes in which it says it.
//!
//! ```text
//! u8 layout = 1 | u8 0 | u16 0 | u32 drain_epoch | u64 iat | u64 exp | 32 B member | 8 B server_tag
//! ```
//!
//! All big-endian. Avi's cookie holds a cluster's and a virtual service's uuid; ours holds their hash, which
//! Avi shows as `prst_hdr_val`.

use sha2::{Digest, Sha256};

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The home of the client, see [`member_id`].
    pub member_id: [u8; 32],
    /// The home's drain epoch at the time of sealing.
    pub drain_epoch: u32,
    /// When it was sealed, Unix seconds.
    pub iat: u64,
    /// From when on it is expired, Unix seconds; 0: never.
    pub exp: u64,
    /// Names the app server at home; zeros: none.
    pub server_tag: [u8; 8],
}

/// The identity of a virtual service among the members of a GSLB service, Avi's `prst_hdr_val`: the SHA-256
/// of `<cluster uuid>:<virtual service uuid>`.
pub fn member_id(cluster_uuid: &str, vs_uuid: &str) -> [u8; 32] {
    Sha256::new().chain_update(cluster_uuid).chain_update(":").chain_update(vs_uuid).finalize().into()
}

/// A cookie that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub claims: Claims,
    /// Whether the key that sealed it is the one that seals now.
    pub by_active_key: bool,
    /// Tells this cookie from all others, uniformly distributed: a part of its authentication tag.
    pub serial: u64,
}

impl Opened {
    /// Whether to give the client a fresh one: the key changed, or more than half of the lifetime is gone.
    pub fn is_stale(&self, now: u64) -> bool {
        let Claims { iat, exp, .. } = self.claims;
        !self.by_active_key || exp != 0 && now.saturating_sub(iat) > exp.saturating_sub(iat) / 2
    }
}

impl Claims {
    pub(super) fn to_bytes(self) -> [u8; PLAIN_LEN] {
        let mut bytes = [0; PLAIN_LEN];
        bytes[0] = LAYOUT;
        bytes[4..8].copy_from_slice(&self.drain_epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.iat.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.exp.to_be_bytes());
        bytes[24..56].copy_from_slice(&self.member_id);
        bytes[56..64].copy_from_slice(&self.server_tag);
        bytes
    }

    /// `None` where the layout is not ours or a reserved bit is set.
    pub(super) fn from_bytes(bytes: &[u8; PLAIN_LEN]) -> Option<Self> {
        fn field<const N: usize>(bytes: &[u8; PLAIN_LEN], at: usize) -> [u8; N] {
            *bytes[at..].first_chunk().expect("the fields fill 64 bytes")
        }
        (bytes[..4] == [LAYOUT, 0, 0, 0]).then(|| Self {
            drain_epoch: u32::from_be_bytes(field(bytes, 4)),
            iat: u64::from_be_bytes(field(bytes, 8)),
            exp: u64::from_be_bytes(field(bytes, 16)),
            member_id: field(bytes, 24),
            server_tag: field(bytes, 56),
        })
    }
}

/// Bytes of a cookie's plaintext.
pub(super) const PLAIN_LEN: usize = 64;

const LAYOUT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: Claims = Claims { member_id: [1; 32], drain_epoch: 0, iat: 0, exp: 0, server_tag: [0; 8] };

    #[test]
    fn the_member_id_is_avis() {
        let id = member_id(
            "cluster-1e560f44-c898-41c3-818b-3433edbf9391",
            "virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a",
        );
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "16077db5be5a5402f8185e02769756a3f0deffcdc0ab28fe8a60ac13d0219e32");
    }

    #[test]
    fn every_field_has_its_place() {
        let claims = Claims {
            member_id: [3; 32],
            drain_epoch: 0x0405_0607,
            iat: 8,
            exp: 9 << 56,
            server_tag: [10; 8],
        };
        let mut bytes = [0; PLAIN_LEN];
        bytes[..8].copy_from_slice(&[1, 0, 0, 0, 4, 5, 6, 7]);
        (bytes[15], bytes[16]) = (8, 9);
        bytes[24..56].fill(3);
        bytes[56..].fill(10);
        assert_eq!(claims.to_bytes(), bytes);
        assert_eq!(Claims::from_bytes(&bytes), Some(claims));
    }

    #[test]
    fn a_cookie_is_renewed_in_the_second_half_of_its_life() {
        let opened =
            |iat, exp| Opened { claims: Claims { iat, exp, ..CLAIMS }, by_active_key: true, serial: 1 };
        for (iat, exp, now, stale) in [
            (1000, 2000, 1000, false),
            (1000, 2000, 1500, false),
            (1000, 2000, 1501, true),
            (1000, 2000, 900, false),
            (1000, 0, u64::MAX, false),
        ] {
            assert_eq!(opened(iat, exp).is_stale(now), stale, "{iat} {exp} {now}");
        }
    }
}
