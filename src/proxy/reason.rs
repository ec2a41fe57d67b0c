//! Errors in few words: in those of the access log, where who answers by himself and knows better sets `Ctx::reason`,
//! and in those of the metrics of servers.

use std::io;

use pingora::{Error, ErrorSource, ErrorType};

use crate::{access_log::Reason, listen::HeadRefusal};

/// Why a request failed.
pub(super) fn of(error: &Error) -> Reason {
    use ErrorType::*;
    match (error.etype(), error.esource()) {
        (HTTPStatus(400), _) => Reason::BadRequest,
        (HTTPStatus(413), _) => Reason::BodyTooLarge,
        (HTTPStatus(414), _) => Reason::UriTooLong,
        (HTTPStatus(431), _) => Reason::HeadTooLarge,
        (HTTPStatus(421), _) => Reason::NoVirtualService,
        (HTTPStatus(503), _) => Reason::NoServer,
        (HTTPStatus(500), _) => Reason::RuleFailed,
        (ReadTimedout | ReadError, ErrorSource::Downstream) if is_late(error) => Reason::ClientTimeout,
        (WriteError | WriteTimedout | ReadError | ConnectionClosed, ErrorSource::Downstream) => {
            Reason::ClientGone
        }
        (_, ErrorSource::Downstream) => Reason::BadRequest,
        (ConnectionClosed, ErrorSource::Unset) => Reason::Rejected,
        (kind, ErrorSource::Upstream) => of_server(kind),
        _ => Reason::Internal,
    }
}

/// Why a head was refused before there was a request.
pub(super) fn of_head(refusal: HeadRefusal) -> Reason {
    match refusal {
        HeadRefusal::Malformed => Reason::BadRequest,
        HeadRefusal::Late => Reason::ClientTimeout,
        HeadRefusal::UriTooLong => Reason::UriTooLong,
        HeadRefusal::TooLarge => Reason::HeadTooLarge,
    }
}

/// Whether the client took too long with its request: Pingora saw it, or the wire did.
pub(super) fn is_late(error: &Error) -> bool {
    let seen_by_wire = || {
        let cause = error.root_cause().downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
    };
    match error.etype() {
        ErrorType::ReadTimedout => true,
        ErrorType::ReadError => seen_by_wire(),
        _ => false,
    }
}

/// Why a server did not answer, or not whole.
fn of_server(kind: &ErrorType) -> Reason {
    use ErrorType::*;
    match kind {
        ConnectTimedout => Reason::ConnectTimeout,
        ConnectRefused | ConnectNoRoute | ConnectError | BindError | SocketError | ConnectProxyFailure => {
            Reason::ConnectFailed
        }
        TLSWantX509Lookup | TLSHandshakeFailure | TLSHandshakeTimedout | InvalidCert | HandshakeError => {
            Reason::TlsFailed
        }
        ReadTimedout | WriteTimedout => Reason::ServerTimeout,
        ReadError | WriteError | ConnectionClosed => Reason::ServerClosed,
        _ => Reason::BadAnswer,
    }
}

/// Has an error say that this machine lacked something for a connection: Pingora's own connector calls that internal.
pub(super) fn own_up(error: &mut Error) {
    if *error.etype() != ErrorType::InternalError {
        return;
    }
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<Box<Error>>());
    if let Some(local @ (ErrorType::BindError | ErrorType::SocketError)) = cause.map(|cause| cause.etype()) {
        error.etype = local.clone();
    }
}

/// Why a connection to a server was not made.
pub(super) fn of_connecting(error: &ErrorType) -> &'static str {
    match error {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => "timeout",
        ErrorType::ConnectRefused => "refused",
        ErrorType::ConnectNoRoute => "no_route",
        ErrorType::InvalidCert => "certificate",
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => "tls_handshake",
        // No port, no such address, or no file descriptor is left.
        ErrorType::BindError | ErrorType::SocketError => "local",
        _ => "other",
    }
}

/// Why a server that has the request does not answer it whole.
pub(super) fn of_request(error: &ErrorType) -> &'static str {
    match error {
        ErrorType::ReadTimedout => "read_timeout",
        ErrorType::WriteTimedout => "write_timeout",
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => "closed",
        ErrorType::InvalidHTTPHeader
        | ErrorType::H1Error
        | ErrorType::H2Error
        | ErrorType::H2Downgrade
        | ErrorType::InvalidH2 => "protocol",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_who_caused_them() {
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        for (error, reason) in [
            (Error::new_up(ErrorType::ConnectRefused), Reason::ConnectFailed),
            (Error::new_up(ErrorType::ConnectTimedout), Reason::ConnectTimeout),
            (Error::new_up(ErrorType::InvalidCert), Reason::TlsFailed),
            (Error::new_up(ErrorType::ReadTimedout), Reason::ServerTimeout),
            (Error::new_up(ErrorType::ConnectionClosed), Reason::ServerClosed),
            (Error::new_up(ErrorType::InvalidHTTPHeader), Reason::BadAnswer),
            (Error::new_down(ErrorType::ReadTimedout), Reason::ClientTimeout),
            (Error::because(ErrorType::ReadError, "", timed_out()).into_down(), Reason::ClientTimeout),
            (Error::new_down(ErrorType::ReadError), Reason::ClientGone),
            (Error::new_down(ErrorType::WriteTimedout), Reason::ClientGone),
            (Error::new(ErrorType::HTTPStatus(413)), Reason::BodyTooLarge),
            (Error::new(ErrorType::HTTPStatus(414)), Reason::UriTooLong),
            (Error::new(ErrorType::HTTPStatus(431)), Reason::HeadTooLarge),
            (Error::new_down(ErrorType::InvalidHTTPHeader), Reason::BadRequest),
            (Error::new(ErrorType::HTTPStatus(503)), Reason::NoServer),
            (Error::new(ErrorType::HTTPStatus(421)), Reason::NoVirtualService),
            (Error::new(ErrorType::ConnectionClosed), Reason::Rejected),
            (Error::new(ErrorType::InternalError), Reason::Internal),
        ] {
            assert_eq!(of(&error), reason, "{error}");
        }
    }
}
