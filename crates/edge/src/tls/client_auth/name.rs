//! Distinguished names as text: RFC 2253, and the older form with slashes.

use std::fmt::Write;

use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// Short names of attribute types, as OpenSSL and nginx write them; others are written as numbers.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// A distinguished name as text, in two forms. Both are printable ASCII: other bytes are written as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName {
    /// RFC 2253, most specific part first: `CN=shop,O=Example,C=DE`.
    pub rfc2253: String,
    /// With slashes, in the order of the certificate: `/C=DE/O=Example/CN=shop`. Ambiguous; for rules that expect it.
    pub slashes: String,
}

impl From<&X509Name<'_>> for DistinguishedName {
    fn from(name: &X509Name<'_>) -> Self {
        let parts: Vec<Vec<(String, Value)>> =
            name.iter_rdn().map(|part| part.iter().map(attribute).collect()).collect();
        let rfc2253: Vec<String> = parts
            .iter()
            .rev()
            .map(|part| {
                // OpenSSL turns the members of a part round as well; that is what people compare with.
                let members: Vec<_> =
                    part.iter().rev().map(|(kind, value)| format!("{kind}={}", value.rfc2253())).collect();
                members.join("+")
            })
            .collect();
        let mut slashes = String::new();
        for (kind, value) in parts.iter().flatten() {
            slashes.push('/');
            slashes.push_str(kind);
            slashes.push('=');
            slashes.push_str(&value.plain());
        }
        Self { rfc2253: rfc2253.join(","), slashes }
    }
}

/// The value of one attribute.
enum Value {
    Text(String),
    /// Of no string type, or of an attribute type without a short name: the DER of it.
    Encoded(Vec<u8>),
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> (String, Value) {
    let number = attribute.attr_type().to_id_string();
    let known = SHORT_NAMES.iter().find(|(id, _)| *id == number);
    let value = attribute.attr_value();
    let value = match (known, attribute.as_str()) {
        (Some(_), Ok(text)) => Value::Text(text.to_owned()),
        _ => Value::Encoded(encoded(value.header.tag().0, value.data)),
    };
    (known.map_or(number, |(_, name)| (*name).to_owned()), value)
}

/// One primitive universal element of DER.
fn encoded(tag: u32, content: &[u8]) -> Vec<u8> {
    let mut der = vec![u8::try_from(tag & 0x1f).unwrap_or_default()];
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(length @ ..=0x7f), _) => der.push(length),
        (Ok(length), _) => der.extend([0x81, length]),
        (_, Ok(length)) => der.extend([&[0x82][..], &length.to_be_bytes()].concat()),
        // A handshake message is not that long.
        _ => return Vec::new(),
    }
    der.extend_from_slice(content);
    der
}

impl Value {
    /// RFC 2253 section 2.4, and what OpenSSL escapes beyond it: control characters and everything but ASCII.
    fn rfc2253(&self) -> String {
        let Self::Text(text) = self else { return self.plain() };
        let mut written = String::with_capacity(text.len());
        let last = text.len().saturating_sub(1);
        for (position, byte) in text.bytes().enumerate() {
            let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';')
                || (byte == b'#' && position == 0)
                || (byte == b' ' && (position == 0 || position == last));
            if special {
                written.push('\\');
            }
            push(&mut written, byte, "\\");
        }
        written
    }

    fn plain(&self) -> String {
        match self {
            Self::Text(text) => {
                let mut written = String::with_capacity(text.len());
                text.bytes().for_each(|byte| push(&mut written, byte, "\\x"));
                written
            }
            Self::Encoded(der) => format!("#{}", crate::tls::hex(der).to_ascii_uppercase()),
        }
    }
}

fn push(written: &mut String, byte: u8, escape: &str) {
    if byte == b' ' || byte.is_ascii_graphic() {
        written.push(char::from(byte));
    } else if write!(written, "{escape}{byte:02X}").is_err() {
        // Writing to a String does not fail; should it, the byte must not vanish.
        written.push('?');
    }
}
