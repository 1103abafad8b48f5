//! What certificate authorities look for while a name is being proven: HTTP contents and handshake certificates.

use std::collections::HashMap;
use std::sync::Arc;

use api::certificates::Challenge;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem::{self, PemError};

/// The protocol a TLS-ALPN-01 validation offers, alone (RFC 8737 section 4).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// Challenges pending at once, at most.
pub const MAX_CHALLENGES: usize = 1024;
/// Bytes of a token; authorities use 43 (RFC 8555 section 8 asks for 128 bits at least).
const MAX_TOKEN_BYTES: usize = 256;
/// Bytes of a key authorization: token, full stop, and a hash of 43.
const MAX_CONTENT_BYTES: usize = 512;
/// Certificates in a challenge: it is self-signed.
const MAX_CHALLENGE_CHAIN: usize = 1;

/// The challenges that are pending. Reading takes no lock; `set` replaces all of them at once.
#[derive(Default)]
pub struct Challenges {
    pending: ArcSwap<Pending>,
}

#[derive(Default)]
struct Pending {
    /// Token to key authorization.
    http: HashMap<Box<str>, Arc<str>>,
    /// Server name, lower case, to certificate.
    handshakes: HashMap<Box<str>, Arc<CertifiedKey>>,
}

/// Why challenges were not taken. Keys and contents are never shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// More than are held.
    #[error("{0} challenges were given, at most {MAX_CHALLENGES} are held")]
    TooMany(usize),
    /// The token is not base64url text (RFC 8555 section 8.3), or its content is empty or too long.
    #[error("an HTTP challenge has a token or a content that no authority gives")]
    Http,
    /// The certificate or its key cannot be read.
    #[error("the challenge for \"{name}\" cannot be read: {cause}")]
    Unreadable {
        /// The server name.
        name: String,
        /// What is wrong.
        cause: PemError,
    },
    /// The key is of another kind than is supported, or not the certificate's.
    #[error("the certificate and the key of the challenge for \"{0}\" are not a pair")]
    Mismatch(String),
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pending = self.pending.load();
        write!(f, "Challenges({} http, {} handshakes)", pending.http.len(), pending.handshakes.len())
    }
}

impl Challenges {
    /// Replaces everything that is pending. When refused, what was pending stays.
    pub fn set(&self, challenges: &[Challenge]) -> Result<(), ChallengeError> {
        if challenges.len() > MAX_CHALLENGES {
            return Err(ChallengeError::TooMany(challenges.len()));
        }
        let mut pending = Pending::default();
        for challenge in challenges {
            match challenge {
                Challenge::Http01 { token, content } => {
                    if !is_token(token) || content.is_empty() || content.len() > MAX_CONTENT_BYTES {
                        return Err(ChallengeError::Http);
                    }
                    pending.http.insert(token.as_str().into(), content.as_str().into());
                }
                Challenge::TlsAlpn01 { name, certificate, key } => {
                    let certified = certified(name, certificate.as_bytes(), key.as_bytes())?;
                    pending.handshakes.insert(name.to_ascii_lowercase().into(), Arc::new(certified));
                }
            }
        }
        self.pending.store(Arc::new(pending));
        Ok(())
    }

    /// The content of `/.well-known/acme-challenge/TOKEN` (RFC 8555 section 8.3); `None` when nobody waits for it.
    pub fn http(&self, token: &str) -> Option<Arc<str>> {
        self.pending.load().http.get(token).cloned()
    }

    /// Whether this is a validation that is waited for: `acme-tls/1` alone, and a name with a challenge.
    pub(super) fn is_meant_by(&self, hello: &ClientHello<'_>) -> bool {
        let mut offered = hello.alpn().into_iter().flatten();
        let alone = offered.next() == Some(ACME_TLS) && offered.next().is_none();
        alone && hello.server_name().is_some_and(|name| self.pending.load().handshakes.contains_key(name))
    }

    /// The settings validations are answered with: one protocol, no resumption.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(super::provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pending.load().handshakes.get(hello.server_name()?).cloned()
    }
}

fn is_token(token: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(digit)
}

fn certified(name: &str, certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, ChallengeError> {
    let unreadable = |cause| ChallengeError::Unreadable { name: name.to_owned(), cause };
    let mismatch = || ChallengeError::Mismatch(name.to_owned());
    let chain = pem::certificates(certificate, MAX_CHALLENGE_CHAIN).map_err(unreadable)?;
    let key = pem::private_key(key).map_err(unreadable)?;
    let signing = super::provider().key_provider.load_private_key(key).map_err(|_| mismatch())?;
    // rustls' own comparison refuses critical extensions it does not know, and acmeIdentifier is one (RFC 8737).
    let belongs =
        chain.first().and_then(|der| X509Certificate::from_der(der).ok()).is_some_and(|(_, leaf)| {
            signing.public_key().is_some_and(|public| public.as_ref() == leaf.public_key().raw)
        });
    if belongs { Ok(CertifiedKey::new(chain, signing)) } else { Err(mismatch()) }
}
