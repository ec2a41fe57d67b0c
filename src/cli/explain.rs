//! `homing explain`: what becomes of a request with a certain site cookie, and why.

use std::path::PathBuf;

use clap::Args;

use super::{Error, ask::Ask, check, client::escaped};
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
    ask: Ask,
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
            args.ask.client()?.get(&format!("/api/v1/virtualservices/{vs}/explain?cookie={cookie}")).await?
        }
    };
    Ok(args.ask.output.one(&explanation))
}
