//! `pem`: certificates and keys from text; what was read, written again, reads the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge::tls::pem::{MAX_CHAIN, certificates, private_key};

/// A file.
pub fn run(data: &[u8]) {
    if let Err(error) = private_key(data) {
        assert!(!error.to_string().is_empty());
    }
    let chain = match certificates(data, MAX_CHAIN) {
        Ok(chain) => chain,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!((1..=MAX_CHAIN).contains(&chain.len()));
    let again: String = chain
        .iter()
        .map(|der| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
        })
        .collect();
    assert_eq!(certificates(again.as_bytes(), MAX_CHAIN), Ok(chain), "{again}");
}
