//! Certificates from an authority (ACME, RFC 8555): what is wanted, what is pending, what is there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the keeper of certificates needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeSettings {
    /// Contacts of the account, such as `mailto:ops@example.org`.
    pub contact: Vec<String>,
    /// Authorities in the order they are asked; at least one.
    pub authorities: Vec<AcmeAuthority>,
    /// How control over names is shown.
    pub challenge: AcmeChallenge,
    /// Names wanted, lower case A-labels; `*.example.org` only with DNS-01. One certificate each.
    pub names: Vec<String>,
    /// Patterns of names that may be asked for by a visitor's handshake: `example.org` or `*.example.org`.
    pub on_demand: Vec<String>,
}

/// One certificate authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeAuthority {
    /// URL of its directory.
    pub directory: String,
    /// PEM file with the roots its own server certificate is checked against; `None` for the system's.
    pub roots: Option<PathBuf>,
    /// Key id of the external account binding (RFC 8555 section 7.3.4).
    pub eab_kid: Option<String>,
    /// File with the base64url key of the external account binding.
    pub eab_key: Option<PathBuf>,
}

impl std::fmt::Debug for AcmeAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AcmeAuthority({})", self.directory)
    }
}

/// How control over a name is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AcmeChallenge {
    /// A file over plain HTTP on port 80 (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// A handshake on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A TXT record (RFC 8555 section 8.4), published by a program.
    #[serde(rename = "dns-01")]
    Dns01 {
        /// The program and its arguments; `present|cleanup NAME VALUE` is appended.
        command: Vec<String>,
    },
}

/// Something an authority will look for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Challenge {
    /// The content of `/.well-known/acme-challenge/TOKEN`.
    Http01 {
        /// The token.
        token: String,
        /// The key authorization.
        content: String,
    },
    /// The certificate of a handshake that offers `acme-tls/1`.
    TlsAlpn01 {
        /// The server name.
        name: String,
        /// PEM text of the certificate.
        certificate: String,
        /// PEM text of its key.
        key: String,
    },
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http01 { token, .. } => write!(f, "Http01({token})"),
            Self::TlsAlpn01 { name, .. } => write!(f, "TlsAlpn01({name})"),
        }
    }
}

/// One certificate, for `rempart certs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The site that uses it.
    pub site: String,
    /// Names it is for.
    pub names: Vec<String>,
    /// Where it comes from.
    pub source: CertificateSource,
    /// When it ends, RFC 3339; `None` while there is none.
    pub expires: Option<String>,
    /// Whole days until then; negative when it is over.
    pub days_left: Option<i64>,
    /// When it will be renewed, RFC 3339; `None` when nobody will.
    pub renews: Option<String>,
    /// Who signed it, for a person.
    pub issuer: Option<String>,
    /// Why the last attempt at renewal failed.
    pub problem: Option<String>,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// PEM files of the operator.
    File,
    /// An authority, by ACME.
    Acme,
    /// The development authority; browsers warn.
    Development,
}
