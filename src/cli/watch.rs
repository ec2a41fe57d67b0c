//! `homing show … --watch`: the same again and again, until Ctrl-C or until nobody reads it any more.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;

use super::{Error, client, run::Signals, table};

/// Prints what `look` says, every so often. What goes wrong after it went well once is printed too, and tried
/// again: whoever watches a homing that is restarted wants to see it come back.
pub(super) async fn watch(
    every: Duration,
    mut look: impl AsyncFnMut() -> Result<String, client::Error>,
) -> Result<ExitCode, Error> {
    let mut signals = Signals::new().map_err(Error::Runtime)?;
    let mut is_first = true;
    let mut page = Page { out: io::stdout(), is_screen: io::stdout().is_terminal(), every };
    loop {
        let seen = tokio::select! {
            seen = look() => seen,
            () = signals.next() => break,
        };
        let printed = match seen {
            Ok(text) => page.show(&text, SystemTime::now()),
            Err(error) if is_first => return Err(error.into()),
            Err(error) => page.show(&format!("error: {error}\n"), SystemTime::now()),
        };
        is_first = false;
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            printed => printed.map_err(Error::Print)?,
        }
        tokio::select! {
            () = sleep(every) => {}
            () = signals.next() => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How long between two looks, as an argument has it.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval >= SHORTEST => Ok(interval),
        Ok(_) => Err(format!("write {} or more", humantime::format_duration(SHORTEST))),
        Err(_) => Err("write digits and a unit, as in 2s".into()),
    }
}

/// Whoever wants it faster wants metrics.
const SHORTEST: Duration = Duration::from_millis(100);

/// Where it is printed: a screen is drawn anew, anything else gets one text after the other.
struct Page<W> {
    out: W,
    is_screen: bool,
    every: Duration,
}

impl<W: Write> Page<W> {
    fn show(&mut self, text: &str, now: SystemTime) -> io::Result<()> {
        if self.is_screen {
            let date = table::date(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), None);
            let every = humantime::format_duration(self.every);
            writeln!(self.out, "{HOME}{date}, every {every}; Ctrl-C ends it{REST_OF_LINE}")?;
            // Line by line over the old one, for a screen that is cleared first flickers.
            for line in text.lines() {
                writeln!(self.out, "{line}{REST_OF_LINE}")?;
            }
            write!(self.out, "{REST_OF_SCREEN}")?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }
}

const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(is_screen: bool, texts: &[&str]) -> String {
        let mut page = Page { out: Vec::new(), is_screen, every: Duration::from_secs(2) };
        for text in texts {
            page.show(text, UNIX_EPOCH).expect("a vector takes all");
        }
        String::from_utf8(page.out).expect("it is text")
    }

    #[test]
    fn a_screen_is_drawn_over_and_a_pipe_gets_one_after_the_other() {
        assert_eq!(shown(false, &["a\nb\n", "c\n"]), "a\nb\nc\n");
        let head = "\x1b[HThu Jan  1 00:00:00 1970 UTC, every 2s; Ctrl-C ends it\x1b[K\n";
        let expected = format!("{head}a\x1b[K\nb\x1b[K\n\x1b[J{head}c\x1b[K\n\x1b[J");
        assert_eq!(shown(true, &["a\nb\n", "c\n"]), expected);
    }

    #[test]
    fn an_interval_has_a_unit_and_is_not_too_short() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("100ms"), Ok(SHORTEST));
        for (text, why) in
            [("1ms", "100ms or more"), ("0s", "100ms or more"), ("2", "as in 2s"), ("", "as in 2s")]
        {
            assert!(interval(text).is_err_and(|error| error.contains(why)), "{text}");
        }
    }
}
