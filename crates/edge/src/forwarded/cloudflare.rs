//! Header values under Cloudflare's names, for sites with `compatibility = "cloudflare"`.

use std::net::IpAddr;

use base::id::RequestId;

use super::Scheme;

/// Place written into `CF-Ray` where none is configured; real ones are three-letter airport codes.
pub const DEFAULT_PLACE: Place = Place(*b"ZZZ");

/// The three-letter code of the place that handled a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place([u8; 3]);

impl Place {
    /// Three ASCII letters, kept in upper case; anything else is no place.
    pub fn new(code: &str) -> Option<Self> {
        let code: [u8; 3] = code.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_alphabetic).then(|| Self(code.map(|byte| byte.to_ascii_uppercase())))
    }
}

/// `CF-Ray`: 16 lower-case hexadecimal digits, `-`, the place. A function of the request id, so the ray in a log line
/// can be computed from the receipt: the digits are the last 64 of the id's 80 bits.
pub fn ray(id: &RequestId, place: Place) -> String {
    let bits = id.as_str().bytes().fold(0u64, |bits, byte| (bits << 5) | digit(byte));
    let [a, b, c] = place.0.map(char::from);
    format!("{bits:016x}-{a}{b}{c}")
}

/// `CF-Connecting-IP`: the client's address, IPv6 without brackets.
pub fn connecting_ip(client: IpAddr) -> String {
    base::address::canonical(client).to_string()
}

/// `CF-Visitor`: the scheme the visitor used, as JSON.
pub fn visitor(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => r#"{"scheme":"http"}"#,
        Scheme::Https => r#"{"scheme":"https"}"#,
    }
}

/// The value of a digit of Crockford's base 32 (0-9, then A-Z without I, L, O and U).
fn digit(byte: u8) -> u64 {
    let value = match byte {
        b'0'..=b'9' => byte - b'0',
        b'A'..=b'H' => byte - b'A' + 10,
        b'J' | b'K' => byte - b'J' + 18,
        b'M' | b'N' => byte - b'M' + 20,
        b'P'..=b'T' => byte - b'P' + 22,
        b'V'..=b'Z' => byte - b'V' + 27,
        _ => 0,
    };
    u64::from(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use base::random::Random;

    use super::*;

    #[test]
    fn every_digit_has_its_own_value() {
        let values: Vec<u64> = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".iter().map(|&byte| digit(byte)).collect();
        assert_eq!(values, (0..32).collect::<Vec<u64>>());
    }

    #[test]
    fn a_ray_is_a_function_of_the_request() {
        let mut random = Random::seeded(3);
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let id = RequestId::new(&mut random);
            let text = ray(&id, Place::new("cdg").unwrap());
            assert_eq!(text, ray(&id, Place::new("CDG").unwrap()));
            let (hex, place) = text.split_once('-').unwrap();
            assert!(hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{text}");
            assert_eq!(place, "CDG");
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn places_are_three_letters() {
        for (code, good) in
            [("CDG", true), ("fra", true), ("CD", false), ("CDGX", false), ("C\r\n", false), ("C1G", false)]
        {
            assert_eq!(Place::new(code).is_some(), good, "{code:?}");
        }
    }

    #[test]
    fn other_values() {
        assert_eq!(connecting_ip("::ffff:192.0.2.7".parse().unwrap()), "192.0.2.7");
        assert_eq!(connecting_ip("2001:DB8::1".parse().unwrap()), "2001:db8::1");
        let json: serde_json::Value = serde_json::from_str(visitor(Scheme::Https)).unwrap();
        assert_eq!(json, serde_json::json!({"scheme": "https"}));
    }
}
