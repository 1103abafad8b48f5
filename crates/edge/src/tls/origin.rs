//! TLS towards origins: client configurations by kind of verification, built once and shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_native_certs::CertificateResult;
use snapshot::generation::{OriginHttp, OriginVerify, Snapshot};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{LoadError, pem};

/// Configurations kept beside those of the current generation; more are built each time they are asked for.
const MAX_KEPT: usize = 1024;
/// Sessions remembered per configuration, for resumption; least recently used names go first.
const RESUMABLE_SESSIONS: usize = 512;

/// The application protocols offered to an origin (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocols {
    /// `h2`, else `http/1.1`: the origin chooses.
    Any,
    /// `http/1.1` only; also for upgrades, whatever else the origin speaks.
    Http1,
    /// `h2` only.
    Http2,
}

impl From<OriginHttp> for Protocols {
    fn from(http: OriginHttp) -> Self {
        match http {
            OriginHttp::Auto => Self::Any,
            OriginHttp::Http1 => Self::Http1,
            OriginHttp::Http2 => Self::Http2,
        }
    }
}

impl Protocols {
    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Any => &[b"h2", b"http/1.1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Client configurations, shared by threads and generations so that sessions resume across reloads.
#[derive(Default)]
pub struct OriginTlsConfigs {
    /// The system's authorities once they could be read; failure is not remembered, it can be repaired.
    system: Mutex<Option<Arc<RootCertStore>>>,
    kept: Mutex<HashMap<Kind, Arc<ClientConfig>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    trust: Trust,
    protocols: Protocols,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Trust {
    System,
    Authorities(Arc<[u8]>),
    Off,
}

impl From<&OriginVerify> for Trust {
    fn from(verify: &OriginVerify) -> Self {
        match verify {
            OriginVerify::System => Self::System,
            OriginVerify::Authorities { pem, .. } => Self::Authorities(pem.clone()),
            OriginVerify::Off => Self::Off,
        }
    }
}

impl std::fmt::Debug for OriginTlsConfigs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OriginTlsConfigs({} kept)", lock(&self.kept).len())
    }
}

impl OriginTlsConfigs {
    /// Builds what a generation needs before it is taken, and forgets what it does not need; all findings at once.
    ///
    /// Blocks on disk when the system's authorities are read the first time: not for an edge thread.
    pub fn load(&self, snapshot: &Snapshot) -> Result<(), Vec<LoadError>> {
        let mut needed: HashMap<Kind, Arc<ClientConfig>> = HashMap::new();
        let mut errors = Vec::new();
        for site in &snapshot.sites {
            for (index, origin) in site.origins.iter().enumerate() {
                let Some(tls) = &origin.tls else { continue };
                let place = format!("site[{}].origin[{index}].tls", site.index);
                // The variant for upgrades is always among them.
                for protocols in [Protocols::from(origin.http), Protocols::Http1] {
                    let kind = Kind { trust: Trust::from(&tls.verify), protocols };
                    if needed.contains_key(&kind) {
                        continue;
                    }
                    match self.get(&tls.verify, protocols, &place) {
                        Ok(config) => drop(needed.insert(kind, config)),
                        Err(error) => {
                            errors.push(error);
                            break;
                        }
                    }
                }
                if server_name(&tls.server_name).is_err() {
                    errors.push(bad_server_name(&place, &tls.server_name));
                }
            }
        }
        if errors.is_empty() {
            *lock(&self.kept) = needed;
            return Ok(());
        }
        Err(errors)
    }

    /// The configuration for one kind of verification. `place` is where an error points unless it has a better place.
    pub fn get(
        &self,
        verify: &OriginVerify,
        protocols: Protocols,
        place: &str,
    ) -> Result<Arc<ClientConfig>, LoadError> {
        let kind = Kind { trust: Trust::from(verify), protocols };
        if let Some(config) = lock(&self.kept).get(&kind) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(verify, protocols, place)?);
        let mut kept = lock(&self.kept);
        if kept.len() < MAX_KEPT {
            kept.insert(kind, config.clone());
        }
        Ok(config)
    }

    fn build(
        &self,
        verify: &OriginVerify,
        protocols: Protocols,
        place: &str,
    ) -> Result<ClientConfig, LoadError> {
        let verifier: Arc<dyn ServerCertVerifier> = match verify {
            OriginVerify::System => chain_verifier(self.system(place)?, place)?,
            OriginVerify::Authorities { pem, place } => authorities(pem, place)?,
            OriginVerify::Off => Arc::new(Unverified),
        };
        let mut config = ClientConfig::builder_with_provider(super::provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| unavailable(place, &error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = protocols.alpn();
        config.resumption = Resumption::in_memory_sessions(RESUMABLE_SESSIONS);
        Ok(config)
    }

    fn system(&self, place: &str) -> Result<Arc<RootCertStore>, LoadError> {
        let mut system = lock(&self.system);
        if let Some(roots) = &*system {
            return Ok(roots.clone());
        }
        let roots = system_roots(rustls_native_certs::load_native_certs(), place)?;
        Ok(system.insert(Arc::new(roots)).clone())
    }
}

/// The usable ones among the certificates found on this machine; at least one.
pub(super) fn system_roots(found: CertificateResult, place: &str) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    // Systems carry a few certificates no verifier accepts; the rest is what counts.
    let (taken, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(taken, ignored, errors = found.errors.len(), "system certificate authorities read");
    if !roots.is_empty() {
        return Ok(roots);
    }
    let cause = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(LoadError {
        place: place.to_owned(),
        code: "no-system-authorities",
        message: format!("this machine has no certificate authorities to check the origin against{cause}"),
        hint: "install the package ca-certificates, or set `authorities` for this origin".to_owned(),
    })
}

/// The name sent to an origin and looked for in its certificate: a DNS name or an address, brackets allowed.
pub fn server_name(name: &str) -> Result<ServerName<'static>, InvalidServerName> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned()).map_err(|_| InvalidServerName(name.to_owned()))
}

/// Neither a DNS name nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither a DNS name nor an address")]
pub struct InvalidServerName(pub String);

fn bad_server_name(place: &str, name: &str) -> LoadError {
    LoadError {
        place: format!("{place}.server_name"),
        code: "origin-server-name",
        message: InvalidServerName(name.to_owned()).to_string(),
        hint: "write the name that stands in the origin's certificate".to_owned(),
    }
}

fn unavailable(place: &str, error: &dyn std::error::Error) -> LoadError {
    LoadError {
        place: place.to_owned(),
        code: "origin-tls-unavailable",
        message: format!("TLS towards the origin cannot be set up: {error}"),
        hint: "check the authorities of this origin".to_owned(),
    }
}

fn chain_verifier(roots: Arc<RootCertStore>, place: &str) -> Result<Arc<WebPkiServerVerifier>, LoadError> {
    WebPkiServerVerifier::builder_with_provider(roots, super::provider().clone())
        .build()
        .map_err(|error| unavailable(place, &error))
}

fn authorities(text: &[u8], place: &str) -> Result<Arc<dyn ServerCertVerifier>, LoadError> {
    let refused = |code, message| LoadError {
        place: place.to_owned(),
        code,
        message,
        hint: "use PEM with the certificate of the authority that signed the origin's, or the origin's own \
               certificate if it signed itself"
            .to_owned(),
    };
    let pinned = pem::certificates(text, pem::MAX_AUTHORITIES)
        .map_err(|error| refused("authorities-unreadable", format!("no certificate authorities: {error}")))?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in pinned.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            refused("authorities-unreadable", format!("certificate {} cannot be used: {error}", index + 1))
        })?;
    }
    Ok(Arc::new(Trusted { chain: chain_verifier(Arc::new(roots), place)?, pinned }))
}

/// Chains to the given authorities, or is one of the given certificates.
///
/// The second half is for origins that signed themselves: what `openssl req -x509` makes calls itself an authority,
/// and a chain verifier must refuse an authority as a server (RFC 5280 section 4.2.1.9).
#[derive(Debug)]
struct Trusted {
    chain: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn pinned(
        &self,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<bool, rustls::Error> {
        if !self.pinned.iter().any(|pinned| pinned == leaf) {
            return Ok(false);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > parsed.validity().not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if now < parsed.validity().not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        Ok(true)
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned(leaf, name, now)? {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Accepts any certificate, because the configuration says so. The handshake's signatures are still checked, so the
/// peer at least holds the key of what it presents.
#[derive(Debug)]
pub(super) struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &super::provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &super::provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::provider().signature_verification_algorithms.supported_schemes()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value is replaced whole, so a poisoned lock holds nothing broken.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
