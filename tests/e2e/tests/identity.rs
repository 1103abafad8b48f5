//! Who asked, by which way, and what is told about it: forwarding fields, loops, compatibility, trace, log, metrics.

use std::fs;
use std::time::{Duration, Instant};

use harness::client::{self, Response};
use harness::config::Config;
use harness::origin::{Origin, Reply, Seen};
use harness::rempart::{Place, Rempart};
use harness::{PATIENCE, ports};
use serde_json::Value;

const HOST: &str = "shop.test";

fn fine() -> Origin {
    Origin::answering(|_| Reply::text(200, "fine"))
}

fn with(top: &str, origin: &Origin, site: &str) -> Rempart {
    let config = Config::empty().raw(top).raw("[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\"");
    Rempart::with(&config.listeners().site("shop", &[HOST]).raw(site).origin(origin.url()))
}

/// Sends a GET with these lines and answers what the origin saw of it.
fn ask(rempart: &Rempart, origin: &Origin, lines: &str) -> (Response, Seen) {
    origin.forget();
    let response =
        rempart.client().exchange(format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n")).unwrap();
    assert_eq!(response.status, 200, "{lines}: {}", response.text());
    (response, origin.wait_for(1).remove(0))
}

fn field(seen: &Seen, name: &str) -> Option<String> {
    assert!(seen.head.all(name).len() <= 1, "{name} more than once: {seen:?}");
    seen.head.text(name)
}

#[test]
fn the_origin_learns_who_asked_and_how() {
    let origin = fine();
    let rempart = with("via = \"edge-a\"", &origin, "");
    let (response, seen) = ask(&rempart, &origin, "");
    let id = response.head.text("rempart-request-id").unwrap();
    assert_eq!(field(&seen, "x-request-id").as_deref(), Some(id.as_str()));
    assert_eq!(field(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(field(&seen, "x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(field(&seen, "x-forwarded-host").as_deref(), Some(HOST));
    assert_eq!(field(&seen, "forwarded").as_deref(), Some(&*format!("for=127.0.0.1;proto=http;host={HOST}")));
    assert_eq!(field(&seen, "via").as_deref(), Some("1.1 edge-a"));
    assert_eq!(field(&seen, "cdn-loop").as_deref(), Some("edge-a"));
    assert_eq!(field(&seen, "host").as_deref(), Some(HOST));
    origin.forget();
    rempart.http2(HOST).get(HOST, "/").unwrap();
    let seen = origin.wait_for(1).remove(0);
    assert_eq!(field(&seen, "x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(field(&seen, "via").as_deref(), Some("2 edge-a"));
    let (_, seen) = ask(&rempart, &origin, "X-Request-Id: mine\r\n");
    assert_eq!(field(&seen, "x-request-id").as_deref(), Some("mine"), "an id the client has is kept");
}

const CLAIMS: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: real.test\r\n\
                      CF-Connecting-IP: 203.0.113.10\r\nX-Real-IP: 203.0.113.11\r\nTrue-Client-IP: 203.0.113.12\r\n";

#[test]
fn a_stranger_claims_in_vain_to_be_a_proxy() {
    let origin = fine();
    let rempart = with("", &origin, "");
    for claims in [CLAIMS, "Forwarded: for=203.0.113.9;proto=https;host=real.test\r\n"] {
        let (_, seen) = ask(&rempart, &origin, claims);
        assert_eq!(field(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(field(&seen, "x-forwarded-proto").as_deref(), Some("http"));
        let head = format!("{:?}", harness::wire::readable(&seen.head.fields));
        assert!(!head.contains("203.0.113.") && !head.contains("real.test"), "a claim got through: {head}");
    }
}

#[test]
fn a_trusted_proxy_is_believed_but_not_the_visitor_behind_it() {
    let origin = fine();
    let rempart = with("[trust]\nproxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]", &origin, "");
    let (_, seen) = ask(
        &rempart,
        &origin,
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3\r\nX-Forwarded-Proto: https\r\n",
    );
    let chain = field(&seen, "x-forwarded-for").unwrap();
    assert!(chain.ends_with("203.0.113.9, 10.1.2.3, 127.0.0.1"), "{chain}");
    assert_eq!(field(&seen, "x-forwarded-proto").as_deref(), Some("https"));
    let trace = trace(&rempart, "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3\r\n");
    assert!(trace.lines().any(|line| line == "ip=203.0.113.9"), "{trace}");
}

fn trace(rempart: &Rempart, lines: &str) -> String {
    let request = format!("GET /.rempart/trace HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n");
    let response = rempart.client().exchange(request).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

#[test]
fn the_trace_answers_without_the_origin() {
    let origin = fine();
    let rempart = with("", &origin, "");
    let text = trace(&rempart, "User-Agent: tester/1\r\n");
    assert!(text.lines().all(|line| line.contains('=')), "{text}");
    assert!(text.lines().any(|line| line == "ip=127.0.0.1"), "{text}");
    let over_h2 = rempart.http2(HOST).get(HOST, "/.rempart/trace").unwrap();
    assert!(String::from_utf8_lossy(&over_h2.body).contains("h2"), "{over_h2:?}");
    assert!(origin.seen().is_empty());
}

#[test]
fn a_request_that_comes_back_is_refused_with_508() {
    let origin = fine();
    let rempart = with("via = \"edge-a\"", &origin, "");
    for value in ["edge-a", "other, Edge-A", "other;v=1, edge-a;x=y"] {
        let response =
            rempart.client().exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCDN-Loop: {value}\r\n\r\n"));
        assert_eq!(response.unwrap().status, 508, "{value}");
    }
    assert!(origin.seen().is_empty());
    let (_, seen) = ask(&rempart, &origin, "CDN-Loop: other\r\nVia: 1.1 other\r\n");
    assert_eq!(field(&seen, "cdn-loop").as_deref(), Some("other, edge-a"));
    assert_eq!(field(&seen, "via").as_deref(), Some("1.1 other, 1.1 edge-a"));
}

/// Two installations that point at each other: the request goes round once and is then refused.
#[test]
fn a_loop_over_two_installations_ends() {
    let (a, b) = (ports::free(), ports::free());
    let half = |name: &str, own: u16, other: u16| {
        let config = Config::empty()
            .raw(&format!("via = \"{name}\"\n[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\""));
        let config = config.listen(&format!("127.0.0.1:{own}"), false).site("loop", &["*"]);
        Rempart::with(&config.origin(format!("http://127.0.0.1:{other}")))
    };
    let (one, two) = (half("one", a, b), half("two", b, a));
    assert_eq!(client::get(one.plain(), HOST, "/").unwrap().status, 508);
    assert!(one.status().requests <= 2 && two.status().requests <= 2, "it went round more than once");
}

#[test]
fn nobodys_host_is_refused_with_421() {
    let origin = fine();
    let rempart = with("", &origin, "");
    assert_eq!(client::get(rempart.plain(), "nobody.test", "/").unwrap().status, 421);
    assert_eq!(
        client::get(rempart.plain(), "SHOP.test:1234", "/").unwrap().status,
        200,
        "case and port do not matter"
    );
    assert!(rempart.http2(HOST).get("nobody.test", "/").is_ok_and(|answer| answer.status == 421));
}

#[test]
fn cloudflare_names_are_spoken_where_asked_for() {
    let origin = fine();
    let rempart = with("", &origin, "compatibility = \"cloudflare\"");
    let (response, seen) = ask(&rempart, &origin, CLAIMS);
    assert_eq!(field(&seen, "cf-connecting-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(field(&seen, "cf-visitor").as_deref(), Some("{\"scheme\":\"http\"}"));
    let ray = field(&seen, "cf-ray").unwrap();
    assert!(ray.len() == 20 && ray[..16].bytes().all(|byte| byte.is_ascii_hexdigit()), "{ray}");
    assert_eq!(response.head.text("cf-ray").as_deref(), Some(ray.as_str()), "the visitor sees the same ray");
    assert_eq!(field(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    let trace = client::get(rempart.plain(), HOST, "/cdn-cgi/trace").unwrap();
    assert!(trace.status == 200 && trace.text().contains("ip=127.0.0.1"), "{}", trace.text());
    let neutral = with("", &origin, "");
    let (response, seen) = ask(&neutral, &origin, "");
    assert!(field(&seen, "cf-ray").is_none() && response.head.text("cf-ray").is_none());
}

/// Waits for a line of a file that passes.
fn line_of(place: &Place, name: &str, passes: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(place.path(name)).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parsed = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
        if let Some(found) = parsed.filter(|line: &Value| passes(line)).last() {
            return found;
        }
        assert!(Instant::now() < deadline, "no such line in:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_access_log_tells_each_request_and_keeps_nobodys_address() {
    let origin = fine();
    let config = Config::empty()
        .raw("[metrics]\nlisten = \"off\"\n[log.access]\nto = { file = \"access.log\" }\n[trust]\nproxies = [\"127.0.0.1\"]")
        .listeners()
        .site("shop", &[HOST])
        .origin(origin.url());
    let rempart = Rempart::with(&config);
    let request = format!(
        "POST /buy?x=1 HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 203.0.113.77\r\nUser-Agent: test\"er\\1\r\n\
         Referer: https://from.test/page?secret=1\r\nContent-Length: 4\r\n\r\nbody"
    );
    let response = rempart.client().exchange(request).unwrap();
    let id = response.head.text("rempart-request-id").unwrap();
    let line = line_of(rempart.place(), "access.log", |line| line["id"] == id.as_str());
    for (key, expected) in [
        ("client", "203.0.113.0"),
        ("protocol", "http/1.1"),
        ("method", "POST"),
        ("host", HOST),
        ("target", "/buy?x=1"),
        ("site", "shop"),
        ("origin", &origin.url()),
        ("completion", "complete"),
        ("user_agent", "test\"er\\1"),
        ("referer", "https://from.test/page"),
    ] {
        assert_eq!(line[key], expected, "{key}: {line}");
    }
    for (key, expected) in
        [("status", 200), ("bytes_in", 4), ("bytes_out", 4), ("attempts", 1), ("weight", 1)]
    {
        assert_eq!(line[key], expected, "{key}: {line}");
    }
    rempart.http2(HOST).get(HOST, "/over-h2").unwrap();
    let line = line_of(rempart.place(), "access.log", |line| line["target"] == "/over-h2");
    assert_eq!(
        (&line["protocol"], &line["tls"], &line["client"]),
        (&"h2".into(), &true.into(), &"127.0.0.0".into())
    );
    client::get(rempart.plain(), "nobody.test", "/lost").unwrap();
    let line = line_of(rempart.place(), "access.log", |line| line["target"] == "/lost");
    assert_eq!(
        (&line["status"], &line["fault"], &line["site"]),
        (&421.into(), &"visitor".into(), &Value::Null)
    );
    let text = fs::read_to_string(rempart.place().path("access.log")).unwrap();
    assert!(!text.contains("203.0.113.77") && !text.contains("secret"), "{text}");
}

#[test]
fn metrics_and_health_are_told_on_a_loopback_listener_that_changes_nothing() {
    let origin = fine();
    let config = Config::empty().raw("[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"");
    let rempart = Rempart::with(&config.listeners().site("shop", &[HOST]).origin(origin.url()));
    for _ in 0..3 {
        rempart.client().get(HOST, "/").unwrap();
    }
    // A request is counted when its end is known, a moment after the client has its answer.
    let deadline = Instant::now() + PATIENCE;
    let counted = |text: &str| {
        let line =
            text.lines().find(|line| line.starts_with("rempart_requests_total{") && line.contains("\"200\""));
        line.is_some_and(|line| line.contains("site=\"shop\"") && line.ends_with(" 3"))
    };
    let metrics = loop {
        let metrics = client::get(rempart.metrics(), "localhost", "/metrics").unwrap();
        if counted(&metrics.text()) {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{}", metrics.text());
    };
    let text = metrics.text();
    assert!(metrics.head.text("content-type").unwrap().starts_with("text/plain"), "{metrics:?}");
    assert!(text.contains("rempart_generation"), "{text}");
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(client::get(rempart.metrics(), "localhost", path).unwrap().status, 200, "{path}");
    }
    let mut client = client::Client::plain(rempart.metrics()).unwrap();
    let posted =
        client.exchange("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!((400..500).contains(&posted.status), "{posted:?}");
}
