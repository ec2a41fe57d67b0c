//! homing's own log: events with fields on stderr, as much as `HOMING_LOG` asks for.
//!
//! A thread of its own writes them. A reader that has stopped reading, such as a journal that is stuck, holds up
//! nobody, and a full disk stops nothing: lines are lost then, and their number is told with the next that is written.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, OnceLock},
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::EventFormat;

/// The log. Dropped, it waits a moment for what is still to be written.
pub(super) struct Log {
    _writer: WorkerGuard,
}

/// Starts logging at `level`, once. `HOMING_LOG` takes levels, also per module: `debug`, `info,homing::pool=trace`.
pub(super) fn start(level: &str, format: EventFormat) -> Log {
    let wanted = std::env::var("HOMING_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().parse(format!("{level},{QUIET},{wanted}"));
    let (filter, refused) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(format!("{level},{QUIET}")), Some(error)),
    };
    let overflown = Arc::default();
    let lines = Lines { to: io::stderr(), overflown: Arc::clone(&overflown), told: 0, unwritten: 0 };
    let writer = NonBlockingBuilder::default().thread_name("log").buffered_lines_limit(QUEUE);
    let (writer, guard) = writer.finish(lines);
    overflown.get_or_init(|| writer.error_counter());
    // Errors of its own it would say on stderr too, where an error is a panic.
    let events =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    match format {
        EventFormat::Text => events.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        EventFormat::Json => events.json().flatten_event(true).init(),
    }
    if let Some(error) = refused {
        tracing::warn!(%error, "HOMING_LOG cannot be read; logging at {level}");
    }
    Log { _writer: guard }
}

/// Says something on stderr that is no event, if anybody reads it.
pub(super) fn say(text: impl std::fmt::Display) {
    // Where it cannot be written there is nobody to be told so.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Where lines are written, and how many were not.
struct Lines<W> {
    to: W,
    /// Lines that found the queue full; unset for a moment at the start.
    overflown: Arc<OnceLock<ErrorCounter>>,
    /// How many of them have been told of.
    told: usize,
    /// Lines that `to` refused since one was written.
    unwritten: usize,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let overflown = self.overflown.get().map_or(0, ErrorCounter::dropped_lines);
        let told = match overflown.saturating_sub(self.told) + self.unwritten {
            0 => Ok(()),
            lost => writeln!(self.to, "{lost} lines of the log are lost: they could not be written"),
        };
        if let Err(error) = told.and_then(|()| self.to.write_all(line)) {
            self.unwritten += 1;
            return Err(error);
        }
        (self.told, self.unwritten) = (overflown, 0);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Pingora logs requests that fail, one line each, at levels up to error; homing counts them and answers.
/// `HOMING_LOG` may bring them back.
const QUIET: &str = "pingora=off,pingora_core=off,pingora_proxy=off,pingora_cache=off,\
                     pingora_load_balancing=off,pingora_pool=off";

/// Lines that may wait to be written.
const QUEUE: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that may be full.
    #[derive(Default)]
    struct Disk {
        full: bool,
        text: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted_and_told_once() {
        let mut lines = Lines { to: Disk::default(), overflown: Arc::default(), told: 0, unwritten: 0 };
        lines.write_all(b"one\n").expect("there is room");
        lines.to.full = true;
        for line in [b"two\n", b"six\n"] {
            lines.write_all(line).expect_err("the disk is full");
        }
        lines.to.full = false;
        for line in [b"ten\n", b"end\n"] {
            lines.write_all(line).expect("there is room again");
        }
        let text = String::from_utf8(lines.to.text).expect("lines are text");
        assert_eq!(text, "one\n2 lines of the log are lost: they could not be written\nten\nend\n");
    }

    #[test]
    fn lines_that_find_the_queue_full_are_told_once() {
        let (writer, _guard) = NonBlockingBuilder::default().buffered_lines_limit(1).finish(Stuck);
        let overflown = Arc::new(OnceLock::from(writer.error_counter()));
        let mut queued = writer;
        while overflown.get().is_some_and(|lost| lost.dropped_lines() < 3) {
            queued.write_all(b"line\n").expect("it waits for nobody");
        }
        let mut lines = Lines { to: Vec::new(), overflown, told: 0, unwritten: 0 };
        lines.write_all(b"one\n").expect("memory takes it");
        lines.write_all(b"two\n").expect("memory takes it");
        let text = String::from_utf8(lines.to).expect("lines are text");
        assert_eq!(text, "3 lines of the log are lost: they could not be written\none\ntwo\n");
    }

    /// A reader that has stopped reading.
    struct Stuck;

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
