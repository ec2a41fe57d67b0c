//! Logging: events with fields on stderr, what `HOMING_LOG` asks for.

use tracing_subscriber::EnvFilter;

/// Starts logging. `HOMING_LOG` takes levels per module, such as `debug` or `info,homing::pool=trace`.
pub fn start() {
    let wanted = std::env::var("HOMING_LOG").unwrap_or_default();
    let (filter, refused) = match EnvFilter::builder().parse(format!("{QUIET},{wanted}")) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(QUIET), Some(error)),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    if let Some(error) = refused {
        tracing::warn!(%error, "HOMING_LOG cannot be read; logging at info");
    }
}

/// Pingora logs requests that fail, one line each, at levels up to error; homing counts them and answers.
/// `HOMING_LOG` may bring them back.
const QUIET: &str = "info,pingora=off,pingora_core=off,pingora_proxy=off,pingora_cache=off,\
                     pingora_load_balancing=off,pingora_pool=off";
