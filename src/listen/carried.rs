//! What of ours goes with a connection through Pingora, to all phases of the requests on it: it is the user data of a
//! proxy digest, which Pingora hands on with each use of the connection.

use std::any::Any;

use pingora::{http::ResponseHeader, protocols::raw_connect::ProxyDigest};

/// A proxy digest that carries this alone.
pub fn carrying(what: impl Any + Send + Sync) -> ProxyDigest {
    let unused = ResponseHeader::build(200, Some(0)).expect("200 is a status");
    ProxyDigest::new(Box::new(unused), Some(Box::new(what)))
}

/// What a digest carries, if it is of this kind.
pub fn carried<T: 'static>(digest: &ProxyDigest) -> Option<&T> {
    digest.user_data.as_ref()?.downcast_ref()
}
