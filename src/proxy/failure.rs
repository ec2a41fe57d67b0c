//! What goes wrong with servers, in few words for metrics.

use pingora::ErrorType;

/// Why a connection to a server was not made.
pub(super) fn of_connecting(error: &ErrorType) -> &'static str {
    match error {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => "timeout",
        ErrorType::ConnectRefused => "refused",
        ErrorType::ConnectNoRoute => "no_route",
        ErrorType::InvalidCert => "certificate",
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => "tls_handshake",
        // No port or no file descriptor is left.
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
