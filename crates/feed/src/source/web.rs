//! Packages from a web server: HTTPS, or HTTP on this machine; conditional requests (RFC 9110 section 13); no redirects.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::{Looked, SourceError};

/// A request and its whole answer take no longer.
const REQUEST: Duration = Duration::from_secs(60);
/// A connection is there within this time.
const CONNECT: Duration = Duration::from_secs(10);

/// One URL.
pub struct Web {
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

impl Web {
    /// Of a URL that may be asked.
    pub fn new(url: &str) -> Result<Self, SourceError> {
        let refused = || SourceError::NotSecure(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let host = uri.host().ok_or_else(refused)?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            _ => return Err(refused()),
        }
        let plain = uri.scheme_str() == Some("http");
        let client = client(plain).map_err(|reason| SourceError::NotGiven { url: url.to_owned(), reason })?;
        Ok(Self { uri, client, etag: None, modified: None })
    }

    /// Asks once.
    pub async fn look(&mut self, all: bool, limit: u64) -> Result<Looked, SourceError> {
        let url = self.uri.to_string();
        let not_given = |reason: String| SourceError::NotGiven { url: url.clone(), reason };
        let request = self.request(all).map_err(|error| not_given(error.to_string()))?;
        let late = |_| not_given(format!("no answer within {} s", REQUEST.as_secs()));
        let whole = async {
            let answer = self.client.request(request).await.map_err(|error| not_given(reason(&error)))?;
            if answer.status() == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            if answer.status() != StatusCode::OK {
                return Err(not_given(refusal(&answer)));
            }
            let (parts, body) = answer.into_parts();
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            let body = Limited::new(body, most).collect().await.map_err(|error| {
                match error.downcast_ref::<http_body_util::LengthLimitError>() {
                    Some(_) => SourceError::TooLarge { place: url.clone(), limit },
                    None => not_given(format!("the answer broke off: {error}")),
                }
            })?;
            Ok(Some((parts.headers, body.to_bytes().to_vec())))
        };
        let Some((headers, body)) = tokio::time::timeout(REQUEST, whole).await.map_err(late)?? else {
            return Ok(Looked::Unchanged);
        };
        self.etag = headers.get(ETAG).cloned();
        self.modified = headers.get(LAST_MODIFIED).cloned();
        Ok(Looked::Found(body))
    }

    fn request(&self, all: bool) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::get(self.uri.clone())
            .header("user-agent", concat!("rempart/", env!("CARGO_PKG_VERSION")));
        if !all {
            if let Some(etag) = &self.etag {
                request = request.header(IF_NONE_MATCH, etag);
            } else if let Some(modified) = &self.modified {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
        }
        request.body(Empty::new())
    }
}

/// Only what cannot leave this machine whatever a resolver says.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refusal(answer: &Response<Incoming>) -> String {
    let status = answer.status();
    if status.is_redirection() {
        format!("it answered {status}, and redirects are not followed: write the URL it leads to")
    } else {
        format!("it answered {status}")
    }
}

/// `plain` is for HTTP, which needs no authorities.
pub(crate) fn client(plain: bool) -> Result<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, String> {
    let mut roots = RootCertStore::empty();
    if !plain {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(
                "this system has no certificates of authorities; install the package ca-certificates"
                    .to_owned(),
            );
        }
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = if plain { connector.https_or_http() } else { connector.https_only() };
    let connector = connector.enable_http1().wrap_connector(tcp);
    // A feed is asked seldom: a connection that waits would only be one that has died.
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// The innermost reasons, which say more than "client error (Connect)".
pub(crate) fn reason(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
