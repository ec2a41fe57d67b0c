//! `homing health`: whether a running homing may get traffic, for whatever asks by running a command.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{
    Error,
    ask::{Ask, Output},
    print,
};

#[derive(Args, Debug)]
pub struct Health {
    #[command(flatten)]
    ask: Ask,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    missing: Vec<String>,
}

/// Prints `ready` and is a success, or says what is missing and is a failure.
pub async fn health(args: Health) -> Result<ExitCode, Error> {
    let missing = args.ask.client()?.missing().await?;
    let ready = missing.is_empty();
    if !ready && args.ask.output == Output::Table {
        eprintln!("not ready:\n{}", missing.join("\n"));
    } else {
        print(args.ask.output.or_as(&Readiness { ready, missing }, |_| "ready\n".to_owned()))?;
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
