//! homing's own features, written as rules against the public [`prelude`](crate::prelude) alone: what they
//! need, users get. A test compiles the files outside the crate.

mod app_persistence;
mod clone_pool;
mod error_pages;
mod http_rules;
mod https_redirect;
mod location;
mod own_cookie;
mod site_persistence;

pub use app_persistence::AppPersistence;
pub use clone_pool::ClonePools;
pub use error_pages::ErrorPages;
pub use http_rules::HttpRules;
pub use https_redirect::HttpsRedirect;
pub use site_persistence::SitePersistence;
