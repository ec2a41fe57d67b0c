//! The contexts of an answer's way to the client: `http_response`, `http_response_data`, `http_finished`.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use pingora::http::ResponseHeader;

use super::{
    RuleError,
    exchange::{Exchange, Reply},
};

holds_exchange!(Response, ResponseData, Finished);
edits_headers!(Response);

/// Context of `http_response`.
pub struct Response<'a> {
    head: &'a mut ResponseHeader,
    exchange: &'a mut Exchange,
    server: Option<SocketAddr>,
    resendable: bool,
    retry: bool,
    /// The body of an answer of homing's own that may be given otherwise.
    own_body: Option<&'a mut Bytes>,
}

impl<'a> Response<'a> {
    pub(crate) fn new(
        head: &'a mut ResponseHeader,
        exchange: &'a mut Exchange,
        server: Option<SocketAddr>,
        resendable: bool,
    ) -> Self {
        Self { head, exchange, server, resendable, retry: false, own_body: None }
    }

    /// An answer of homing's own.
    pub(crate) fn own(
        head: &'a mut ResponseHeader,
        exchange: &'a mut Exchange,
        body: Option<&'a mut Bytes>,
    ) -> Self {
        Self { own_body: body, ..Self::new(head, exchange, None, false) }
    }

    /// Gives an answer of homing's own another body; whether that was done. Not one of a server, nor one that a rule
    /// gave with its body.
    pub fn replace_body(&mut self, body: impl Into<Bytes>) -> bool {
        let Some(own) = &mut self.own_body else { return false };
        **own = body.into();
        true
    }

    /// Whether the request could be sent to another server in place of this answer.
    pub fn is_resendable(&self) -> bool {
        self.server.is_some() && self.resendable
    }

    /// Throws this answer away and asks a server from where the request would have gone without
    /// [`Request::server_of`](super::Request::server_of): iRules' `HTTP::retry`. Without effect if the request is not resendable.
    pub fn retry_here(&mut self) {
        if self.is_resendable() {
            self.exchange.decided("retry");
            self.exchange.come_home();
            self.retry = true;
        }
    }

    /// Throws this answer away and gives another in its place.
    pub fn respond(&mut self, reply: Reply) {
        self.exchange.decided("respond");
        self.exchange.reply = Some(reply);
    }

    pub(crate) fn wants_retry(&self) -> bool {
        self.retry
    }

    /// The server that answered; `None`: homing itself.
    pub fn server(&self) -> Option<SocketAddr> {
        self.server
    }

    /// iRules' `HTTP::status`.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// Changes the status.
    ///
    /// # Errors
    /// It is not between 100 and 999.
    pub fn set_status(&mut self, status: u16) -> Result<(), RuleError> {
        self.head.set_status(status).map_err(|error| RuleError::new(error.to_string()))
    }

    /// All values of a header that is a list, as one (RFC 9110, 5.3). Values that are no text are left out.
    pub fn joined(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The head as Pingora holds it.
    pub fn pingora(&mut self) -> &mut ResponseHeader {
        self.head
    }
}

/// Context of `http_response_data`.
pub struct ResponseData<'a> {
    /// The chunk; a rule may put another in its place, if the answer's length is not fixed by a header.
    pub chunk: &'a mut Option<Bytes>,
    end: bool,
    exchange: &'a mut Exchange,
}

impl<'a> ResponseData<'a> {
    pub(crate) fn new(chunk: &'a mut Option<Bytes>, end: bool, exchange: &'a mut Exchange) -> Self {
        Self { chunk, end, exchange }
    }

    /// Whether the body ends with this chunk. Where trailers follow, a chunk that a rule adds here goes out in their
    /// place.
    pub fn is_end(&self) -> bool {
        self.end
    }
}

/// Context of `http_finished`.
pub struct Finished<'a> {
    /// The status that the client got; 0 if it went away before.
    pub status: u16,
    /// Bytes of the answer's body.
    pub body_bytes_sent: usize,
    /// From the request's head to the end.
    pub duration: Duration,
    /// The server that was asked last.
    pub server: Option<SocketAddr>,
    pub(crate) exchange: &'a mut Exchange,
}
