//! The other end of a handshake with this edge itself: takes whatever certificate is presented, and tells what it covers.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::origin::Unverified;
use crate::io::Io;

/// A connection to the edge's own TLS listener.
pub struct Presented {
    /// The encrypted stream.
    pub io: Io,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
    leaf: Option<CertificateDer<'static>>,
}

impl Presented {
    /// Whether the certificate that was presented is for this host; false when there was none.
    pub fn covers(&self, host: &str) -> bool {
        let leaf = self.leaf.as_ref().and_then(|der| ParsedCertificate::try_from(der).ok());
        let Some((leaf, name)) = leaf.zip(ServerName::try_from(host).ok()) else { return false };
        rustls::client::verify_server_name(&leaf, &name).is_ok()
    }
}

/// Shakes hands with this edge. `host` is sent as server name unless it is an address; with `http2` only `h2` is offered,
/// else only `http/1.1`. No certificate is sent, no session is continued.
pub async fn connect(stream: TcpStream, host: &str, http2: bool) -> io::Result<Presented> {
    let mut config = ClientConfig::builder_with_provider(super::provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified))
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let leaf =
        session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
    Ok(Presented { io: Io::Client(Box::new(stream)), http2, leaf })
}

/// Whether the other side ended the connection by a TLS alert: it is alive, and refuses on purpose.
pub fn is_alert(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::AlertReceived(_)))
}
