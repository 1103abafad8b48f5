//! TLS on both sides: certificates and handshakes towards visitors, verification towards origins.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use base::time::Timestamp;
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

pub mod accept;
pub mod authority;
pub mod certificates;
pub mod challenges;
pub mod client_auth;
pub mod client_hello;
pub mod hello_hashes;
pub mod ja4;
pub mod origin;
pub mod pem;
pub mod server;
pub mod tee;
#[cfg(test)]
mod tests;
pub mod tickets;
pub(crate) mod visitor;

pub use accept::{Accepted, Alpn, HandshakeError, TlsFacts, Version, accept};
pub use authority::{AuthorityError, DevelopmentAuthority};
pub use certificates::{Certificates, Expired, Wanted};
pub use challenges::{ChallengeError, Challenges};
pub use client_auth::{ClientCertificate, DistinguishedName};
pub use client_hello::{ClientHello, ClientHelloView, HelloFacts, HelloParser};
pub use hello_hashes::{HelloHashes, hello_hashes};
pub use origin::{OriginTlsConfigs, Protocols, server_name};
pub use server::{ServerSettings, ServerTls, ServerTlsError};
pub use tee::HelloTee;
pub use tickets::{TicketKeyError, TicketKeys};

/// Everything of TLS that is refused when a generation is loaded; shown to the operator as a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Pointer to the place in the configuration: `site[0].tls.certificate`.
    pub place: String,
    /// Stable name for scripts: `certificate-expired`.
    pub code: &'static str,
    /// What is wrong, one sentence, no full stop.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.message, self.code)
    }
}

impl std::error::Error for LoadError {}

/// The one cryptography provider of the process: aws-lc-rs, its default suites with AES-128 first, X25519MLKEM768 first
/// among groups.
///
/// Not installed as rustls' process default: every configuration names it, so nothing depends on start order.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| !has_aes_128(suite.suite()));
        Arc::new(provider)
    });
    &PROVIDER
}

fn has_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The wall clock, for the one caller without a time argument: the certificate resolver inside a handshake.
fn wall_clock() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// HMAC-SHA256 (RFC 2104).
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    aws_lc_rs::hmac::sign(&key, message).as_ref().try_into().ok()
}

/// Lower case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).map_or('?', |&digit| char::from(digit));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
