//! The PROXY header against the specification: what is read, what is refused, and that nothing is read past its end.

use super::*;

fn ends(source: &str, destination: &str) -> Said {
    Said::Proxied(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// Reads it whole, and followed by something, and in every beginning.
fn check(header: &[u8], expected: Result<Said, HeaderError>) {
    let shown = header.escape_ascii().to_string();
    match expected {
        Ok(said) => {
            let complete = Ok(Progress::Complete { said, length: header.len() });
            assert_eq!(read(header), complete, "{shown}");
            assert_eq!(read(&[header, b"GET / HTTP/1.1\r\n\r\n"].concat()), complete, "{shown}");
            for end in 0..header.len() {
                assert_eq!(read(&header[..end]), Ok(Progress::Incomplete), "{shown} up to {end}");
            }
        }
        Err(error) => {
            assert_eq!(read(header), Err(error), "{shown}");
            // No beginning of it is taken for a whole one.
            for end in 0..header.len() {
                assert!(
                    !matches!(read(&header[..end]), Ok(Progress::Complete { .. })),
                    "{shown} up to {end}"
                );
            }
        }
    }
}

#[test]
fn version_one_is_read_to_the_letter() {
    for (line, source, destination) in [
        ("TCP4 192.0.2.7 198.51.100.1 56324 443", "192.0.2.7:56324", "198.51.100.1:443"),
        (
            "TCP4 255.255.255.255 255.255.255.255 65535 65535",
            "255.255.255.255:65535",
            "255.255.255.255:65535",
        ),
        ("TCP4 192.0.2.7 198.51.100.1 0 1", "192.0.2.7:0", "198.51.100.1:1"),
        ("TCP6 2001:db8::7 2001:DB8::1 56324 443", "[2001:db8::7]:56324", "[2001:db8::1]:443"),
        ("TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 1 2", "192.0.2.7:1", "198.51.100.1:2"),
        ("TCP6 ::ffff:c000:207 2001:db8::1 1 2", "192.0.2.7:1", "[2001:db8::1]:2"),
        (
            "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        ),
    ] {
        check(format!("PROXY {line}\r\n").as_bytes(), Ok(ends(source, destination)));
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:: whatever 1 2\r\n", &longest] {
        check(line.as_bytes(), Ok(Said::Nothing));
    }
}

#[test]
fn version_one_is_refused_where_it_differs() {
    for line in [
        "",
        "TCP4",
        "tcp4 192.0.2.7 198.51.100.1 1 2",
        "TCP5 192.0.2.7 198.51.100.1 1 2",
        "UNKNOWN2",
        " TCP4 192.0.2.7 198.51.100.1 1 2",
        "TCP4  192.0.2.7 198.51.100.1 1 2",
        "TCP4 192.0.2.7 198.51.100.1 1 2 ",
        "TCP4 192.0.2.7 198.51.100.1 1 2 3",
        "TCP4\t192.0.2.7 198.51.100.1 1 2",
        "TCP4 192.0.2.7 198.51.100.1 1",
        "TCP4 192.0.2.7 2001:db8::1 1 2",
        "TCP4 2001:db8::7 2001:db8::1 1 2",
        "TCP6 192.0.2.7 198.51.100.1 1 2",
        "TCP6 [2001:db8::7] [2001:db8::1] 1 2",
        "TCP6 fe80::1%eth0 2001:db8::1 1 2",
        "TCP4 192.0.2.07 198.51.100.1 1 2",
        "TCP4 192.0.2 198.51.100.1 1 2",
        "TCP4 192.0.2.256 198.51.100.1 1 2",
        "TCP4 example.org 198.51.100.1 1 2",
        "TCP4 192.0.2.7 198.51.100.1 01 2",
        "TCP4 192.0.2.7 198.51.100.1 00 2",
        "TCP4 192.0.2.7 198.51.100.1 +1 2",
        "TCP4 192.0.2.7 198.51.100.1 -1 2",
        "TCP4 192.0.2.7 198.51.100.1 1 65536",
        "TCP4 192.0.2.7 198.51.100.1 1 2\r",
        "TCP4 192.0.2.7 198.51.100.1 1 \u{0662}",
    ] {
        check(format!("PROXY {line}\r\n").as_bytes(), Err(HeaderError::Line));
    }
    let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15));
    for line in ["PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", "PROXY \n", &endless] {
        check(line.as_bytes(), Err(HeaderError::Unended));
    }
    let never = [b"PROXY ".as_slice(), &[b'x'; 4096]].concat();
    assert_eq!(read(&never), Err(HeaderError::Unended));
    for line in ["GET / HTTP/1.1\r\n", "proxy TCP4 ", "PROXIED", "P R", "\x16\x03\x01", "\r\n\r\nX"] {
        check(line.as_bytes(), Err(HeaderError::NoHeader));
    }
}

/// A version 2 header around this.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, block].concat()
}

const FOUR: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];

fn six() -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::7")[..], &address("::ffff:198.51.100.1"), &[0xdc, 0x04, 1, 187]].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

#[test]
fn version_two_is_read() {
    let four = ends("192.0.2.7:56324", "198.51.100.1:443");
    check(&v2(0x21, 0x11, FOUR), Ok(four));
    check(&v2(0x21, 0x21, &six()), Ok(ends("[2001:db8::7]:56324", "198.51.100.1:443")));
    let tlvs = [FOUR, &tlv(0x01, b"h2"), &tlv(0x02, b"example.org"), &tlv(0x04, &[0; 300]), &tlv(0xe0, b"")];
    check(&v2(0x21, 0x11, &tlvs.concat()), Ok(four));
    check(&v2(0x21, 0x11, &[FOUR, &tlv(0x04, &[0; MAX_V2 - INET_BYTES - TLV_FIXED])].concat()), Ok(four));
    for (command, family, block) in [
        (0x20, 0x00, &b""[..]),
        (0x20, 0x11, FOUR),
        // Of a LOCAL header everything is to be skipped, whatever it is.
        (0x20, 0xff, b"nonsense"),
        (0x21, 0x00, b""),
        (0x21, 0x00, b"\x03\0\x04\0\0\0\0"),
        (0x21, 0x31, &[0; UNIX_BYTES]),
        (0x21, 0x32, &[0; UNIX_BYTES]),
    ] {
        check(&v2(command, family, block), Ok(Said::Nothing));
    }
    check(&LOCAL, Ok(Said::Nothing));
}

#[test]
fn version_two_is_refused_where_it_differs() {
    for (command, family, block, error) in [
        (0x11, 0x11, FOUR, HeaderError::Command),
        (0x22, 0x11, FOUR, HeaderError::Command),
        (0x01, 0x11, FOUR, HeaderError::Command),
        (0x21, 0x12, FOUR, HeaderError::Family),
        (0x21, 0x10, FOUR, HeaderError::Family),
        (0x21, 0x41, FOUR, HeaderError::Family),
        (0x21, 0x03, FOUR, HeaderError::Family),
        (0x21, 0x11, &FOUR[..11], HeaderError::Length),
        (0x21, 0x21, FOUR, HeaderError::Length),
        (0x21, 0x31, FOUR, HeaderError::Length),
        (0x21, 0x11, &[FOUR, &[1]].concat(), HeaderError::Tlv),
        (0x21, 0x11, &[FOUR, &[1, 0, 3, 1, 2]].concat(), HeaderError::Tlv),
        (0x21, 0x11, &[FOUR, &[1, 0xff, 0xff]].concat(), HeaderError::Tlv),
        (0x21, 0x11, &[FOUR, &tlv(TLV_CRC32C, &[0; 4])].concat(), HeaderError::Checksum),
        (0x21, 0x11, &[FOUR, &tlv(TLV_CRC32C, &[0; 3])].concat(), HeaderError::Checksum),
    ] {
        check(&v2(command, family, block), Err(error));
    }
    let too_long = [&V2_SIGNATURE[..], &[0x21, 0x11], &u16::try_from(MAX_V2 + 1).unwrap().to_be_bytes()];
    check(&too_long.concat(), Err(HeaderError::Length));
}

#[test]
fn a_checksum_is_checked_wherever_it_stands() {
    // The example of RFC 3720 section B.4: 32 bytes of zeros.
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    let around = |sum: [u8; 4]| {
        let block = [FOUR, &tlv(0x02, b"example.org"), &tlv(TLV_CRC32C, &sum), &tlv(0x04, b"pad")].concat();
        v2(0x21, 0x11, &block)
    };
    let sum = crc32c(around([0; 4]).into_iter()).to_be_bytes();
    check(&around(sum), Ok(ends("192.0.2.7:56324", "198.51.100.1:443")));
    let mut forged = around(sum);
    forged[V2_FIXED] ^= 1;
    check(&forged, Err(HeaderError::Checksum));
}

#[test]
fn what_is_written_is_read_again() {
    for (source, destination, told) in [
        ("192.0.2.7:56324", "198.51.100.1:443", ("192.0.2.7:56324", "198.51.100.1:443")),
        ("[2001:db8::7]:1", "[2001:db8::1]:443", ("[2001:db8::7]:1", "[2001:db8::1]:443")),
        ("192.0.2.7:0", "[2001:db8::1]:443", ("192.0.2.7:0", "[2001:db8::1]:443")),
        ("[::ffff:192.0.2.7]:5", "[::ffff:198.51.100.1]:443", ("192.0.2.7:5", "198.51.100.1:443")),
    ] {
        let both = Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
        for write in [write_v1, write_v2] {
            let mut header = Vec::new();
            write(&both, &mut header);
            check(&header, Ok(ends(told.0, told.1)));
        }
    }
    let mut line = Vec::new();
    let mixed =
        Ends { source: "192.0.2.7:9".parse().unwrap(), destination: "[2001:db8::1]:443".parse().unwrap() };
    write_v1(&mixed, &mut line);
    assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 9 443\r\n");
}
