//! HTTP/1 connections to servers through a stream of our own, which reads servers' answers before Pingora's parser does.
//!
//! Pingora asks its own pool first, and a custom connector where that has nothing; what the connector makes is spoken
//! HTTP/1 on, and kept and used again, as any connection of Pingora's. It is asked for peers whose ALPN is custom: for
//! those of [`http1`]. What is said to servers in TLS is `http/1.1`, as ever.

mod link;
mod wire;

use std::{
    io,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    connectors::{
        TransportConnector,
        http::custom::{self, Connection},
    },
    protocols::tls::CustomALPN,
    upstreams::peer::{ALPN, Peer},
};

use crate::message::Fault;
pub(super) use link::Link;
use wire::{Unsent, Wire};

/// Makes connections for HTTP/1. It keeps none, and all threads may share what it is made of.
pub struct Connector {
    transport: Arc<TransportConnector>,
}

impl Connector {
    pub fn new(transport: Arc<TransportConnector>) -> Self {
        Self { transport }
    }
}

#[async_trait]
impl custom::Connector for Connector {
    /// Pingora's own sessions are all there are.
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<()>, bool)> {
        let mut peer = peer.clone();
        if let Some(options) = peer.get_mut_peer_options() {
            options.alpn = ALPN::H1;
        }
        let stream = self.transport.new_stream(&peer).await?;
        Ok((Connection::Stream(Box::new(Wire::new(stream))), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _peer: &P) -> Option<()> {
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        _session: (),
        _peer: &P,
        _idle_timeout: Option<Duration>,
    ) {
    }
}

/// What a peer's ALPN is where HTTP/1 is to be spoken.
pub(super) fn http1() -> ALPN {
    /// Never sent; its only use is that Pingora takes it for a protocol of its own.
    static NAME: LazyLock<ALPN> = LazyLock::new(|| ALPN::Custom(CustomALPN::new(b"homing".to_vec())));
    NAME.clone()
}

/// What was wrong with an answer, if that is why reading it failed. The error says so then: to Pingora it was one of
/// the connection's.
pub(super) fn fault(error: &mut Error) -> Option<Fault> {
    let fault = *cause::<Fault>(error)?;
    error.etype = ErrorType::InvalidHTTPHeader;
    Some(fault)
}

/// Whether nothing of the request was sent, because the kept connection that it was for had been closed.
pub(super) fn is_unsent(error: &Error) -> bool {
    cause::<Unsent>(error).is_some()
}

/// What a wire said when it failed.
fn cause<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    error.root_cause().downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}
