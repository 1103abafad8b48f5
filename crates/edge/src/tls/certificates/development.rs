//! Certificates signed on the spot by the development authority, for sites and names that have no other.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::time::Timestamp;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use snapshot::generation::HostPattern;

use crate::tls::LoadError;
use crate::tls::authority::{AuthorityError, DevelopmentAuthority, Leaf};

/// For whom a certificate is signed.
pub(super) struct Owner<'a> {
    /// Pointer to the place in the configuration.
    pub place: &'a str,
    /// What it is called in findings.
    pub name: &'a str,
    /// Its names.
    pub hosts: &'a [HostPattern],
}

/// A site's development certificate, signed again before it ends.
pub(super) struct Development {
    authority: Arc<DevelopmentAuthority>,
    own: ArcSwap<Leaf>,
}

impl Development {
    /// Signs a certificate for the site's hosts.
    pub fn sign(
        owner: &Owner<'_>,
        authority: Option<&Arc<DevelopmentAuthority>>,
        now: Timestamp,
    ) -> Result<Self, LoadError> {
        let error = |code, message, hint: &str| LoadError {
            place: owner.place.to_owned(),
            code,
            message,
            hint: hint.to_owned(),
        };
        let authority = authority.ok_or_else(|| {
            error(
                "development-authority-missing",
                format!("{} has no certificate and there is no development authority", owner.name),
                "give the site a certificate and a key, or make the state folder writable so that an authority can be made",
            )
        })?;
        match authority.issue(owner.hosts, now) {
            Ok(leaf) => Ok(Self { authority: authority.clone(), own: ArcSwap::from_pointee(leaf) }),
            Err(cause @ AuthorityError::Name(_)) => Err(error(
                "development-certificate-name",
                cause.to_string(),
                "write the host as letters, digits and hyphens, or give the site a certificate of its own",
            )),
            Err(cause) => Err(error(
                "development-certificate-failed",
                format!("no development certificate for {}: {cause}", owner.name),
                "give the site a certificate and a key",
            )),
        }
    }

    /// The site's own.
    pub fn own(&self) -> Arc<Leaf> {
        self.own.load_full()
    }

    /// The certificate for a name of the site (signed for it when the site's own does not cover it), or for none.
    pub fn choose(&self, name: Option<&str>, hosts: &[HostPattern], now: Timestamp) -> Arc<CertifiedKey> {
        let current = self.own.load_full();
        let signed = match name {
            Some(name) if !covers(&current.key, name) => self.authority.leaf_for(name, now),
            _ if !current.is_due(now) => return current.key.clone(),
            // The process has run for two months since this was signed.
            _ => self.authority.issue(hosts, now).inspect(|leaf| self.own.store(Arc::new(leaf.clone()))),
        };
        match signed {
            Ok(leaf) => leaf.key,
            Err(error) => {
                tracing::warn!(%error, "no development certificate for this name; the site's own is used");
                current.key.clone()
            }
        }
    }
}

fn covers(key: &CertifiedKey, host: &str) -> bool {
    let leaf = key.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok());
    let Some((leaf, name)) = leaf.zip(ServerName::try_from(host).ok()) else { return false };
    rustls::client::verify_server_name(&leaf, &name).is_ok()
}
