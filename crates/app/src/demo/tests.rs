//! The demo site over real sockets, every route of it.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::streams::{LINE_BYTES, MAX_TRANSFER_BYTES, piece};
use super::{MAX_SOCKETS, notes, serve, sessions};

/// A running demo site; dropping it closes the site.
struct Demo {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<()>>,
}

async fn start() -> Demo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(serve(listener, async {
        stopped.await.ok();
    }));
    Demo { address, stop, running }
}

/// An answer with its whole body.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Demo {
    /// Sends a request on a connection of its own; the body of the answer is still to be read.
    async fn send<B>(&self, request: Request<B>) -> hyper::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    }

    async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(target).header("host", "demo.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {});
        let (parts, body) = self.send(request.body(body).unwrap()).await.unwrap().into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes(), trailers }
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "").await
    }
}

#[tokio::test]
async fn every_page_is_whole() {
    let demo = start().await;
    for (path, status, heading) in [
        ("/", 200, "You are talking to the demo site directly"),
        ("/pictures", 200, "Pictures"),
        ("/notes", 200, "Notes"),
        ("/transfer", 200, "Up and down"),
        ("/trouble", 200, "Trouble"),
        ("/login", 200, "Log in"),
        ("/fail", 500, "The website failed"),
        ("/no-such-page", 404, "There is nothing here"),
    ] {
        let page = demo.get(path).await;
        assert_eq!(page.status, status, "{path}");
        assert_eq!(page.header(header::CONTENT_TYPE), "text/html; charset=utf-8", "{path}");
        assert!(page.text().contains(&format!("<h1>{heading}</h1>")), "{path}");
        assert!(page.text().ends_with("</html>\n") && !page.text().contains("{{"), "{path}");
        for outside in ["src=\"http", "href=\"http", "src=\"//", "@import"] {
            assert!(!page.text().contains(outside), "{path} loads from elsewhere");
        }
        let head = demo.ask("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (page.status, 0), "{path}");
    }
}

#[tokio::test]
async fn every_link_of_the_pages_leads_somewhere() {
    let demo = start().await;
    for page in ["/", "/pictures", "/transfer", "/trouble", "/login"] {
        let page = demo.get(page).await;
        let attributes = page.text().split("=\"").skip(1).filter_map(|rest| rest.split(['"', ' ']).next());
        for link in attributes.filter(|value| value.starts_with('/')) {
            // Answered by Rempart, never, late, or long: each has a test of its own.
            let elsewhere = ["/.rempart/", "/crash", "/cut", "/slow", "/drip", "/events", "/download"];
            if elsewhere.iter().any(|prefix| link.starts_with(prefix)) {
                continue;
            }
            let expected = match link {
                "/fail" => StatusCode::INTERNAL_SERVER_ERROR,
                "/no-such-page" => StatusCode::NOT_FOUND,
                "/account" => StatusCode::SEE_OTHER,
                "/logout" => StatusCode::METHOD_NOT_ALLOWED,
                _ => StatusCode::OK,
            };
            assert_eq!(demo.get(link).await.status, expected, "{link}");
        }
    }
}

#[tokio::test]
async fn the_home_page_shows_what_a_proxy_added() {
    let demo = start().await;
    let added = [
        ("Via", "2.0 rempart"),
        ("X-Forwarded-For", "203.0.113.9, <script>"),
        ("X-Forwarded-Proto", "https"),
        ("User-Agent", "not added"),
    ];
    let page = demo.ask("GET", "/", &added, "").await;
    assert!(page.text().contains("<h1>Rempart stands in front of this page</h1>"));
    assert!(page.text().contains("<dt>via</dt><dd>2.0 rempart</dd>"));
    assert!(page.text().contains("<dd>203.0.113.9, &lt;script&gt;</dd>"));
    assert!(page.text().contains("https://demo.example/crash"));
    assert!(!page.text().contains("not added"));

    let seen = demo.ask("PATCH", "/headers?a=b", &added, "").await.json();
    assert_eq!((&seen["method"], &seen["target"]), (&json!("PATCH"), &json!("/headers?a=b")));
    let fields = seen["headers"].as_array().unwrap();
    assert!(fields.contains(&json!({ "added": true, "name": "via", "value": "2.0 rempart" })));
    assert!(fields.contains(&json!({ "added": false, "name": "user-agent", "value": "not added" })));
}

#[tokio::test]
async fn files_have_validators() {
    let demo = start().await;
    for (path, media_type) in [
        ("/style.css", "text/css; charset=utf-8"),
        ("/script.js", "text/javascript; charset=utf-8"),
        ("/favicon.ico", "image/svg+xml"),
        ("/robots.txt", "text/plain; charset=utf-8"),
    ] {
        let file = demo.get(path).await;
        assert_eq!((file.status, file.header(header::CONTENT_TYPE)), (StatusCode::OK, media_type), "{path}");
        assert!(!file.body.is_empty());
        let tag = file.header(header::ETAG);
        let again = demo.ask("GET", path, &[("if-none-match", &format!("\"other\", W/{tag}"))], "").await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(again.header(header::ETAG), tag);
        assert_eq!(demo.ask("GET", path, &[("if-none-match", "\"other\"")], "").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn pictures_come_in_sizes() {
    let demo = start().await;
    let small = demo.get("/picture.png?width=64").await;
    let large = demo.get("/picture.png?width=640").await;
    assert_eq!(small.header(header::CONTENT_TYPE), "image/png");
    assert_eq!(&small.body[16..24], [0, 0, 0, 64, 0, 0, 0, 40], "width and height");
    assert!(large.body.len() > 640 * 400);
    let widest = demo.get("/picture.png?width=99999999").await;
    assert_eq!(&widest.body[16..20], 1600u32.to_be_bytes(), "held at the largest size");
    let svg = demo.get("/picture.svg?seed=3").await;
    assert_eq!(svg.header(header::CONTENT_TYPE), "image/svg+xml");
    assert!(svg.text().starts_with("<svg ") && svg.text().ends_with("</svg>\n"));
}

#[tokio::test]
async fn logging_in_and_out() {
    let demo = start().await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(demo.get("/account").await.header(header::LOCATION), "/login");

    let refused = demo.ask("POST", "/login", &[form], "name=demo&password=wrong").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text().contains("role=\"alert\"") && !refused.headers.contains_key(header::SET_COOKIE));

    let fields = format!("name={}&password={}", sessions::NAME, sessions::PASSWORD);
    let secure = ("x-forwarded-proto", "https");
    let accepted = demo.ask("POST", "/login", &[form, secure], &fields).await;
    assert_eq!((accepted.status, accepted.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/account"));
    let cookie = accepted.header(header::SET_COOKIE);
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
    let cookie = format!("other=1; {}", cookie.split(';').next().unwrap());

    let account = demo.ask("GET", "/account", &[("cookie", &cookie)], "").await;
    assert!(account.text().contains("Welcome, demo"));
    assert_eq!(demo.ask("GET", "/account", &[("cookie", "demo_session=0")], "").await.status, 303);

    let out = demo.ask("POST", "/logout", &[("cookie", &cookie)], "").await;
    assert!(out.header(header::SET_COOKIE).contains("Max-Age=0"));
    assert_eq!(
        demo.ask("GET", "/account", &[("cookie", &cookie)], "").await.status,
        303,
        "the session is over"
    );

    let odd = demo.ask("POST", "/login", &[("content-type", "text/plain")], &fields).await;
    assert_eq!(odd.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let huge = demo.ask("POST", "/login", &[form], &"x".repeat(20_000)).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn notes_are_written_read_changed_and_deleted() {
    let demo = start().await;
    let json_type = ("content-type", "application/json; charset=utf-8");
    let written = demo.ask("POST", notes::ROOT, &[json_type], r#"{"text":"first"}"#).await;
    assert_eq!((written.status, written.header(header::LOCATION)), (StatusCode::CREATED, "/api/notes/1"));
    assert_eq!(demo.get("/api/notes/1").await.json()["text"], "first");
    let changed = demo.ask("PUT", "/api/notes/1", &[json_type], r#"{"text":"changed"}"#).await;
    assert_eq!((changed.status, &changed.json()["text"]), (StatusCode::OK, &json!("changed")));
    assert_eq!(demo.get(notes::ROOT).await.json()["notes"][0]["text"], "changed");
    let gone = demo.ask("DELETE", "/api/notes/1", &[], "").await;
    assert_eq!((gone.status, gone.body.len()), (StatusCode::NO_CONTENT, 0));
    assert!(!gone.headers.contains_key(header::CONTENT_TYPE));

    for (method, target, headers, body, status) in [
        ("GET", "/api/notes/1", &[][..], "", 404),
        ("DELETE", "/api/notes/1", &[], "", 404),
        ("PUT", "/api/notes/1", &[json_type], r#"{"text":"x"}"#, 404),
        ("GET", "/api/notes/one", &[], "", 404),
        ("PATCH", "/api/notes/1", &[], "", 405),
        ("DELETE", "/api/notes", &[], "", 405),
        ("POST", "/api/notes", &[], "{}", 415),
        ("POST", "/api/notes", &[json_type], "{}", 422),
        ("POST", "/api/notes", &[json_type], "not json", 422),
        ("POST", "/api/notes", &[json_type], &format!(r#"{{"text":"{}"}}"#, "x".repeat(2001)), 422),
        ("POST", "/api/notes", &[json_type], &"x".repeat(20_000), 413),
    ] {
        let answer = demo.ask(method, target, headers, body).await;
        assert_eq!(answer.status, status, "{method} {target} {:.40}", body);
    }
    for number in 0..100 {
        let body = format!(r#"{{"text":"{number}"}}"#);
        assert_eq!(demo.ask("POST", notes::ROOT, &[json_type], &body).await.status, StatusCode::CREATED);
    }
    let full = demo.ask("POST", notes::ROOT, &[json_type], r#"{"text":"one more"}"#).await;
    assert_eq!(full.status, StatusCode::CONFLICT, "the notes are bounded");
}

#[tokio::test]
async fn methods_and_addresses_that_do_not_fit_are_refused() {
    let demo = start().await;
    for (method, path, allowed) in [
        ("DELETE", "/pictures", "GET, HEAD"),
        ("POST", "/style.css", "GET, HEAD"),
        ("GET", "/logout", "POST"),
        ("GET", "/upload", "POST, PUT"),
        ("DELETE", "/login", "GET, HEAD, POST"),
        ("POST", "/ws", "GET"),
    ] {
        let answer = demo.ask(method, path, &[], "").await;
        assert_eq!(
            (answer.status, answer.header(header::ALLOW)),
            (StatusCode::METHOD_NOT_ALLOWED, allowed),
            "{path}"
        );
    }
    assert_eq!(demo.ask("POST", "/nowhere", &[], "").await.status, StatusCode::NOT_FOUND);
    let socket = demo.get("/ws").await;
    assert_eq!((socket.status, socket.header(header::UPGRADE)), (StatusCode::UPGRADE_REQUIRED, "websocket"));
}

#[tokio::test]
async fn a_websocket_echoes_text_and_bytes() {
    let demo = start().await;
    let stream = TcpStream::connect(demo.address).await.unwrap();
    let (mut socket, answer) =
        tokio_tungstenite::client_async(format!("ws://{}/ws", demo.address), stream).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    for message in [Message::text("hello"), Message::binary(vec![0u8; 100_000]), Message::text("")] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    demo.stop.send(()).unwrap();
    demo.running.await.unwrap().unwrap();
    let last = socket.next().await;
    assert!(matches!(&last, Some(Ok(Message::Close(_)))), "the site says goodbye when it closes: {last:?}");
}

#[tokio::test]
async fn websockets_are_bounded() {
    let demo = start().await;
    let mut open = Vec::new();
    for _ in 0..MAX_SOCKETS {
        let stream = TcpStream::connect(demo.address).await.unwrap();
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://{}/ws", demo.address), stream).await.unwrap();
        open.push(socket);
    }
    let stream = TcpStream::connect(demo.address).await.unwrap();
    let refused = tokio_tungstenite::client_async(format!("ws://{}/ws", demo.address), stream).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else { panic!("one too many") };
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn events_are_numbered_and_go_on_where_they_were() {
    let demo = start().await;
    for (last_seen, first) in [(None, "id: 1\n"), (Some("41"), "id: 42\n"), (Some("nonsense"), "id: 1\n")] {
        let mut request = Request::get("/events").header("host", "demo.example");
        if let Some(last_seen) = last_seen {
            request = request.header("last-event-id", last_seen);
        }
        let body = Full::new(Bytes::new()).map_err(|never| match never {});
        let answer = demo.send(request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        let frame = answer.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        let event = String::from_utf8(frame.to_vec()).unwrap();
        assert!(event.starts_with(&format!("retry: 1000\n{first}event: tick\ndata: {{")), "{event}");
        assert!(event.ends_with("}\n\n"));
    }
}

#[tokio::test]
async fn the_next_event_follows_by_itself() {
    let demo = start().await;
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let request = Request::get("/events").header("host", "demo.example").body(body).unwrap();
    let mut events = demo.send(request).await.unwrap().into_body();
    for id in 1..=2 {
        let event = events.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(String::from_utf8_lossy(&event).contains(&format!("id: {id}\n")));
    }
}

#[tokio::test]
async fn slow_and_dripping_pages_arrive_whole() {
    let demo = start().await;
    assert!(demo.get("/slow?seconds=0").await.text().starts_with("The website took 0 s"));
    assert_eq!(demo.get("/drip?seconds=1").await.text(), "drip 0 of 1\ndrip 1 of 1\n");
    assert_eq!(demo.get("/drip?seconds=0").await.text(), "drip 0 of 0\n");
}

#[tokio::test]
async fn downloads_and_their_ranges() {
    let demo = start().await;
    let whole = demo.get("/download?bytes=200001").await;
    assert_eq!(whole.body, piece(0, 200_001));
    assert_eq!(whole.header(header::CONTENT_LENGTH), "200001");
    let tag = whole.header(header::ETAG);
    for (range, if_range, status, content_range, expected) in [
        ("bytes=64-127", None, 206, "bytes 64-127/200001", piece(64, 128)),
        ("bytes=-1", None, 206, "bytes 200000-200000/200001", piece(200_000, 200_001)),
        ("bytes=199990-", Some(tag), 206, "bytes 199990-200000/200001", piece(199_990, 200_001)),
        ("bytes=0-9", Some("\"other\""), 200, "", whole.body.clone()),
        ("bytes=0-1,4-5", None, 200, "", whole.body.clone()),
    ] {
        let mut headers = vec![("range", range)];
        headers.extend(if_range.map(|tag| ("if-range", tag)));
        let answer = demo.ask("GET", "/download?bytes=200001", &headers, "").await;
        assert_eq!((answer.status.as_u16(), answer.header(header::CONTENT_RANGE)), (status, content_range));
        assert_eq!(answer.body, expected, "{range}");
    }
    let beyond = demo.ask("GET", "/download?bytes=10", &[("range", "bytes=10-")], "").await;
    assert_eq!((beyond.status.as_u16(), beyond.header(header::CONTENT_RANGE)), (416, "bytes */10"));
    assert_eq!(demo.get("/download?bytes=0").await.body.len(), 0);

    let last = format!("bytes=-{LINE_BYTES}");
    let end = demo.ask("GET", "/download?bytes=99999999999", &[("range", &last)], "").await;
    assert_eq!(end.body, piece(MAX_TRANSFER_BYTES - LINE_BYTES, MAX_TRANSFER_BYTES), "held at 4 GiB");
}

#[tokio::test]
async fn uploads_are_counted_and_hashed() {
    let demo = start().await;
    let hash = blake3::hash(b"some content").to_hex().to_string();
    let counted = demo.ask("PUT", "/upload", &[], "some content").await.json();
    let expected = json!({ "bytes": 12, "blake3": hash, "framing": "content-length", "trailers": 0 });
    assert_eq!(counted, expected);

    let mut trailers = HeaderMap::new();
    trailers.insert("digest", "x".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from("some "))),
        Ok(Frame::data(Bytes::from("content"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request =
        Request::post("/upload").header("host", "demo.example").header("trailer", "digest").body(body);
    let answer = demo.send(request.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let counted: Value = serde_json::from_slice(&answer).unwrap();
    let expected = json!({ "bytes": 12, "blake3": hash, "framing": "chunked", "trailers": 1 });
    assert_eq!(counted, expected);
}

#[tokio::test]
async fn an_upload_that_expects_continue_is_told_to() {
    let demo = start().await;
    let mut stream = TcpStream::connect(demo.address).await.unwrap();
    let head = "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"bytes\": 2"));
}

#[tokio::test]
async fn trailers_follow_for_those_who_take_them() {
    let demo = start().await;
    let with = demo.ask("GET", "/trailers", &[("te", "trailers")], "").await;
    assert_eq!(with.text(), "first line\nsecond line\nthird line\n");
    let trailers = with.trailers.unwrap();
    assert_eq!(trailers["demo-lines"], "3");
    assert_eq!(trailers["demo-blake3"], blake3::hash(&with.body).to_hex().as_str());
    let without = demo.get("/trailers").await;
    assert_eq!((without.body, without.trailers), (with.body, None));
}

#[tokio::test]
async fn a_crash_gives_no_answer_and_a_cut_half_of_one() {
    let demo = start().await;
    for (path, status_line) in [("/crash", ""), ("/cut", "HTTP/1.1 200 OK")] {
        let mut stream = TcpStream::connect(demo.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.lines().next().unwrap_or_default(), status_line, "{path}");
        assert!(answer.len() < 1000, "{path}");
    }
    assert_eq!(demo.get("/").await.status, StatusCode::OK, "the site itself is still there");
}

#[tokio::test]
async fn the_site_closes_when_told_to() {
    let demo = start().await;
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let request = Request::get("/events").header("host", "demo.example").body(body).unwrap();
    let mut events = demo.send(request).await.unwrap().into_body();
    events.frame().await.unwrap().unwrap();
    demo.stop.send(()).unwrap();
    demo.running.await.unwrap().unwrap();
    while let Some(Ok(_)) = events.frame().await {}
    assert!(TcpStream::connect(demo.address).await.is_err(), "nobody listens any more");
}

/// Serves the site for a person to look at: `REMPART_DEMO=127.0.0.1:8888 cargo test -p app served -- --ignored`.
#[tokio::test]
#[ignore = "serves until it is interrupted"]
async fn served_for_a_person() {
    let listener = TcpListener::bind(std::env::var("REMPART_DEMO").unwrap()).await.unwrap();
    serve(listener, std::future::pending()).await.unwrap();
}
