//! `homing explain`: what becomes of a request with a certain site cookie, and why.

use std::path::PathBuf;

use clap::Args;

use super::{
    Error, check,
    client::escaped,
    show::{AdminArgs, Output, one},
};
use crate::{admin::view::Explanation, server::Builder};

#[derive(Args, Debug)]
pub struct Explain {
    /// The virtual service that gets the request
    #[arg(long, value_name = "NAME")]
    vs: String,
    /// The site cookie's value, or NAME=VALUE
    #[arg(long, value_name = "VALUE")]
    cookie: String,
    /// Asks this configuration instead of a running homing, which alone knows who is up
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// Returns what to print.
pub async fn explain(builder: &Builder, args: Explain) -> Result<String, Error> {
    let explanation: Explanation = match args.config {
        Some(file) => {
            let homing = check::build(builder, check::load(builder, &file)?.config)?;
            let explanation = homing.explain(&args.vs, &args.cookie);
            explanation.ok_or(Error::UnknownVirtualService { file, name: args.vs })?
        }
        None => {
            let (vs, cookie) = (escaped(&args.vs), escaped(&args.cookie));
            args.admin.client()?.get(&format!("/api/v1/virtualservices/{vs}/explain?cookie={cookie}")).await?
        }
    };
    Ok(one(args.output == Output::Json, &explanation))
}
