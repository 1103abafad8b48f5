//! The WebSocket echo: whatever comes goes back (RFC 6455).

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Site;
use super::reply::{Reply, text, with};

/// Largest message echoed, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Read and write buffers of one socket, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// Answers the opening handshake; the echo begins once hyper has let go of the connection.
pub fn upgrade(request: Request<Incoming>, site: &Site) -> Reply {
    let Some(key) = opening_key(&request) else {
        let refusal = text(StatusCode::UPGRADE_REQUIRED, "This address speaks WebSocket, version 13.");
        let refusal = with(refusal, header::UPGRADE, "websocket");
        return with(with(refusal, header::CONNECTION, "upgrade"), header::SEC_WEBSOCKET_VERSION, "13");
    };
    let Ok(place) = site.sockets.clone().try_acquire_owned() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "Too many WebSockets are open.");
    };
    let accept = derive_accept_key(key.as_bytes());
    let open = site.open.clone();
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(connection) => echo(connection, open).await,
            Err(error) => tracing::debug!(%error, "a WebSocket of the demo site did not open"),
        }
        drop(place);
    });
    let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, "");
    *reply.body_mut() = Default::default();
    reply.headers_mut().remove(header::CONTENT_TYPE);
    let reply = with(with(reply, header::UPGRADE, "websocket"), header::CONNECTION, "upgrade");
    with(reply, header::SEC_WEBSOCKET_ACCEPT, accept)
}

/// The client's key, when the request is an opening handshake (RFC 6455 section 4.2.1).
fn opening_key(request: &Request<Incoming>) -> Option<String> {
    let lists = |name: HeaderName, wanted: &str| {
        let mut values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
    };
    let opens = lists(header::CONNECTION, "upgrade")
        && lists(header::UPGRADE, "websocket")
        && lists(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    opens.then(|| key.to_owned())
}

/// Sends every message back until the client closes or the site does. Pings are answered by the library.
async fn echo(connection: Upgraded, mut open: watch::Receiver<()>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await;
    loop {
        let received = tokio::select! {
            received = socket.next() => received,
            _ = open.changed() => break,
        };
        let Some(Ok(message)) = received else { break };
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
    if let Err(error) = socket.close(None).await {
        tracing::debug!(%error, "a WebSocket of the demo site was gone before it was closed");
    }
}
