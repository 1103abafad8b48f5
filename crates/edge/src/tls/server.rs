//! TLS settings towards visitors: what outlives generations, and the settings of one generation by server name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, NoServerSessionStorage, ServerSessionMemoryCache, StoresServerSessions};
use rustls::{CipherSuite, ServerConfig};
use snapshot::generation::{SiteTls, TlsPolicy};

use super::certificates::Certificates;
use super::challenges::Challenges;
use super::client_auth::{self, Authorities};
use super::tickets::{TicketKeyError, TicketKeys};
use super::{LoadError, wall_clock};

/// Sessions of TLS 1.2 clients without tickets kept at most; each is a few hundred bytes.
const MAX_STORED_SESSIONS: usize = 1024;
/// Tickets sent after a full TLS 1.3 handshake: browsers open two connections at once, each wants its own.
const TICKETS: usize = 2;

/// What outlives generations: keys of session tickets, the session store, pending challenges. One per process, shared by threads.
#[derive(Debug)]
pub struct ServerTls {
    tickets: Arc<TicketKeys>,
    sessions: Arc<dyn StoresServerSessions>,
    challenges: Arc<Challenges>,
}

/// TLS could not be set up; the machine has no randomness or the provider is broken.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// No key for session tickets could be made.
    #[error("TLS cannot be set up: {0}")]
    Tickets(#[from] TicketKeyError),
    /// The provider lacks something.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[from] rustls::Error),
}

/// The settings of one generation. Sites that are treated alike share them; mostly that is all of them.
pub struct ServerSettings {
    certificates: Arc<Certificates>,
    /// That of the first site.
    first: Variant,
    /// Those of sites that are treated in another way.
    others: Vec<Variant>,
    /// In the order of sites: 0 is `first`, n is `others[n - 1]`.
    by_site: Vec<usize>,
    challenges: Arc<Challenges>,
    validation: Variant,
}

/// Settings some sites share.
pub(super) struct Variant {
    /// What rustls is given.
    pub config: Arc<ServerConfig>,
    /// The same for clients that ask for ChaCha20 first, which they do where AES is slow.
    pub chacha: Arc<ServerConfig>,
    /// Whose client certificates are asked for.
    pub authorities: Option<Authorities>,
}

impl std::fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerSettings({} variants)", 1 + self.others.len())
    }
}

impl ServerTls {
    /// Makes a random ticket key, good until keys are given.
    pub fn new() -> Result<Self, ServerTlsError> {
        Ok(Self {
            tickets: Arc::new(TicketKeys::random(wall_clock())?),
            sessions: ServerSessionMemoryCache::new(MAX_STORED_SESSIONS),
            challenges: Arc::default(),
        })
    }

    /// The keys of session tickets.
    pub fn tickets(&self) -> &Arc<TicketKeys> {
        &self.tickets
    }

    /// What certificate authorities look for.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// The settings of one generation; all findings at once. Tickets given under earlier ones continue under these.
    pub fn settings(&self, certificates: Arc<Certificates>) -> Result<Arc<ServerSettings>, Vec<LoadError>> {
        let (mut variants, mut by_site, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for site in &certificates.snapshot().sites {
            let client = site.tls.client.as_ref();
            let kind = (site.tls.policy, client.map(|client| (client.authorities.clone(), client.required)));
            if let Some(&position) = known.get(&kind) {
                by_site.push(position);
                continue;
            }
            match self.variant(&site.tls, &certificates) {
                Ok(variant) => {
                    by_site.push(variants.len());
                    known.insert(kind, variants.len());
                    variants.push(variant);
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut others = variants.into_iter();
        let first = match others.next() {
            Some(first) => first,
            // No sites: every name is nobody's.
            None => self.variant(&SiteTls::default(), &certificates).map_err(|error| vec![error])?,
        };
        let validation = self.challenges.server_config().map_err(|error| vec![unavailable(&error)])?;
        Ok(Arc::new(ServerSettings {
            certificates,
            first,
            others: others.collect(),
            by_site,
            challenges: self.challenges.clone(),
            validation: Variant { chacha: validation.clone(), config: validation, authorities: None },
        }))
    }

    /// `h2` and `http/1.1`, no early data, no key log; versions and client certificates as the site says.
    fn variant(&self, tls: &SiteTls, certificates: &Arc<Certificates>) -> Result<Variant, LoadError> {
        let versions: &[_] = match tls.policy {
            TlsPolicy::Modern => &[&rustls::version::TLS13],
            TlsPolicy::Intermediate => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let builder = ServerConfig::builder_with_provider(super::provider().clone())
            .with_protocol_versions(versions)
            .map_err(|error| unavailable(&error))?;
        let builder = match &tls.client {
            None => builder.with_no_client_auth(),
            Some(client) => builder.with_client_cert_verifier(client_auth::verifier(client)?),
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Early data can be replayed by anyone who saw it (RFC 8446 section 8); nothing here needs it.
        config.max_early_data_size = 0;
        if tls.client.is_none() {
            config.ticketer = self.tickets.clone();
            config.session_storage = self.sessions.clone();
            config.send_tls13_tickets = TICKETS;
        } else {
            // rustls takes the certificate of a resumed session as it was, whoever may sign by now and whatever has ended.
            // Without tickets and store, neither given nor taken, every connection is checked in full. A store would be there
            // by default; tickets would not.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let authorities = tls.client.as_ref().map(Authorities::from);
        let chacha = Arc::new(config.clone());
        // AES-128 before AES-256, which only costs: no browser prefers it, and its key schedule is SHA-384.
        config.ignore_client_order = true;
        Ok(Variant { config: Arc::new(config), chacha, authorities })
    }
}

impl ServerSettings {
    /// The settings of the first site.
    #[cfg(test)]
    pub(super) fn first(&self) -> &Variant {
        &self.first
    }

    /// The settings for a visitor, by what its ClientHello says.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> (&Variant, &Arc<ServerConfig>) {
        let variant = self.variant_for(hello);
        let config = if prefers_chacha(hello) { &variant.chacha } else { &variant.config };
        (variant, config)
    }

    fn variant_for(&self, hello: &ClientHello<'_>) -> &Variant {
        if self.challenges.is_meant_by(hello) {
            return &self.validation;
        }
        if self.others.is_empty() {
            return &self.first;
        }
        let (site, _) = self.certificates.site(hello.server_name());
        let position = self.by_site.get(site).and_then(|variant| variant.checked_sub(1));
        position.and_then(|position| self.others.get(position)).unwrap_or(&self.first)
    }
}

/// Whether the client's first suite, GREASE aside (RFC 8701), is one with ChaCha20.
fn prefers_chacha(hello: &ClientHello<'_>) -> bool {
    let first = hello.cipher_suites().iter().find(|suite| u16::from(**suite) & 0x0f0f != 0x0a0a);
    matches!(
        first,
        Some(
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        )
    )
}

fn unavailable(error: &dyn std::error::Error) -> LoadError {
    LoadError {
        place: "listen".to_owned(),
        code: "tls-unavailable",
        message: format!("TLS cannot be set up: {error}"),
        hint: "this machine cannot do TLS at the moment; see the program's log".to_owned(),
    }
}
