//! The PROXY protocol, versions 1 and 2: how a proxy that passes bytes on tells who opened the connection, read and written.
//!
//! After HAProxy's specification, `proxy-protocol.txt`. Reading is a pure function over the bytes so far; it never wants more
//! than belongs to the header, because what follows is TLS or HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base::address::canonical;

pub(crate) mod receive;

/// Bytes of a version 1 header at most, CR LF included (specification section 2.1).
pub const MAX_V1: usize = 107;
/// Bytes of a version 2 header at most after its first 16, TLVs included. The format allows 64 KiB; what proxies send has a
/// few hundred bytes at most.
pub const MAX_V2: usize = 4096;
/// Bytes of any header at most.
pub const MAX_HEADER: usize = V2_FIXED + MAX_V2;

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;
/// Type and length in front of the value of a TLV.
const TLV_FIXED: usize = 3;
/// Type of the TLV that holds a checksum of the whole header (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;
/// Bytes of two addresses and two ports.
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing about anybody else: a health check of the proxy (`LOCAL`), or a connection it cannot describe (`UNKNOWN`,
    /// Unix sockets). The connection's own addresses hold.
    Nothing,
    /// Who connected, and to where. IPv4-mapped IPv6 addresses have become IPv4.
    Proxied(Ends),
}

/// The two ends of a connection, as told in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub source: SocketAddr,
    /// The address it connected to.
    pub destination: SocketAddr,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Right so far, and every byte given belongs to the header, which is longer.
    Incomplete,
    /// A whole header.
    Complete {
        /// What it says.
        said: Said,
        /// Its length in bytes; what follows is the visitor's.
        length: usize,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They begin like neither version.
    #[error("no PROXY header")]
    NoHeader,
    /// Version 1: the line has no end within `MAX_V1` bytes, or one that is not CR LF.
    #[error("a line that does not end")]
    Unended,
    /// Version 1: the line is not what the specification says.
    #[error("a malformed line")]
    Line,
    /// Version 2: an unknown version or command.
    #[error("an unknown version or command")]
    Command,
    /// Version 2: an unknown address family or transport, or one that is not TCP.
    #[error("an unknown family or transport")]
    Family,
    /// Version 2: longer than `MAX_V2`, or too short for its addresses.
    #[error("a wrong length")]
    Length,
    /// Version 2: a TLV reaches beyond the end.
    #[error("a TLV beyond the end")]
    Tlv,
    /// Version 2: the checksum is another.
    #[error("a wrong checksum")]
    Checksum,
}

/// Reads a header from the first bytes of a connection; there may be more behind it.
pub fn read(bytes: &[u8]) -> Result<Progress, HeaderError> {
    if begins(bytes, V2_SIGNATURE) {
        read_v2(bytes)
    } else if begins(bytes, V1_BEGIN) {
        read_v1(bytes)
    } else {
        Err(HeaderError::NoHeader)
    }
}

/// Whether the bytes, as far as they are there, begin with `wanted`.
fn begins(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.iter().zip(wanted).all(|(byte, other)| byte == other)
}

fn read_v1(bytes: &[u8]) -> Result<Progress, HeaderError> {
    let window = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() == MAX_V1 { Err(HeaderError::Unended) } else { Ok(Progress::Incomplete) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(HeaderError::Unended)?;
    let said = line.strip_prefix(V1_BEGIN).and_then(line_says).ok_or(HeaderError::Line)?;
    Ok(Progress::Complete { said, length: end + 1 })
}

/// What stands behind `PROXY `, without the line's end.
fn line_says(line: &[u8]) -> Option<Said> {
    if line.contains(&b'\r') {
        return None;
    }
    // Whatever else a proxy writes behind UNKNOWN, text or not, is to be ignored (section 2.1).
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Said::Nothing);
    }
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split(' ');
    let mut word = || words.next();
    let family = word()?;
    let (source, destination) = (word()?, word()?);
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (source.parse::<Ipv4Addr>().ok()?.into(), destination.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (source.parse::<Ipv6Addr>().ok()?.into(), destination.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let (from, to) = (port(word()?)?, port(word()?)?);
    word().is_none().then(|| proxied((source, from), (destination, to)))
}

/// Decimal digits without leading zeros, 0 to 65535.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

fn proxied(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Said {
    let end = |(address, port)| SocketAddr::new(canonical(address), port);
    Said::Proxied(Ends { source: end(source), destination: end(destination) })
}

fn read_v2(bytes: &[u8]) -> Result<Progress, HeaderError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else {
        // What is there is judged at once: a proxy that speaks something else need not be waited for.
        return check_command(bytes).map(|()| Progress::Incomplete);
    };
    check_command(bytes)?;
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(HeaderError::Length);
    }
    let Some(block) = rest.get(..length) else { return Ok(Progress::Incomplete) };
    let said = if command & 0x0f == 0 { Said::Nothing } else { block_says(fixed, family, block)? };
    Ok(Progress::Complete { said, length: V2_FIXED + length })
}

/// Version 2 in the higher half of the 13th byte, LOCAL or PROXY in the lower one.
fn check_command(bytes: &[u8]) -> Result<(), HeaderError> {
    match bytes.get(V2_SIGNATURE.len()) {
        None | Some(0x20 | 0x21) => Ok(()),
        Some(_) => Err(HeaderError::Command),
    }
}

/// The part of a version 2 header whose length is told: addresses, then TLVs.
fn block_says(fixed: &[u8; V2_FIXED], family: u8, block: &[u8]) -> Result<Said, HeaderError> {
    let (said, addresses) = match (family >> 4, family & 0x0f) {
        (0, 0..=2) => return Ok(Said::Nothing),
        (1, 1) => {
            let (ends, _) = block.split_first_chunk::<INET_BYTES>().ok_or(HeaderError::Length)?;
            let [a, b, c, d, e, f, g, h, from @ .., to_high, to_low] = *ends;
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            let (from, to) = (u16::from_be_bytes(from), u16::from_be_bytes([to_high, to_low]));
            (proxied((source.into(), from), (destination.into(), to)), INET_BYTES)
        }
        (2, 1) => (inet6(block).ok_or(HeaderError::Length)?, INET6_BYTES),
        (3, 1 | 2) if block.len() >= UNIX_BYTES => (Said::Nothing, UNIX_BYTES),
        (3, 1 | 2) => return Err(HeaderError::Length),
        _ => return Err(HeaderError::Family),
    };
    check_tlvs(fixed, block, addresses)?;
    Ok(said)
}

fn inet6(block: &[u8]) -> Option<Said> {
    let (source, rest) = block.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let to = rest.first_chunk::<2>()?;
    let end = |address: &[u8; 16], port: &[u8; 2]| {
        (IpAddr::from(Ipv6Addr::from(*address)), u16::from_be_bytes(*port))
    };
    Some(proxied(end(source, from), end(destination, to)))
}

/// Walks the TLVs behind the addresses; of their values only the checksum is of interest.
fn check_tlvs(fixed: &[u8; V2_FIXED], block: &[u8], addresses: usize) -> Result<(), HeaderError> {
    let mut at = addresses;
    while at < block.len() {
        let (kind, length) = match block.get(at..at + TLV_FIXED) {
            Some(&[kind, high, low]) => (kind, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Err(HeaderError::Tlv),
        };
        let begin = at + TLV_FIXED;
        let value = block.get(begin..begin + length).ok_or(HeaderError::Tlv)?;
        if kind == TLV_CRC32C {
            let told = value.first_chunk::<4>().filter(|_| length == 4).ok_or(HeaderError::Checksum)?;
            let (before, after) = (block.get(..begin), block.get(begin + length..));
            let parts = [fixed, before.unwrap_or_default(), &[0; 4], after.unwrap_or_default()];
            if crc32c(parts.iter().flat_map(|part| part.iter().copied())) != u32::from_be_bytes(*told) {
                return Err(HeaderError::Checksum);
            }
        }
        at = begin + length;
    }
    Ok(())
}

/// CRC32c (RFC 9260 appendix A), bit by bit: at most one short header per connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (REVERSED_POLYNOMIAL & (sum & 1).wrapping_neg())
        })
    })
}

/// The header that says nothing about anybody: version 2, `LOCAL`.
pub const LOCAL: [u8; V2_FIXED] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Writes a version 1 header. Addresses of two families are both told as IPv6.
pub fn write_v1(ends: &Ends, out: &mut Vec<u8>) {
    let (source, destination) = (ends.source, ends.destination);
    let (family, from, to) = match alike(source.ip(), destination.ip()) {
        Alike::V4(from, to) => ("TCP4", from.to_string(), to.to_string()),
        Alike::V6(from, to) => ("TCP6", from.to_string(), to.to_string()),
    };
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Writes a version 2 header without TLVs. Addresses of two families are both told as IPv6.
pub fn write_v2(ends: &Ends, out: &mut Vec<u8>) {
    out.extend_from_slice(V2_SIGNATURE);
    match alike(ends.source.ip(), ends.destination.ip()) {
        Alike::V4(from, to) => {
            out.extend_from_slice(&[0x21, 0x11, 0, INET_BYTES as u8]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        Alike::V6(from, to) => {
            out.extend_from_slice(&[0x21, 0x21, 0, INET6_BYTES as u8]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
    }
    out.extend_from_slice(&ends.source.port().to_be_bytes());
    out.extend_from_slice(&ends.destination.port().to_be_bytes());
}

enum Alike {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn alike(source: IpAddr, destination: IpAddr) -> Alike {
    let wide = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (canonical(source), canonical(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Alike::V4(source, destination),
        (source, destination) => Alike::V6(wide(source), wide(destination)),
    }
}

#[cfg(test)]
mod tests;
