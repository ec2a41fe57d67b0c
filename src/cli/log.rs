//! homing's own log: events with fields on stderr, as much as `HOMING_LOG` asks for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::EventFormat;

/// Starts logging at `level`, once. `HOMING_LOG` takes levels, also per module: `debug`, `info,homing::pool=trace`.
pub(super) fn start(level: &str, format: EventFormat) {
    let wanted = std::env::var("HOMING_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().parse(format!("{level},{QUIET},{wanted}"));
    let (filter, refused) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(format!("{level},{QUIET}")), Some(error)),
    };
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        EventFormat::Text => events.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        EventFormat::Json => events.json().flatten_event(true).init(),
    }
    if let Some(error) = refused {
        tracing::warn!(%error, "HOMING_LOG cannot be read; logging at {level}");
    }
}

/// Pingora logs requests that fail, one line each, at levels up to error; homing counts them and answers.
/// `HOMING_LOG` may bring them back.
const QUIET: &str = "pingora=off,pingora_core=off,pingora_proxy=off,pingora_cache=off,\
                     pingora_load_balancing=off,pingora_pool=off";
