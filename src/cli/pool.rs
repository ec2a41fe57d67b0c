//! `homing pool`: has a running homing's servers serve, drain, or rest.

use std::net::SocketAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    ask::Ask,
    client::{Error, escaped},
};
use crate::admin::view;

#[derive(Args, Debug)]
pub struct Pool {
    /// A pool of an app, or of clone members
    name: String,
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Command one server
    ///
    /// An order outlives reloads and is forgotten at a restart: to make it last, write it into the configuration.
    /// `homing show pool NAME` shows it, with who gave it and when.
    Server {
        /// IP:PORT
        addr: SocketAddr,
        order: Order,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// Take requests again
    Enable,
    /// Get nothing more, as if it were down: sessions go elsewhere, what is in flight ends in its own time
    Disable,
    /// Keep the sessions that it has and get no new ones
    Drain,
}

impl Order {
    /// The last part of the path.
    fn verb(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Drain => "drain",
        }
    }
}

/// Commands the running homing and returns what to print.
pub async fn pool(args: Pool) -> Result<String, Error> {
    let client = args.ask.client()?;
    let What::Server { addr, order } = args.what;
    let (pool, addr) = (escaped(&args.name), escaped(&addr.to_string()));
    let path = format!("/api/v1/pools/{pool}/servers/{addr}/{}", order.verb());
    let server: view::Server = client.post(&path).await?;
    Ok(args.ask.output.one(&server))
}

#[cfg(test)]
mod tests {
    use crate::{admin::view::example, cli::table};

    #[test]
    fn a_server_that_drains_says_who_had_it_drain_and_when() {
        table::golden("pool-server.txt", &table::fields(&example::draining()));
    }
}
