//! A second reading of the PROXY protocol's specification (`proxy-protocol.txt`, sections 2.1 and 2.2), slow and obvious.
//!
//! Where the specification leaves a choice, this takes the one the edge promises: no more than 4096 bytes behind the first
//! 16 of version 2, no datagrams over IP, and no TLV that reaches beyond the end or holds a wrong checksum.

use std::net::{IpAddr, SocketAddr};

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header, perhaps.
    Incomplete,
    /// No header.
    Refused,
    /// A header of so many bytes; source and destination, if it tells them.
    Whole(Option<(SocketAddr, SocketAddr)>, usize),
}

/// Reads it.
pub fn header(input: &[u8]) -> Header {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if input.starts_with(b"PROXY ") {
        line(input)
    } else if input.starts_with(SIGNATURE) {
        block(input)
    } else if b"PROXY ".starts_with(input) || SIGNATURE.starts_with(input) {
        Header::Incomplete
    } else {
        Header::Refused
    }
}

/// Version 1: one line of at most 107 bytes.
fn line(input: &[u8]) -> Header {
    let Some(end) = input.iter().take(107).position(|&byte| byte == b'\n') else {
        return if input.len() < 107 { Header::Incomplete } else { Header::Refused };
    };
    let text: String = input[..end].iter().map(|&byte| char::from(byte)).collect();
    let Some(text) = text.strip_suffix('\r').filter(|text| !text.contains('\r')) else {
        return Header::Refused;
    };
    let words: Vec<&str> = text.split(' ').collect();
    if words[1] == "UNKNOWN" {
        return Header::Whole(None, end + 1);
    }
    let ends = match words.as_slice() {
        [_, family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            end_of(source, from, family).zip(end_of(destination, to, family))
        }
        _ => None,
    };
    ends.map_or(Header::Refused, |ends| Header::Whole(Some(ends), end + 1))
}

fn end_of(address: &str, port: &str, family: &str) -> Option<SocketAddr> {
    let address: IpAddr =
        address.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == (family == "TCP4"))?;
    let number: u16 = port.parse().ok()?;
    // Written in one way only: no sign, no leading zeros.
    (number.to_string() == port).then(|| SocketAddr::new(address.to_canonical(), number))
}

/// Version 2: 16 bytes, then as many as they say.
fn block(input: &[u8]) -> Header {
    let refused_already = input.get(12).is_some_and(|command| ![0x20, 0x21].contains(command));
    if refused_already {
        return Header::Refused;
    }
    if input.len() < 16 {
        return Header::Incomplete;
    }
    let (command, family) = (input[12], input[13]);
    let length = usize::from(input[14]) * 256 + usize::from(input[15]);
    if length > 4096 {
        return Header::Refused;
    }
    let whole = 16 + length;
    if input.len() < whole {
        return Header::Incomplete;
    }
    if command == 0x20 {
        return Header::Whole(None, whole);
    }
    let (width, tells) = match family {
        // Unspecified: whatever follows is skipped.
        0x00..=0x02 => return Header::Whole(None, whole),
        0x11 => (4, true),
        0x21 => (16, true),
        // Two paths of 108 bytes: nobody's address.
        0x31 | 0x32 => (106, false),
        _ => return Header::Refused,
    };
    let addresses = 2 * width + 4;
    if length < addresses || !tlvs_are_good(&input[..whole], 16 + addresses) {
        return Header::Refused;
    }
    let address = |at: usize| match <[u8; 4]>::try_from(&input[at..at + width]) {
        Ok(four) => IpAddr::from(four),
        Err(_) => <[u8; 16]>::try_from(&input[at..at + width]).map_or(IpAddr::from([0; 4]), IpAddr::from),
    };
    let port = |at: usize| u16::from(input[at]) * 256 + u16::from(input[at + 1]);
    let ends = tells.then(|| {
        let (source, destination) = (address(16), address(16 + width));
        let ports = 16 + 2 * width;
        let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
        (end(source, port(ports)), end(destination, port(ports + 2)))
    });
    Header::Whole(ends, whole)
}

/// Whether the rest of a header is a row of TLVs, and each checksum among them right.
fn tlvs_are_good(header: &[u8], from: usize) -> bool {
    let mut at = from;
    while at < header.len() {
        if header.len() < at + 3 {
            return false;
        }
        let length = usize::from(header[at + 1]) * 256 + usize::from(header[at + 2]);
        let end = at + 3 + length;
        if header.len() < end {
            return false;
        }
        if header[at] == 0x03 {
            let mut blank = header.to_vec();
            blank[at + 3..end].fill(0);
            if length != 4 || crc32c(&blank).to_be_bytes() != header[at + 3..end] {
                return false;
            }
        }
        at = end;
    }
    true
}

/// CRC32c, by long division.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let ends = Some(("192.0.2.1:5".parse().unwrap(), "192.0.2.2:443".parse().unwrap()));
        let one = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\nGET";
        assert_eq!(header(one), Header::Whole(ends, one.len() - 3));
        let two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbbGET";
        assert_eq!(header(two), Header::Whole(ends, two.len() - 3));
        for version in [&one[..one.len() - 3], &two[..two.len() - 3]] {
            for end in 0..version.len() {
                assert_eq!(header(&version[..end]), Header::Incomplete, "{end}");
            }
        }
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC32c");
        for bad in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 05 443\r\n",
            "PROXY TCP6 192.0.2.1 ::1 5 443\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(header(bad.as_bytes()), Header::Refused, "{bad}");
        }
    }
}
