//! Why a request ended otherwise than with a server's whole answer, in one word.
//!
//! Known elsewhere as: HAProxy's termination state, Envoy's response flags.

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $word:literal, $significant:literal;)*) => {
        /// Why homing answered by itself, or the client got no whole answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            /// The word in the access log.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => $word,)*
                }
            }

            /// Whether a request that ended so always has a line. What a client gets wrong all by itself does not:
            /// anybody could fill the log with it.
            pub fn is_significant(self) -> bool {
                match self {
                    $(Self::$reason => $significant,)*
                }
            }
        }
    };
}

impl Reason {
    /// Whether homing refused the request for what the client did.
    pub fn is_refusal(self) -> bool {
        use Reason::*;
        matches!(
            self,
            RateLimited
                | TooManyConnections
                | BadRequest
                | UriTooLong
                | HeadTooLarge
                | BodyTooLarge
                | NoVirtualService
                | ClientTimeout
        )
    }
}

reasons! {
    /// A rule gave the answer; `rules` says which.
    RuleAnswered = "rule_answered", false;
    /// A rule failed and is configured to fail closed.
    RuleFailed = "rule_failed", true;
    /// A rule rejected the connection.
    Rejected = "rejected", false;
    /// The request is malformed.
    BadRequest = "bad_request", false;
    /// The request's target is longer than its virtual service takes.
    UriTooLong = "uri_too_long", false;
    /// The request's head, or one of its fields, is larger than its virtual service takes, or has too many.
    HeadTooLarge = "head_too_large", false;
    /// The request's body is larger than its virtual service takes.
    BodyTooLarge = "body_too_large", false;
    /// The client, or whoever it counts with, asks more often than it may.
    RateLimited = "rate_limited", false;
    /// The virtual service has as many client connections as it may.
    TooManyConnections = "too_many_connections", false;
    /// No virtual service of the listener has this Host.
    NoVirtualService = "no_virtual_service", false;
    /// No server is up, or none of those that were tried could be reached.
    NoServer = "no_server", true;
    /// Every server is full, and the pool has no queue.
    ServersFull = "servers_full", true;
    /// Every server is full, and so is the pool's queue.
    QueueFull = "queue_full", true;
    /// No server had a place for the request in time.
    QueueTimeout = "queue_timeout", true;
    /// The server did not accept the connection in time.
    ConnectTimeout = "connect_timeout", true;
    /// The server could not be connected to.
    ConnectFailed = "connect_failed", true;
    /// TLS with the server could not be made, or its certificate is not trusted.
    TlsFailed = "tls_failed", true;
    /// The server did not begin to answer within its pool's `server_response_timeout`.
    FirstByteTimeout = "first_byte_timeout", true;
    /// The request was not answered whole within its pool's `request_timeout`.
    RequestTimeout = "request_timeout", true;
    /// The server was silent for too long.
    ServerTimeout = "server_timeout", true;
    /// The server closed or reset the connection before its answer was whole.
    ServerClosed = "server_closed", true;
    /// The server's answer is not HTTP, or breaks its rules.
    BadAnswer = "bad_answer", true;
    /// The client did not send its request in time.
    ClientTimeout = "client_timeout", true;
    /// The client went away before its answer was whole, or did not read it.
    ClientGone = "client_gone", true;
    /// homing itself failed.
    Internal = "internal", true;
}
