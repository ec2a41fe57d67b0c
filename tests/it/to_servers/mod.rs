//! How servers are spoken to, and what happens when they do not answer as they should.

mod connections;
mod deadlines;
mod kept;
mod proofs;
mod retries;
