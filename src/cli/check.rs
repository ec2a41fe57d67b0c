//! `homing check`: says everything that is wrong with a configuration, and serves nothing.

use std::path::Path;

use super::{Error, log};
use crate::{
    config::{Config, Loaded},
    server::{BuildError, Builder, Homing},
};

/// Loads and builds what `run` would serve, and returns what to print.
pub fn check(builder: &Builder, file: &Path) -> Result<String, Error> {
    let config = load(builder, file)?.config;
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (services, pools) = (config.virtual_services.len(), config.pools.len());
    // The machine that serves, and the user that homing is there, may be others.
    if let Err(error) = build(builder, config)?.may_probe() {
        log::say(format_args!("warning: {}: {error}; `run` would not start here", file.display()));
    }
    Ok(format!(
        "{}: no problems; {}, {}\n",
        file.display(),
        count(services, "virtual service"),
        count(pools, "pool")
    ))
}

/// Loads a configuration and says on stderr what is dubious about it.
pub(super) fn load(builder: &Builder, file: &Path) -> Result<Loaded, Error> {
    let loaded = builder.load(file)?;
    for warning in &loaded.warnings {
        log::say(format_args!("warning: {warning}"));
    }
    Ok(loaded)
}

pub(super) fn build(builder: &Builder, config: Config) -> Result<Homing, Error> {
    let file = config.file.clone();
    builder.build(config).map_err(|error| unbuilt(&file, &error))
}

/// A configuration that is right in itself cannot be put to work.
pub(super) fn unbuilt(file: &Path, error: &BuildError) -> Error {
    Error::Build { file: file.to_owned(), reason: error.to_string() }
}
