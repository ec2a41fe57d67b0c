//! What the system grants a process: how many files may be open, what that is enough for, and how to mend a shortage.
//!
//! A connection is an open file, and a request needs two, so a flood of clients that takes every file leaves none for
//! the servers, the monitors and the admin API. HAProxy derives its `maxconn` from `ulimit -n` for the same reason,
//! nginx has `worker_connections`, Envoy its `global_downstream_max_connections`.

use std::{io, iter::successors};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// How many files a process may have open, and what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// `None`: as many as it likes.
    limit: Option<u64>,
}

impl OpenFiles {
    /// What this process is allowed now.
    pub fn allowed() -> Self {
        Self { limit: getrlimit(Resource::Nofile).current }
    }

    /// Takes all that the process may allow itself (the hard limit), which is often far more than what it was started
    /// with, and returns that.
    ///
    /// # Errors
    /// The system refuses, and all is as before.
    pub fn raise() -> io::Result<Self> {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        }
        Ok(Self::allowed())
    }

    /// The limit, in words.
    pub fn shown(self) -> String {
        self.limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
    }

    /// Client connections that may be open at a time: each has a file of its own and one for its server, after what
    /// homing itself needs.
    pub fn clients(self) -> usize {
        let left = |limit: u64| usize::try_from((limit - reserve(limit)) / 2).unwrap_or(usize::MAX);
        self.limit.map_or(usize::MAX, |limit| left(limit).max(1))
    }

    /// Probes of monitors that may be under way at a time.
    pub fn probes(self) -> usize {
        let share = |limit: u64| usize::try_from(reserve(limit) / 4).unwrap_or(MOST_PROBES);
        self.limit.map_or(MOST_PROBES, share).clamp(1, MOST_PROBES)
    }
}

/// What of the limit is for homing itself: listeners, threads, probes, copies, the admin API, files that are read.
fn reserve(limit: u64) -> u64 {
    (limit / 4).min(LARGEST_RESERVE)
}

/// What to do about an error that says nothing of the other side: this process, or the machine, has run out of
/// something. `None`: it is another error.
pub fn shortage(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut causes = successors(Some(error), |error| error.source());
    let code = causes.find_map(|error| error.downcast_ref::<io::Error>())?.raw_os_error()?;
    Some(match Errno::from_raw_os_error(code) {
        Errno::MFILE => "raise the limit of open files (LimitNOFILE= of the unit, `ulimit -Hn`)",
        Errno::NFILE => "raise the machine's limit of open files (sysctl fs.file-max)",
        Errno::NOBUFS | Errno::NOMEM => "give the machine, or its network buffers, more memory",
        Errno::ADDRNOTAVAIL => {
            "all local ports are in use: widen net.ipv4.ip_local_port_range, or add servers or addresses; or an address \
             of `snat_ip` is gone: give it back to an interface of this machine"
        }
        _ => return None,
    })
}

const LARGEST_RESERVE: u64 = 2048;

/// Enough for thousands of servers in the usual interval, and no storm.
const MOST_PROBES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_shared_out() {
        for (limit, clients, probes) in [
            (None, usize::MAX, 512),
            (Some(0), 1, 1),
            (Some(16), 6, 1),
            (Some(128), 48, 8),
            (Some(1024), 384, 64),
            (Some(20_000), 8976, 512),
            (Some(1_048_576), 523_264, 512),
        ] {
            let files = OpenFiles { limit };
            assert_eq!((files.clients(), files.probes()), (clients, probes), "{limit:?}");
        }
        assert_eq!(OpenFiles { limit: Some(7) }.shown(), "7");
        assert_eq!(OpenFiles { limit: None }.shown(), "unlimited");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("an error of a library")]
    struct Within(#[source] io::Error);

    #[test]
    fn a_shortage_of_our_own_says_how_to_mend_it() {
        for (errno, part) in [
            (Errno::MFILE, Some("LimitNOFILE=")),
            (Errno::NFILE, Some("fs.file-max")),
            (Errno::NOBUFS, Some("memory")),
            (Errno::ADDRNOTAVAIL, Some("ip_local_port_range")),
            (Errno::CONNREFUSED, None),
            (Errno::TIMEDOUT, None),
        ] {
            let help = shortage(&io::Error::from(errno));
            assert_eq!(help.is_some(), part.is_some(), "{errno:?}");
            assert!(help.unwrap_or_default().contains(part.unwrap_or_default()), "{help:?}");
        }
        assert_eq!(shortage(&std::fmt::Error), None, "no error of the system");
        let inner = io::Error::from(Errno::MFILE);
        assert!(shortage(&Within(inner)).is_some(), "it is the cause");
    }
}
