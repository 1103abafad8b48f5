//! The demo site: an ordinary HTTP/1.1 website, made with hyper, for Rempart to stand in front of.

mod assets;
mod forms;
mod notes;
mod pages;
mod pictures;
mod reply;
mod sessions;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod tour;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use self::notes::Notes;
use self::reply::Reply;
use self::sessions::Sessions;
pub use self::tour::tour;

/// Connections open at the same time; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;
/// WebSockets open at the same time; further ones are answered with 503.
const MAX_SOCKETS: usize = 256;
/// Time for a request head, which is also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept, so that a machine out of file descriptors is not also out of processor time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
struct Site {
    notes: Mutex<Notes>,
    sessions: Mutex<Sessions>,
    /// Room for WebSockets, which live on after the connection they came on is done.
    sockets: Arc<Semaphore>,
    /// Its other end is dropped when the site closes; what has no end of its own ends then.
    open: watch::Receiver<()>,
}

/// Serves the demo until `shutdown`; connections still open then are closed.
///
/// Needs a tokio runtime with IO and time. Fails only if the listener has no address.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::debug!(%address, "the demo site is open");
    let (_closing, open) = watch::channel(());
    let site = Arc::new(Site {
        notes: Mutex::default(),
        sessions: Mutex::default(),
        sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
        open,
    });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let site = site.clone();
                connections.spawn(async move {
                    converse(stream, site).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the demo site could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// One connection, from its first request to its last.
async fn converse(stream: TcpStream, site: Arc<Site>) {
    let service = service_fn(|request| answer(request, site.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the demo site ended early");
    }
}

/// The website has crashed: the connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the demo site was asked to crash")]
struct Crash;

/// One request: the whole site at a glance.
async fn answer(request: Request<Incoming>, site: Arc<Site>) -> Result<Reply, Crash> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    let reply = match path.as_str() {
        "/" if reads => pages::home(&request),
        "/pictures" if reads => pages::pictures(),
        "/notes" if reads => pages::notes(&request),
        "/transfer" if reads => pages::transfer(),
        "/trouble" if reads => pages::trouble(),

        "/login" if reads => pages::login(StatusCode::OK),
        "/login" if method == Method::POST => sessions::login(request, &site).await,
        "/account" if reads => sessions::account(&request, &site),
        "/logout" if method == Method::POST => sessions::logout(&request, &site),

        "/picture.svg" if reads => pictures::svg(&request),
        "/picture.png" if reads => pictures::png(&request),

        "/ws" if method == Method::GET => socket::upgrade(request, &site),
        "/events" if reads => streams::events(&request, &site),
        "/slow" if reads => streams::slow(&request).await,
        "/drip" if reads => streams::drip(&request),
        "/download" if reads => streams::download(&request),
        "/upload" if method == Method::POST || method == Method::PUT => streams::upload(request).await,
        "/trailers" if reads => streams::trailers(),
        "/headers" => pages::headers(&request),

        "/fail" => pages::failed(),
        "/crash" => return Err(Crash),
        "/cut" if reads => streams::cut(),

        _ if path == notes::ROOT || path.starts_with(notes::PREFIX) => notes::answer(request, &site).await,
        _ => match (assets::find(&request), allowed_methods(&path)) {
            (Some(file), _) if reads => file,
            (Some(_), _) => reply::method_not_allowed("GET, HEAD"),
            (None, Some(allowed)) => reply::method_not_allowed(allowed),
            (None, None) => pages::not_found(&path),
        },
    };
    Ok(reply)
}

/// What an address answers to that exists, but not for the method it was asked with.
fn allowed_methods(path: &str) -> Option<&'static str> {
    match path {
        "/login" => Some("GET, HEAD, POST"),
        "/logout" => Some("POST"),
        "/upload" => Some("POST, PUT"),
        "/ws" => Some("GET"),
        "/" | "/pictures" | "/notes" | "/transfer" | "/trouble" | "/account" | "/picture.svg"
        | "/picture.png" | "/events" | "/slow" | "/drip" | "/download" | "/trailers" | "/cut" => {
            Some("GET, HEAD")
        }
        _ => None,
    }
}
