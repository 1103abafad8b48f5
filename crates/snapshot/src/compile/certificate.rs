//! Certificates: whether a file is one, is valid now, covers the hosts, and goes with its key.

use std::net::IpAddr;

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::{Judge, Mode};
use crate::diagnostic::quote;
use crate::generation::HostPattern;

/// A certificate that ends sooner than this is warned about, in seconds; short-lived ones in their last third.
const EXPIRES_SOON: i64 = 30 * 86_400;
/// Names listed in a message; further ones are only counted.
const NAMES_LISTED: usize = 5;
/// Certificates read of one file; a chain has two to five, a bundle of all public authorities some 150.
const MAXIMUM_CERTIFICATES: usize = 1_000;

/// The paths of a certificate and its key.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

/// What a PEM file holds.
struct Pem {
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
    others: usize,
    broken: bool,
}

impl Pem {
    fn read(bytes: &[u8]) -> Self {
        let mut pem = Self { certificates: Vec::new(), keys: Vec::new(), others: 0, broken: false };
        let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes);
        for section in sections.take(MAXIMUM_CERTIFICATES) {
            match section {
                Ok((SectionKind::Certificate, der)) => pem.certificates.push(der.into()),
                Ok((kind, der)) => match PrivateKeyDer::from_pem(kind, der) {
                    Some(key) => pem.keys.push(key),
                    None => pem.others += 1,
                },
                Err(_) => {
                    pem.broken = true;
                    break;
                }
            }
        }
        pem
    }

    /// What the file is, for a message that says what it is not.
    fn noun(&self) -> &'static str {
        match self {
            _ if self.broken => "it holds a damaged PEM section",
            Self { certificates, .. } if !certificates.is_empty() => "it holds a certificate",
            Self { keys, .. } if !keys.is_empty() => "it holds a private key",
            Self { others: 0, .. } => "it is no PEM file",
            _ => "it holds something else",
        }
    }
}

impl Judge<'_> {
    /// Looks at a certificate, its key, and both together.
    pub(super) fn certificate_pair(
        &mut self,
        chain: Option<&[u8]>,
        key: Option<&[u8]>,
        pair: Pair<'_>,
        place: &str,
        hosts: &[HostPattern],
    ) {
        let certificate_place = format!("{place}.certificate");
        let chain = chain.and_then(|bytes| self.chain(bytes, pair.certificate, &certificate_place));
        let spki = key.and_then(|bytes| self.key(bytes, pair.key, &format!("{place}.key")));
        let Some(chain) = chain else {
            return;
        };
        let parsed: Vec<_> = chain.iter().map(|der| X509Certificate::from_der(der)).collect();
        let mut certificates = Vec::new();
        for (index, certificate) in parsed.iter().enumerate() {
            let Ok((_, certificate)) = certificate else {
                let message = format!("certificate {} in {} is damaged", index + 1, quote(pair.certificate));
                self.review.error(&certificate_place, "bad-certificate", message, "have it issued again");
                return;
            };
            certificates.push(certificate);
        }
        let Some((leaf, rest)) = certificates.split_first() else {
            return;
        };
        if let Some(spki) = spki
            && leaf.public_key().raw != spki.as_slice()
        {
            let (message, hint) = if rest.iter().any(|other| other.public_key().raw == spki.as_slice()) {
                (
                    "the certificates are in the wrong order",
                    "put the site's own certificate first in the file",
                )
            } else {
                (
                    "the private key does not belong to the certificate",
                    "use the key the certificate was requested with, or request a new certificate",
                )
            };
            self.review.error(&format!("{place}.key"), "key-mismatch", message, hint);
        }
        self.validity(leaf, rest, pair.certificate, &certificate_place);
        self.coverage(leaf, &certificate_place, hosts);
    }

    /// The certificates of a file, if there is at least one.
    fn chain(&mut self, bytes: &[u8], path: &str, place: &str) -> Option<Vec<CertificateDer<'static>>> {
        let pem = Pem::read(bytes);
        if !pem.broken && !pem.certificates.is_empty() {
            return Some(pem.certificates);
        }
        let hint = if !pem.broken && !pem.keys.is_empty() {
            "name the certificate here, and this file as `key`"
        } else {
            "name a file that holds -----BEGIN CERTIFICATE-----"
        };
        let message = format!("{} is no certificate: {}", quote(path), pem.noun());
        self.review.error(place, "bad-certificate", message, hint);
        None
    }

    /// The public half of the key, in the encoding certificates hold it in (SubjectPublicKeyInfo, RFC 5280 section 4.1).
    fn key(&mut self, bytes: &[u8], path: &str, place: &str) -> Option<Vec<u8>> {
        let pem = Pem::read(bytes);
        let Some(key) = pem.keys.first().filter(|_| !pem.broken) else {
            let encrypted = memmem(bytes, b"ENCRYPTED");
            let (reason, hint) = if encrypted {
                ("it is protected with a password", "remove it: openssl pkey -in old.pem -out key.pem")
            } else if !pem.broken && !pem.certificates.is_empty() {
                (pem.noun(), "name the key here, and this file as `certificate`")
            } else {
                (pem.noun(), "name a file that holds -----BEGIN PRIVATE KEY-----")
            };
            let message = format!("{} is no private key: {reason}", quote(path));
            self.review.error(place, "bad-key", message, hint);
            return None;
        };
        // The same function that loads the key when it is served: what passes here is usable there.
        match rustls::crypto::aws_lc_rs::sign::any_supported_type(key) {
            Ok(key) => key.public_key().map(|spki| spki.to_vec()),
            Err(_) => {
                let message = format!("the private key in {} cannot be used", quote(path));
                let hint = "use an ECDSA (P-256, P-384), Ed25519 or RSA key of at least 2048 bits";
                self.review.error(place, "bad-key", message, hint);
                None
            }
        }
    }

    fn validity(
        &mut self,
        leaf: &X509Certificate<'_>,
        rest: &[&X509Certificate<'_>],
        path: &str,
        place: &str,
    ) {
        let now = i64::try_from(self.now.seconds()).unwrap_or(i64::MAX);
        let (from, to) = (leaf.validity().not_before, leaf.validity().not_after);
        let path = quote(path);
        if to.timestamp() < now {
            let message = format!("the certificate in {path} expired on {}", date(to));
            self.outdated(place, "certificate-expired", message, "have it renewed");
        } else if from.timestamp() > now {
            let message = format!("the certificate in {path} is not valid before {}", date(from));
            self.outdated(place, "certificate-not-yet-valid", message, "check this machine's clock, or wait");
        } else if to.timestamp() - now < EXPIRES_SOON.min((to.timestamp() - from.timestamp()) / 3) {
            let message = format!("the certificate in {path} expires on {}", date(to));
            self.review.warning(place, "certificate-expires", message, "have it renewed");
        }
        for certificate in rest.iter().filter(|other| other.validity().not_after.timestamp() < now) {
            let message = format!(
                "an intermediate certificate in {path} expired on {}",
                date(certificate.validity().not_after)
            );
            self.review.warning(
                place,
                "certificate-expired",
                message,
                "use the chain that came with the certificate",
            );
        }
    }

    /// Why an issued file cannot be used for a name. One that has ended can: it is better than one nobody trusts, and is told.
    pub(super) fn issued_problem(&mut self, bytes: &[u8], name: &str, place: &str) -> Option<String> {
        let end = match issued_end(bytes, name) {
            Ok(end) => end,
            Err(problem) => return Some(problem),
        };
        if end.timestamp() < i64::try_from(self.now.seconds()).unwrap_or(i64::MAX) {
            let message = format!("the certificate issued for {} expired on {}", quote(name), date(end));
            let hint = "it is served until there is another; `rempart certs` says why it was not renewed";
            self.review.warning(place, "certificate-expired", message, hint);
        }
        None
    }

    /// An error in a configuration somebody asks to be taken; a warning when it was fine once and is started again.
    fn outdated(&mut self, place: &str, code: &str, message: String, hint: &str) {
        match self.mode {
            Mode::Fresh => self.review.error(place, code, message, hint),
            Mode::Stored => self.review.warning(place, code, message, hint),
        }
    }

    /// Compares the names in the certificate with the hosts of the site (RFC 6125 section 6.4).
    fn coverage(&mut self, leaf: &X509Certificate<'_>, place: &str, hosts: &[HostPattern]) {
        let names = names(leaf);
        // `*` asks for no name in particular.
        let asked: Vec<_> = hosts.iter().filter(|host| **host != HostPattern::Any).collect();
        let missing: Vec<_> =
            asked.iter().filter(|host| !covers(&names, host)).map(|host| quote(&host.to_string())).collect();
        if missing.is_empty() {
            return;
        }
        let names: Vec<_> = names.iter().map(|name| quote(name)).collect();
        let message = format!("the certificate is for {}, not for {}", listed(&names), listed(&missing));
        if missing.len() == asked.len() {
            let hint = "use the certificate of this site's hosts";
            self.review.error(place, "certificate-wrong-host", message, hint);
        } else {
            let hint =
                "browsers refuse the hosts that are left out: have a certificate issued for all of them";
            self.review.warning(place, "certificate-partly", message, hint);
        }
    }

    /// Looks at a file of authorities.
    pub(super) fn authorities(&mut self, bytes: &[u8], path: &str, place: &str) {
        let pem = Pem::read(bytes);
        let readable = pem.certificates.iter().all(|der| X509Certificate::from_der(der).is_ok());
        if pem.broken || pem.certificates.is_empty() {
            let message = format!("{} names no authority: {}", quote(path), pem.noun());
            let hint = "name a file that holds -----BEGIN CERTIFICATE-----";
            self.review.error(place, "bad-authorities", message, hint);
        } else if !readable {
            let message = format!("{} holds a damaged certificate", quote(path));
            self.review.error(place, "bad-authorities", message, "fetch the file again");
        }
    }
}

/// When the certificate of an issued file (certificates, then the key) ends, or why it cannot be used for a name.
pub(crate) fn issued_end(bytes: &[u8], name: &str) -> Result<ASN1Time, String> {
    let pem = Pem::read(bytes);
    let (Some(leaf), Some(key)) = (pem.certificates.first().filter(|_| !pem.broken), pem.keys.first()) else {
        return Err(match pem.noun() {
            "it holds a certificate" => "it holds no private key".to_owned(),
            "it holds a private key" => "it holds no certificate".to_owned(),
            noun => noun.to_owned(),
        });
    };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return Err("its certificate is damaged".to_owned());
    };
    let Ok(key) = rustls::crypto::aws_lc_rs::sign::any_supported_type(key) else {
        return Err("its private key cannot be used".to_owned());
    };
    if key.public_key().is_some_and(|spki| *spki != *leaf.public_key().raw) {
        return Err("its private key does not belong to the certificate".to_owned());
    }
    let host = match name.strip_prefix("*.") {
        Some(parent) => HostPattern::Suffix(parent.into()),
        None => HostPattern::Exact(name.into()),
    };
    let names = names(&leaf);
    if !covers(&names, &host) {
        let names: Vec<_> = names.iter().map(|name| quote(name)).collect();
        return Err(format!("it is for {}", listed(&names)));
    }
    Ok(leaf.validity().not_after)
}

/// The DNS names and addresses of a certificate, lower case.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

/// Whether one of a certificate's names stands for a host; a wildcard stands for exactly one label.
fn covers(names: &[String], host: &HostPattern) -> bool {
    names.iter().any(|name| match (host, name.strip_prefix("*.")) {
        (HostPattern::Exact(host), None) => **host == **name,
        (HostPattern::Exact(host), Some(parent)) => {
            host.split_once('.').is_some_and(|(_, rest)| rest == parent)
        }
        (HostPattern::Suffix(host), Some(parent)) => **host == *parent,
        (HostPattern::Suffix(_), None) => false,
        (HostPattern::Any, _) => true,
    })
}

/// The first few of a list, and how many there are beyond.
fn listed(names: &[String]) -> String {
    let first = names.iter().take(NAMES_LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "no name at all".to_owned(),
        count if count > NAMES_LISTED => format!("{first} and {} more", count - NAMES_LISTED),
        _ => first,
    }
}

/// `2031-04-05`.
fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
}

fn memmem(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
