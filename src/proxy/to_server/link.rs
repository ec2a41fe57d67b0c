//! What the phases of a request know a connection to a server by: Pingora hands it on with each use of the connection, as
//! a proxy digest.

use std::sync::{Arc, OnceLock};

use pingora::protocols::{Digest, Stream};

use super::super::dial::Held;
use crate::{listen::carried, pool::Connected};

/// A connection that is read and written through a [`Wire`](super::wire::Wire).
#[derive(Debug, Default)]
pub(in super::super) struct Link {
    /// Where homing may have to end it.
    held: Option<Arc<Held>>,
    /// The server's count of connections, once it is known whose this one is.
    among: OnceLock<Arc<Connected>>,
}

impl Link {
    pub(super) fn of(stream: &Stream) -> Self {
        let digest = stream.get_proxy_digest();
        Self { held: digest.and_then(|digest| carried::<Arc<Held>>(&digest).cloned()), ..Self::default() }
    }

    /// The one of a connection that Pingora is about to use.
    pub fn behind(digest: Option<&Digest>) -> Option<&Arc<Self>> {
        carried(digest?.proxy_digest.as_deref()?)
    }

    pub fn held(&self) -> Option<&Arc<Held>> {
        self.held.as_ref()
    }

    /// The connection counts among those of a server from now on.
    pub fn is_among(&self, connected: &Arc<Connected>) {
        self.among.get_or_init(|| connected.clone());
    }

    pub(super) fn among(&self) -> Option<&Arc<Connected>> {
        self.among.get()
    }
}
