//! What the system grants a process, changed while it runs.

use crate::support::homing::Homing;

/// What a process may have at most.
#[derive(Clone, Copy)]
pub enum Limit {
    OpenFiles,
    /// Of its user, with all his processes.
    Threads,
}

impl Limit {
    fn resource(self) -> libc::__rlimit_resource_t {
        match self {
            Self::OpenFiles => libc::RLIMIT_NOFILE,
            Self::Threads => libc::RLIMIT_NPROC,
        }
    }

    /// Changes the soft limit of a process, and returns what it was.
    pub fn set(self, homing: &Homing, soft: u64) -> u64 {
        let pid = i32::try_from(homing.pid()).expect("process ids are small");
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the process is a child that has not been waited for; both pointers are to limits of this frame, or
        // null, which means that nothing is set.
        let asked = unsafe { libc::prlimit(pid, self.resource(), std::ptr::null(), &raw mut before) };
        assert_eq!(asked, 0, "the limit can be asked for");
        let new = libc::rlimit { rlim_cur: soft, ..before };
        // SAFETY: as above.
        let set = unsafe { libc::prlimit(pid, self.resource(), &raw const new, std::ptr::null_mut()) };
        assert_eq!(set, 0, "the limit can be set");
        before.rlim_cur
    }

    /// Limits a program from its start on, for good.
    pub fn of(self, command: &mut tokio::process::Command, most: u64) {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        let set = move || {
            // SAFETY: `setrlimit` may be called between fork and exec; the limit is the closure's own.
            match unsafe { libc::setrlimit(self.resource(), &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure does nothing but a system call.
        unsafe { command.pre_exec(set) };
    }
}
