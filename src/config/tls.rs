//! Certificates of listeners.

use std::path::PathBuf;

/// A certificate chain and its key, PEM files. `load` has shown that both exist, parse and belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub name: String,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}
