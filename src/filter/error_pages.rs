//! `error_page_profile_ref` as a rule: pages in the place of homing's one line, and of servers' errors if they are
//! to be intercepted.
//!
//! An error that came before it was known which virtual service is meant has no page: a request that cannot be read,
//! a Host that nobody has.

use std::sync::Arc;

use crate::prelude::*;

/// The pages of one virtual service.
pub struct ErrorPages {
    profile: Arc<ErrorPageProfile>,
}

impl ErrorPages {
    /// The rule, where the virtual service has pages.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        let profile = setup.virtual_service.error_pages.clone()?;
        Some(Self { profile }.into_rule())
    }
}

#[async_trait]
impl Rule for ErrorPages {
    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        let is_own = response.server().is_none();
        // What another site says has its page already.
        if !is_own && (!self.profile.intercept_errors || response.goes_elsewhere()) {
            return Ok(());
        }
        let Some(page) = self.profile.page(response.status()) else { return Ok(()) };
        let content_type = page.content_type.to_str()?;
        if is_own {
            if response.replace_body(page.bytes.clone()) {
                response.set_header("Content-Type", content_type)?;
            }
            return Ok(());
        }
        let status = response.status();
        response.respond(Reply::new(status).header("Content-Type", content_type)?.body(page.bytes.clone()));
        Ok(())
    }
}
