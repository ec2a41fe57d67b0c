//! Rules: what users program. F5 calls them iRules, Envoy filters; the events carry iRules' names in snake case.
//!
//! A rule is a Rust type that implements [`Rule`]. It is registered under a name in a [`Registry`] and named by
//! virtual services in YAML; a [`Chain`] runs the rules of one virtual service in order. Each event has a
//! context of its own ([`ClientConn`], [`Request`], [`LbEvent`], …), so that a call which makes no sense at an
//! event does not compile.
//!
//! | event | context | may |
//! |---|---|---|
//! | `client_accepted`, `client_closed` | [`ClientConn`] | choose a pool and clone members, reject, keep state |
//! | `clientssl_handshake` | [`ClientConn`] | the same, and see the TLS session |
//! | `http_request` | [`Request`] | edit, choose pool, server and clone members, answer |
//! | `clone_selected`, `clone_dropped` | [`CloneEvent`] | observe |
//! | `http_request_data` | [`RequestData`] | see or change a chunk |
//! | `lb_selected`, `lb_failed` | [`LbEvent`] | observe, choose again, answer |
//! | `http_request_send` | [`RequestSend`] | edit what the server sees |
//! | `http_response` | [`Response`] | edit, try again, answer otherwise |
//! | `http_response_data` | [`ResponseData`] | see or change a chunk |
//! | `http_finished` | [`Finished`] | observe |
//!
//! What every context can do (pools, session table, per-request state) is on
//! [`Exchange`], which the contexts of a request dereference to.
//!
//! homing's own clone pools and site persistence are rules behind this same trait, see [`crate::filter`].
//!
//! This module knows nothing of sockets: the proxy fills the contexts and carries out what rules decided.

/// Lets a request's context be used as the exchange that it holds.
macro_rules! holds_exchange {
    ($($context:ident),*) => {$(
        impl std::ops::Deref for $context<'_> {
            type Target = $crate::rule::Exchange;

            fn deref(&self) -> &Self::Target {
                self.exchange
            }
        }

        impl std::ops::DerefMut for $context<'_> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                self.exchange
            }
        }
    )*};
}

/// Lets a context read and edit the header fields of the head that it holds.
macro_rules! edits_headers {
    ($($context:ident),*) => {$(
        impl $context<'_> {
            /// A header's first value, if it is text: iRules' `HTTP::header`.
            pub fn header(&self, name: &str) -> Option<&str> {
                self.head.headers.get(name)?.to_str().ok()
            }

            pub fn headers(&self) -> &http::HeaderMap {
                &self.head.headers
            }

            /// Sets a header, replacing all of its values.
            ///
            /// # Errors
            /// The name or the value has bytes that no header may have.
            pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> $crate::rule::RuleResult {
                let (name, value) = $crate::rule::field(name, value.as_ref())?;
                self.head.insert_header(name, value)?;
                Ok(())
            }

            /// Adds a value to a header.
            ///
            /// # Errors
            /// The name or the value has bytes that no header may have.
            pub fn append_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> $crate::rule::RuleResult {
                let (name, value) = $crate::rule::field(name, value.as_ref())?;
                self.head.append_header(name, value)?;
                Ok(())
            }

            /// Removes a header; whether there was one.
            pub fn remove_header(&mut self, name: &str) -> bool {
                self.head.remove_header(name).is_some()
            }
        }
    )*};
}

mod chain;
mod clone_event;
mod connection;
mod decisions;
mod exchange;
mod forwarded;
mod lb;
mod registry;
mod request;
mod request_id;
mod response;
mod services;
mod simulator;
mod state;

pub use chain::{Chain, ChainEntry, Stopped};
pub use clone_event::CloneEvent;
pub use connection::{ClientConn, ConnectionState, TlsView};
pub(crate) use decisions::Decisions;
pub(crate) use exchange::Preferred;
pub use exchange::{CloneOrder, Destination, Exchange, Reply};
pub(crate) use forwarded::Introduction;
pub(crate) use lb::Reselect;
pub use lb::{LbEvent, LbPhase};
pub use registry::{Factory, Registry, Setup, SiteSetup, UnknownRule};
pub use request::{Request, RequestData, RequestSend};
pub(crate) use request::{cookies, host};
pub use request_id::{RequestId, X_REQUEST_ID};
pub use response::{Finished, Response, ResponseData};
pub use services::{Assign, Pools, Services, Sessions};
pub use simulator::{Simulated, Simulator};

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};

/// What an event handler returns. An `Err` is logged with the rule's name and counted, then the rule's
/// `on_error` decides.
pub type RuleResult = Result<(), RuleError>;

/// Why a rule failed: a message for the log. Any error converts into it with `?`.
pub struct RuleError(String);

impl RuleError {
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for RuleError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The events of a connection and of a request, in the order in which they happen.
///
/// Every handler has a default that does nothing. Events at which a rule may want to wait are `async`; those
/// that run for each chunk or inside the balancer are plain functions and must not block.
///
/// ```
/// use homing::prelude::*;
///
/// struct Maintenance;
///
/// #[async_trait]
/// impl Rule for Maintenance {
///     async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
///         if request.path().starts_with("/shop") {
///             request.respond(Reply::new(503).header("retry-after", "600")?.body("back in ten minutes\n"));
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Rule: Send + Sync + 'static {
    /// A client connected: CLIENT_ACCEPTED. On a TLS port it runs after the handshake, just before
    /// [`Rule::clientssl_handshake`]; what must be refused earlier belongs into `allow` and `deny`.
    ///
    /// It runs as soon as the virtual service is known: at once where a listener has one, with the first
    /// request where several share it.
    #[doc(alias = "process_new")]
    async fn client_accepted(&self, _conn: &mut ClientConn<'_>) -> RuleResult {
        Ok(())
    }

    /// The TLS handshake is over, TLS ports only: CLIENTSSL_HANDSHAKE. [`ClientConn::ssl`] is there.
    #[doc(alias = "handshake_complete_callback")]
    async fn clientssl_handshake(&self, _conn: &mut ClientConn<'_>) -> RuleResult {
        Ok(())
    }

    /// The head of a request has arrived: HTTP_REQUEST.
    #[doc(alias = "request_filter")]
    async fn http_request(&self, _request: &mut Request<'_>) -> RuleResult {
        Ok(())
    }

    /// A chunk of the request's body: HTTP_REQUEST_DATA. Not called for the bytes of a tunnel.
    #[doc(alias = "request_body_filter")]
    fn http_request_data(&self, _data: &mut RequestData<'_>) -> RuleResult {
        Ok(())
    }

    /// A server was chosen: LB_SELECTED. Once per attempt.
    #[doc(alias = "upstream_peer")]
    fn lb_selected(&self, _lb: &mut LbEvent<'_>) -> RuleResult {
        Ok(())
    }

    /// No server could be chosen, or the chosen one could not be reached: LB_FAILED. A server that only a rule knows
    /// (a peer site) has failed, too, if it broke off before it answered and the request may be repeated.
    #[doc(alias = "fail_to_connect")]
    fn lb_failed(&self, _lb: &mut LbEvent<'_>) -> RuleResult {
        Ok(())
    }

    /// The request is about to be sent to the server: HTTP_REQUEST_SEND. Once per attempt.
    #[doc(alias = "upstream_request_filter")]
    fn http_request_send(&self, _send: &mut RequestSend<'_>) -> RuleResult {
        Ok(())
    }

    /// A copy of the request is about to be made for the member that was chosen. Once for each copy, however often
    /// the request is tried, and not for one that is skipped. An error of a rule is logged and counted here, and
    /// stops nothing, whatever its `on_error`: no request fails for its copies.
    fn clone_selected(&self, _clone: &mut CloneEvent<'_>) -> RuleResult {
        Ok(())
    }

    /// A copy of the request was dropped while the request was under way: no member is up, the budget is used up,
    /// the client went away, … A copy that is lost later, on its way to the member, has no request any more: it is
    /// counted and logged, and no event tells of it. As with [`Rule::clone_selected`], errors stop nothing.
    fn clone_dropped(&self, _clone: &mut CloneEvent<'_>) -> RuleResult {
        Ok(())
    }

    /// The head of the answer has arrived, or homing answers by itself: HTTP_RESPONSE.
    #[doc(alias = "response_filter")]
    async fn http_response(&self, _response: &mut Response<'_>) -> RuleResult {
        Ok(())
    }

    /// A chunk of the answer's body: HTTP_RESPONSE_DATA.
    #[doc(alias = "response_body_filter")]
    fn http_response_data(&self, _data: &mut ResponseData<'_>) -> RuleResult {
        Ok(())
    }

    /// The request is over, whatever became of it.
    #[doc(alias = "logging")]
    fn http_finished(&self, _finished: &mut Finished<'_>) -> RuleResult {
        Ok(())
    }

    /// The client's connection is over: CLIENT_CLOSED. Requests of an HTTP/2 connection may still be ending.
    fn client_closed(&self, _conn: &mut ClientConn<'_>) -> RuleResult {
        Ok(())
    }

    /// The rule as a factory returns it.
    fn into_rule(self) -> Arc<dyn Rule>
    where
        Self: Sized,
    {
        Arc::new(self)
    }
}

/// A header's name and value.
fn field(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), RuleError> {
    Ok((name.parse()?, HeaderValue::from_bytes(value)?))
}

/// The program of the guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/rules.md")]
struct Guide;
