//! What an object names and does not hold: other objects, and files.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Object;
use crate::config::{files::unreadable, problem::Place, words};

/// A name that stands for an object defined elsewhere.
#[derive(Clone, Debug)]
pub(in crate::config) struct Reference {
    pub(in crate::config) name: String,
    pub(in crate::config) place: Place,
}

impl Object<'_> {
    /// The name of an object defined elsewhere.
    pub(in crate::config) fn reference(&mut self, key: &'static str) -> Option<Reference> {
        let name = self.field(key, words::text)?;
        Some(Reference { name, place: self.place_of(key) })
    }

    pub(in crate::config) fn required_reference(&mut self, key: &'static str) -> Option<Reference> {
        self.demand(key);
        self.reference(key)
    }

    pub(in crate::config) fn references(&mut self, key: &'static str) -> Vec<Reference> {
        let names = self.placed_list(key, words::text).unwrap_or_default();
        names.into_iter().map(|(name, place)| Reference { name, place }).collect()
    }

    /// A file named by a field, and its content. `None`: left out, or that it cannot be read is reported.
    pub(in crate::config) fn file(&mut self, key: &'static str) -> Option<(PathBuf, Vec<u8>)> {
        self.file_or(key, |_| None)
    }

    /// The same of a file that `homing keys new` makes.
    pub(in crate::config) fn key_file(&mut self, key: &'static str) -> Option<(PathBuf, Vec<u8>)> {
        self.file_or(key, |path| {
            let path = path.display();
            Some(format!("make it with `homing keys new --out {path}`, or bring it from where it was made"))
        })
    }

    /// `if_missing` may know better what helps if there is no such file.
    fn file_or(
        &mut self,
        key: &'static str,
        if_missing: impl Fn(&Path) -> Option<String>,
    ) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.source.beside(&self.field(key, words::file_name)?);
        match self.source.files.read(&path) {
            Ok(bytes) => Some((path, bytes)),
            Err(error) => {
                let (what, help) = unreadable(&path, &error);
                let better = if_missing(&path).filter(|_| error.kind() == io::ErrorKind::NotFound);
                self.wrong(key, what, better.unwrap_or_else(|| help.to_owned()));
                None
            }
        }
    }

    pub(in crate::config) fn required_file(&mut self, key: &'static str) -> Option<(PathBuf, Vec<u8>)> {
        self.demand(key);
        self.file(key)
    }

    pub(in crate::config) fn required_key_file(&mut self, key: &'static str) -> Option<(PathBuf, Vec<u8>)> {
        self.demand(key);
        self.key_file(key)
    }

    /// Warns of a file with a secret that others than its owner may read.
    pub(in crate::config) fn warn_if_others_read(&self, key: &str, path: &Path) {
        if let Some(mode) = self.source.files.mode_for_others(path) {
            let what = format!(
                "file {} can be used by others than its owner (mode {:04o})",
                path.display(),
                mode & 0o7777
            );
            self.dubious(key, what, format!("chmod 600 {}", path.display()));
        }
    }
}
