//! Why a handshake failed, in few words for metrics and in OpenSSL's for the log.

use std::fmt;

/// Why a handshake with a client failed. It is shown in OpenSSL's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeError {
    pub reason: HandshakeReason,
    message: String,
}

/// The kinds of failures that an operator tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeReason {
    /// The client closed the connection: it changed its mind, or it is a port scan.
    Closed,
    /// What the client says is not TLS; often it is plain HTTP.
    NotTls,
    /// No protocol version that both speak.
    Version,
    /// No cipher suite, group or signature algorithm that both speak.
    Cipher,
    /// The client ended it with an alert; mostly it does not trust the certificate.
    ClientAlert,
    /// A certificate was asked for, and the client has none or one that does not hold.
    ClientCertificate,
    Other,
}

impl HandshakeReason {
    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Cipher => "cipher",
            Self::ClientAlert => "client_alert",
            Self::ClientCertificate => "client_certificate",
            Self::Other => "other",
        }
    }

    /// Of a text with OpenSSL's error code in it, `error:LLRRRRRR:`, in which the last 23 bits are the reason
    /// (`ERR_GET_REASON`). Pingora hands on the text alone. Without a code it is the connection that failed.
    fn of(message: &str) -> Self {
        let Some((_, rest)) = message.split_once("error:") else { return Self::Closed };
        let digits = rest.split(':').next().unwrap_or_default();
        let Ok(code) = u32::from_str_radix(digits, 16) else { return Self::Other };
        // `openssl/sslerr.h`.
        match code & 0x007f_ffff {
            155 | 156 | 267 => Self::NotTls,
            258 | 396 => Self::Version,
            101 | 118 | 193 => Self::Cipher,
            134 | 199 => Self::ClientCertificate,
            294 => Self::Closed,
            1000..=1255 => Self::ClientAlert,
            _ => Self::Other,
        }
    }
}

impl From<Box<pingora::Error>> for HandshakeError {
    fn from(error: Box<pingora::Error>) -> Self {
        let message = error.to_string();
        Self { reason: HandshakeReason::of(&message), message }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssls_errors_have_few_reasons() {
        for (message, reason) in [
            ("TLS accept() failed: unexpected EOF", "closed"),
            ("TLS accept() failed: Connection reset by peer (os error 104)", "closed"),
            ("error:0A000126:SSL routines::unexpected eof while reading", "closed"),
            ("context: error:0A00009C:SSL routines:ssl3_get_record:http request:x.c:345:", "not_tls"),
            ("error:0A00010B:SSL routines:ssl3_get_record:wrong version number:x.c:354:", "not_tls"),
            ("error:0A000102:SSL routines:tls_early_post:unsupported protocol:x.c:1:", "version"),
            ("error:0A0000C1:SSL routines:tls_post:no shared cipher:x.c:1:", "cipher"),
            ("error:0A000418:SSL routines:ssl3_read_bytes:tlsv1 alert unknown ca:x.c:1:", "client_alert"),
            ("error:0A0000C7:SSL routines:x:peer did not return a certificate:x.c:1:", "client_certificate"),
            ("error:0A000042:SSL routines:x:y:x.c:1:", "other"),
            ("error:of another kind", "other"),
        ] {
            assert_eq!(HandshakeReason::of(message).as_str(), reason, "{message}");
        }
    }
}
