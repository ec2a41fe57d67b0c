//! Which files a configuration was read from, and what they were like: so that somebody can tell when one of
//! them is another file, and what in it changed.
//!
//! A file is looked at through its links, so one that is swapped by a link above it (as Kubernetes swaps `..data`
//! of a ConfigMap) or by a rename over it (as editors save) is another file.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::files::{Files, LARGEST_FILE};

/// The files that were read, or missed, with what they were like just before.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, Sighting>);

#[derive(Clone, PartialEq, Eq)]
struct Sighting {
    stamp: Option<Stamp>,
    /// A hash of the content; `None`: it could not be read.
    content: Option<u64>,
}

/// What tells a file from the one that takes its place, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub length: u64,
    /// Seconds and nanoseconds of the last change of the content.
    pub modified: (i64, i64),
    /// The same of anything about the file.
    pub changed: (i64, i64),
}

/// How files stand at one moment; two that are equal mean that nothing happened in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look(Vec<Option<Stamp>>);

impl Stamp {
    /// When the content changed last; `None`: before 1970.
    pub(super) fn modified_at(&self) -> Option<SystemTime> {
        let (seconds, nanoseconds) = self.modified;
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        UNIX_EPOCH.checked_add(since)
    }
}

impl Seen {
    /// What the files are like now. Asks the file system, so not from a thread that serves requests.
    pub fn look(&self, files: &dyn Files) -> Look {
        Look(self.0.keys().map(|path| files.stamp(path)).collect())
    }

    /// What they were like when they were read.
    pub fn when_read(&self) -> Look {
        Look(self.0.values().map(|sighting| sighting.stamp).collect())
    }

    /// Whether a file had the same content both times; it had not if it was read only once.
    pub fn same_content(&self, other: &Self, path: &Path) -> bool {
        let content = |seen: &Self| seen.0.get(path).and_then(|sighting| sighting.content);
        content(self).is_some_and(|content_here| Some(content_here) == content(other))
    }
}

/// Which files. What is known of the content of keys is nobody's business.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Files that remember what was asked of them.
pub(super) struct Watched<'a> {
    files: &'a dyn Files,
    seen: RefCell<Seen>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(files: &'a dyn Files) -> Self {
        Self { files, seen: RefCell::default() }
    }

    pub(super) fn seen(self) -> Seen {
        self.seen.into_inner()
    }
}

impl Files for Watched<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read_up_to(path, LARGEST_FILE)
    }

    fn read_up_to(&self, path: &Path, largest: u64) -> io::Result<Vec<u8>> {
        // Before reading, so that a change in between is not taken for what was read.
        let stamp = self.files.stamp(path);
        let read = self.files.read_up_to(path, largest);
        let content = read.as_ref().ok().map(|bytes| {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            hasher.finish()
        });
        self.seen.borrow_mut().0.entry(path.to_owned()).or_insert(Sighting { stamp, content });
        read
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.files.mode(path)
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.files.stamp(path)
    }

    fn now(&self) -> SystemTime {
        self.files.now()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::config::Disk;

    /// Whether a file counts as another one after `change`, and whether its content does.
    fn changes(change: impl FnOnce(&Path)) -> (bool, bool) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (generation, content) in [("1", "a"), ("2", "b")] {
            fs::create_dir(at(generation)).unwrap();
            fs::write(at(generation).join("file"), content).unwrap();
        }
        symlink("1", at("data")).unwrap();
        symlink("data/file", at("file")).unwrap();
        let read = || {
            let watched = Watched::new(&Disk);
            let _ = watched.read(&at("file"));
            watched.seen()
        };
        let seen = read();
        assert_eq!(seen.look(&Disk), seen.when_read(), "nothing happened yet");
        change(dir.path());
        (seen.look(&Disk) != seen.when_read(), !seen.same_content(&read(), &at("file")))
    }

    #[test]
    fn a_file_that_another_one_takes_the_place_of_is_noticed() {
        let another = (true, true);
        assert_eq!(changes(|_| {}), (false, false));
        assert_eq!(changes(|dir| fs::write(dir.join("1/file"), "longer").unwrap()), another);
        assert_eq!(changes(|dir| fs::remove_file(dir.join("file")).unwrap()), another);
        let rename_over = |dir: &Path| {
            fs::write(dir.join("new"), "b").unwrap();
            fs::rename(dir.join("new"), dir.join("file")).unwrap();
        };
        assert_eq!(changes(rename_over), another);
        let swap_link_above = |dir: &Path| {
            symlink("2", dir.join("data.new")).unwrap();
            fs::rename(dir.join("data.new"), dir.join("data")).unwrap();
        };
        assert_eq!(changes(swap_link_above), another);
        let same_again = |dir: &Path| {
            fs::write(dir.join("new"), "a").unwrap();
            fs::rename(dir.join("new"), dir.join("1/file")).unwrap();
        };
        assert_eq!(changes(same_again), (true, false), "another file, with the same content");
    }

    #[test]
    fn a_file_that_was_missing_is_noticed_when_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let watched = Watched::new(&Disk);
        assert!(watched.read(&path).is_err());
        let seen = watched.seen();
        assert_eq!(seen.look(&Disk), seen.when_read());
        fs::write(&path, "a").unwrap();
        assert_ne!(seen.look(&Disk), seen.when_read());
    }
}
