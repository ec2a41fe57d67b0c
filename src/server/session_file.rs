//! The session table in a file, kept over a restart (`session_snapshot`).
//!
//! The file is written beside and put in place whole, so that a full disk or a crash leaves the one before. It has
//! the keys of the table and of TLS tickets, and is for its owner alone. A checksum tells damage, which costs a
//! warning and the sessions, never the start.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{
    keys::Keys,
    saved::{Incoming, Outgoing, Part},
};
use crate::{clock::Clock, session::SessionTable};

/// A file that was read.
pub(super) struct SessionFile {
    pub keys: Keys,
    /// When it was written, since 1970.
    written: Duration,
    parts: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    keys: Keys,
    written: Duration,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is damaged")]
    Damaged,
    #[error("it is of another version of homing")]
    OtherVersion,
}

impl SessionFile {
    /// Reads what an earlier process left; `None`: there is no file, or none of use, which is said and set aside.
    pub fn read(path: &Path, clock: &Clock) -> Option<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(
                    "session_snapshot {} cannot be read: {error}; sessions begin anew",
                    path.display()
                );
                return None;
            }
        };
        let unusable = match Self::parse(bytes) {
            Ok(file) => return Some(file),
            Err(unusable) => unusable,
        };
        let aside = beside(path, &format!(".damaged-{}", clock.unix_seconds()));
        let outcome = match fs::rename(path, &aside) {
            Ok(()) => format!("set aside as {}", aside.display()),
            Err(error) => format!("it cannot be set aside ({error}) and will be replaced"),
        };
        tracing::warn!("session_snapshot {}: {unusable}; {outcome}; sessions begin anew", path.display());
        None
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, Unusable> {
        if bytes.starts_with(KIND) && !bytes.starts_with(VERSION) {
            return Err(Unusable::OtherVersion);
        }
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(Unusable::Damaged)?;
        let mut rest = content.strip_prefix(VERSION).ok_or(Unusable::Damaged)?;
        if Sha256::digest(content).as_slice() != sum {
            return Err(Unusable::Damaged);
        }
        let Head { keys, written } = next(&mut rest).ok_or(Unusable::Damaged)?;
        Ok(Self { keys, written, parts: rest.to_vec() })
    }

    /// Puts its sessions into a table that was made with its keys. How many keys they had.
    pub fn restore(&self, incoming: &mut Incoming, clock: &Clock) -> usize {
        // The time of day may have been set back meanwhile.
        let ago = clock.wall().duration_since(UNIX_EPOCH + self.written).unwrap_or_default();
        let mut rest = self.parts.as_slice();
        let parts = std::iter::from_fn(|| next::<Part>(&mut rest));
        parts.map(|part| incoming.put(&part, ago)).sum()
    }
}

/// Writes the table to where [`SessionFile::read`] finds it.
///
/// # Errors
/// The file cannot be written; the one before is still there.
pub(super) fn write(path: &Path, keys: Keys, table: &Arc<SessionTable>, clock: &Clock) -> io::Result<()> {
    let new = beside(path, ".new");
    let written = write_new(&new, keys, table, clock).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What is there is of no use to anybody, and a full disk has no room for it.
        let _ = fs::remove_file(&new);
        return written;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_new(new: &Path, keys: Keys, table: &Arc<SessionTable>, clock: &Clock) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let mut out = Summed { out: BufWriter::new(file), sum: Sha256::new() };
    out.write(VERSION)?;
    out.put(&Head { keys, written: clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default() })?;
    let mut parts = Outgoing::of(table);
    for sessions in table.save(clock.now()) {
        parts.with(sessions).try_for_each(|part| out.put(&part))?;
    }
    let Summed { mut out, sum } = out;
    out.write_all(&sum.finalize())?;
    out.into_inner()?.sync_all()
}

/// A file that adds up what is written.
struct Summed {
    out: BufWriter<File>,
    sum: Sha256,
}

impl Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }

    fn put(&mut self, what: &impl Serialize) -> io::Result<()> {
        let bytes = postcard::to_allocvec(what).map_err(io::Error::other)?;
        self.write(&(bytes.len() as u64).to_le_bytes())?;
        self.write(&bytes)
    }
}

/// What [`Summed::put`] wrote.
fn next<T: DeserializeOwned>(rest: &mut &[u8]) -> Option<T> {
    let (length, after) = rest.split_first_chunk()?;
    let (bytes, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    postcard::from_bytes(bytes).ok()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from([path.as_os_str(), suffix.as_ref()].join("".as_ref()))
}

/// What every version of the file begins with.
const KIND: &[u8] = b"homing sessions ";
/// What this one begins with. It changes with the form of anything in it.
const VERSION: &[u8] = b"homing sessions 1\n";
const CHECKSUM: usize = 32;

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        metrics::Metrics,
        session::{Policy, Refresh},
    };

    struct Setup {
        dir: tempfile::TempDir,
        clock: Clock,
        keys: Keys,
        table: Arc<SessionTable>,
    }

    /// A table with a session that has 300 seconds to live.
    fn setup() -> Setup {
        let clock = Clock::virtual_at(Duration::from_secs(1_000_000));
        let keys = Keys::random().expect("keys");
        let table = Arc::new(SessionTable::new(100, keys.seed, &Metrics::new(), clock.now()));
        let policy = Policy { timeout: Duration::from_secs(300), lifetime: None, refresh: Refresh::Request };
        table
            .assign(&table.key("clone:vs", b"k"), &policy, clock.now(), |_| true, || Some(server()))
            .expect("a server");
        Setup { dir: tempfile::tempdir().expect("a temporary directory"), clock, keys, table }
    }

    fn server() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 80))
    }

    impl Setup {
        fn path(&self) -> PathBuf {
            self.dir.path().join("sessions.snapshot")
        }

        fn write(&self) -> io::Result<()> {
            write(&self.path(), self.keys.clone(), &self.table, &self.clock)
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(self.dir.path()).expect("readable");
            let name = |entry: io::Result<fs::DirEntry>| entry.expect("readable").file_name().into_string();
            let mut names: Vec<_> = entries.map(|entry| name(entry).expect("text")).collect();
            names.sort();
            names
        }

        /// How many keys a new table gets of the file.
        fn restored(&self, servers: &[SocketAddr]) -> Option<usize> {
            let file = SessionFile::read(&self.path(), &self.clock)?;
            let now = self.clock.now();
            let table = Arc::new(SessionTable::new(100, file.keys.seed, &Metrics::new(), now));
            file.restore(&mut Incoming::with(&table, servers, &self.clock), &self.clock);
            let rows = table.view(Some("clone:vs"), Some("k"), 1, now);
            assert_eq!(rows.len(), table.len(), "it is found by its key");
            Some(rows.len())
        }
    }

    #[test]
    fn sessions_are_found_again_and_have_grown_older_meanwhile() {
        let setup = setup();
        assert_eq!(setup.restored(&[server()]), None, "there is no file");
        setup.write().expect("written");
        setup.write().expect("and again");
        let mode = fs::metadata(setup.path()).expect("the file").permissions().mode();
        assert_eq!((mode & 0o777, setup.files()), (0o600, vec!["sessions.snapshot".to_owned()]));
        assert_eq!(setup.restored(&[]), Some(0), "its server is no more");
        setup.clock.advance(Duration::from_secs(299));
        assert_eq!(setup.restored(&[server()]), Some(1));
        setup.clock.advance(Duration::from_secs(1));
        assert_eq!(setup.restored(&[server()]), Some(0));
    }

    #[test]
    fn a_damaged_file_and_one_of_another_version_are_set_aside() {
        for damage in [
            |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1),
            |bytes: &mut Vec<u8>| bytes[60] ^= 1,
            |bytes: &mut Vec<u8>| bytes[0] ^= 1,
            |bytes: &mut Vec<u8>| bytes[KIND.len()] = b'2',
            |bytes: &mut Vec<u8>| bytes.clear(),
        ] {
            let setup = setup();
            setup.write().expect("written");
            let mut bytes = fs::read(setup.path()).expect("readable");
            damage(&mut bytes);
            fs::write(setup.path(), &bytes).expect("written");
            assert_eq!(setup.restored(&[server()]), None);
            assert_eq!(setup.files(), ["sessions.snapshot.damaged-1000000"]);
            let aside = setup.dir.path().join("sessions.snapshot.damaged-1000000");
            assert_eq!(fs::read(aside).expect("readable"), bytes, "nothing is lost");
            setup.write().expect("written");
            assert_eq!(setup.restored(&[server()]), Some(1));
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let setup = setup();
        setup.write().expect("written");
        // A directory where the new file is to be stands for a full disk.
        fs::create_dir(setup.dir.path().join("sessions.snapshot.new")).expect("made");
        assert!(setup.write().is_err());
        assert_eq!(setup.restored(&[server()]), Some(1));
    }
}
