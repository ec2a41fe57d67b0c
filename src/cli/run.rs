//! `homing run`: serves until it is told to stop, or until another process serves in its place.

use std::{
    io,
    path::PathBuf,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clap::Args;
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Error, check, log, systemd};
use crate::server::{Builder, HandOverError, HandedOver, Homing, Inheritance, OpenFiles, Running, Trigger};

#[derive(Args, Debug)]
pub struct Run {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "conf/homing.yaml")]
    config: PathBuf,
    /// Take over from the process that serves, when it gets SIGQUIT. Without this the same is done where a process
    /// answers at `upgrade_sock`
    #[arg(long)]
    upgrade: bool,
}

/// Loads the configuration and serves it until SIGTERM or SIGINT; what is in flight then has the grace period.
/// A second signal ends at once. SIGHUP loads the configuration again, SIGUSR1 opens the access log again, SIGQUIT
/// hands over to a process that waits, SIGUSR2 starts one first.
pub fn run(builder: &Builder, args: &Run) -> Result<ExitCode, Error> {
    let loaded = check::load(builder, &args.config)?;
    let _log = log::start("info", loaded.config.log_format);
    if let Err(error) = OpenFiles::raise() {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    // It accepts and administers, and serves too if there is to be one thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::MAX)
        .build()
        .map_err(Error::Runtime)?;
    // Files are read, and tables swept, on this thread, also when the system will give no other one any more.
    drop(runtime.spawn_blocking(|| ()));
    let inheritance = Inheritance::find(&loaded.config, args.upgrade)?;
    let built = builder.build_heir(loaded.config, inheritance);
    let homing = built.map_err(|error| check::unbuilt(&args.config, &error))?;
    let done = runtime.block_on(serve(homing));
    runtime.shutdown_background();
    done
}

async fn serve(homing: Homing) -> Result<ExitCode, Error> {
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
    let mut quit = signal(SignalKind::quit()).map_err(Error::Runtime)?;
    let mut upgrade = signal(SignalKind::user_defined2()).map_err(Error::Runtime)?;
    let mut rotated = signal(SignalKind::user_defined1()).map_err(Error::Runtime)?;
    let running = tokio::select! {
        running = homing.start() => running?,
        // It may wait for long to take over.
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    systemd::ready();
    let handed_over = loop {
        tokio::select! {
            () = signals.next() => break None,
            () = reload(&mut hangup, &running) => {}
            _ = rotated.recv() => running.reopen_access_log(),
            _ = quit.recv() => tokio::select! {
                handed_over = running.hand_over() => match handed_over {
                    Ok(handed_over) => break Some(handed_over),
                    Err(error) => tracing::error!("not handed over, serving on: {error}"),
                },
                () = signals.next() => break None,
            },
            _ = upgrade.recv() => tokio::select! {
                handed_over = upgrade_to_next(&running) => match handed_over {
                    Ok(handed_over) => break Some(handed_over),
                    Err(error) => tracing::error!("not handed over, serving on: {error}"),
                },
                () = signals.next() => break None,
            },
        }
    };
    let grace = running.grace_period();
    tokio::select! {
        cut = end(running, handed_over, grace) => match cut {
            0 => tracing::info!("stopped"),
            cut => tracing::warn!("stopped after the grace period; {cut} connections were cut"),
        },
        () = signals.next() => tracing::warn!("stopped at once, at a second signal"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the configuration again when SIGHUP has come; signals that come meanwhile are one reload more. What comes of
/// it is in the log. It may take its time, which other signals do not wait for: it goes on when this is dropped.
async fn reload(hangup: &mut Signal, running: &Running) {
    hangup.recv().await;
    let reload = running.reload(Trigger::Signal);
    let told = async {
        systemd::reloading();
        reload.await;
        systemd::reloaded();
    };
    // A panic in it is in the log.
    let _ = tokio::spawn(told).await;
}

/// Why there is no successor.
#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error("the program cannot be started again: {0}")]
    Start(#[source] io::Error),
    #[error("the new process ended early ({0}); its log says why")]
    Ended(ExitStatus),
    #[error(transparent)]
    HandOver(#[from] HandOverError),
}

/// Starts the program again as it was started, which may be another version by now, and hands over to it.
async fn upgrade_to_next(running: &Running) -> Result<HandedOver, UpgradeError> {
    if !running.has_successors() {
        return Err(HandOverError::NotConfigured.into());
    }
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| "homing".into());
    let mut next = Command::new(program).args(args).spawn().map_err(UpgradeError::Start)?;
    let pid = next.id().unwrap_or_default();
    tokio::select! {
        () = running.successor_waits(pid) => Ok(running.hand_over().await?),
        ended = next.wait() => Err(ended.map_or_else(UpgradeError::Start, UpgradeError::Ended)),
    }
}

/// How many connections were cut.
async fn end(running: Running, handed_over: Option<HandedOver>, grace: Duration) -> usize {
    let shown = humantime::format_duration(grace);
    match handed_over {
        Some(handed_over) => {
            systemd::handed_over(handed_over.pid);
            tracing::info!("ending; each connection ends with its next answer, all have {shown}");
            running.retire(handed_over, grace).await
        }
        None => {
            systemd::stopping();
            tracing::info!("stopping; what is in flight has {shown}");
            running.shutdown(grace).await
        }
    }
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
