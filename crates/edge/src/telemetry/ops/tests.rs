//! The loopback listener asked over plain TCP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as Client;

use super::*;

struct Fixture {
    ops: Ops,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Fixture {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (metrics, health) = (Arc::new(Metrics::new(1, Arc::default())), Arc::new(Health::default()));
        let ops = serve(listener, metrics.clone(), health.clone()).unwrap();
        Self { ops, metrics, health }
    }

    fn exchange(&self, request: &[u8]) -> String {
        let mut client = Client::connect(self.ops.address()).unwrap();
        client.write_all(request).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Status line, head and body.
    fn ask(&self, method: &str, path: &str, host: &str) -> (String, String, String) {
        let answer = self.exchange(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, fields) = head.split_once("\r\n").unwrap();
        (status.to_owned(), fields.to_owned(), body.to_owned())
    }
}

#[test]
fn metrics_are_served_to_get_and_head() {
    let fixture = Fixture::new();
    fixture.metrics.register_shard().connection_speaks(base::event::Protocol::Http11, false);
    let (status, fields, body) = fixture.ask("GET", "/metrics", "127.0.0.1");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(fields.contains("Content-Type: text/plain; version=0.0.4"), "{fields}");
    assert!(
        fields.contains(&format!("Content-Length: {}", body.len())) && fields.contains("Connection: close")
    );
    assert!(body.contains("\nrempart_connections_total{protocol=\"http/1.1\",tls=\"false\"} 1\n"), "{body}");

    let (status, fields, body) = fixture.ask("HEAD", "/metrics?a=b", "localhost:9");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
    assert!(!fields.contains("Content-Length: 0"), "the length that GET would have: {fields}");
}

#[test]
fn health_follows_the_life_of_the_process() {
    let fixture = Fixture::new();
    let ready = || {
        let (status, fields, body) = fixture.ask("GET", "/health/ready", "localhost");
        assert!(fields.contains("application/json"));
        (
            status.split(' ').nth(1).unwrap().to_owned(),
            serde_json::from_str::<serde_json::Value>(&body).unwrap(),
        )
    };
    assert_eq!(ready(), ("503".to_owned(), serde_json::json!({"status": "starting"})));
    fixture.health.activate(1);
    fixture.health.activate(2);
    assert!(fixture.health.is_ready());
    assert_eq!(ready(), ("200".to_owned(), serde_json::json!({"status": "ready", "generation": 2})));
    fixture.health.drain();
    fixture.health.activate(3);
    assert!(!fixture.health.is_ready());
    assert_eq!(ready(), ("503".to_owned(), serde_json::json!({"status": "draining"})));
    let (status, _, body) = fixture.ask("GET", "/health/live", "localhost");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", r#"{"status":"live"}"#));
}

#[test]
fn everything_else_is_refused() {
    let fixture = Fixture::new();
    for (method, path, host, expected) in [
        ("POST", "/metrics", "localhost", "405"),
        ("DELETE", "/health/live", "localhost", "405"),
        ("GET", "/", "localhost", "404"),
        ("GET", "/metrics/", "localhost", "404"),
        ("POST", "/admin", "localhost", "404"),
        ("GET", "/metrics", "rebound.example.org", "421"),
        ("GET", "http://localhost/metrics", "localhost", "400"),
    ] {
        let (status, fields, body) = fixture.ask(method, path, host);
        assert_eq!(status.split(' ').nth(1), Some(expected), "{method} {path} {host}");
        assert_eq!(fields.contains("Allow: GET, HEAD"), expected == "405");
        assert!(!body.contains("rempart_"), "{body}");
    }
    assert!(fixture.exchange(b"\x16\x03\x01\x00\xa5\x01").starts_with("HTTP/1.1 400 "));
    let large =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "b".repeat(3 * MAX_HEAD_BYTES));
    assert!(fixture.exchange(large.as_bytes()).starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_head_in_single_bytes_is_answered() {
    let fixture = Fixture::new();
    let mut client = Client::connect(fixture.ops.address()).unwrap();
    client.set_nodelay(true).unwrap();
    for byte in b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(r#"{"status":"live"}"#), "{answer}");
}

#[test]
fn waiting_connections_get_their_turn() {
    let fixture = Fixture::new();
    let mut idle: Vec<_> =
        (0..MAX_CONNECTIONS).map(|_| Client::connect(fixture.ops.address()).unwrap()).collect();
    let mut waiting = Client::connect(fixture.ops.address()).unwrap();
    waiting.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // That nothing comes is no event; it is enough to give a server without the limit time to answer.
    waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(waiting.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    waiting.set_read_timeout(None).unwrap();
    drop(idle.pop());
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn only_loopback_is_served_and_dropping_the_handle_frees_the_address() {
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let metrics = Arc::new(Metrics::new(1, Arc::default()));
    let refused = serve(everywhere, metrics, Arc::default());
    assert!(matches!(refused, Err(ServeError::NotLoopback(_))), "{refused:?}");

    let fixture = Fixture::new();
    let address = fixture.ops.address();
    assert!(
        fixture.exchange(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").starts_with("HTTP/1.1 200 ")
    );
    drop(fixture.ops);
    assert!(Client::connect(address).is_err());
    TcpListener::bind(address).unwrap();
}
