//! The certificates of one generation: read and checked when it is loaded, chosen by server name in each handshake.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base::time::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use snapshot::generation::{Certificate, HostPattern, Site, Snapshot};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::LoadError;
use super::authority::{AuthorityError, DevelopmentAuthority, Leaf, timestamp};
use super::pem::{self, PemError};

/// What to do with a given certificate whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Refuse the generation: the rule for every new one.
    Refuse,
    /// Serve it with a warning: for the last good generation at start, where refusing would take down every site.
    Serve,
}

/// The certificates of one generation. Shared between threads; implements rustls' choice by server name.
pub struct Certificates {
    snapshot: Arc<Snapshot>,
    /// In the order of `Snapshot::sites`; empty when no listener speaks TLS.
    slots: Vec<Slot>,
    /// The site whose certificate answers clients that send no server name.
    nameless: usize,
    warnings: Vec<LoadError>,
}

enum Slot {
    Given(Leaf),
    Development { authority: Arc<DevelopmentAuthority>, own: ArcSwap<Leaf> },
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificates({} sites)", self.slots.len())
    }
}

impl Certificates {
    /// True when a site wants a development certificate and a listener speaks TLS: only then open the authority.
    pub fn needs_development(snapshot: &Snapshot) -> bool {
        snapshot.listeners.iter().any(|listener| listener.tls)
            && snapshot.sites.iter().any(|site| matches!(site.certificate, Certificate::Development))
    }

    /// Reads and checks every site's certificate; all findings at once.
    pub fn load(
        snapshot: &Arc<Snapshot>,
        development: Option<&Arc<DevelopmentAuthority>>,
        now: Timestamp,
        expired: Expired,
    ) -> Result<Self, Vec<LoadError>> {
        let (mut slots, mut errors, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        if snapshot.listeners.iter().any(|listener| listener.tls) {
            for site in &snapshot.sites {
                let slot = match &site.certificate {
                    Certificate::Development => sign(site, development, now),
                    // Until something has been issued, and for names that have nothing yet.
                    Certificate::Acme { .. } => sign(site, development, now),
                    Certificate::Pem { chain, key, place, .. } => {
                        let given = Given { place, chain, key };
                        given.load(now, expired, &mut warnings).map(Slot::Given)
                    }
                };
                match slot {
                    Ok(slot) => slots.push(slot),
                    Err(error) => errors.push(error),
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { snapshot: snapshot.clone(), slots, nameless: nameless(snapshot), warnings })
    }

    /// What was served although it should not be left so: certificates past their end, with `Expired::Serve`.
    pub fn warnings(&self) -> &[LoadError] {
        &self.warnings
    }

    /// When the certificate of the site at this position ends; `None` without TLS or such a site.
    pub fn expiry(&self, site: usize) -> Option<Timestamp> {
        Some(match self.slots.get(site)? {
            Slot::Given(leaf) => leaf.expires,
            Slot::Development { own, .. } => own.load().expires,
        })
    }

    /// The certificate for a server name (lower case), or for a client that sent none.
    ///
    /// A name nobody has gets the nameless site's: the visitor then sees an error page rather than a broken handshake.
    pub fn choose(&self, name: Option<&str>, now: impl FnOnce() -> Timestamp) -> Option<Arc<CertifiedKey>> {
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name));
        let site = name.and_then(|name| self.snapshot.hosts.find(name));
        match self.slots.get(site.unwrap_or(self.nameless))? {
            Slot::Given(leaf) => Some(leaf.key.clone()),
            Slot::Development { authority, own } => {
                // With its site known, the name itself is signed when the site's own certificate does not cover it.
                let host = site.and(name);
                Some(self.developed(authority, own, host, site.unwrap_or(self.nameless), now()))
            }
        }
    }

    fn developed(
        &self,
        authority: &DevelopmentAuthority,
        own: &ArcSwap<Leaf>,
        name: Option<&str>,
        site: usize,
        now: Timestamp,
    ) -> Arc<CertifiedKey> {
        let current = own.load_full();
        let signed = match name {
            Some(name) if !covers(&current.key, name) => authority.leaf_for(name, now),
            _ if !current.is_due(now) => return current.key.clone(),
            // The process has run for two months since this was signed.
            _ => {
                let hosts = self.snapshot.sites.get(site).map_or(&[][..], |site| &site.hosts);
                authority.issue(hosts, now).inspect(|leaf| own.store(Arc::new(leaf.clone())))
            }
        };
        match signed {
            Ok(leaf) => leaf.key,
            Err(error) => {
                tracing::warn!(%error, "no development certificate for this name; the site's own is used");
                current.key.clone()
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case already.
        self.choose(hello.server_name(), super::wall_clock)
    }
}

/// Who sends no server name connected by address: the site with an address among its hosts, then `*`, then the first.
fn nameless(snapshot: &Snapshot) -> usize {
    let first = |wanted: fn(&HostPattern) -> bool| {
        snapshot.sites.iter().position(|site| site.hosts.iter().any(wanted))
    };
    first(|host| matches!(host, HostPattern::Exact(name) if name.parse::<IpAddr>().is_ok()))
        .or_else(|| first(|host| matches!(host, HostPattern::Any)))
        .unwrap_or(0)
}

fn sign(
    site: &Site,
    authority: Option<&Arc<DevelopmentAuthority>>,
    now: Timestamp,
) -> Result<Slot, LoadError> {
    let error = |code, message, hint: &str| LoadError {
        place: format!("site[{}].tls", site.index),
        code,
        message,
        hint: hint.to_owned(),
    };
    let authority = authority.ok_or_else(|| {
        error(
            "development-authority-missing",
            format!("site \"{}\" has no certificate and there is no development authority", site.name),
            "give the site a certificate and a key, or make the state folder writable so that an authority can be made",
        )
    })?;
    match authority.issue(&site.hosts, now) {
        Ok(leaf) => Ok(Slot::Development { authority: authority.clone(), own: ArcSwap::from_pointee(leaf) }),
        Err(cause @ AuthorityError::Name(_)) => Err(error(
            "development-certificate-name",
            cause.to_string(),
            "write the host as letters, digits and hyphens, or give the site a certificate of its own",
        )),
        Err(cause) => Err(error(
            "development-certificate-failed",
            format!("no development certificate for site \"{}\": {cause}", site.name),
            "give the site a certificate and a key",
        )),
    }
}

/// A site's certificate as given in the configuration.
struct Given<'a> {
    place: &'a str,
    chain: &'a [u8],
    key: &'a [u8],
}

impl Given<'_> {
    fn load(
        &self,
        now: Timestamp,
        expired: Expired,
        warnings: &mut Vec<LoadError>,
    ) -> Result<Leaf, LoadError> {
        let chain =
            pem::certificates(self.chain, pem::MAX_CHAIN).map_err(|error| self.chain_error(&error))?;
        let key = pem::private_key(self.key).map_err(|error| self.key_error(&error))?;
        let Some(leaf) = chain.first() else {
            return Err(self.chain_error(&PemError::Empty));
        };
        let (starts, expires) = validity(leaf).ok_or_else(|| self.not_x509())?;
        let key = self.pair(&chain, key)?;
        if starts > now {
            return Err(self.error(
                "certificate-not-yet-valid",
                format!("the certificate is valid from {} on", day(starts)),
                "check this machine's clock, or use the certificate that is valid now",
            ));
        }
        if expires <= now {
            let error = self.error(
                "certificate-expired",
                format!("the certificate expired on {}", day(expires)),
                "renew it and put the new chain and key in place of the old",
            );
            match expired {
                Expired::Refuse => return Err(error),
                Expired::Serve => warnings.push(error),
            }
        }
        Ok(Leaf { key: Arc::new(key), expires })
    }

    fn pair(
        &self,
        chain: &[CertificateDer<'static>],
        key: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, LoadError> {
        let signing = super::provider().key_provider.load_private_key(key).map_err(|_| {
            self.error(
                "key-unsupported",
                "the private key is damaged or of a kind that is not supported".to_owned(),
                "use ECDSA (P-256, P-384, P-521), Ed25519, or RSA with 2048 to 8192 bits",
            )
        })?;
        let certified = CertifiedKey::new(chain.to_vec(), signing);
        match certified.keys_match() {
            Ok(()) => return Ok(certified),
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {}
            // rustls cannot read the certificate, or not this kind of key's public half.
            Err(_) => return Err(self.not_x509()),
        }
        // The commonest mistake: the bundle begins with an intermediate.
        let later = chain.iter().skip(1).any(|certificate| {
            CertifiedKey::new(vec![certificate.clone()], certified.key.clone()).keys_match().is_ok()
        });
        Err(if later {
            self.error(
                "certificate-order",
                "the private key belongs to a later certificate of the file".to_owned(),
                "put the site's own certificate first, then the intermediates in the order they sign each other",
            )
        } else {
            self.error(
                "certificate-key-mismatch",
                "the private key does not belong to the certificate".to_owned(),
                "use the key the certificate was requested with; after a renewal both files must be replaced",
            )
        })
    }

    fn chain_error(&self, error: &PemError) -> LoadError {
        let hint = match error {
            PemError::Other { found: "a private key", .. } => "the two files seem to be swapped",
            PemError::Other { found: "a certificate request", .. } => {
                "this is the request; use the certificate the authority answered with"
            }
            PemError::NotText => {
                "convert it: openssl x509 -inform der -in FILE, or openssl pkcs12 -in FILE -nokeys for PKCS#12"
            }
            _ => "use the full chain as PEM, the site's own certificate first",
        };
        self.error(code(error, "certificate-unreadable"), format!("no certificate chain: {error}"), hint)
    }

    fn key_error(&self, error: &PemError) -> LoadError {
        let hint = match error {
            PemError::Encrypted => "remove the passphrase: openssl pkey -in FILE -out NEW-FILE",
            PemError::Other { found: "a certificate", .. } => "the two files seem to be swapped",
            PemError::SeveralKeys => "keep only the key of this certificate in the file",
            _ => "use the private key as PEM: PKCS#8, SEC 1 or PKCS#1",
        };
        self.error(code(error, "key-unreadable"), format!("no private key: {error}"), hint)
    }

    fn not_x509(&self) -> LoadError {
        self.error(
            "certificate-unreadable",
            "the first certificate is damaged or not an X.509 version 3 certificate".to_owned(),
            "check it with: openssl x509 -noout -text -in FILE",
        )
    }

    fn error(&self, code: &'static str, message: String, hint: &str) -> LoadError {
        LoadError { place: self.place.to_owned(), code, message, hint: hint.to_owned() }
    }
}

fn code(error: &PemError, otherwise: &'static str) -> &'static str {
    match error {
        PemError::Encrypted => "key-encrypted",
        PemError::TooLarge(_) | PemError::TooMany(_) => "pem-too-large",
        _ => otherwise,
    }
}

fn covers(key: &CertifiedKey, host: &str) -> bool {
    let leaf = key.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok());
    let Some((leaf, name)) = leaf.zip(ServerName::try_from(host).ok()) else { return false };
    rustls::client::verify_server_name(&leaf, &name).is_ok()
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((timestamp(validity.not_before.timestamp()), timestamp(validity.not_after.timestamp())))
}

fn day(time: Timestamp) -> String {
    let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an unknown day".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}
