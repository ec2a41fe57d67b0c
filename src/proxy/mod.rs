//! Follow one request: the phases in the order in which Pingora calls them, each a few lines that call a file
//! of this folder.
//!
//! | phase | here | rule events |
//! |---|---|---|
//! | connection | `connection.rs` | `client_accepted`, `clientssl_handshake`, `client_closed` |
//! | head arrived | `route.rs`, `strict.rs`, `trusted.rs`, `limits.rs` | `http_request` |
//! | server chosen | `upstream.rs`, `asking.rs`, `waiting.rs`, `peer.rs`, `protocol.rs`, `tunnel.rs` | `lb_selected`, `lb_failed` |
//! | to the server | `to_server/`, `dial.rs`, `distrust.rs`, `deadline.rs`, `retry.rs`, `forward.rs`, `copies.rs` | `clone_selected`, `clone_dropped`, `http_request_send`, `http_request_data` |
//! | answer | `reply.rs`, `observing.rs` | `http_response`, `http_response_data` |
//! | over | `access_log.rs`, from `notes.rs` | `http_finished` |

mod access_log;
mod asking;
mod connection;
mod copies;
mod deadline;
mod dial;
mod distrust;
mod exchange;
mod fields;
mod forward;
mod forwarded;
mod limits;
mod notes;
mod observing;
mod peer;
mod protocol;
mod reason;
mod reply;
mod request_id;
mod retry;
mod route;
mod strict;
mod to_server;
mod trusted;
mod tunnel;
mod upstream;
mod waiting;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::{
    Error, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::Digest,
    proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session},
    upstreams::peer::HttpPeer,
};

use crate::snapshot::Live;
use exchange::Ctx;
pub use to_server::Connector;

/// The proxy as Pingora's app.
pub type App = HttpProxy<Proxy, Connector>;

/// The proxy of one running instance.
pub struct Proxy {
    live: Arc<Live>,
    spare: forward::SpareHead,
}

impl Proxy {
    pub fn new(live: Arc<Live>) -> Self {
        Self { live, spare: forward::SpareHead::default() }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(self.live.clock.now())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        reply::suit_client(session);
        forward::body_expected(session)?;
        route::find_virtual_service(&self.live, session, ctx).await?;
        limits::head(session, ctx)?;
        if limits::is_within_rate(&self.live, session, ctx)? {
            route::run_rules(session, ctx).await?;
            limits::count_hop(&self.live, session, ctx)?;
        }
        if reply::answer_by_rule(session, ctx).await? {
            return Ok(true);
        }
        forward::prepare(session, &ctx.routed().exchange, &self.spare)?;
        copies::open(session, ctx);
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        notes::choosing(&self.live, ctx);
        let peer = upstream::choose(&self.live, session, ctx).await?;
        notes::chosen(ctx);
        copies::open(session, ctx);
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        reason::own_up(&mut error);
        observing::not_reached(&self.live, &error, ctx);
        upstream::not_reached(&self.live, session, ctx, peer, error)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        notes::connected(&self.live, ctx, reused);
        if !reused {
            upstream::reached(&self.live, session, ctx, peer, digest)?;
        }
        upstream::counts(digest, ctx);
        deadline::begin(&self.live, session, digest, ctx);
        ctx.copies.new_attempt();
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        protocol::agreed(&self.live, head, ctx)?;
        protocol::go_on(session, head).await?;
        protocol::takes_trailers(session, head)?;
        forward::to_server(head, ctx)?;
        forward::still_meant(session)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if end {
            asking::asked(&self.live, ctx);
            deadline::asked(&self.live, ctx);
        }
        forward::body_chunk(session, chunk, end, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        reply::from_server(session, head, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        notes::answered(&self.live, ctx);
        asking::answered(&self.live, head, ctx);
        observing::answered(&self.live, head, ctx);
        deadline::answered(&self.live, session, head, ctx);
        reply::to_client(session, head, ctx).await
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        reply::body_chunk(session, chunk, end, ctx)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        _trailers: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        reply::end_before_trailers(session, ctx)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        upstream::malformed(&self.live, &mut error, ctx);
        observing::broke(&self.live, session, &error, reused, ctx);
        upstream::broke(session, ctx, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        reply::failed(session, ctx, error).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        observing::over(&self.live, ctx);
        access_log::finished(&self.live, session, error, ctx);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true // the access log carries the reason
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
