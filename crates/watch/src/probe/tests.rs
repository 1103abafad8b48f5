//! Visits to local servers that behave in every way, and what follows from many of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::roles::{WatchedListener, WatchedSite};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A time between the years in which the certificates below are good.
fn now() -> Timestamp {
    Timestamp::from_unix(Duration::from_secs(1_800_000_000))
}

fn site(address: SocketAddr, tls: bool) -> WatchedSite {
    WatchedSite {
        name: "shop".to_owned(),
        host: "shop.example".to_owned(),
        path: "/".to_owned(),
        at: vec![WatchedListener { address, tls, proxy_protocol: false }],
        asks_for_certificates: false,
    }
}

/// What a server does with a connection once it has read something.
#[derive(Clone, Copy)]
enum Does<'a> {
    Answers(&'a str),
    Resets,
    Hangs,
}

fn visit(tls: Option<i32>, does: Does<'_>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(listener.local_addr().unwrap(), tls.is_some());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            match (tls, does) {
                (_, Does::Resets) => {
                    stream.set_zero_linger().unwrap();
                    drop(stream);
                }
                (_, Does::Hangs) => std::future::pending().await,
                (None, Does::Answers(text)) => {
                    let read = stream.read(&mut [0; 4096]).await.unwrap();
                    assert!(read > 0);
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
                (Some(year), Does::Answers(text)) => {
                    let mut stream = acceptor(year).accept(stream).await.unwrap();
                    assert_eq!(stream.get_ref().1.server_name(), Some("shop.example"));
                    let read = stream.read(&mut [0; 4096]).await.unwrap();
                    assert!(read > 0);
                    stream.write_all(text.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
            std::future::pending().await
        };
        let limit = if matches!(does, Does::Hangs) { Duration::from_millis(50) } else { ASKING };
        tokio::select! {
            outcome = ask::ask_within(limit, &site, &[], now()) => outcome,
            () = serve => unreachable!(),
        }
    })
}

fn acceptor(until: i32) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 6, 7));
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[test]
fn every_answer_is_somebodys() {
    let problem =
        |fault: &str, reason: &str| format!(r#"{{"fault":"{fault}","reason":"{reason}","receipt":"0123"}}"#);
    let json = "application/problem+json";
    for (status, kind, body, cause, expected) in [
        ("200 OK", "text/html", String::new(), None, "it answered 200 OK"),
        ("404 Not Found", "text/html", String::new(), None, "it answered 404 Not Found"),
        ("403 Forbidden", json, problem("visitor", "banned"), None, "it answered 403 Forbidden"),
        ("500 Internal Server Error", "text/html", String::new(), Some(ORIGIN), "it answered 500"),
        (
            "503 Service Unavailable",
            json,
            problem("edge", "no_configuration"),
            Some(EDGE),
            "no_configuration",
        ),
        ("502 Bad Gateway", json, problem("origin", "origin_dns"), Some(ORIGIN), "origin_dns"),
        ("421 Misdirected Request", json, problem("visitor", "unknown_host"), Some(EDGE), "unknown_host"),
        // An origin that speaks of faults, or of nothing that can be read, is an origin.
        ("500 Internal Server Error", json, r#"{"fault":"edge"}"#.to_owned(), Some(ORIGIN), "500"),
        ("500 Internal Server Error", json, "{".to_owned(), Some(ORIGIN), "500"),
        ("500 Internal Server Error", json, " ".repeat(20_000), Some(ORIGIN), "500"),
    ] {
        let outcome = visit(None, Does::Answers(&answer(status, kind, &body)));
        assert_eq!(outcome.cause, cause, "{status} {body}");
        assert!(outcome.text.contains(expected), "{} lacks {expected}", outcome.text);
    }
}

#[test]
fn no_answer_is_the_edges() {
    for (tls, does) in [
        (None, Does::Resets),
        (Some(2040), Does::Resets),
        (None, Does::Hangs),
        (Some(2040), Does::Hangs),
        (None, Does::Answers("nonsense\r\n\r\n")),
    ] {
        let outcome = visit(tls, does);
        assert_eq!(outcome.cause, Some(EDGE), "{}", outcome.text);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(listener.local_addr().unwrap(), false);
        drop(listener);
        let outcome = ask(&site, &[], now()).await;
        assert!(outcome.cause == Some(EDGE) && outcome.text.contains("refused"), "{}", outcome.text);
        let outcome = ask(&WatchedSite { at: Vec::new(), ..site }, &[], now()).await;
        assert_eq!(outcome.cause, Some(EDGE));
    });
}

#[test]
fn a_listener_that_expects_a_proxy_header_gets_one_from_a_trusted_machine_only() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (trusted, expected) in [("127.0.0.0/8", &b"\r\n\r\n\0\r\n"[..]), ("192.0.2.0/24", &b"GET / "[..])]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut site = site(listener.local_addr().unwrap(), false);
            site.at[0].proxy_protocol = true;
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = [0; 6];
                stream.read_exact(&mut read).await.unwrap();
                read
            };
            let proxies = [trusted.parse().unwrap()];
            let (_, read) = tokio::join!(ask(&site, &proxies, now()), serve);
            assert_eq!(read, expected[..6]);
        }
    });
}

#[test]
fn a_certificate_is_read_and_one_past_its_end_is_a_failure() {
    let good = answer("200 OK", "text/html", "");
    let outcome = visit(Some(2040), Does::Answers(&good));
    assert_eq!(outcome.cause, None, "{}", outcome.text);
    assert!(outcome.text.starts_with("it answered 200 OK, certificate until 2040-06-07"), "{}", outcome.text);
    let outcome = visit(Some(2024), Does::Answers(&good));
    assert_eq!(outcome.cause, Some(CERTIFICATE));
    assert!(outcome.text.contains("good until 2024-06-07"), "{}", outcome.text);
}

#[test]
fn a_site_fails_after_three_failures_and_recovers_after_two_successes() {
    let mut patience = Patience::default();
    let mut told = String::new();
    // `.` is a success; e, o: failures of the edge and of the origin.
    for step in ".ee.eee.e..ooeoooeee...".chars() {
        let cause = match step {
            'e' => Some(EDGE),
            'o' => Some(ORIGIN),
            _ => None,
        };
        told.push(step);
        for happening in patience.judge("shop", &Outcome { cause, text: String::new() }, now()) {
            told += match (happening.what, happening.cause.as_str()) {
                (What::ProbeFailed, EDGE) => "[edge]",
                (What::ProbeFailed, _) => "[origin]",
                _ => "[over]",
            };
        }
    }
    assert_eq!(told, ".ee.eee[edge].e..[over]ooeooo[origin]eee[over][edge]..[over].");
    // What was known as failing before this process began is over all the same.
    let mut patience = Patience::new(Some(EDGE));
    let good = Outcome { cause: None, text: String::new() };
    assert!(patience.judge("shop", &good, now()).is_empty());
    assert_eq!(patience.judge("shop", &good, now()).len(), 1);
}
