//! The PROXY protocol, versions 1 and 2: who the client is, told by a balancer in front, before TLS and HTTP. The
//! document is HAProxy's `doc/proxy-protocol.txt`; BIG-IP, Avi, nginx, Envoy and the clouds' balancers speak it.
//!
//! Where a listener asks for it, it has to come, at once and in exactly its form: a stream that begins otherwise is
//! refused, and not taken for one of a client who speaks for himself. Nothing is read beyond its end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// What the header says of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// The client of who connected.
    Client(SocketAddr),
    /// Who connected speaks for himself, as in a health check, or his client has no address that we know: it came
    /// over a Unix socket, or is unknown.
    Sender,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum NotIntroduced {
    #[error("the connection ended before its PROXY header did")]
    Ended,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the connection does not begin with a PROXY header")]
    None,
    #[error("the PROXY header is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the PROXY header is not well formed")]
    Form,
    #[error("the PROXY header is of a datagram")]
    NotAStream,
}

/// Reads the header from the front of a stream, and nothing beyond it.
pub(super) async fn introduced(stream: &mut TcpStream) -> Result<Introduced, NotIntroduced> {
    let mut header = vec![0; SIGNATURE.len()];
    read(stream, &mut header).await?;
    if header == *SIGNATURE {
        header.resize(FIXED, 0);
        read(stream, &mut header[SIGNATURE.len()..]).await?;
        let rest = rest_of_version_2(&header)?;
        header.resize(FIXED + rest, 0);
        read(stream, &mut header[FIXED..]).await?;
    } else if header.starts_with(WORD) {
        while !header.ends_with(b"\n") {
            let room =
                LONGEST_LINE.checked_sub(header.len()).filter(|room| *room > 0).ok_or(Malformed::Form)?;
            let mut seen = [0; LONGEST_LINE];
            let length = stream.peek(&mut seen[..room]).await.map_err(|_| NotIntroduced::Ended)?;
            let line = memchr::memchr(b'\n', &seen[..length]).map_or(length, |end| end + 1);
            let at = header.len();
            // None is there when the connection has ended: then it cannot be read either.
            header.resize(at + line.max(1), 0);
            read(stream, &mut header[at..]).await?;
        }
    }
    Ok(parse(&header)?.0)
}

/// The header at the front of some bytes, and its length.
///
/// # Errors
/// There is none, or it is not well formed, or there is less of it than all.
pub fn parse(bytes: &[u8]) -> Result<(Introduced, usize), Malformed> {
    if bytes.starts_with(SIGNATURE) {
        let length = FIXED + rest_of_version_2(bytes)?;
        return Ok((version_2(bytes.get(..length).ok_or(Malformed::Form)?)?, length));
    }
    if !bytes.starts_with(WORD) {
        return Err(Malformed::None);
    }
    let end = memchr::memchr(b'\n', &bytes[..bytes.len().min(LONGEST_LINE)]).ok_or(Malformed::Form)?;
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok());
    Ok((version_1(line.ok_or(Malformed::Form)?)?, end + 1))
}

async fn read(stream: &mut TcpStream, into: &mut [u8]) -> Result<(), NotIntroduced> {
    let read: io::Result<usize> = stream.read_exact(into).await;
    read.map(drop).map_err(|_| NotIntroduced::Ended)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 50000 443`; after `UNKNOWN` anything may come.
fn version_1(line: &str) -> Result<Introduced, Malformed> {
    let mut words = line.split(' ').skip(1);
    match words.next() {
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        Some("TCP6") => addresses::<Ipv6Addr>(words),
        Some("UNKNOWN") => Ok(Introduced::Sender),
        _ => Err(Malformed::Form),
    }
}

/// The source; the destination has to be well formed and does not matter.
fn addresses<'a, Ip: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Introduced, Malformed> {
    let mut word = || words.next().ok_or(Malformed::Form);
    let source = ip::<Ip>(word()?)?;
    ip::<Ip>(word()?)?;
    let source_port = port(word()?)?;
    port(word()?)?;
    match words.next() {
        None => Ok(client(source, source_port)),
        Some(_) => Err(Malformed::Form),
    }
}

fn ip<Ip: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Malformed> {
    word.parse::<Ip>().map(Into::into).map_err(|_| Malformed::Form)
}

/// Digits without signs and leading zeros.
fn port(word: &str) -> Result<u16, Malformed> {
    let plain = word == "0" || (word.bytes().all(|byte| byte.is_ascii_digit()) && !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(Malformed::Form)
}

/// How much follows the fixed part.
fn rest_of_version_2(bytes: &[u8]) -> Result<usize, Malformed> {
    let length = bytes.get(14..FIXED).and_then(|length| length.try_into().ok()).ok_or(Malformed::Form)?;
    let length = usize::from(u16::from_be_bytes(length));
    if FIXED + length > LONGEST { Err(Malformed::TooLong) } else { Ok(length) }
}

/// Signature, version and command, family and transport, length; then addresses, and TLVs that do not matter here.
fn version_2(header: &[u8]) -> Result<Introduced, Malformed> {
    let (fixed, rest) = header.split_at_checked(FIXED).ok_or(Malformed::Form)?;
    match (fixed[12], fixed[13]) {
        (0x20, _) | (0x21, 0x00) => Ok(Introduced::Sender),
        (0x21, 0x11) => {
            let (source, port) = ends::<4>(rest)?;
            Ok(client(Ipv4Addr::from(source).into(), port))
        }
        (0x21, 0x21) => {
            let (source, port) = ends::<16>(rest)?;
            Ok(client(Ipv6Addr::from(source).into(), port))
        }
        (0x21, 0x31) if rest.len() >= UNIX => Ok(Introduced::Sender),
        (0x21, 0x12 | 0x22 | 0x32) => Err(Malformed::NotAStream),
        _ => Err(Malformed::Form),
    }
}

/// The source of two addresses of this length and two ports.
fn ends<const LENGTH: usize>(rest: &[u8]) -> Result<([u8; LENGTH], u16), Malformed> {
    let ends = rest.get(..2 * LENGTH + 4).ok_or(Malformed::Form)?;
    let (source, rest) = ends.split_first_chunk::<LENGTH>().ok_or(Malformed::Form)?;
    let port = [rest[LENGTH], rest[LENGTH + 1]];
    Ok((*source, u16::from_be_bytes(port)))
}

/// An IPv4 client of an IPv6 socket has its IPv4 address, as everywhere.
fn client(ip: IpAddr, port: u16) -> Introduced {
    Introduced::Client(SocketAddr::new(ip.to_canonical(), port))
}

const WORD: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of a header of version 2, with the signature.
const FIXED: usize = 16;
/// Two paths.
const UNIX: usize = 216;
/// Of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// Of version 2: TLVs may hold a certificate.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn check(header: &[u8], expected: Result<Introduced, Malformed>) {
        let shown = String::from_utf8_lossy(header).into_owned();
        assert_eq!(parse(header).map(|(introduced, _)| introduced), expected, "{shown:?}");
        if expected.is_ok() {
            let long = [header, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&long).map(|(_, length)| length), Ok(header.len()), "{shown:?}");
            for end in 0..header.len() {
                assert!(parse(&header[..end]).is_err(), "{shown:?} cut at {end}");
            }
        }
    }

    #[test]
    fn a_line_of_version_1_is_read_strictly() {
        let client = |addr: &str| Ok(Introduced::Client(addr.parse().expect("an address")));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\n", client("192.0.2.1:50000")),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n", client("192.0.2.1:0")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", client("[2001:db8::1]:1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", client("192.0.2.1:1")),
            ("PROXY UNKNOWN\r\n", Ok(Introduced::Sender)),
            ("PROXY UNKNOWN ffff::1 what ever\r\n", Ok(Introduced::Sender)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 50000\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 50000 443 \r\n", Err(Malformed::Form)),
            ("PROXY TCP4  192.0.2.1 198.51.100.1 50000 443\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.01 198.51.100.1 50000 443\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", Err(Malformed::Form)),
            ("PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n", Err(Malformed::Form)),
            ("PROXY TCP4 192.0.2.1 x 1 443\r\n", Err(Malformed::Form)),
            ("PROXY tcp4 192.0.2.1 198.51.100.1 1 443\r\n", Err(Malformed::Form)),
            ("PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n", Err(Malformed::Form)),
            ("proxy UNKNOWN\r\n", Err(Malformed::None)),
            ("PROXYUNKNOWN\r\n", Err(Malformed::None)),
            ("GET / HTTP/1.1\r\n", Err(Malformed::None)),
            (" PROXY UNKNOWN\r\n", Err(Malformed::None)),
        ] {
            check(line.as_bytes(), expected);
        }
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)).as_bytes(), Ok(Introduced::Sender));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).as_bytes(), Err(Malformed::Form));
    }

    #[test]
    fn a_header_of_version_2_is_read_with_what_it_brings() {
        let v4 = [&[192, 0, 2, 1, 198, 51, 100, 1][..], &[0xc3, 0x50, 1, 0xbb]].concat();
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 7, 0, 8]].concat();
        let tlv = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let client = |addr: &str| Ok(Introduced::Client(addr.parse().expect("an address")));
        for (command, family, rest, expected) in [
            (0x21, 0x11, &v4[..], client("192.0.2.1:50000")),
            (0x21, 0x11, &tlv, client("192.0.2.1:50000")),
            (0x21, 0x21, &v6, client("[::1]:7")),
            (0x21, 0x31, &[0; 216], Ok(Introduced::Sender)),
            (0x21, 0x00, &[], Ok(Introduced::Sender)),
            (0x20, 0x00, &[], Ok(Introduced::Sender)),
            (0x20, 0x11, &v4, Ok(Introduced::Sender)),
            (0x21, 0x11, &v4[..11], Err(Malformed::Form)),
            (0x21, 0x21, &v6[..35], Err(Malformed::Form)),
            (0x21, 0x31, &[0; 215], Err(Malformed::Form)),
            (0x21, 0x12, &v4, Err(Malformed::NotAStream)),
            (0x21, 0x41, &v4, Err(Malformed::Form)),
            (0x22, 0x11, &v4, Err(Malformed::Form)),
            (0x11, 0x11, &v4, Err(Malformed::Form)),
            (0x20, 0x00, &[0; 4080], Ok(Introduced::Sender)),
            (0x20, 0x00, &[0; 4081], Err(Malformed::TooLong)),
        ] {
            check(&version_2(command, family, rest), expected);
        }
    }
}
