//! The command line: one file per command.
//!
//! Exit codes: 0 when all is well; 1 when something failed, with a message on stderr; 2 when what was given is
//! wrong, the arguments or the configuration.

mod ask;
mod check;
mod cookie;
mod demo;
mod explain;
mod gslb;
mod health;
mod help;
mod keys;
mod log;
mod pool;
mod reload;
mod run;
mod schema;
mod session;
mod show;
mod systemd;
mod table;
mod watch;

use std::{io, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    admin::client,
    config::{EventFormat, Problems},
    server::{Builder, InheritanceError, StartError},
    site_cookie::KeyFileError,
};

/// A programmable load balancer that brings every session home: to its server, to its clone, to its site.
#[derive(Parser, Debug)]
#[command(
    name = "homing",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong arguments or configuration.\n\
                  HOMING_LOG sets what is logged on stderr, for example debug or info,homing::pool=trace."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve
    Run(run::Run),
    /// Say everything that is wrong with a configuration
    Check(ConfigFile),
    /// Two sites, their apps and clone members in one process, and curl lines to try
    Demo,
    /// Show what a running homing is doing
    Show(show::Show),
    /// Say whether a running homing may get traffic; exit code 1 if not
    Health(health::Health),
    /// Empty a site before it is worked on, put it into service again, and say how DNS chooses sites
    Gslb(gslb::Gslb),
    /// Load the configuration again, all of it or nothing
    Reload(reload::Reload),
    /// Say what becomes of a request with a certain site cookie, and why
    Explain(explain::Explain),
    /// Find a session, move it, end it
    Session(session::Session),
    /// Command the servers of a pool
    Pool(pool::Pool),
    /// Look into site cookies
    #[command(subcommand)]
    Cookie(cookie::Cookie),
    /// Make and list keys for site cookies
    #[command(subcommand)]
    Keys(keys::Keys),
    Schema(schema::Schema),
    /// Print what a shell needs to complete these commands
    Completion(help::Completion),
    /// Print the page of the manual, or write all of them
    Man(help::Man),
}

#[derive(clap::Args, Debug)]
struct ConfigFile {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "conf/homing.yaml")]
    config: PathBuf,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Config(#[from] Problems),
    /// A rule refuses its configuration, or the like.
    #[error("{}: {reason}", file.display())]
    Build { file: PathBuf, reason: String },
    #[error("homing cannot start: {0}")]
    Start(#[from] StartError),
    #[error("homing cannot start: {0}")]
    Inheritance(#[from] InheritanceError),
    #[error("homing cannot start: {0}")]
    Runtime(#[source] io::Error),
    #[error("the demo cannot start: {0}")]
    Demo(#[source] io::Error),
    #[error("virtual service {name} is not known, or not enabled, in {}", file.display())]
    UnknownVirtualService { file: PathBuf, name: String },
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error("pages cannot be written into {}: {error}", folder.display())]
    Manual { folder: PathBuf, error: io::Error },
    #[error("stdout cannot be written: {0}")]
    Print(#[source] io::Error),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Build { .. } | Self::Arguments(_) => ExitCode::from(2),
            Self::Start(_)
            | Self::Inheritance(_)
            | Self::Runtime(_)
            | Self::Demo(_)
            | Self::UnknownVirtualService { .. }
            | Self::Client(_)
            | Self::Keys(_)
            | Self::Manual { .. }
            | Self::Print(_) => ExitCode::FAILURE,
        }
    }
}

/// The `homing` command with the rules that `builder` has: what a program with rules of its own calls in `main`.
pub fn main(builder: Builder) -> ExitCode {
    let command = Cli::parse().command;
    let log = command.log_level().map(|level| log::start(level, EventFormat::Text));
    let done = match command {
        Command::Run(args) => run::run(&builder, &args),
        Command::Check(args) => check::check(&builder, &args.config).and_then(print),
        Command::Demo => demo::demo(&builder),
        Command::Show(args) => wait(show::show(args)),
        Command::Health(args) => wait(health::health(args)),
        Command::Gslb(args) => wait(gslb::gslb(args)).and_then(print),
        Command::Session(args) => wait(session::session(args)).and_then(print),
        Command::Pool(args) => wait(pool::pool(args)).and_then(print),
        Command::Reload(args) => wait(reload::reload(args)),
        Command::Explain(args) => wait(explain::explain(&builder, args)).and_then(print),
        Command::Cookie(args) => cookie::cookie(&builder, args),
        Command::Keys(args) => wait(keys::keys(&builder, args)).and_then(print),
        Command::Schema(args) => print(schema::schema(&args)),
        Command::Completion(args) => print(help::completion(args)),
        Command::Man(args) => help::man(args).and_then(print),
    };
    // What was logged comes before what is said of the end.
    drop(log);
    done.unwrap_or_else(|error| {
        match &error {
            // What begins with a file and line is found by editors.
            Error::Config(_) | Error::Build { .. } => log::say(&error),
            error => log::say(format_args!("error: {error}")),
        }
        error.exit_code()
    })
}

impl Command {
    /// What is logged unless `HOMING_LOG` says otherwise; `None`: the configuration says in which form.
    fn log_level(&self) -> Option<&'static str> {
        Some(match self {
            Self::Run(_) => return None,
            // They print what they have to say.
            Self::Check(_)
            | Self::Show(_)
            | Self::Health(_)
            | Self::Gslb(_)
            | Self::Reload(_)
            | Self::Explain(_)
            | Self::Session(_)
            | Self::Pool(_)
            | Self::Cookie(_)
            | Self::Keys(_)
            | Self::Schema(_)
            | Self::Completion(_)
            | Self::Man(_) => "warn",
            // Its sites see each other come and go as it starts and ends.
            Self::Demo => "error",
        })
    }
}

/// Runs a command that asks, or may ask, a running homing.
fn wait<T, E>(command: impl Future<Output = Result<T, E>>) -> Result<T, Error>
where
    Error: From<E>,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(runtime.block_on(command)?)
}

/// Prints on stdout. A reader that has seen enough, such as `head`, is no failure.
fn print(text: String) -> Result<ExitCode, Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
