//! Webhooks: one POST of JSON, signed when there is a secret. No redirect is followed.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use api::roles::SecretPlace;
use api::seal::{authentication_code, hexadecimal};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::{Message, SendError, reason, secret};

/// A connection is there within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// `t=SECONDS,v1=HEX`: HMAC-SHA256 of the seconds, a full stop and the body.
const SIGNATURE: &str = "rempart-signature";
/// Names the message: whoever gets one twice can tell.
const DELIVERY: &str = "rempart-delivery";

/// Sends once.
pub async fn send(url: &str, secret: Option<&SecretPlace>, message: &Message) -> Result<(), SendError> {
    let uri: Uri =
        url.parse().map_err(|_| SendError::Settings("the webhook has no usable URL".to_owned()))?;
    let plain = match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => false,
        (Some("http"), Some(host)) if is_loopback(host) => true,
        _ => {
            let text = "the webhook takes a URL with https, or with http to a loopback address";
            return Err(SendError::Settings(text.to_owned()));
        }
    };
    let body = message.json.to_string();
    let mut request = Request::post(uri)
        .header("content-type", "application/json")
        .header("user-agent", concat!("rempart/", env!("CARGO_PKG_VERSION")))
        .header(DELIVERY, &message.id);
    if let Some(place) = secret {
        let key = secret::read(place)?;
        let seconds = message.at.seconds();
        let code = authentication_code(key.as_bytes(), format!("{seconds}.{body}").as_bytes());
        request = request.header(SIGNATURE, format!("t={seconds},v1={}", hexadecimal(&code)));
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| SendError::Settings(format!("the webhook cannot be asked: {error}")))?;
    let answer = client(plain)?.request(request).await.map_err(|error| SendError::NotTaken(why(&error)))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
    Err(SendError::NotTaken(format!("it answered {status}{hint}")))
}

/// Only what cannot leave this machine whatever a resolver says.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

type WebClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// `plain` is for HTTP, which needs no authorities.
fn client(plain: bool) -> Result<WebClient, SendError> {
    let mut roots = RootCertStore::empty();
    if !plain {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let text = "this system has no certificates of authorities; install the package ca-certificates";
            return Err(SendError::Settings(text.to_owned()));
        }
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SendError::Settings(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = if plain { connector.https_or_http() } else { connector.https_only() };
    let connector = connector.enable_http1().wrap_connector(tcp);
    // Messages are rare: a connection that waits would only be one that has died.
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// The innermost reasons, which say more than "client error (Connect)".
fn why(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    reason(&text)
}
