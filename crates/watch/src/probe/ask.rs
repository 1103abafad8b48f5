//! One visit to a site: over HTTP/1.1, with TLS where the listener speaks it, at every listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::roles::{WatchedListener, WatchedSite};
use base::time::Timestamp;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{CERTIFICATE, EDGE, ORIGIN, Outcome};
use crate::page::time;

/// A visit to one listener takes no longer.
pub const ASKING: Duration = Duration::from_secs(10);
/// What is read of a page that tells of a failure, in bytes.
const MAX_PAGE: usize = 16 * 1024;
/// Listeners of a site that are visited, one after the other.
const MAX_LISTENERS: usize = 16;
/// Rempart's own failures say in this form whose they are; an origin sends what it likes.
const ACCEPT: &str = "application/problem+json, text/html;q=0.9, */*;q=0.8";

/// The header of a proxy that speaks for itself: version 2, `LOCAL` (PROXY protocol section 2.2).
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Visits a site at all its listeners; what went wrong first is told, else what was answered last.
pub async fn ask(site: &WatchedSite, proxies: &[IpNet], now: Timestamp) -> Outcome {
    ask_within(ASKING, site, proxies, now).await
}

pub(super) async fn ask_within(
    limit: Duration,
    site: &WatchedSite,
    proxies: &[IpNet],
    now: Timestamp,
) -> Outcome {
    let mut last = Outcome { cause: Some(EDGE), text: "nothing is listened on".to_owned() };
    for listener in site.at.iter().take(MAX_LISTENERS) {
        let scheme = if listener.tls { "https" } else { "http" };
        let asked = tokio::time::timeout(limit, visit(site, listener, proxies, now)).await;
        let seen = asked.unwrap_or_else(|_| {
            Err(format!("no answer within {} s", limit.as_secs_f32())).map_err(VisitError::Failed)
        });
        let (cause, text) = match seen {
            Ok(seen) => (seen.cause, seen.text),
            Err(VisitError::TurnedAway) if site.asks_for_certificates => {
                (None, "it asks for a certificate".to_owned())
            }
            Err(VisitError::TurnedAway) => (Some(EDGE), "the TLS handshake was refused".to_owned()),
            Err(VisitError::Failed(text)) => (Some(EDGE), text),
        };
        last = Outcome { cause, text: format!("{text} ({scheme}://{})", listener.address) };
        if cause.is_some() {
            return last;
        }
    }
    last
}

/// The address to connect to; nobody can connect to all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

enum VisitError {
    /// The server ended the handshake.
    TurnedAway,
    Failed(String),
}

struct Seen {
    cause: Option<&'static str>,
    text: String,
}

async fn visit(
    site: &WatchedSite,
    listener: &WatchedListener,
    proxies: &[IpNet],
    now: Timestamp,
) -> Result<Seen, VisitError> {
    let failed = |error: std::io::Error| VisitError::Failed(error.to_string());
    let mut stream = TcpStream::connect(reachable(listener.address)).await.map_err(failed)?;
    if listener.proxy_protocol {
        let own = stream.local_addr().map_err(failed)?.ip().to_canonical();
        // From everybody else the listener reads no header.
        if proxies.iter().any(|proxies| proxies.contains(&own)) {
            stream.write_all(&LOCAL).await.map_err(failed)?;
        }
    }
    if !listener.tls {
        return exchange(site, stream).await;
    }
    let config = config().map_err(|error| VisitError::Failed(error.to_string()))?;
    let name =
        ServerName::try_from(site.host.clone()).map_err(|error| VisitError::Failed(error.to_string()))?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(refused_or_failed)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let expires = certificates.and_then(|chain| chain.first()).and_then(expiry);
    let seen = exchange(site, stream).await?;
    let Some(expires) = expires else { return Ok(seen) };
    if expires <= now && seen.cause.is_none() {
        let text = format!("its certificate was good until {}", time(expires));
        return Ok(Seen { cause: Some(CERTIFICATE), text });
    }
    let date = time(expires);
    let text = format!("{}, certificate until {}", seen.text, date.get(..10).unwrap_or(&date));
    Ok(Seen { text, ..seen })
}

fn refused_or_failed(error: std::io::Error) -> VisitError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(_)) => VisitError::TurnedAway,
        _ => VisitError::Failed(error.to_string()),
    }
}

async fn exchange<S>(site: &WatchedSite, stream: S) -> Result<Seen, VisitError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |text: String| VisitError::Failed(text);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let authority = if site.host.contains(':') { format!("[{}]", site.host) } else { site.host.clone() };
    let request = Request::get(&site.path)
        .header("host", authority)
        .header("accept", ACCEPT)
        .header("user-agent", concat!("rempart-watch/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(told)?;
        Ok(judge(answer).await)
    };
    // The connection moves only while it is looked after.
    let mut connection = std::pin::pin!(connection);
    let mut asked = std::pin::pin!(asked);
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            seen = &mut asked => return seen,
            // What it ended with is what the request fails with.
            _ = &mut connection, if !ended => ended = true,
        }
    }
}

fn told(error: hyper::Error) -> VisitError {
    let mut source = std::error::Error::source(&error);
    let mut text = error.to_string();
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<std::io::Error>() {
            let tls = inner.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(rustls::Error::AlertReceived(_)) = tls {
                return VisitError::TurnedAway;
            }
        }
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    VisitError::Failed(text)
}

async fn judge(answer: Response<Incoming>) -> Seen {
    let status = answer.status();
    let text = format!("it answered {status}");
    if status.as_u16() < 500 && status != StatusCode::MISDIRECTED_REQUEST {
        return Seen { cause: None, text };
    }
    let is_problem = answer
        .headers()
        .get("content-type")
        .is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
    let own = if is_problem { problem(answer.into_body()).await } else { None };
    match own {
        Some((fault, reason)) if fault == EDGE => {
            Seen { cause: Some(EDGE), text: format!("{text}: {reason}") }
        }
        // No site of this Rempart has the host it was asked for.
        Some((_, reason)) if status == StatusCode::MISDIRECTED_REQUEST => {
            Seen { cause: Some(EDGE), text: format!("{text}: {reason}") }
        }
        Some((_, reason)) => Seen { cause: Some(ORIGIN), text: format!("{text}: {reason}") },
        None if status.as_u16() < 500 => Seen { cause: None, text },
        None => Seen { cause: Some(ORIGIN), text },
    }
}

/// Whose fault it is and the reason's name, as Rempart's own pages say; `None`: it is none of them.
async fn problem(body: Incoming) -> Option<(String, String)> {
    let bytes = Limited::new(body, MAX_PAGE).collect().await.ok()?.to_bytes();
    let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    // Every page of Rempart has a receipt; a page of an origin may have a fault.
    value.get("receipt")?;
    let field = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    Some((field("fault")?, field("reason")?))
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(Timestamp::from_unix(Duration::from_secs(seconds)))
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(provider.clone()));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth())
}

/// Whoever answers at the address: it is this machine's own, and whom visitors trust is not known here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
