//! `homing health`: whether a running homing may get traffic, for whatever asks by running a command.

use std::process::ExitCode;

use clap::Args;

use super::{Error, print, show::AdminArgs};

#[derive(Args, Debug)]
pub struct Health {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Prints `ready` and is a success, or prints what is missing and is a failure.
pub async fn health(args: Health) -> Result<ExitCode, Error> {
    match args.admin.client()?.missing().await? {
        None => print("ready\n".to_owned()),
        Some(missing) => {
            eprint!("not ready:\n{missing}");
            Ok(ExitCode::FAILURE)
        }
    }
}
