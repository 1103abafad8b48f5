//! An HTTP/2 client over TLS with blocking calls, for tests that are otherwise plain threads.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::runtime::{Builder, Runtime};

use crate::PATIENCE;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Fields; the order between different names is lost.
    pub fields: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
    /// Trailer fields, if any.
    pub trailers: Option<HeaderMap>,
}

/// Why an exchange failed, in words.
pub type Failure = String;

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct Http2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
}

impl Http2 {
    /// Connects; fails unless TLS negotiates `h2`.
    pub fn connect(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(words)?;
        let name = ServerName::try_from(name.to_owned()).map_err(words)?;
        let send = within(&runtime, async {
            let socket = tokio::net::TcpStream::connect(address).await.map_err(words)?;
            socket.set_nodelay(true).map_err(words)?;
            let stream =
                tokio_rustls::TlsConnector::from(config).connect(name, socket).await.map_err(words)?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err("h2 was not negotiated".into());
            }
            let (send, connection) = h2::client::Builder::new().handshake(stream).await.map_err(words)?;
            tokio::spawn(connection);
            Ok(send)
        })?;
        Ok(Self { runtime, send })
    }

    /// Sends a request with its body and reads the whole answer.
    pub fn exchange(
        &mut self,
        request: Request<()>,
        body: Vec<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, Failure> {
        let send = self.send.clone();
        within(&self.runtime, async move {
            let mut send = send.ready().await.map_err(words)?;
            let ends = body.is_empty() && trailers.is_none();
            let (answer, mut stream) = send.send_request(request, ends).map_err(words)?;
            if !ends {
                let last = body.len().saturating_sub(1);
                for (i, piece) in body.into_iter().enumerate() {
                    stream.send_data(piece, i == last && trailers.is_none()).map_err(words)?;
                }
                if let Some(trailers) = trailers {
                    stream.send_trailers(trailers).map_err(words)?;
                }
            }
            collect(answer.await.map_err(words)?).await
        })
    }

    /// GET of a path.
    pub fn get(&mut self, host: &str, path: &str) -> Result<Answer, Failure> {
        let request = Request::get(format!("https://{host}{path}")).body(()).map_err(words)?;
        self.exchange(request, Vec::new(), None)
    }

    /// Asks for a path, waits until `enough`, and closes the connection without an answer.
    pub fn ask_and_leave(self, host: &str, path: &str, enough: impl Fn() -> bool) -> Result<(), Failure> {
        let request = Request::get(format!("https://{host}{path}")).body(()).map_err(words)?;
        let send = self.send.clone();
        within(&self.runtime, async move {
            let mut send = send.ready().await.map_err(words)?;
            let _asked = send.send_request(request, true).map_err(words)?;
            while !enough() {
                // Whoever is asked announces nothing.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
    }

    /// GET of a path whose answer, a 200, is taken piece by piece for as long as it lasts.
    pub fn download(&self, host: &str, path: &str, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
        let request = Request::get(format!("https://{host}{path}")).body(()).map_err(words)?;
        let send = self.send.clone();
        self.runtime.block_on(async move {
            let mut send = send.ready().await.map_err(words)?;
            let (answer, _) = send.send_request(request, true).map_err(words)?;
            let (head, mut stream) = answer.await.map_err(words)?.into_parts();
            if head.status != 200 {
                return Err(format!("status {}", head.status));
            }
            while let Ok(Some(piece)) = tokio::time::timeout(PATIENCE, stream.data()).await {
                let piece = piece.map_err(words)?;
                take(&piece);
                stream.flow_control().release_capacity(piece.len()).map_err(words)?;
            }
            if stream.is_end_stream() { Ok(()) } else { Err("the stream stands still".into()) }
        })
    }
}

async fn collect(response: Response<h2::RecvStream>) -> Result<Answer, Failure> {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(words)?;
        body.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len()).map_err(words)?;
    }
    let trailers = stream.trailers().await.map_err(words)?;
    Ok(Answer { status: parts.status.as_u16(), fields: parts.headers, body, trailers })
}

fn within<T>(runtime: &Runtime, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("no answer in time".into()))
    })
}

fn words(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}
