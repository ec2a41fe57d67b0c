//! `homing run`: serves until it is told to stop.

use std::{io, path::Path, process::ExitCode};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Error, check, log};
use crate::server::{Builder, Homing, OpenFiles, Trigger};

/// Loads the configuration and serves it until SIGTERM or SIGINT; what is in flight then has the grace period.
/// A second signal ends at once. SIGHUP loads the configuration again, SIGUSR1 opens the access log again.
pub fn run(builder: &Builder, file: &Path) -> Result<ExitCode, Error> {
    let loaded = check::load(builder, file)?;
    log::start("info", loaded.config.log_format);
    if let Err(error) = OpenFiles::raise() {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    // It accepts and administers, and serves too if there is to be one thread.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let homing = check::build(builder, loaded.config)?;
    let done = runtime.block_on(serve(homing));
    runtime.shutdown_background();
    done
}

async fn serve(homing: Homing) -> Result<ExitCode, Error> {
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
    let mut rotated = signal(SignalKind::user_defined1()).map_err(Error::Runtime)?;
    let running = homing.start().await?;
    loop {
        tokio::select! {
            () = signals.next() => break,
            // What comes of it is in the log. It may take its time, which SIGTERM does not wait for.
            _ = hangup.recv() => drop(tokio::spawn(running.reload(Trigger::Signal))),
            _ = rotated.recv() => running.reopen_access_log(),
        }
    }
    let grace = running.grace_period();
    tracing::info!("stopping; what is in flight has {}", humantime::format_duration(grace));
    tokio::select! {
        cut = running.shutdown(grace) => match cut {
            0 => tracing::info!("stopped"),
            cut => tracing::warn!("stopped after the grace period; {cut} connections were cut"),
        },
        () = signals.next() => tracing::warn!("stopped at once, at a second signal"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What asks a process to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves. Needs a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Until SIGTERM or SIGINT comes.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
