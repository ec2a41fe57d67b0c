//! The keys that sessions hang on: who has them finds the sessions of the process that made them.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{snapshot::BuildError, tls::TicketKeys};

/// Random at a first start; later ones take them over with the sessions.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Keys {
    /// Hashes the keys of the session table.
    pub seed: [u8; 16],
    /// Makes and knows the marks of copies.
    pub mark: [u8; 16],
    /// Seals TLS session tickets, by which TLS sessions keep their identity.
    tickets: Vec<u8>,
}

impl Keys {
    pub fn random() -> Result<Self, BuildError> {
        let tickets = TicketKeys::random().map_err(BuildError::Chance)?;
        Ok(Self::of(rand::random(), rand::random(), &tickets))
    }

    pub fn of(seed: [u8; 16], mark: [u8; 16], tickets: &TicketKeys) -> Self {
        Self { seed, mark, tickets: tickets.expose().to_vec() }
    }

    /// `None`: they are of another form.
    pub fn tickets(&self, now: Instant) -> Option<TicketKeys> {
        TicketKeys::saved(&self.tickets, now)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.seed.zeroize();
        self.mark.zeroize();
        self.tickets.zeroize();
    }
}
