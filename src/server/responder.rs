//! The DNS responder of an instance, made anew of each configuration.

use std::{sync::Arc, time::Instant};

use super::{Instance, StartError};
use crate::{
    dns::{self, Responder},
    gslb::choice::{Availability, Directory, Health, Member},
    listen::Inherited,
    snapshot::Snapshot,
};

impl Instance {
    /// Makes who answers, and binds the sockets that are not there yet, nor in `inherited`.
    ///
    /// # Errors
    /// A socket cannot be had. Nothing has changed then.
    pub(super) fn prepare_dns(
        &self,
        snapshot: &Snapshot,
        inherited: &mut Inherited,
    ) -> Result<dns::Prepared, StartError> {
        let config = &snapshot.config;
        let prepared = self.dns.prepare(config.dns.as_deref(), inherited, |dns, kept| {
            let (directory, health) = choosing(snapshot);
            Responder::new(dns, config, directory, health, kept, &self.live.metrics)
        });
        Ok(prepared?)
    }
}

/// The services, and how their members are.
fn choosing(snapshot: &Snapshot) -> (Option<Arc<Directory>>, Arc<dyn Health + Send + Sync>) {
    match &snapshot.gslb {
        Some(gslb) => (Some(gslb.directory().clone()), gslb.clone()),
        None => (None, Arc::new(NoMembers)),
    }
}

/// Without a federation nobody is asked about.
struct NoMembers;

impl Health for NoMembers {
    fn of(&self, _: &Member, _: Instant) -> Availability {
        Availability::Down
    }
}
