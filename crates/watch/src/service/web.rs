//! Serves the status page: GET and HEAD only, a handful of paths, everything bounded.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::core::Core;
use crate::page;

/// Connections at a time; whoever comes beyond that waits in the kernel's queue.
const CONNECTIONS: usize = 64;
/// A connection lasts no longer, and its requests' heads no longer than the second.
const CONNECTION: Duration = Duration::from_secs(30);
const HEAD: Duration = Duration::from_secs(5);
/// Largest head, in bytes, and the most fields in it.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;
/// Wait before another try, when a connection could not be accepted or the address not be had.
const PAUSE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(2);
/// Tries after which it is told: whoever had the address may just be leaving.
const PATIENCE: u32 = 2;
/// The page has its style inside and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Serves until it is dropped; an address that is taken is tried again and again.
pub async fn serve(address: SocketAddr, core: Rc<RefCell<Core>>) {
    let mut tries = 0_u32;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                tries = tries.saturating_add(1);
                if tries > PATIENCE {
                    let text = format!("the status page cannot be served at {address}: {error}");
                    core.borrow_mut().page_served(Err(text));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    core.borrow_mut().page_served(Ok(()));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a visitor of the status page could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let core = core.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &core.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                .serve_connection(TokioIo::new(stream), service);
            // How a visitor goes is the visitor's business.
            drop(tokio::time::timeout(CONNECTION, connection).await);
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, core: &Core) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let field = request.headers().get(header::ACCEPT_LANGUAGE);
    let language = field.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let found = core.view(|view| page::answer(request.uri().path(), language, view));
    let Some(found) = found else { return plain(StatusCode::NOT_FOUND, "there is nothing here\n") };
    let mut answer = Response::new(Full::new(Bytes::from(found.body)));
    dress(&mut answer, found.content_type);
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    dress(&mut answer, "text/plain; charset=utf-8");
    answer
}

fn dress(answer: &mut Response<Full<Bytes>>, content_type: &'static str) {
    let fields = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "Accept-Language"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Dashboards in browsers read the JSON; there is nothing here that is not for everybody who can reach it.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
}
