//! Reading certificates: what a stored or fresh one says, and whether it is what was asked for.

use base::time::Timestamp;
use instant_acme::CertificateIdentifier;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::name::Name;

/// Certificates read of one file; a chain has two to five.
const MAX_CERTIFICATES: usize = 20;

/// What a certificate with its key says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// From when it is good.
    pub not_before: Timestamp,
    /// Until when it is good.
    pub not_after: Timestamp,
    /// Who signed it, for people: organization and common name.
    pub issuer: String,
    /// Its identifier for renewal information (RFC 9773 section 4.1); `None` without an authority key identifier.
    pub certificate_id: Option<String>,
    /// The certificate itself.
    pub leaf: CertificateDer<'static>,
}

/// Why a chain with its key is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No PEM, or a damaged certificate.
    #[error("it cannot be read: {0}")]
    Unreadable(&'static str),
    /// Key and first certificate do not belong together.
    #[error("the key does not belong to the first certificate")]
    OtherKey,
    /// It is for other names.
    #[error("it is not for {0}")]
    OtherName(String),
    /// It is over by the clock of this machine.
    #[error("it ended at {0} by the clock of this machine; is the clock right?")]
    Expired(String),
}

/// Reads one PEM text of chain (leaf first) and PKCS#8 key, and checks that both belong together and stand for the name.
/// Whether it is over is left to the caller.
pub fn inspect(pem: &[u8], name: &Name) -> Result<Facts, CertificateError> {
    let (certificates, key) = sections(pem)?;
    let leaf = certificates.into_iter().next().ok_or(CertificateError::Unreadable("no certificate in it"))?;
    let key = key.ok_or(CertificateError::Unreadable("no PKCS#8 key in it"))?;
    let key = KeyPair::try_from(&key).map_err(|_| CertificateError::Unreadable("the key is damaged"))?;
    let (_, parsed) = X509Certificate::from_der(&leaf)
        .map_err(|_| CertificateError::Unreadable("a damaged certificate"))?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(CertificateError::OtherKey);
    }
    if !covers(&parsed, name) {
        return Err(CertificateError::OtherName(name.to_string()));
    }
    Ok(Facts {
        not_before: timestamp(parsed.validity().not_before.timestamp()),
        not_after: timestamp(parsed.validity().not_after.timestamp()),
        issuer: issuer(&parsed),
        certificate_id: CertificateIdentifier::try_from(&leaf).ok().map(|id| id.to_string()),
        leaf,
    })
}

type Sections = (Vec<CertificateDer<'static>>, Option<PrivatePkcs8KeyDer<'static>>);

fn sections(pem: &[u8]) -> Result<Sections, CertificateError> {
    let mut certificates = Vec::new();
    let mut key = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).take(MAX_CERTIFICATES + 1) {
        match section.map_err(|_| CertificateError::Unreadable("a damaged PEM section"))? {
            (SectionKind::Certificate, der) => {
                let certificate = CertificateDer::from(der);
                X509Certificate::from_der(&certificate)
                    .map_err(|_| CertificateError::Unreadable("a damaged certificate"))?;
                certificates.push(certificate);
            }
            (SectionKind::PrivateKey, der) => key = Some(PrivatePkcs8KeyDer::from(der)),
            _ => {
                return Err(CertificateError::Unreadable(
                    "something else than certificates and a PKCS#8 key",
                ));
            }
        }
    }
    Ok((certificates, key))
}

fn covers(certificate: &X509Certificate<'_>, name: &Name) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names
        .value
        .general_names
        .iter()
        .any(|entry| matches!(entry, GeneralName::DNSName(dns) if dns.eq_ignore_ascii_case(name.as_str())))
}

fn issuer(certificate: &X509Certificate<'_>) -> String {
    let issuer = certificate.issuer();
    let organization = issuer.iter_organization().find_map(|part| part.as_str().ok());
    let common = issuer.iter_common_name().find_map(|part| part.as_str().ok());
    match (organization, common) {
        (Some(organization), Some(common)) => format!("{organization}, {common}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => issuer.to_string(),
    }
}

/// Seconds since 1970; earlier than that is the beginning of time here.
fn timestamp(seconds: i64) -> Timestamp {
    Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn signed(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_chain_must_be_readable_and_have_its_key_and_name() {
        let (chain, key) = signed(&["example.org", "*.example.net"]);
        let (other, other_key) = signed(&["example.org"]);
        let check = |pem: String, name: &str, expected: Result<(), CertificateError>| {
            assert_eq!(inspect(pem.as_bytes(), &Name::parse(name).unwrap()).map(|_| ()), expected, "{name}");
        };
        check(format!("{chain}{other}{key}"), "example.org", Ok(()));
        check(format!("{chain}{key}"), "*.example.net", Ok(()));
        check(
            format!("{chain}{key}"),
            "www.example.net",
            Err(CertificateError::OtherName("www.example.net".into())),
        );
        check(format!("{chain}{other_key}"), "example.org", Err(CertificateError::OtherKey));
        check(format!("{other}{chain}{key}"), "example.org", Err(CertificateError::OtherKey));
        check(chain.clone(), "example.org", Err(CertificateError::Unreadable("no PKCS#8 key in it")));
        check(key.clone(), "example.org", Err(CertificateError::Unreadable("no certificate in it")));
        check(String::new(), "example.org", Err(CertificateError::Unreadable("no certificate in it")));
        let cut = format!("{}{key}", &chain[..chain.len() / 2]);
        check(cut, "example.org", Err(CertificateError::Unreadable("a damaged PEM section")));
    }

    #[test]
    fn what_a_certificate_says_is_read() {
        let (chain, key) = signed(&["example.org"]);
        let facts =
            inspect(format!("{chain}{key}").as_bytes(), &Name::parse("example.org").unwrap()).unwrap();
        assert_eq!(facts.not_before.seconds(), 1_577_836_800);
        assert_eq!(facts.not_after.seconds(), 1_609_459_200);
        assert_eq!(facts.issuer, "rcgen self signed cert");
        assert_eq!(facts.certificate_id, None, "a self-signed certificate names no authority's key");
    }
}
