//! The command line: one file per command.
//!
//! Exit codes: 0 when all is well; 1 when something failed, with a message on stderr; 2 when what was given is
//! wrong, the arguments or the configuration.

mod client;
mod keys;
pub mod log;
mod show;
mod table;

use std::{io, io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};

/// A programmable load balancer that brings every session home: to its server, to its clone, to its site.
#[derive(Parser, Debug)]
#[command(
    name = "homing",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong arguments or configuration.\n\
                  HOMING_LOG sets what is logged on stderr, for example debug or info,homing::pool=trace."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what a running homing is doing
    Show(show::Show),
    /// Make keys for site cookies
    #[command(subcommand)]
    Keys(keys::Keys),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("homing cannot start: {0}")]
    Runtime(#[source] io::Error),
    #[error("stdout cannot be written: {0}")]
    Print(#[source] io::Error),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Client(_) | Self::Keys(_) | Self::Runtime(_) | Self::Print(_) => ExitCode::FAILURE,
        }
    }
}

/// Does what the arguments say.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Show(args) => show(args),
        Command::Keys(args) => keys::keys(args).map_err(Error::from).and_then(print),
    };
    done.unwrap_or_else(|error| {
        eprintln!("homing: {error}");
        error.exit_code()
    })
}

fn show(args: show::Show) -> Result<ExitCode, Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    print(runtime.block_on(show::show(args))?)
}

/// Prints on stdout. A reader that has seen enough, such as `head`, is no failure.
fn print(text: String) -> Result<ExitCode, Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
