//! The development certificate authority: made on first run, signs certificates for sites that have none.

use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use snapshot::generation::HostPattern;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem::{self, PemError};

/// The authority's certificate inside its folder; the file to import into a browser.
pub const CERTIFICATE_FILE: &str = "development-ca.pem";
/// The authority's private key inside its folder.
pub const KEY_FILE: &str = "development-ca.key";
/// Certificates for single names kept at most; the oldest goes first.
pub const MAX_NAMED_LEAFS: usize = 256;
/// How long the authority is valid: an import into a browser should not have to be repeated.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * DAY);
/// How long a certificate is valid, backdating included; below every browser's limit.
const LEAF_VALIDITY: Duration = Duration::from_secs(90 * DAY);
/// A certificate is replaced when it has less than this left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * DAY);
/// Certificates start in the past, because virtual machines' and visitors' clocks disagree.
const BACKDATE: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 3600;
/// 9999-12-31T23:59:59Z, the last moment X.509 can write (RFC 5280 section 4.1.2.5).
const LAST_X509_SECOND: u64 = 253_402_300_799;

/// Why an authority could not be opened, made, or made to sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate is unreadable.
    #[error(
        "the development authority's certificate is unusable: {0}; delete {CERTIFICATE_FILE} to have it made again from its key"
    )]
    Certificate(PemError),
    /// The certificate is PEM, but not X.509, or not a certificate authority.
    #[error(
        "the development authority's certificate is {0}; delete {CERTIFICATE_FILE} to have it made again from its key"
    )]
    NotAnAuthority(&'static str),
    /// The private key is unreadable.
    #[error(
        "the development authority's private key is unusable: {0}; delete {KEY_FILE} and {CERTIFICATE_FILE} to start with a new authority"
    )]
    Key(String),
    /// There is a certificate whose key is gone.
    #[error(
        "{CERTIFICATE_FILE} is there but {KEY_FILE} is missing; restore the key, or delete {CERTIFICATE_FILE} to start with a new authority"
    )]
    KeyMissing,
    /// Key and certificate are not a pair.
    #[error(
        "the development authority's key does not belong to its certificate; delete {CERTIFICATE_FILE} to have it made again from {KEY_FILE}"
    )]
    Mismatch,
    /// The authority is past its end.
    #[error(
        "the development authority has expired; delete {CERTIFICATE_FILE} to have it made again from {KEY_FILE}, and import it again"
    )]
    Expired,
    /// A name cannot stand in a certificate.
    #[error("\"{0}\" cannot stand in a certificate")]
    Name(String),
    /// Key generation or signing failed.
    #[error("signing failed: {0}")]
    Signing(String),
}

/// A freshly made authority as it is to be stored.
pub struct AuthorityPem {
    /// The certificate; public.
    pub certificate: String,
    /// The private key, PKCS#8; mode 0600.
    pub key: String,
}

/// One certificate with its key and the time of its replacement.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// What rustls presents.
    pub key: Arc<CertifiedKey>,
    /// `notAfter`.
    pub expires: Timestamp,
}

impl Leaf {
    /// True when a replacement should be signed.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now.plus(RENEW_BEFORE) >= self.expires
    }
}

/// A certificate authority only this machine's owner trusts. Shared between threads.
pub struct DevelopmentAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    machine: Option<String>,
    named: Mutex<NamedLeafs>,
}

#[derive(Default)]
struct NamedLeafs {
    by_name: HashMap<Arc<str>, Leaf>,
    /// Names in the order they came, for eviction.
    order: VecDeque<Arc<str>>,
}

impl std::fmt::Debug for DevelopmentAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevelopmentAuthority").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl DevelopmentAuthority {
    /// Makes a new authority (ECDSA P-256, ten years) and answers what must be stored to have it again.
    pub fn generate(now: Timestamp) -> Result<AuthorityPem, AuthorityError> {
        let key = KeyPair::generate().map_err(signing)?;
        Ok(AuthorityPem { certificate: self_sign(&key, now)?, key: key.serialize_pem() })
    }

    /// Opens an authority from its two PEM texts, checking that they are one.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, AuthorityError> {
        let key = read_key(key)?;
        let der = pem::certificates(certificate, 1).map_err(AuthorityError::Certificate)?.remove(0);
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|_| AuthorityError::NotAnAuthority("not a valid X.509 certificate"))?;
        if !parsed.is_ca() {
            return Err(AuthorityError::NotAnAuthority("not one of a certificate authority"));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|_| AuthorityError::NotAnAuthority("not a valid X.509 certificate"))?;
        Ok(Self {
            issuer,
            certificate_pem: String::from_utf8_lossy(certificate).into_owned(),
            certificate: der,
            machine: None,
            named: Mutex::default(),
        })
    }

    /// The authority in `folder`, made on first use. Blocks on disk: not for an edge thread.
    ///
    /// The key decides: a certificate that is missing is made again from it, so that no crash between two writes hurts.
    pub fn open_or_create(folder: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        create_folder(folder)?;
        let directory = File::open(folder).map_err(io(folder))?;
        // Two processes may start at once (an old and a new edge); one makes, the other reads what was made. A file
        // system without locks still gets whole files, because each is renamed into place.
        if let Err(error) = directory.lock() {
            tracing::debug!(%error, "no lock on the folder of the development authority");
        }
        let (certificate_path, key_path) = (folder.join(CERTIFICATE_FILE), folder.join(KEY_FILE));
        let (certificate, key) = match (read(&certificate_path)?, read(&key_path)?) {
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => return Err(AuthorityError::KeyMissing),
            (None, Some(key)) => {
                let certificate = self_sign(&read_key(&key)?, now)?.into_bytes();
                write(&directory, &certificate_path, &certificate, 0o644)?;
                (certificate, key)
            }
            (None, None) => {
                let made = Self::generate(now)?;
                write(&directory, &key_path, made.key.as_bytes(), 0o600)?;
                write(&directory, &certificate_path, made.certificate.as_bytes(), 0o644)?;
                (made.certificate.into_bytes(), made.key.into_bytes())
            }
        };
        narrow(&key_path)?;
        let authority = Self::from_pem(&certificate, &key)?;
        if authority.expires().is_some_and(|end| end <= now) {
            return Err(AuthorityError::Expired);
        }
        Ok(authority)
    }

    /// Adds the machine's host name to what a site for every host (`*`) answers to.
    pub fn with_machine_name(self, name: Option<String>) -> Self {
        Self { machine: name.map(|name| name.to_ascii_lowercase()), ..self }
    }

    /// The authority's certificate, PEM: what a browser or `curl --cacert` is given.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for these hosts: names, `*.` wildcards, addresses; `Any` stands for this machine's own names.
    ///
    /// Valid 90 days. The chain is the leaf alone: who trusts the authority has it.
    pub fn issue(&self, hosts: &[HostPattern], now: Timestamp) -> Result<Leaf, AuthorityError> {
        let mut names = Vec::new();
        for host in hosts {
            match host {
                HostPattern::Exact(name) => names.push(alternative_name(name)?),
                // `*` covers one label (RFC 9525 section 6.3); deeper names are signed one by one.
                HostPattern::Suffix(name) => names.push(alternative_name(&format!("*.{name}"))?),
                HostPattern::Any => {
                    names.push(alternative_name("localhost")?);
                    names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
                    names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
                    // A machine may be called anything; a name no certificate can hold is no reason to fail.
                    names.extend(self.machine.as_deref().and_then(|name| alternative_name(name).ok()));
                }
            }
        }
        self.sign(names, now)
    }

    /// A certificate for one DNS name (lower case, without trailing dot), kept for the next visitor who asks.
    pub fn leaf_for(&self, name: &str, now: Timestamp) -> Result<Leaf, AuthorityError> {
        if let Some(leaf) = self.lock().by_name.get(name)
            && !leaf.is_due(now)
        {
            return Ok(leaf.clone());
        }
        // Signed outside the lock: another thread doing the same is cheaper than all threads waiting.
        let leaf = self.sign(vec![alternative_name(name)?], now)?;
        self.lock().keep(name, leaf.clone());
        Ok(leaf)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, NamedLeafs> {
        // The map is consistent between any two statements, so a poisoned lock holds nothing broken.
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expires(&self) -> Option<Timestamp> {
        let (_, parsed) = X509Certificate::from_der(&self.certificate).ok()?;
        Some(timestamp(parsed.validity().not_after.timestamp()))
    }

    fn sign(&self, names: Vec<SanType>, now: Timestamp) -> Result<Leaf, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Rempart development certificate");
        params.subject_alt_names = names;
        let expires = now.plus(LEAF_VALIDITY - BACKDATE);
        set_validity(&mut params, backdated(now), expires);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // A new key each time: rcgen derives the serial number from it, and browsers refuse a serial seen twice.
        let key = KeyPair::generate().map_err(signing)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(signing)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = CertifiedKey::from_der(vec![certificate.der().clone()], private, super::provider())
            .map_err(|error| AuthorityError::Signing(error.to_string()))?;
        Ok(Leaf { key: Arc::new(certified), expires: Timestamp(expires.seconds() * 1_000_000) })
    }
}

impl NamedLeafs {
    fn keep(&mut self, name: &str, leaf: Leaf) {
        let name: Arc<str> = Arc::from(name);
        if self.by_name.insert(name.clone(), leaf).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > MAX_NAMED_LEAFS {
            if let Some(oldest) = self.order.pop_front() {
                self.by_name.remove(&oldest);
            }
        }
    }
}

fn self_sign(key: &KeyPair, now: Timestamp) -> Result<String, AuthorityError> {
    let mut params = CertificateParams::default();
    // The start of the key tells several machines' authorities apart in a browser's list.
    let tag: String = params.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Rempart");
    params.distinguished_name.push(DnType::CommonName, format!("Rempart development authority {tag}"));
    set_validity(&mut params, backdated(now), now.plus(AUTHORITY_VALIDITY));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key).map_err(signing)?.pem())
}

fn read_key(text: &[u8]) -> Result<KeyPair, AuthorityError> {
    let der = pem::private_key(text).map_err(|error| AuthorityError::Key(error.to_string()))?;
    KeyPair::try_from(&der).map_err(|error| AuthorityError::Key(error.to_string()))
}

fn alternative_name(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || AuthorityError::Name(name.to_owned());
    // What is checked is the name behind the wildcard: `*` itself is no DNS label of a host.
    rustls::pki_types::DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.to_owned().try_into().map_err(|_| bad())?))
}

/// A time of X.509 (seconds, signed) as ours; times before 1970 become 1970.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_unix(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn set_validity(params: &mut CertificateParams, from: Timestamp, to: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let date = |time: Timestamp| epoch + Duration::from_secs(time.seconds().min(LAST_X509_SECOND));
    (params.not_before, params.not_after) = (date(from), date(to));
}

fn backdated(now: Timestamp) -> Timestamp {
    Timestamp::from_unix(Duration::from_micros(now.0).saturating_sub(BACKDATE))
}

fn signing(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Signing(error.to_string())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> AuthorityError {
    move |source| AuthorityError::Io { path: path.to_owned(), source }
}

fn create_folder(folder: &Path) -> Result<(), AuthorityError> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, AuthorityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path)(error)),
    };
    let mut bytes = Vec::new();
    // One byte past the limit is enough for the PEM reader to refuse it as too large.
    file.take(pem::MAX_PEM_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io(path))?;
    Ok(Some(bytes))
}

/// Whole or not at all, also after a power cut: temporary file, fsync, rename, fsync of the folder.
fn write(folder: &File, path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let stored = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        // The mode above is subject to the umask and ignored for a file left behind by a crash.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        folder.sync_all()
    })();
    stored.map_err(|error| {
        if let Err(cleaning) = std::fs::remove_file(&temporary) {
            tracing::debug!(error = %cleaning, "temporary file left behind");
        }
        io(path)(error)
    })
}

/// Takes other users' access to the key away. Some mounts know no modes: then it is said, not fatal.
fn narrow(key: &Path) -> Result<(), AuthorityError> {
    let mode = std::fs::metadata(key).map_err(io(key))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %key.display(), mode = format!("{:o}", mode & 0o777), "the development authority's key could be read by other users; who read it can sign certificates your browser trusts");
        if let Err(error) = std::fs::set_permissions(key, Permissions::from_mode(0o600)) {
            tracing::warn!(%error, "its mode cannot be changed");
        }
    }
    Ok(())
}
