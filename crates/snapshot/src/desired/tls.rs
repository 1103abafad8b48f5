//! The part of `rempart.toml` about encryption: certificates, where they come from, and how visitors are treated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Period;

/// Encryption between visitors and this site. Left out, a certificate is signed on the spot by the development authority
/// made on first run, which browsers warn about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SiteTls {
    /// PEM file with the certificate and the intermediate ones after it. Needs `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "tls/certificate.pem")]
    pub certificate: Option<String>,
    /// PEM file with the private key of `certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "tls/key.pem")]
    pub key: Option<String>,
    /// File with an OCSP response for `certificate` (DER), sent along in handshakes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "tls/ocsp.der")]
    pub ocsp: Option<String>,
    /// Whether a certificate authority is asked for the certificates of this site's hosts, as `[acme]` says. Instead of
    /// `certificate` and `key`.
    pub acme: bool,
    /// TLS versions and cipher suites.
    pub policy: TlsPolicy,
    /// Whether plain HTTP is answered with a redirect to `https`.
    pub redirect: bool,
    /// Certificates asked of visitors (mutual TLS). Left out, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SiteClient>,
    /// Tells browsers to use nothing but `https` for this site from now on (HSTS, RFC 6797). Left out, nothing is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
}

/// TLS versions and cipher suites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    /// TLS 1.3, and TLS 1.2 with forward secrecy: every browser since 2015.
    #[default]
    Intermediate,
    /// TLS 1.3 only: every browser since 2020.
    Modern,
}

/// Certificates asked of visitors (mutual TLS). Left out, none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteClient {
    /// PEM file with the authorities that may have signed them.
    #[schemars(example = "tls/client-ca.pem")]
    pub authorities: String,
    /// Whether a visitor without one is turned away.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// Tells browsers to use nothing but `https` for this site from now on (HSTS, RFC 6797). Left out, nothing is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hsts {
    /// How long browsers remember it; `"0s"` makes them forget it.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "3650d"))]
    pub max_age: Period,
    /// Whether it holds for every host below this site's as well.
    pub include_subdomains: bool,
    /// Consent to be put on the list that browsers are shipped with, which is hard to leave: see
    /// <https://hstspreload.org>. Needs `include_subdomains` and a year.
    pub preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Self { max_age: Period::seconds(365 * 86_400), include_subdomains: false, preload: false }
    }
}

/// Certificates from an authority such as Let's Encrypt (ACME, RFC 8555), for sites with `tls.acme = true`: issued and
/// renewed without further ado, one for each host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// Mail addresses an authority may write to about the account: `["ops@example.org"]`.
    #[schemars(length(max = 10))]
    pub contact: Vec<String>,
    /// Your consent to the terms of every authority below. Nothing is asked of one without it.
    pub agree_to_terms: bool,
    /// How control over a host is shown to the authority.
    pub challenge: AcmeChallenge,
    /// Program that publishes a TXT record and takes it back, with arguments: `["/usr/local/bin/dns-hook"]`. Called with
    /// `present` or `cleanup`, the record's name and its value. Only with `challenge = "dns-01"`, which needs it.
    #[schemars(length(max = 64))]
    pub dns_command: Vec<String>,
    /// Hosts for which a certificate is asked for only when the first visitor comes: `["shop.example", "*.shops.example"]`.
    /// Each falls within the hosts of a site with `tls.acme = true`; those named there exactly need no entry.
    #[schemars(length(max = 10_000))]
    pub on_demand: Vec<String>,
    /// Authorities, asked in this order: one that fails is followed by the next. Left out, Let's Encrypt.
    #[schemars(length(max = 8))]
    pub authority: Vec<AcmeAuthority>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            contact: Vec::new(),
            agree_to_terms: false,
            challenge: AcmeChallenge::default(),
            dns_command: Vec::new(),
            on_demand: Vec::new(),
            authority: vec![AcmeAuthority {
                directory: "letsencrypt".to_owned(),
                roots: None,
                eab_kid: None,
                eab_key: None,
            }],
        }
    }
}

/// How control over a host is shown to the authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AcmeChallenge {
    /// A file fetched over plain HTTP, on port 80.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// A handshake of its own kind, on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A TXT record, published by `dns_command`. The only one for hosts with a wildcard.
    #[serde(rename = "dns-01")]
    Dns01,
}

/// One certificate authority. Write one `[[acme.authority]]` for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeAuthority {
    /// `https` URL of its directory, or `"letsencrypt"`, or `"letsencrypt-staging"` for trying things out.
    #[schemars(example = "https://ca.example/acme/directory")]
    pub directory: String,
    /// PEM file with the authorities that may have signed the certificate of this URL. Left out, those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "private-ca.pem")]
    pub roots: Option<String>,
    /// Key id of the account you have with the authority (external account binding), if it wants one. Needs `eab_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "kid-1")]
    pub eab_kid: Option<String>,
    /// File with the key that goes with `eab_kid`, in base64url as the authority gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "eab.key")]
    pub eab_key: Option<String>,
}
