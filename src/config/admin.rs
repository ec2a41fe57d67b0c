//! Where the admin API listens.

use std::{net::SocketAddr, path::PathBuf};

/// The admin API's listener and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: AdminListen,
    /// Asked for beyond loopback by everything but `/metrics`, `/healthz` and `/readyz`.
    pub token_file: Option<PathBuf>,
}

/// `127.0.0.1:9901` (the default), `unix:PATH` or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
    None,
}
