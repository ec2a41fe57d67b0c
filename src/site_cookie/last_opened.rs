//! The cookie that a connection brought last. A client sends the same one with each of its requests, and to compare
//! it costs a small part of opening it.

use std::sync::{Arc, Weak};

use super::{Opened, Refusal, format::CodecKey};

/// The last value that was opened, and what it says; kept with a connection. Clones share it.
#[derive(Clone, Default)]
pub struct LastOpened(Option<Arc<Known>>);

struct Known {
    value: Box<[u8]>,
    opened: Opened,
    /// With other keys it may mean nothing. Weak, because an idle connection should not keep keys that are gone.
    keys: Weak<[CodecKey]>,
}

impl LastOpened {
    /// What a value says under `keys`: known, or by `open`, and known from then on. What does not open is never kept.
    pub(super) fn or_open(
        &mut self,
        keys: &Arc<[CodecKey]>,
        value: &[u8],
        open: impl FnOnce() -> Result<Opened, Refusal>,
    ) -> Result<Opened, Refusal> {
        let same = |known: &&Arc<Known>| {
            std::ptr::addr_eq(known.keys.as_ptr(), Arc::as_ptr(keys)) && *known.value == *value
        };
        if let Some(known) = self.0.as_ref().filter(same) {
            return Ok(known.opened);
        }
        let opened = open()?;
        self.0 = Some(Arc::new(Known { value: value.into(), opened, keys: Arc::downgrade(keys) }));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site_cookie::{Claims, Codec, Key, KeyFile, KeyRing, KeyState, Secret};

    const NOW: u64 = 1_517_876_000;

    fn codec(secret: u8) -> Codec {
        let key = Key {
            uuid: "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69".into(),
            state: KeyState::Active,
            secret: Secret::new([secret; 32]),
            file: KeyFile::default(),
        };
        Codec::new(&KeyRing::new(vec![key]).expect("a ring"), "gslbservice-1", "FOO", None)
    }

    #[test]
    fn what_is_known_is_as_good_as_opened_and_no_better() {
        let (ours, changed) = (codec(1), codec(2));
        let claims =
            |iat| Claims { member_id: [9; 32], drain_epoch: 3, iat, exp: NOW + 60, server_tag: [0; 8] };
        let (first, second) = (ours.seal(&claims(NOW), [1; 12]), ours.seal(&claims(NOW - 1), [2; 12]));
        let mut forged = first.clone().into_bytes();
        forged[140] ^= 1;
        let mut last = LastOpened::default();
        let mut read = |codec: &Codec, value: &[u8], now, epoch| {
            let opened = codec.open_best([value], now, |_| Some(epoch), &mut last).expect("there is a value");
            opened.map(|opened| opened.claims.iat)
        };
        for _ in 0..2 {
            assert_eq!(read(&ours, first.as_bytes(), NOW, 3), Ok(NOW));
            assert_eq!(read(&ours, &forged, NOW, 3), Err(Refusal::Undecryptable));
            assert_eq!(read(&ours, first.as_bytes(), NOW + 60, 3), Err(Refusal::Expired), "time goes on");
            assert_eq!(
                read(&ours, first.as_bytes(), NOW, 4),
                Err(Refusal::Expired),
                "its member was drained"
            );
            assert_eq!(read(&changed, first.as_bytes(), NOW, 3), Err(Refusal::Undecryptable), "other keys");
            assert_eq!(read(&ours, second.as_bytes(), NOW, 3), Ok(NOW - 1), "another cookie");
        }
    }
}
