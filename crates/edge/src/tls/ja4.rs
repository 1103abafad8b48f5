//! The JA4 fingerprint of a ClientHello, by FoxIO's specification (BSD licence; JA4 only, none of its relatives).

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base::event::Ja4;

use super::client_hello::{ClientHello, HelloFacts};

/// Extensions whose presence the first part tells, so that the third leaves them out.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// Counts have two digits.
const MAX_COUNT: usize = 99;
/// Hexadecimal digits kept of a hash.
const HASH_DIGITS: usize = 12;

/// The fingerprint; `None` when the ClientHello cannot be read as a whole.
pub fn ja4(hello: &ClientHello) -> Option<Ja4> {
    Ja4::new(&of_facts(&hello.view()?.facts()))
}

/// Protocol and counts in clear, a hash of the sorted cipher suites, a hash of the sorted extensions and of the signature
/// algorithms as they came.
fn of_facts(facts: &HelloFacts) -> String {
    let version = match facts.version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    };
    let mut ciphers = facts.cipher_suites.clone();
    ciphers.sort_unstable();
    let mut extensions = facts.extensions.clone();
    extensions.retain(|&kind| kind != SERVER_NAME && kind != ALPN);
    extensions.sort_unstable();
    let mut rest = list(&extensions);
    if !extensions.is_empty() && !facts.signature_algorithms.is_empty() {
        rest = format!("{rest}_{}", list(&facts.signature_algorithms));
    }
    format!(
        "t{version}{name}{ciphers:02}{extensions:02}{alpn}_{first}_{second}",
        name = if facts.server_name { 'd' } else { 'i' },
        ciphers = ciphers.len().min(MAX_COUNT),
        extensions = facts.extensions.len().min(MAX_COUNT),
        alpn = alpn(facts.first_alpn.as_deref()),
        first = hash(&list(&ciphers)),
        second = hash(&rest),
    )
}

/// First and last character of the first protocol; of its hexadecimal form where one of them is no letter or digit.
fn alpn(protocol: Option<&[u8]>) -> String {
    let Some((&first, &last)) = protocol.and_then(|name| name.first().zip(name.last())) else {
        return "00".to_owned();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(first), char::from(last)].iter().collect();
    }
    format!("{:x}{:x}", first >> 4, last & 0x0f)
}

fn list(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        crate::ignore(write!(text, "{comma}{value:04x}"));
    }
    text
}

fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(HASH_DIGITS);
    }
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().take(HASH_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chrome() -> HelloFacts {
        HelloFacts {
            version: 0x0304,
            server_name: true,
            cipher_suites: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
                0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012,
                0x002b, 0xff01, 0x000b, 0x000a, 0x0015,
            ],
            signature_algorithms: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            first_alpn: Some(b"h2".to_vec()),
        }
    }

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(of_facts(&chrome()), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        let mut shuffled = chrome();
        shuffled.extensions.reverse();
        shuffled.cipher_suites.reverse();
        assert_eq!(of_facts(&shuffled), of_facts(&chrome()), "their order says nothing");
        shuffled.signature_algorithms.reverse();
        assert_ne!(of_facts(&shuffled), of_facts(&chrome()), "that of signature algorithms does");
    }

    #[test]
    fn what_is_missing_has_its_own_signs() {
        let bare = HelloFacts {
            version: 0x0303,
            server_name: false,
            cipher_suites: Vec::new(),
            extensions: Vec::new(),
            signature_algorithms: Vec::new(),
            first_alpn: None,
        };
        assert_eq!(of_facts(&bare), "t12i000000_000000000000_000000000000");
        let odd = HelloFacts { first_alpn: Some(vec![0xab, b'x', 0xcd]), ..bare };
        assert!(of_facts(&odd).starts_with("t12i0000ad_"));
    }
}
