//! TLS settings towards visitors: one long-lived state that every generation's configuration shares.

use std::sync::Arc;

use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::{ServerConfig, crypto::aws_lc_rs::Ticketer};

use super::certificates::Certificates;

/// Sessions of TLS 1.2 clients without tickets kept at most; each is a few hundred bytes.
const MAX_STORED_SESSIONS: usize = 1024;
/// Tickets sent after a full TLS 1.3 handshake: browsers open two connections at once, each wants its own.
const TICKETS: usize = 2;

/// What outlives generations: the keys of session tickets and the session store. One per process, shared by threads.
#[derive(Debug)]
pub struct ServerTls {
    ticketer: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// TLS could not be set up; the machine has no randomness or the provider is broken.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct ServerTlsError(#[from] rustls::Error);

impl ServerTls {
    /// Makes the ticket keys; they rotate every 6 hours, and a ticket lives 12 at most.
    pub fn new() -> Result<Self, ServerTlsError> {
        Ok(Self { ticketer: Ticketer::new()?, sessions: ServerSessionMemoryCache::new(MAX_STORED_SESSIONS) })
    }

    /// The configuration of one generation: TLS 1.2 and 1.3, `h2` and `http/1.1`, no early data, no key log.
    ///
    /// Cheap; tickets given under an earlier configuration continue under this one.
    pub fn server_config(
        &self,
        certificates: Arc<Certificates>,
    ) -> Result<Arc<ServerConfig>, ServerTlsError> {
        let mut config = ServerConfig::builder_with_provider(super::provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = self.ticketer.clone();
        config.session_storage = self.sessions.clone();
        config.send_tls13_tickets = TICKETS;
        // Early data can be replayed by anyone who saw it (RFC 8446 section 8); nothing here needs it.
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}
