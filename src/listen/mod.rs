//! The listening side: sockets that come and go at run time, and what happens to a client's connection before and
//! between its requests.
//!
//! A connection is accepted by [`Listeners`], asked by the [PROXY protocol](proxy_protocol) who the client is where a
//! balancer is in front, let in or refused by its address, shaken hands with where the port has TLS, and told to
//! [`ConnectionEvents`]. HTTP/1 then runs in our own keep-alive loop, which holds nothing but the socket while the
//! client is idle, HTTP/2 in one that accepts streams. Both read and write through `Wire`, our stream
//! around Pingora's. What a request *is* and where it goes is the app's business: this module is generic over it.
//!
//! Known elsewhere as: BIG-IP's virtual server address with its `CLIENT_ACCEPTED` and `CLIENT_CLOSED` events,
//! Envoy's listener manager, Pingora's `listening::Service`.

mod carried;
mod client_caps;
mod connection;
mod frames;
mod framing;
mod head;
mod header_block;
mod http1;
mod http2;
mod inherited;
mod listeners;
mod pace;
mod port;
pub mod proxy_protocol;
mod room;
mod socket;
mod tunnel;
mod unix;
mod upload;
mod wire;
mod workers;

pub use carried::{carried, carrying};
pub use client_caps::ClientCaps;
pub use connection::{Connection, ConnectionEvents, Refusal, Verdict};
pub use framing::Framing;
pub use head::{HeadRefusal, RefusedHead};
pub use inherited::Inherited;
pub use listeners::{Listeners, Prepared};
pub use pace::LeastPace;
pub use port::{Handshake, HandshakeFailure, ListenerSettings, ListenerSpec, Secured};
pub use room::Room;
pub use socket::{BindError, bind, bind_shared};
pub use tunnel::{AfterHeads, Side, Tunnel};
pub use unix::{IfTaken, SocketFile, UnixBindError, Users, bind_unix};

pub use wire::WRITE_TIMEOUT;
use wire::Wire;
pub use workers::Workers;

#[cfg(test)]
mod tests;
