//! Files of the demo site that never change, with the validators a cache needs.

use hyper::{Request, StatusCode, header};

use super::reply::{Reply, full, with};

/// How long a browser may keep a file, in seconds.
const FRESH_SECONDS: u32 = 300;

/// Path, media type and content of every file.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/style.css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
    ("/script.js", "text/javascript; charset=utf-8", include_bytes!("assets/script.js")),
    ("/favicon.ico", "image/svg+xml", include_bytes!("assets/favicon.svg")),
    ("/favicon.svg", "image/svg+xml", include_bytes!("assets/favicon.svg")),
    ("/robots.txt", "text/plain; charset=utf-8", include_bytes!("assets/robots.txt")),
];

/// The file of that path, or 304 when the client has it already (RFC 9110 section 13.1.2).
pub fn find<B>(request: &Request<B>) -> Option<Reply> {
    let (_, media_type, content) = FILES.iter().find(|(path, ..)| *path == request.uri().path())?;
    let hash = blake3::hash(content).to_hex();
    let tag = format!("\"{}\"", hash.get(..16).unwrap_or_default());
    let known = request.headers().get_all(header::IF_NONE_MATCH).into_iter();
    let mut known = known.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let same = known.any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*");
    let reply = match same {
        true => {
            let mut unchanged = full(StatusCode::NOT_MODIFIED, media_type, "");
            unchanged.headers_mut().remove(header::CONTENT_TYPE);
            unchanged
        }
        false => full(StatusCode::OK, media_type, *content),
    };
    let reply = with(reply, header::CACHE_CONTROL, format!("public, max-age={FRESH_SECONDS}"));
    Some(with(reply, header::ETAG, tag))
}
