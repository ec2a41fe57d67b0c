//! The DNS responder of an instance, made anew of each configuration.

use std::{sync::Arc, time::Instant};

use super::{Instance, StartError};
use crate::{
    dns::{self, Responder},
    gslb::choice::{Availability, Directory, Health, Member},
    snapshot::Snapshot,
};

impl Instance {
    /// Makes who answers, and binds the sockets that are not there yet.
    ///
    /// # Errors
    /// A socket cannot be had. Nothing has changed then.
    pub(super) fn prepare_dns(&self, snapshot: &Snapshot) -> Result<dns::Prepared, StartError> {
        let config = &snapshot.config;
        let prepared = self.dns.prepare(config.dns.as_deref(), |dns, kept| {
            let directory = config.gslb.as_deref().map(|gslb| Arc::new(Directory::new(gslb)));
            Responder::new(dns, config, directory, Arc::new(AsConfigured), kept, &self.live.metrics)
        });
        Ok(prepared?)
    }
}

/// Members are up as long as nothing says otherwise.
struct AsConfigured;

impl Health for AsConfigured {
    fn of(&self, _: &Member, _: Instant) -> Availability {
        Availability::Up
    }
}
