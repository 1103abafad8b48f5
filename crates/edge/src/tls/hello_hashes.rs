//! Hashes of a ClientHello that rules compare: JA3, and SHA-1 over what it offers.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use md5::{Digest as _, Md5};

use super::client_hello::{ClientHello, ClientHelloView, extension, is_grease};

/// What is computed of one ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloHashes {
    /// JA3: MD5 over version, cipher suites, extensions, groups and point formats, GREASE left out; 32 hexadecimal digits.
    pub ja3: String,
    /// SHA-1 over the cipher suites as they came, two bytes each, base64.
    pub ciphers_sha1: String,
    /// SHA-1 over the extensions' numbers, big-endian, base64.
    pub extensions_sha1: String,
    /// The same, little-endian.
    pub extensions_sha1_le: String,
}

/// `None` when the ClientHello cannot be read as a whole.
pub fn hello_hashes(hello: &ClientHello) -> Option<HelloHashes> {
    let view = hello.view()?;
    let numbers = |bytes: fn(u16) -> [u8; 2], values: &mut dyn Iterator<Item = u16>| {
        let bytes: Vec<u8> = values.flat_map(bytes).collect();
        base64::engine::general_purpose::STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes))
    };
    Some(HelloHashes {
        ja3: super::hex(&Md5::digest(ja3_text(&view))),
        ciphers_sha1: numbers(u16::to_be_bytes, &mut view.cipher_suites.iter()),
        extensions_sha1: numbers(u16::to_be_bytes, &mut view.extensions().map(|(kind, _)| kind)),
        extensions_sha1_le: numbers(u16::to_le_bytes, &mut view.extensions().map(|(kind, _)| kind)),
    })
}

fn ja3_text(view: &ClientHelloView<'_>) -> String {
    let mut text = view.legacy_version.to_string();
    let mut list = |values: &mut dyn Iterator<Item = u16>| {
        text.push(',');
        for (index, value) in values.filter(|value| !is_grease(*value)).enumerate() {
            let dash = if index == 0 { "" } else { "-" };
            // Writing to a `String` cannot fail.
            crate::ignore(write!(text, "{dash}{value}"));
        }
    };
    list(&mut view.cipher_suites.iter());
    list(&mut view.extensions().map(|(kind, _)| kind));
    list(&mut view.groups().iter());
    let formats =
        view.extensions().find(|(kind, _)| *kind == extension::POINT_FORMATS).map(|(_, content)| content);
    // One byte of length, then a byte for each format (RFC 8422 section 5.1.2).
    let formats = formats.and_then(|content| content.get(1..)).unwrap_or_default();
    list(&mut formats.iter().map(|format| u16::from(*format)));
    text
}
