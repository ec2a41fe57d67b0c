//! Apache's formats, and text that cannot be more than it looks.
//!
//! In JSON a string cannot end before its quote does. In the other two, what is no printable ASCII, and quotes and
//! backslashes, are written as `\xNN`, so that neither a line nor a quoted part of it can be forged. (Apache and
//! nginx do the same.)

use std::{borrow::Cow, io::Write, time::SystemTime};

use super::Line;

/// `client - - [time] "request" status bytes`.
pub(super) fn write_common(line: &Line<'_>, out: &mut Vec<u8>) {
    out_of(write!(out, "{} - - [{}] \"", line.client.ip(), ApacheTime::of(line.time)));
    escape(line.method, out);
    out.push(b' ');
    escape(line.path, out);
    if let Some(query) = line.query {
        out.push(b'?');
        escape(query, out);
    }
    out.push(b' ');
    // They know HTTP/2 by this name.
    out.extend_from_slice(if line.protocol == "HTTP/2" { "HTTP/2.0" } else { line.protocol }.as_bytes());
    out.extend_from_slice(b"\" ");
    match line.status {
        0 => out.push(b'-'),
        status => out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes()),
    }
    out.push(b' ');
    match line.bytes_sent {
        0 => out.push(b'-'),
        bytes => out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes()),
    }
}

/// The same, and `"referer" "user agent"`.
pub(super) fn write_combined(line: &Line<'_>, out: &mut Vec<u8>) {
    write_common(line, out);
    for field in [line.referer, line.user_agent] {
        out.extend_from_slice(b" \"");
        escape(field.unwrap_or("-"), out);
        out.push(b'"');
    }
}

/// Bytes that clients chose, as text of a bounded length: what is not UTF-8 is replaced.
pub fn readable(bytes: &[u8]) -> Cow<'_, str> {
    match bytes.len() > LONGEST {
        false => String::from_utf8_lossy(bytes),
        true => {
            let mut text = String::from_utf8_lossy(&bytes[..LONGEST]).into_owned();
            text.push('…');
            text.into()
        }
    }
}

fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => out_of(write!(out, "\\x{byte:02x}")),
            byte => out.push(byte),
        }
    }
}

fn out_of(written: std::io::Result<()>) {
    written.expect("a Vec takes every write");
}

/// `21/Nov/2026:15:00:25 +0000`.
struct ApacheTime(String);

impl ApacheTime {
    fn of(time: SystemTime) -> Self {
        let text = humantime::format_rfc3339_seconds(time).to_string();
        let parts = text.get(..4).zip(text.get(5..7)).zip(text.get(8..10)).zip(text.get(11..19));
        let (((year, month), day), clock) = parts.expect("RFC 3339 has its parts at fixed places");
        let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1));
        let month = month.expect("a date has one of twelve months");
        Self(format!("{day}/{month}/{year}:{clock} +0000"))
    }
}

impl std::fmt::Display for ApacheTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Of one text, in bytes. Collectors cut or refuse lines of more than 16 KiB.
const LONGEST: usize = 4 << 10;
