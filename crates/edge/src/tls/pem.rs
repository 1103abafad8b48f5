//! PEM text to certificates and keys, bounded, with the mistakes people make told apart.

use rustls::pki_types::pem::{Error, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Bytes of one PEM file; a full chain is below 20 KiB, a bundle of public authorities about 250 KiB.
pub const MAX_PEM_BYTES: usize = 1024 * 1024;
/// Certificates in a server's chain; public chains have two to four.
pub const MAX_CHAIN: usize = 16;
/// Certificates in a bundle of authorities.
pub const MAX_AUTHORITIES: usize = 1_000;

/// Why PEM text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Nothing, or white space only.
    #[error("the file is empty")]
    Empty,
    /// Larger than `MAX_PEM_BYTES`.
    #[error("the file has {0} bytes, more than the {MAX_PEM_BYTES} a PEM file may have")]
    TooLarge(usize),
    /// Too many certificates in one file.
    #[error("the file holds more than {0} certificates")]
    TooMany(usize),
    /// Bytes that are no text: most likely DER, a PKCS#12 archive, or damage.
    #[error("the file is not PEM text")]
    NotText,
    /// Broken armour or base64.
    #[error("the PEM text is damaged: {0}")]
    Damaged(String),
    /// PEM, but nothing of the kind asked for; what was found instead.
    #[error("the file holds no {wanted}, but {found}")]
    Other {
        /// The kind asked for.
        wanted: &'static str,
        /// What is in the file.
        found: &'static str,
    },
    /// A key behind a passphrase nobody could type at start.
    #[error("the private key is encrypted with a passphrase")]
    Encrypted,
    /// More than one private key: which one is meant is a guess.
    #[error("the file holds more than one private key")]
    SeveralKeys,
}

/// The certificates in `text`, in order; at least one, at most `limit`.
pub fn certificates(text: &[u8], limit: usize) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut chain = Vec::new();
    for (kind, der) in sections(text)? {
        if let Some(certificate) = CertificateDer::from_pem(kind, der) {
            if chain.len() == limit {
                return Err(PemError::TooMany(limit));
            }
            chain.push(certificate);
        }
    }
    if chain.is_empty() {
        return Err(PemError::Other { wanted: "certificate", found: what_is_in(text) });
    }
    Ok(chain)
}

/// The one private key in `text`: PKCS#8, SEC 1 or PKCS#1. Certificates beside it are passed over.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut found = None;
    for (kind, der) in sections(text)? {
        if let Some(key) = PrivateKeyDer::from_pem(kind, der)
            && found.replace(key).is_some()
        {
            return Err(PemError::SeveralKeys);
        }
    }
    // `Proc-Type: 4,ENCRYPTED` is the traditional form; its body is no DER, so it must not pass as a damaged key.
    if contains(text, b"ENCRYPTED") {
        return Err(PemError::Encrypted);
    }
    found.ok_or(PemError::Other { wanted: "private key", found: what_is_in(text) })
}

fn sections(text: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, PemError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(PemError::TooLarge(text.len()));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(PemError::Empty);
    }
    if !contains(text, b"-----BEGIN ") && (text.contains(&0) || std::str::from_utf8(text).is_err()) {
        return Err(PemError::NotText);
    }
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|error| {
        // An encrypted traditional key has header lines rustls reads as base64; say what it is instead.
        if contains(text, b"ENCRYPTED") { PemError::Encrypted } else { PemError::Damaged(damage(&error)) }
    })
}

fn damage(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { end_marker } => {
            format!("the line {} is missing", String::from_utf8_lossy(end_marker).trim())
        }
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        Error::Base64Decode(_) => "the base64 between BEGIN and END does not decode".to_owned(),
        other => other.to_string(),
    }
}

fn what_is_in(text: &[u8]) -> &'static str {
    if contains(text, b"PRIVATE KEY-----") {
        "a private key"
    } else if contains(text, b"-----BEGIN CERTIFICATE REQUEST") {
        "a certificate request"
    } else if contains(text, b"-----BEGIN CERTIFICATE") {
        "a certificate"
    } else if contains(text, b"-----BEGIN PUBLIC KEY") {
        "a public key"
    } else if contains(text, b"-----BEGIN ") {
        "something else"
    } else {
        "text without any PEM section"
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}
