//! What is known of a visitor's verified certificate: the values rules, logs and origins ask for.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::name::DistinguishedName;
use crate::tls::authority::timestamp;

/// A certificate a visitor has shown, proven to hold the key of, and that its site's authorities have signed.
///
/// It exists only when all of that was so: presented and verified are the same thing here, because the handshake fails
/// with one that is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Who it is about.
    pub subject: DistinguishedName,
    /// Who signed it.
    pub issuer: DistinguishedName,
    /// Serial number, upper case hexadecimal digits of its DER content: a number with the high bit set begins with `00`.
    pub serial: String,
    /// Serial number of the certificate that signed it, written like `serial`; `None` where neither the authority key
    /// identifier nor the chain that was shown tells.
    pub issuer_serial: Option<String>,
    /// Subject key identifier (RFC 5280 section 4.2.1.2), upper case hexadecimal digits.
    pub key_identifier: Option<String>,
    /// Key identifier of the signer's certificate (RFC 5280 section 4.2.1.1), upper case hexadecimal digits.
    pub issuer_key_identifier: Option<String>,
    /// SHA-256 of the certificate, lower case hexadecimal digits.
    pub sha256: String,
    /// SHA-1 of the certificate, lower case hexadecimal digits. A name for it, no proof of anything.
    pub sha1: String,
    /// Beginning of its validity.
    pub not_before: Timestamp,
    /// End of its validity, checked when the connection began.
    pub not_after: Timestamp,
    /// As `Client-Cert` has it (RFC 9440 section 2.2); `None` when that is longer than `ENCODED_MOST`.
    pub encoded: Option<Box<str>>,
    /// What was shown behind it, as `Client-Cert-Chain` has it (RFC 9440 section 2.3), empty for nothing; `None` when that is
    /// longer than `ENCODED_CHAIN_MOST`.
    pub encoded_chain: Option<Box<str>>,
}

/// Longest `Client-Cert`, as Cloudflare hands it on.
const ENCODED_MOST: usize = 10 * 1024;
/// Longest `Client-Cert-Chain`.
const ENCODED_CHAIN_MOST: usize = 16 * 1024;

/// The certificate passed verification and still cannot be read; the connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate cannot be read")]
pub struct UnreadableCertificate;

impl ClientCertificate {
    /// Reads the first certificate of a chain that has been verified.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, UnreadableCertificate> {
        let leaf = chain.first().ok_or(UnreadableCertificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| UnreadableCertificate)?;
        let (mut key_identifier, mut issuer_key_identifier, mut issuer_serial) = (None, None, None);
        for extension in parsed.iter_extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(key) => key_identifier = Some(upper(key.0)),
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    issuer_key_identifier = authority.key_identifier.as_ref().map(|key| upper(key.0));
                    issuer_serial = authority.authority_cert_serial.map(upper);
                }
                _ => {}
            }
        }
        Ok(Self {
            subject: DistinguishedName::from(parsed.subject()),
            issuer: DistinguishedName::from(parsed.issuer()),
            serial: upper(parsed.raw_serial()),
            issuer_serial: issuer_serial.or_else(|| serial_of_signer(&parsed, chain)),
            key_identifier,
            issuer_key_identifier,
            sha256: hash(&SHA256, leaf),
            sha1: hash(&SHA1_FOR_LEGACY_USE_ONLY, leaf),
            not_before: timestamp(parsed.validity().not_before.timestamp()),
            not_after: timestamp(parsed.validity().not_after.timestamp()),
            encoded: encoded(&chain[..1], ENCODED_MOST),
            encoded_chain: encoded(&chain[1..], ENCODED_CHAIN_MOST),
        })
    }
}

/// A list of byte sequences (RFC 9651 sections 3.1 and 3.3.5); `None` when it is longer than `most`.
fn encoded(certificates: &[CertificateDer<'_>], most: usize) -> Option<Box<str>> {
    // Base64 and two colons for each, a comma and a space between them.
    let lengths = certificates.iter().map(|certificate| certificate.len().div_ceil(3) * 4 + 2);
    let length = lengths.sum::<usize>() + certificates.len().saturating_sub(1) * 2;
    if length > most {
        return None;
    }
    let each = certificates.iter().map(|certificate| format!(":{}:", STANDARD.encode(certificate)));
    Some(each.collect::<Vec<_>>().join(", ").into())
}

fn serial_of_signer(leaf: &X509Certificate<'_>, chain: &[CertificateDer<'_>]) -> Option<String> {
    let (_, signer) = X509Certificate::from_der(chain.get(1)?).ok()?;
    (signer.subject().as_raw() == leaf.issuer().as_raw()).then(|| upper(signer.raw_serial()))
}

fn hash(algorithm: &'static Algorithm, bytes: &[u8]) -> String {
    crate::tls::hex(digest(algorithm, bytes).as_ref())
}

fn upper(bytes: &[u8]) -> String {
    crate::tls::hex(bytes).to_ascii_uppercase()
}
