//! Client certificates (mutual TLS): who may have signed them, and whether a connection has shown what a site asks for.

mod certificate;
mod name;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use snapshot::generation::ClientAuth;

pub use certificate::{ClientCertificate, UnreadableCertificate};
pub use name::DistinguishedName;

use super::accept::TlsFacts;
use super::{LoadError, pem};

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
    /// Whether this connection has been asked for what the site asks for, and shown it if that is required.
    ///
    /// False calls for 421 (RFC 9110 section 15.5.20): a visitor that reuses a connection to another name opens a new one.
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
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider().clone());
    let builder = if client.required { builder } else { builder.allow_unauthenticated() };
    Ok(builder.build().map_err(|error| refused(format!("the authorities cannot be used: {error}")))?)
}
