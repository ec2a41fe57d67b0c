//! The thread that writes lines.
//!
//! What cannot be written is kept and tried again, so that a disk that was full for a while has every line that the
//! queue could hold; the log says so once when it begins and once when it is over.

use std::{
    io::{self, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use super::{
    queue::{Asked, Queue, Task},
    sink::{OpenError, Sink},
};
use crate::{config::LogPath, metrics::Metrics};

/// Starts the thread. It ends when the queue is closed and empty.
pub(super) fn start(queue: Arc<Queue>, sink: Sink, path: LogPath, metrics: &Metrics) -> io::Result<()> {
    let writer = Writer {
        queue,
        sink,
        open: move || Sink::open(&path),
        written: metrics.access_log_written.clone(),
        dropped: metrics.access_log_dropped.clone(),
        failing: false,
    };
    thread::Builder::new().name("access-log".into()).spawn(|| writer.run()).map(drop)
}

struct Writer<S, O> {
    queue: Arc<Queue>,
    sink: S,
    open: O,
    /// Lines.
    written: IntCounter,
    dropped: IntCounter,
    /// The log has been told that it cannot write.
    failing: bool,
}

impl<S: Write, O: FnMut() -> Result<S, OpenError>> Writer<S, O> {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Task::Write { reopen } = self.queue.take(&mut batch) {
            self.write(&batch);
            if batch.capacity() > KEPT {
                batch = Vec::new();
            }
            batch.clear();
            if reopen {
                self.reopen();
            }
        }
    }

    /// Writes whole lines, however long it takes; gives up what is left only when the log is closed and time is up.
    fn write(&mut self, batch: &[u8]) {
        let (mut rest, mut give_up) = (batch, None);
        while !rest.is_empty() {
            let pause = match self.sink.write(rest) {
                Ok(0) => self.failed(&io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.succeeded();
                    self.written.inc_by(lines(&rest[..bytes]));
                    rest = &rest[bytes..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A pipe whose reader is behind.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => FULL_PIPE,
                Err(error) => self.failed(&error),
            };
            let Asked { reopen, close } = self.queue.pause(pause);
            if reopen && self.reopen() {
                // The other file has the beginning of this line; a whole one is better.
                let begin = batch[..batch.len() - rest.len()].iter().rposition(|byte| *byte == b'\n');
                rest = &batch[begin.map_or(0, |end| end + 1)..];
            }
            if close && Instant::now() > *give_up.get_or_insert_with(|| Instant::now() + CLOSING) {
                self.dropped.inc_by(lines(rest));
                break;
            }
        }
        self.queue.wrote(batch.len());
    }

    /// Whether there is another file now.
    fn reopen(&mut self) -> bool {
        match (self.open)() {
            Ok(sink) => {
                self.sink = sink;
                tracing::info!("access log opened again");
                true
            }
            Err(error) => {
                tracing::error!(%error, "access log not opened again; it goes on in the file that was open");
                false
            }
        }
    }

    fn failed(&mut self, error: &io::Error) -> Duration {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                %error,
                "access log cannot be written; lines wait for it, and are dropped and counted when \
                 `access_log.buffer` is full: make room, or name another `access_log.path`"
            );
        }
        RETRY
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(dropped_so_far = self.dropped.get(), "access log is written again");
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// After a pipe was full.
const FULL_PIPE: Duration = Duration::from_millis(10);
/// How long what is left of a log that is closed may take to be written.
const CLOSING: Duration = Duration::from_secs(5);
/// A buffer that a slow disk has made larger than this is not kept.
const KEPT: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::*;

    /// What a file takes with each write, and what it has taken.
    #[derive(Clone, Default)]
    struct Disk {
        answers: Arc<Mutex<VecDeque<io::Result<usize>>>>,
        content: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.answers.lock().pop_front().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            self.content.lock().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn full() -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Writes two lines to a disk that answers so; what it has then, and what a second file that is opened has.
    fn written(answers: Vec<io::Result<usize>>, reopen: bool) -> [String; 2] {
        let (old, new) = (Disk::default(), Disk::default());
        *old.answers.lock() = answers.into();
        let (metrics, queue) = (Metrics::new(), Arc::new(Queue::new(100)));
        let opened = new.clone();
        let writer = Writer {
            queue: queue.clone(),
            sink: old.clone(),
            open: move || Ok(opened.clone()),
            written: metrics.access_log_written.clone(),
            dropped: metrics.access_log_dropped.clone(),
            failing: false,
        };
        assert!(queue.push(b"first\n") && queue.push(b"second\n"));
        let thread = thread::spawn(move || writer.run());
        if reopen {
            while queue.push(b"") && old.content.lock().is_empty() {
                thread::yield_now();
            }
            queue.reopen();
        }
        queue.close();
        thread.join().expect("the writer does not panic");
        assert_eq!((metrics.access_log_written.get(), metrics.access_log_dropped.get()), (2, 0));
        [old, new].map(|disk| String::from_utf8(disk.content.lock().clone()).expect("text"))
    }

    #[test]
    fn a_disk_that_was_full_has_every_line_in_the_end() {
        let all = "first\nsecond\n";
        for answers in
            [vec![full()], vec![Ok(8), full(), Ok(2)], vec![Ok(0), Err(io::ErrorKind::Interrupted.into())]]
        {
            assert_eq!(written(answers, false), [all, ""]);
        }
    }

    #[test]
    fn a_line_that_was_cut_is_whole_in_the_file_that_is_opened() {
        let answers = [Ok(8)].into_iter().chain((0..1000).map(|_| full())).collect();
        assert_eq!(written(answers, true), ["first\nse", "second\n"]);
    }
}
