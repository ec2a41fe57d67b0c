//! The files of a configuration: where they come from, and one of them while it is read.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    problem::{Place, Report},
    seen::Stamp,
};

/// Where files come from: the disk, or memory for a configuration that a program brings with it.
pub trait Files {
    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The same of a file that may have more than [`LARGEST_FILE`] bytes: a database.
    fn read_up_to(&self, path: &Path, _largest: u64) -> io::Result<Vec<u8>> {
        self.read(path)
    }

    /// Its permission bits, where it has any.
    fn mode(&self, _path: &Path) -> Option<u32> {
        None
    }

    /// What tells a file from one that takes its place; `None`: there is none.
    fn stamp(&self, _path: &Path) -> Option<Stamp> {
        None
    }

    /// The time by the clock of the machine that has them.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl dyn Files + '_ {
    /// The permission bits of a file that others than its owner may use.
    pub(super) fn mode_for_others(&self, path: &Path) -> Option<u32> {
        self.mode(path).filter(|mode| mode & 0o077 != 0)
    }

    /// When it was last written, where that is known.
    pub(super) fn modified(&self, path: &Path) -> Option<SystemTime> {
        self.stamp(path)?.modified_at()
    }
}

/// The machine's files, up to [`LARGEST_FILE`] each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

/// In bytes. A larger one is a mistake, such as a path to a log.
pub const LARGEST_FILE: u64 = 4 << 20;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read_up_to(path, LARGEST_FILE)
    }

    fn read_up_to(&self, path: &Path, largest: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(largest + 1).read_to_end(&mut content)?;
        if content.len() as u64 > largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        std::fs::metadata(path).ok().map(|metadata| metadata.permissions().mode())
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Files by path, in memory.
impl Files for BTreeMap<PathBuf, Vec<u8>> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// One file being read, and what reading it needs.
#[derive(Clone)]
pub(super) struct Source<'a> {
    pub(super) file: Arc<Path>,
    pub(super) files: &'a dyn Files,
    pub(super) report: &'a Report,
}

impl Source<'_> {
    pub(super) fn place(&self, line: usize) -> Place {
        Place { file: self.file.clone(), line, path: String::new() }
    }

    /// A path as written in this file: relative to it.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// What to say about a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> (String, &'static str) {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "create it, or mend the path, which is relative to the file that names it",
        io::ErrorKind::PermissionDenied => "let the user that homing runs as read it",
        _ => "name a regular, readable file",
    };
    let what = match error.kind() {
        io::ErrorKind::NotFound => "does not exist".into(),
        kind => format!("cannot be read: {kind}"),
    };
    (format!("file {} {what}", path.display()), help)
}
