//! A certificate and key as PEM text: read, checked, and every mistake told apart; with a staple where one is given.

use std::sync::Arc;

use base::time::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ocsp::{self, OcspError};
use super::{Expired, day};
use crate::tls::LoadError;
use crate::tls::authority::{Leaf, timestamp};
use crate::tls::pem::{self, PemError};

/// A site's certificate as given in the configuration.
pub(super) struct Given<'a> {
    /// Where an error points.
    pub place: &'a str,
    /// The name it was issued for, where one place stands for many certificates.
    pub name: Option<&'a str>,
    pub chain: &'a [u8],
    pub key: &'a [u8],
}

/// A certificate with an OCSP response to show beside it (RFC 6066 section 8).
pub(super) struct Stapled {
    pub key: Arc<CertifiedKey>,
    /// When it must not be shown any more; `None` is never.
    pub until: Option<Timestamp>,
}

impl Given<'_> {
    /// Reads and checks both. A certificate past its end is refused or warned of; an issued one is only ever warned of,
    /// because refusing it would take down the site it still half serves.
    pub fn load(
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
            let error = self.error(
                "certificate-not-yet-valid",
                format!("the certificate is valid from {} on", day(starts)),
                "check this machine's clock, or use the certificate that is valid now",
            );
            match self.name {
                None => return Err(error),
                Some(_) => warnings.push(error),
            }
        }
        if expires <= now {
            let error = self.error(
                "certificate-expired",
                format!("the certificate expired on {}", day(expires)),
                "renew it and put the new chain and key in place of the old",
            );
            match (expired, self.name) {
                (Expired::Refuse, None) => return Err(error),
                (Expired::Serve, _) | (_, Some(_)) => warnings.push(error),
            }
        }
        Ok(Leaf { key: Arc::new(key), expires })
    }

    /// Puts an OCSP response beside the certificate; one that is unfit is left out with a warning.
    pub fn staple(
        &self,
        leaf: &Leaf,
        response: &[u8],
        now: Timestamp,
        warnings: &mut Vec<LoadError>,
    ) -> Result<Option<Stapled>, LoadError> {
        let place = match self.place.strip_suffix("certificate") {
            Some(parent) => format!("{parent}ocsp"),
            None => self.place.to_owned(),
        };
        let read = ocsp::Response::read(response).map_err(|error| LoadError {
            place: place.clone(),
            code: "ocsp-unreadable",
            message: format!("the OCSP response cannot be used: {error}"),
            hint: match error {
                OcspError::Unsuccessful(_) => "fetch it again, or leave it out".to_owned(),
                _ => "use the answer of the authority in DER, as openssl ocsp -respout FILE writes it"
                    .to_owned(),
            },
        })?;
        let serial = leaf.key.cert.first().and_then(|der| X509Certificate::from_der(der).ok());
        let serial = serial.map(|(_, parsed)| parsed.raw_serial().to_vec()).unwrap_or_default();
        match read.fit_until(&serial, now) {
            Ok(until) => {
                let key = CertifiedKey { ocsp: Some(response.to_vec()), ..CertifiedKey::clone(&leaf.key) };
                Ok(Some(Stapled { key: Arc::new(key), until }))
            }
            Err(unfit) => {
                warnings.push(LoadError {
                    place,
                    code: "ocsp-unfit",
                    message: format!("the OCSP response is not stapled: {unfit}"),
                    hint: "fetch a new one for the certificate in use".to_owned(),
                });
                Ok(None)
            }
        }
    }

    fn pair(
        &self,
        chain: &[CertificateDer<'static>],
        key: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, LoadError> {
        let signing = crate::tls::provider().key_provider.load_private_key(key).map_err(|_| {
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
        let message = match self.name {
            Some(name) => format!("certificate for \"{name}\": {message}"),
            None => message,
        };
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

fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((timestamp(validity.not_before.timestamp()), timestamp(validity.not_after.timestamp())))
}
