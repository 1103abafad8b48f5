//! What can be said of the certificates in use: their state for `rempart certs`, and warnings before they end.

use std::sync::Arc;
use std::time::Duration;

use api::certificates::{CertificateSource, CertificateStatus};
use base::time::Timestamp;
use rustls::sign::CertifiedKey;
use snapshot::generation::{Certificate, Site};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use super::{Certificates, Slot, day};
use crate::tls::LoadError;
use crate::tls::authority::{Leaf, timestamp};

/// Names told of one certificate at most.
const MAX_NAMES: usize = 100;
/// Names written out in a warning.
const WARNED_NAMES: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A file is replaced by somebody; this is when it should have happened, as a share of the certificate's time.
const FILE_SHARE: u64 = 3;
/// An authority is asked again when a third is left; less than a quarter means that this has failed for a while.
const ACME_SHARE: u64 = 4;

/// What is read from a certificate when somebody asks.
#[derive(Default)]
struct Described {
    names: Vec<String>,
    issuer: Option<String>,
    lifetime: Duration,
}

impl Certificates {
    /// The state of every certificate, in the order of sites; names without one are told as well. When each will be
    /// renewed and why that failed is left open: the keeper of certificates knows. Reads every certificate: not for an
    /// edge thread.
    pub fn statuses(&self, now: Timestamp) -> Vec<CertificateStatus> {
        let mut statuses = Vec::new();
        for (site, slot) in self.snapshot.sites.iter().zip(&self.slots) {
            match slot {
                Slot::Given { leaf, .. } => statuses.push(status(site, CertificateSource::File, leaf, now)),
                Slot::Development(development) => {
                    statuses.push(status(site, CertificateSource::Development, &development.own(), now));
                }
                Slot::Acme(acme) => {
                    statuses.extend(acme.certificates().iter().map(|(name, leaf)| match leaf {
                        Some(leaf) => status(site, CertificateSource::Acme, leaf, now),
                        None => missing(site, name),
                    }))
                }
            }
        }
        statuses
    }

    /// What an operator should hear at this time: certificates that end within 30, 7 or 1 days or have ended, and staples
    /// that have. Each step has a code of its own, so that it is said once. Development certificates renew themselves.
    pub fn warnings_at(&self, now: Timestamp) -> Vec<LoadError> {
        let mut warnings = Vec::new();
        for (site, slot) in self.snapshot.sites.iter().zip(&self.slots) {
            match slot {
                Slot::Given { leaf, stapled } => {
                    warnings.extend(ending(site, leaf, FILE_SHARE, now));
                    if stapled.as_ref().and_then(|stapled| stapled.until).is_some_and(|until| until <= now) {
                        warnings.push(LoadError {
                            place: place(site),
                            code: "ocsp-expired",
                            message: format!(
                                "the OCSP response of site \"{}\" has ended and is not stapled any more",
                                site.name
                            ),
                            hint: "fetch a new one".to_owned(),
                        });
                    }
                }
                Slot::Development(_) => {}
                Slot::Acme(acme) => {
                    let issued = acme.certificates().iter().filter_map(|(_, leaf)| leaf.as_ref());
                    warnings.extend(issued.filter_map(|leaf| ending(site, leaf, ACME_SHARE, now)));
                }
            }
        }
        warnings
    }
}

/// Days rounded down, so that the last day is day 0 and a certificate that has ended is below.
fn days_left(expires: Timestamp, now: Timestamp) -> i64 {
    let microseconds = i128::from(expires.0) - i128::from(now.0);
    i64::try_from(microseconds.div_euclid(DAY.as_micros().cast_signed())).unwrap_or(i64::MAX)
}

fn ending(site: &Site, leaf: &Leaf, share: u64, now: Timestamp) -> Option<LoadError> {
    if leaf.expires > now.plus(DAY * 30) {
        return None;
    }
    let described = describe(&leaf.key);
    let seconds = Duration::from_secs(described.lifetime.as_secs() / share);
    let within = |days: u32| leaf.expires <= now.plus((DAY * days).min(seconds));
    let code = if leaf.expires <= now {
        "certificate-expired"
    } else if within(1) {
        "certificate-expires-within-1-day"
    } else if within(7) {
        "certificate-expires-within-7-days"
    } else if within(30) {
        "certificate-expires-within-30-days"
    } else {
        return None;
    };
    let left = match days_left(leaf.expires, now) {
        _ if leaf.expires <= now => "expired".to_owned(),
        0 => "expires in less than a day,".to_owned(),
        1 => "expires in 1 day,".to_owned(),
        days => format!("expires in {days} days,"),
    };
    let (name, names, date) = (&site.name, in_words(&described.names), day(leaf.expires));
    let message = format!("the certificate of site \"{name}\" for {names} {left} on {date}");
    let hint = match site.certificate {
        Certificate::Acme { .. } => "see `rempart certs` for why it has not been renewed",
        _ => "renew it and put the new chain and key in place of the old",
    };
    Some(LoadError { place: place(site), code, message, hint: hint.to_owned() })
}

fn place(site: &Site) -> String {
    match &site.certificate {
        Certificate::Pem { place, .. } | Certificate::Acme { place, .. } => place.clone(),
        Certificate::Development => format!("site[{}].tls", site.index),
    }
}

fn in_words(names: &[String]) -> String {
    let first = names.get(..WARNED_NAMES).unwrap_or(names).join(", ");
    match names.len() {
        0 => "no name".to_owned(),
        1..=WARNED_NAMES => first,
        more => format!("{first} and {} more", more - WARNED_NAMES),
    }
}

fn status(site: &Site, source: CertificateSource, leaf: &Leaf, now: Timestamp) -> CertificateStatus {
    let described = describe(&leaf.key);
    CertificateStatus {
        site: site.name.to_string(),
        names: described.names,
        source,
        expires: rfc3339(leaf.expires),
        days_left: Some(days_left(leaf.expires, now)),
        renews: None,
        issuer: described.issuer,
        problem: None,
    }
}

fn missing(site: &Site, name: &Arc<str>) -> CertificateStatus {
    CertificateStatus {
        site: site.name.to_string(),
        names: vec![name.to_string()],
        source: CertificateSource::Acme,
        expires: None,
        days_left: None,
        renews: None,
        issuer: None,
        problem: None,
    }
}

fn describe(key: &CertifiedKey) -> Described {
    let Some((_, leaf)) = key.cert.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
        return Described::default();
    };
    let validity = leaf.validity();
    let span = validity.not_after.timestamp().saturating_sub(validity.not_before.timestamp());
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(in_text);
    Described {
        names: names.take(MAX_NAMES).collect(),
        issuer: signer(leaf.issuer()),
        lifetime: Duration::from_micros(timestamp(span).0),
    }
}

fn in_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            let six = <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            four.or(six).ok()
        }
        _ => None,
    }
}

/// `R11 (Let's Encrypt)`: common name and organization, as far as they are there.
fn signer(name: &X509Name<'_>) -> Option<String> {
    let common = name.iter_common_name().find_map(|part| part.as_str().ok());
    let organization = name.iter_organization().find_map(|part| part.as_str().ok());
    match (common, organization) {
        (Some(common), Some(organization)) => Some(format!("{common} ({organization})")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

fn rfc3339(time: Timestamp) -> Option<String> {
    let second = i64::try_from(time.seconds()).ok()?;
    jiff::Timestamp::from_second(second).ok().map(|time| time.to_string())
}
