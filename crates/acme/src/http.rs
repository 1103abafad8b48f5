//! How authorities are spoken to: HTTPS with bounded time and size, and refusals with their Retry-After kept.

use std::error::Error as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A request and its whole answer take no longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is there within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections are closed after idling this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer read; chains and directories have a few KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Roots read of one file.
const MAX_ROOTS: usize = 1_000;

/// An answer that says no without being about one name: an error status that is no problem document, too many requests, or
/// a failing server.
#[derive(Clone, Debug, thiserror::Error)]
#[error("it answered {status}{}", detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The problem's own words.
    pub detail: Option<String>,
    /// Whether it says that a limit of requests has been reached (RFC 8555 section 6.6).
    pub rate_limited: bool,
}

/// Why an authority cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file with its roots cannot be used.
    #[error("{path}: {reason}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// This system has no roots.
    #[error("this system has no certificates of authorities ({0}); install the package ca-certificates")]
    NoSystemRoots(String),
    /// The cryptography refuses to work.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// No answer.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// An answer that is too long.
    #[error("the answer is longer than {MAX_ANSWER_BYTES} bytes or broke off")]
    Body,
    /// No connection.
    #[error("{0}")]
    Connection(String),
}

/// HTTPS to one authority.
pub struct Https(Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Https {
    /// Trusts the roots of a PEM file, or the system's.
    pub fn new(roots: Option<&Path>) -> Result<Self, ClientError> {
        let roots = match roots {
            Some(path) => roots_of(path)?,
            None => system_roots()?,
        };
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.enforce_http(false);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        Ok(Self(client))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answer = self.0.request(request);
        Box::pin(async move {
            let whole = async {
                let answer = answer.await.map_err(|error| other(ClientError::Connection(reason(&error))))?;
                let (parts, body) = answer.into_parts();
                let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
                Ok::<_, Error>((parts, body.map_err(|_| other(ClientError::Body))?.to_bytes()))
            };
            let (parts, body) = tokio::time::timeout(REQUEST_TIMEOUT, whole)
                .await
                .map_err(|_| other(ClientError::Timeout))??;
            match refusal(parts.status, &parts.headers, &body, SystemTime::now()) {
                Some(refusal) => Err(Error::Other(Box::new(refusal))),
                None => Ok(BytesResponse { parts, body: Box::new(body) }),
            }
        })
    }
}

fn other(error: ClientError) -> Error {
    Error::Other(Box::new(error))
}

/// The innermost reasons, which say more than "client error (Connect)".
fn reason(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// `None` for an answer that says yes, or no to what was asked for rather than to the asking.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Option<Refusal> {
    if status.as_u16() < 400 {
        return None;
    }
    let problem = serde_json::from_slice::<Problem>(body).ok().filter(|problem| problem.r#type.is_some());
    let says_limited = problem.as_ref().is_some_and(|problem| is_type(problem, "rateLimited"));
    let rate_limited = says_limited || status == StatusCode::TOO_MANY_REQUESTS;
    if problem.is_some() && !rate_limited && !status.is_server_error() {
        return None;
    }
    let detail = problem.and_then(|problem| problem.detail);
    Some(Refusal { status, retry_after: retry_after(headers, now), detail, rate_limited })
}

/// Whether a problem document is of a type of RFC 8555 section 6.7.
pub fn is_type(problem: &Problem, kind: &str) -> bool {
    let prefix = "urn:ietf:params:acme:error:";
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(prefix)) == Some(kind)
}

/// Retry-After as a time to wait (RFC 9110 section 10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or(Duration::ZERO))
}

fn roots_of(path: &Path) -> Result<RootCertStore, ClientError> {
    let failed = |reason: String| ClientError::Roots { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem).take(MAX_ROOTS) {
        let root = root.map_err(|error| failed(error.to_string()))?;
        roots.add(root).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(ClientError::NoSystemRoots(reasons.join("; ")));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_a_name_passes_and_what_is_about_asking_is_a_refusal() {
        let check = |status: u16, retry: Option<&str>, body: &str, expected: Option<(Option<u64>, bool)>| {
            let mut headers = HeaderMap::new();
            if let Some(retry) = retry {
                headers.insert(RETRY_AFTER, retry.parse().unwrap());
            }
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
            let refusal = refusal(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now);
            let seen =
                refusal.map(|refusal| (refusal.retry_after.map(|wait| wait.as_secs()), refusal.rate_limited));
            assert_eq!(seen, expected, "{status} {body}");
        };
        let problem = |kind: &str| format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"no"}}"#);
        check(200, None, "<html>", None);
        check(400, None, &problem("badNonce"), None);
        check(403, None, &problem("unauthorized"), None);
        check(404, None, "not found", Some((None, false)));
        check(403, None, "{}", Some((None, false)));
        check(429, Some("120"), &problem("rateLimited"), Some((Some(120), true)));
        check(403, None, &problem("rateLimited"), Some((None, true)));
        check(429, None, "slow down", Some((None, true)));
        check(500, None, &problem("serverInternal"), Some((None, false)));
        check(503, Some("Sun, 06 Nov 1994 08:49:47 GMT"), "", Some((Some(10), false)));
        check(503, Some("Sun, 06 Nov 1994 08:49:27 GMT"), "", Some((Some(0), false)));
        check(503, Some("soon"), "", Some((None, false)));
    }

    #[test]
    fn roots_that_cannot_be_used_name_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        std::fs::write(&path, "").unwrap();
        for path in [path, folder.path().join("missing.pem")] {
            let error = Https::new(Some(&path)).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
