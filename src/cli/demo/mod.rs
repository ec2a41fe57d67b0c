//! `homing demo`: two sites with their apps and clone members in one process, and curl lines to try.
//!
//! The sites are two ordinary instances with ordinary configuration files, which share nothing but the process.

mod files;
mod origins;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use self::{
    files::{Files, Place, SITES},
    origins::{Seen, Servers},
};
use super::{Error, check, client::Client, print, run::Signals};
use crate::{
    admin::view,
    server::{Builder, Running},
};

/// Starts everything, says what to try, and runs until SIGINT or SIGTERM.
pub fn demo(builder: &Builder) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let done = runtime.block_on(play(builder));
    runtime.shutdown_background();
    done
}

async fn play(builder: &Builder) -> Result<ExitCode, Error> {
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let seen = Arc::new(Seen::default());
    let (mut places, mut held) = (Vec::new(), Vec::new());
    for site in &SITES {
        let servers = Servers::start(site.name, &seen).await.map_err(Error::Demo)?;
        places.push(Place::find(site, servers, &mut held).map_err(Error::Demo)?);
    }
    let files = Files::write(&places).map_err(Error::Demo)?;
    let build = |place| check::build(builder, check::load(builder, &files.config(place))?.config);
    let built = places.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    drop(held);
    let mut sites = Vec::new();
    for site in built {
        sites.push(site.start().await?);
    }
    healthy(&sites).await?;
    print(files::what_to_try(&places, &files))?;
    seen.announce();
    signals.next().await;
    for site in sites {
        site.shutdown(GRACE).await;
    }
    print("\nThe demo has ended.\n".into())
}

/// Waits until every server of every pool has been found up, the other site's virtual service among them.
async fn healthy(sites: &[Running]) -> Result<(), Error> {
    let deadline = Instant::now() + START_TIMEOUT;
    for site in sites {
        let url =
            site.admin_url().and_then(|url| url.parse().ok()).expect("the demo's sites have an admin API");
        let client = Client::new(url, None)?;
        loop {
            let pools: Vec<view::Pool> = client.get("/api/v1/pools").await?;
            if pools.iter().all(|pool| pool.num_servers_up == pool.num_servers) || Instant::now() > deadline {
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(())
}

const GRACE: Duration = Duration::from_secs(1);
const START_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
