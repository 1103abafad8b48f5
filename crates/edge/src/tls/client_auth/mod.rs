//! Client certificates (mutual TLS): who may have signed them, and whether a connection has shown what a site asks for.

mod certificate;
mod name;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use snapshot::generation::{ClientAuth, SiteTls, TlsPolicy};

pub use certificate::{ClientCertificate, UnreadableCertificate};
pub use name::DistinguishedName;

use super::accept::{TlsFacts, Version};
use super::{LoadError, pem};

/// Bytes of authorities' names sent along with the request for a certificate. The list may have 65,535 (RFC 8446 section
/// 4.2.4) and goes out in every handshake; without it a visitor chooses among all its certificates.
const MAX_HINT_BYTES: usize = 16 * 1024;

/// The authorities a connection was checked against: the PEM text, so that it holds across reloads and sites.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authorities(Arc<[u8]>);

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authorities({} bytes)", self.0.len())
    }
}

impl Authorities {
    fn are(&self, client: &ClientAuth) -> bool {
        Arc::ptr_eq(&self.0, &client.authorities) || self.0 == client.authorities
    }
}

impl From<&ClientAuth> for Authorities {
    fn from(client: &ClientAuth) -> Self {
        Self(client.authorities.clone())
    }
}

impl TlsFacts {
    /// Whether a request to a site with these settings may come over this connection; if not, it calls for 421 (RFC 9110
    /// section 15.5.20), and a visitor that had reused a connection to another name opens a new one.
    pub fn suits(&self, tls: &SiteTls) -> bool {
        let version = match tls.policy {
            TlsPolicy::Modern => self.version == Version::Tls13,
            TlsPolicy::Intermediate => true,
        };
        version && tls.client.as_ref().is_none_or(|client| self.satisfies(client))
    }

    /// Whether this connection has been asked for what the site asks for, and shown it if that is required.
    ///
    /// What another site's authorities have signed is no answer to that.
    pub fn satisfies(&self, client: &ClientAuth) -> bool {
        let asked = self.authorities.as_ref().is_some_and(|authorities| authorities.are(client));
        asked && (self.client.is_some() || !client.required)
    }

    /// The certificate, if this site's own authorities have signed it. What another site accepted does not count.
    pub fn certificate_for(&self, client: &ClientAuth) -> Option<&Arc<ClientCertificate>> {
        let authorities = self.authorities.as_ref()?;
        self.client.as_ref().filter(|_| authorities.are(client))
    }
}

/// What checks client certificates: signed by one of the authorities, in time, and for this use. Without one a visitor
/// is turned away in the handshake when `required`; with a bad one always.
pub(super) fn verifier(client: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, LoadError> {
    let refused = |message: String| LoadError {
        place: client.place.clone(),
        code: "client-authorities-unreadable",
        message,
        hint: "use PEM with the certificates of the authorities that sign your visitors' certificates"
            .to_owned(),
    };
    let given = pem::certificates(&client.authorities, pem::MAX_AUTHORITIES)
        .map_err(|error| refused(format!("no certificate authorities: {error}")))?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in given.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| refused(format!("certificate {} cannot be used: {error}", index + 1)))?;
    }
    let hints: usize = roots.subjects().iter().map(|subject| subject.as_ref().len()).sum();
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider().clone());
    let builder = if hints > MAX_HINT_BYTES { builder.clear_root_hint_subjects() } else { builder };
    let builder = if client.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| refused(format!("the authorities cannot be used: {error}")))
}
