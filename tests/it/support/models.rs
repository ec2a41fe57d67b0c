//! How different servers read the same bytes: as the RFCs have it, as `httparse` does, and as lenient ones do that
//! take what comes. What a proxy sends must be the same requests to all of them.

/// A request as a server understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// The whole requests, and how many bytes they took. Reading ends at what is unfinished or refused.
type Read = (Vec<Message>, usize);

/// RFC 9112 to the letter.
pub fn strict(bytes: &[u8]) -> Read {
    all(bytes, |bytes| {
        let end = find(bytes, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end - 4]).ok()?;
        let mut lines = head.split("\r\n");
        let start: Vec<_> = lines.next()?.split(' ').collect();
        let [method, target, "HTTP/1.1"] = start[..] else { return None };
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty()
                || !name.bytes().all(token)
                || value.bytes().any(|byte| byte < b' ' && byte != b'\t')
            {
                return None;
            }
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        let message = Message { method: method.into(), target: target.into(), fields, body: Vec::new() };
        let framing = (message.all("content-length"), message.all("transfer-encoding"));
        let (body, taken) = match (&framing.0[..], &framing.1[..]) {
            ([], []) => (Vec::new(), 0),
            ([length], []) => of_length(&bytes[end..], length.parse().ok()?)?,
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => chunked(&bytes[end..], |line| {
                usize::from_str_radix(line, 16)
                    .ok()
                    .filter(|_| line.bytes().all(|byte| byte.is_ascii_hexdigit()))
            })?,
            _ => return None,
        };
        Some((Message { body, ..message }, end + taken))
    })
}

/// The parser of most Rust servers.
pub fn by_httparse(bytes: &[u8]) -> Read {
    all(bytes, |bytes| {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(end) = request.parse(bytes).ok()? else { return None };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let message = Message {
            method: request.method?.into(),
            target: request.path?.into(),
            fields: request.headers.iter().map(|it| (it.name.to_ascii_lowercase(), text(it.value))).collect(),
            body: Vec::new(),
        };
        let rest = &bytes[end..];
        let (body, taken) = match message.all("transfer-encoding").last() {
            Some(coding) if coding.eq_ignore_ascii_case("chunked") => {
                let mut at = 0;
                let mut body = Vec::new();
                loop {
                    let httparse::Status::Complete((line, size)) =
                        httparse::parse_chunk_size(&rest[at..]).ok()?
                    else {
                        return None;
                    };
                    at += line;
                    if size == 0 {
                        at += find(rest.get(at..)?, b"\r\n")? + 2;
                        break (body, at);
                    }
                    body.extend(rest.get(at..at + size as usize)?);
                    at += size as usize + 2;
                }
            }
            Some(_) => return None,
            None => match message.all("content-length").last() {
                Some(length) => of_length(rest, length.parse().ok()?)?,
                None => (Vec::new(), 0),
            },
        };
        Some((Message { body, ..message }, end + taken))
    })
}

/// A server that reads on whatever comes: lines end in LF, names may be followed by blanks, lines may be folded, the
/// last length counts, anything that has `chunked` in it is chunked, junk after a number is passed over.
pub fn lenient(bytes: &[u8]) -> Read {
    all(bytes, |bytes| {
        let (mut at, mut lines) = (0, Vec::<String>::new());
        loop {
            let end = at + find(bytes.get(at..)?, b"\n")?;
            let line = String::from_utf8_lossy(&bytes[at..end]).into_owned();
            at = end + 1;
            let line = line.trim_end_matches('\r');
            match (line.is_empty(), lines.last_mut()) {
                (true, None) => {}
                (true, Some(_)) => break,
                (false, Some(last)) if line.starts_with([' ', '\t']) => *last += line,
                _ => lines.push(line.to_owned()),
            }
        }
        let mut words = lines[0].split_whitespace().map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let fields = lines[1..].iter().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| {
            (name.trim().to_ascii_lowercase().replace('_', "-"), value.trim().to_owned())
        });
        let message = Message { method, target, fields: fields.collect(), body: Vec::new() };
        let digits = |text: &str, radix: u32| {
            let end = text.find(|digit: char| !digit.is_digit(radix)).unwrap_or(text.len());
            usize::from_str_radix(&text[..end], radix).ok()
        };
        let rest = &bytes[at..];
        let coded = message.all("transfer-encoding").iter().any(|coding| coding.contains("chunked"));
        let (body, taken) = match message.all("content-length").last() {
            _ if coded => chunked(rest, |line| Some(digits(line.trim(), 16).unwrap_or(0)))?,
            Some(length) => of_length(rest, digits(length, 10)?)?,
            None => (Vec::new(), 0),
        };
        Some((Message { body, ..message }, at + taken))
    })
}

/// Whole requests, one after another.
fn all(bytes: &[u8], one: impl Fn(&[u8]) -> Option<(Message, usize)>) -> Read {
    let (mut messages, mut at) = (Vec::new(), 0);
    while let Some((message, taken)) = one(&bytes[at..]) {
        messages.push(message);
        at += taken;
    }
    (messages, at)
}

fn of_length(bytes: &[u8], length: usize) -> Option<(Vec<u8>, usize)> {
    Some((bytes.get(..length)?.to_vec(), length))
}

fn chunked(bytes: &[u8], size: impl Fn(&str) -> Option<usize>) -> Option<(Vec<u8>, usize)> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let end = at + find(bytes.get(at..)?, b"\r\n")?;
        let size = size(std::str::from_utf8(&bytes[at..end]).ok()?)?;
        at = end + 2;
        let data = bytes.get(at..at + size)?;
        let after = bytes.get(at + size..at + size + 2)?;
        if after != b"\r\n" {
            return None;
        }
        body.extend_from_slice(data);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}
