//! The admin API: metrics, health, views of the live state as JSON, and the few things that operators change
//! while homing runs.
//!
//! It shows a [`Source`] and knows nothing of how that is made; [`view`] holds the shapes. What concerns all sites of
//! the federation it asks their admin APIs for. Nothing here serves clients' traffic. What changes something is
//! logged, and refused to pages in browsers that are not ours.

mod access;
mod api;
mod choice;
mod choice_paths;
pub mod client;
mod explain;
mod gslb_services;
mod listener;
mod openapi;
mod operate;
mod operation;
mod peers;
mod pool_settings;
mod pools;
mod profiles;
mod seats;
mod servers;
mod sessions;
mod site_paths;
mod sites;
mod source;
#[cfg(test)]
mod tests;
pub mod view;
mod virtual_services;
mod write;

pub use access::{CurrentTerms, Terms, TokenError};
pub use api::Source;
pub use choice::ChoiceQuestion;
pub use explain::explain;
pub use listener::{AdminListener, BindError, Handle};
pub use peers::{Peer, ask_health};
pub use servers::ServerError;
pub use sessions::{Scope, SessionError, Wanted};
pub use source::{Control, LiveSource};

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// Answers on `listener` until `shutdown`. Beyond loopback all but `/metrics`, `/healthz` and `/readyz` ask for the
/// token of `terms`, and while there is none they are refused there.
pub async fn serve<S: Source>(
    listener: AdminListener,
    source: Arc<S>,
    terms: CurrentTerms,
    shutdown: CancellationToken,
) {
    let access = access::Access::new(listener.reach(), terms);
    listener.serve(api::router(source, access), shutdown).await;
}
