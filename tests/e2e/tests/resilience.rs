//! When origins fail: pages that say whose fault it is, retries that repeat nothing twice, ejection, and drains.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use harness::client::Response;
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::Rempart;
use harness::{PATIENCE, ports};
use rustix::process::Signal;
use serde_json::Value;

const HOST: &str = "fragile.test";

fn dead() -> String {
    format!("http://127.0.0.1:{}", ports::free())
}

fn before(origin: &str, further: &str) -> Rempart {
    Rempart::with(&Config::new().listeners().site("fragile", &[HOST]).origin(origin).raw(further))
}

fn asking(rempart: &Rempart, accept: &str, language: &str) -> Response {
    let fields = format!("Accept: {accept}\r\nAccept-Language: {language}\r\n");
    rempart.client().exchange(format!("GET /page HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).unwrap()
}

/// The page's receipt is the id in the header, which is also what the log holds.
fn receipt(response: &Response) -> String {
    let receipt = response.head.text("rempart-request-id").expect("every answer carries its id");
    assert_eq!(receipt.len(), 16, "{receipt}");
    assert!(response.text().contains(&receipt), "the page shows the receipt {receipt}: {}", response.text());
    receipt
}

#[test]
fn a_dead_origin_is_explained_in_the_format_and_language_asked_for() {
    let origin = dead();
    let rempart = before(&origin, "");
    let mut bodies = Vec::new();
    for (accept, kind) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("application/problem+json", "application/problem+json"),
        ("text/markdown", "text/markdown; charset=utf-8"),
    ] {
        for language in ["en", "fr", "de"] {
            let page = asking(&rempart, accept, &format!("{language};q=0.9, it;q=1.0"));
            assert_eq!(page.status, 502, "{accept} {language}");
            assert_eq!(page.head.text("content-type").as_deref(), Some(kind));
            assert_eq!(page.head.text("content-language").as_deref(), Some(language), "{accept}");
            let receipt = receipt(&page);
            let text = page.text().replace(&receipt, "RECEIPT");
            let port = origin.rsplit(':').next().unwrap();
            assert!(!text.contains(port) && !text.contains("127.0.0.1"), "the page leaks the origin: {text}");
            if kind.contains("json") {
                let problem: Value = serde_json::from_slice(&page.body.bytes).unwrap();
                assert_eq!(
                    (&problem["status"], &problem["fault"]),
                    (&502.into(), &"origin".into()),
                    "{problem}"
                );
                assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
            }
            bodies.push(text);
        }
    }
    let all = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(
        bodies.len(),
        all - 3,
        "every format and language reads differently; the two JSON ones are one object"
    );
}

#[test]
fn head_requests_get_the_failure_without_a_body() {
    let rempart = before(&dead(), "");
    let mut client = rempart.client();
    let response = client.exchange(format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    assert_eq!((response.status, response.body.bytes.len()), (502, 0));
    let answer = rempart.http2(HOST).get(HOST, "/").unwrap();
    assert_eq!((answer.status, answer.fields.contains_key("rempart-request-id")), (502, true));
}

#[test]
fn a_slow_origin_becomes_504() {
    let (release, hold) = channel::<()>();
    let hold = Mutex::new(hold);
    let origin = Origin::scripted(move |connection| {
        connection.request()?;
        let _released = hold.lock().unwrap().recv();
        Ok(())
    });
    let timeouts = "[site.origin.timeouts]\nresponse = \"200ms\"\n[site.retry]\nattempts = 0";
    let rempart = before(&origin.url(), timeouts);
    let page = asking(&rempart, "application/problem+json", "en");
    let problem: Value = serde_json::from_slice(&page.body.bytes).unwrap();
    assert_eq!((page.status, &problem["fault"]), (504, &"origin".into()), "{problem}");
    receipt(&page);
    drop(release);
}

#[test]
fn a_get_on_a_connection_the_origin_has_closed_is_sent_again() {
    let origin = Origin::answering(|_| Reply::text(200, "fine"));
    let rempart = before(&origin.url(), "");
    for round in 0..20 {
        assert_eq!(rempart.client().get(HOST, "/").unwrap().text(), "fine", "round {round}");
        origin.close_connections();
    }
    assert_eq!(origin.seen().len(), 20, "no request arrived twice");
}

/// The origin reads the request and hangs up, but only once: a repeated request would be answered.
fn hangs_up_once() -> (Origin, Arc<AtomicBool>) {
    let hung_up = Arc::new(AtomicBool::new(false));
    let theirs = hung_up.clone();
    let origin = Origin::scripted(move |connection| {
        while connection.request()?.is_some() {
            if !theirs.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")?;
        }
        Ok(())
    });
    (origin, hung_up)
}

#[test]
fn only_what_may_be_repeated_is_repeated() {
    for (method, body, expected, arrivals) in [
        ("GET", "", 200, 2),
        ("HEAD", "", 200, 2),
        ("OPTIONS", "", 200, 2),
        ("POST", "amount=100", 502, 1),
        ("PATCH", "amount=100", 502, 1),
        ("X-UNKNOWN", "", 502, 1),
    ] {
        let (origin, _) = hangs_up_once();
        let rempart = before(&origin.url(), "");
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{method} /pay HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n{body}");
        let response = rempart.client().exchange(request).unwrap();
        assert_eq!((response.status, origin.seen().len()), (expected, arrivals), "{method}");
    }
}

#[test]
fn retries_can_be_switched_off() {
    let (origin, hung_up) = hangs_up_once();
    let rempart = before(&origin.url(), "[site.retry]\nattempts = 0");
    assert_eq!(rempart.client().get(HOST, "/").unwrap().status, 502);
    assert_eq!((origin.seen().len(), hung_up.load(Ordering::SeqCst)), (1, true));
}

#[test]
fn a_dead_origin_among_several_is_set_aside_and_no_longer_felt() {
    let alive = Origin::answering(|_| Reply::text(200, "fine"));
    let dead = dead();
    let config = Config::new().raw("[limits]\nthreads = 1").listeners().site("fragile", &[HOST]);
    let config = config.origin(alive.url()).origin(&dead);
    let rempart =
        Rempart::with(&config.raw("[site.health]\nfailures = 2\nejection = \"1h\"\nmax_ejection = \"1h\""));
    let mut client = rempart.client();
    let aside = |rempart: &Rempart| {
        let status = rempart.status();
        status.sites[0].origins.iter().any(|origin| origin.origin == dead && !origin.healthy)
    };
    let noticed = (0..20).any(|_| {
        for _ in 0..5 {
            client.get(HOST, "/").unwrap();
        }
        aside(&rempart)
    });
    assert!(noticed, "the dead origin is never set aside: {:?}", rempart.status().sites);
    let before = alive.seen().len();
    for number in 0..200 {
        let response = if number % 2 == 0 {
            client.get(HOST, "/").unwrap()
        } else {
            client.exchange(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx")).unwrap()
        };
        assert_eq!((response.status, response.text().as_str()), (200, "fine"), "request {number}");
    }
    assert_eq!(alive.seen().len(), before + 200);
    let origins = &rempart.status().sites[0].origins;
    assert!(origins.iter().any(|origin| origin.origin == dead && origin.failures >= 2), "{origins:?}");
}

#[test]
fn when_all_origins_are_failing_all_are_used() {
    let refusing = Arc::new(AtomicBool::new(true));
    let (a, b) = (refusing.clone(), refusing.clone());
    let serve = |refusing: Arc<AtomicBool>| {
        Origin::scripted(move |connection| {
            while connection.request()?.is_some() && !refusing.load(Ordering::SeqCst) {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")?;
            }
            Ok(())
        })
    };
    let (one, two) = (serve(a), serve(b));
    let config = Config::new().raw("[limits]\nthreads = 1").listeners().site("fragile", &[HOST]);
    let config = config.origin(one.url()).origin(two.url());
    let rempart =
        Rempart::with(&config.raw("[site.health]\nfailures = 1\nejection = \"1h\"\nmax_ejection = \"1h\""));
    let mut client = rempart.client();
    for _ in 0..10 {
        assert_eq!(client.get(HOST, "/").unwrap().status, 502);
    }
    refusing.store(false, Ordering::SeqCst);
    assert_eq!(client.get(HOST, "/").unwrap().text(), "fine", "recovery needs no waiting");
}

#[test]
fn sigterm_lets_requests_in_flight_end_and_takes_no_new_ones() {
    let (release, hold) = channel::<()>();
    let hold = Mutex::new(hold);
    let origin = Origin::scripted(move |connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")?;
        let _released = hold.lock().unwrap().recv();
        connection.send("half")
    });
    let mut rempart = before(&origin.url(), "");
    let address = rempart.plain();
    let mut client = rempart.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    let (_, head) = client.head().unwrap();
    rempart.signal(Signal::TERM);
    refuses(address);
    assert!(rempart.is_running(), "a request is in flight");
    release.send(()).unwrap();
    let body = client.wire.body(head.response_length("GET").unwrap()).unwrap();
    assert_eq!(body.bytes, b"halfhalf");
    assert!(rempart.wait().success(), "{}", rempart.log().text());
}

/// Waits until an address takes no connections any more.
fn refuses(address: SocketAddr) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
        assert!(std::time::Instant::now() < deadline, "{address} still takes connections");
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_loses_nothing_and_the_same_state_serves_again() {
    let origin = Origin::answering(|_| Reply::text(200, "fine"));
    let rempart = before(&origin.url(), "");
    let (authority, generation) = (rempart.authority(), rempart.status().generation);
    let place = rempart.kill();
    let rempart = place.run();
    assert_eq!(rempart.authority(), authority, "visitors who trust the development authority still do");
    assert_eq!(rempart.status().generation, generation);
    assert_eq!(rempart.http2(HOST).get(HOST, "/").unwrap().body, b"fine");
    place.ask(&["status"]).json::<api::admin::Status>();
    rempart.stop();
}

#[test]
fn a_client_that_leaves_takes_its_request_to_the_origin_along() {
    let gone = Arc::new(AtomicU64::new(0));
    let theirs = gone.clone();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let origin = Origin::scripted(move |connection| {
        let Some(_) = connection.request()? else { return Ok(()) };
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while connection.send("5\r\nabcde\r\n").is_ok() {
            theirs.fetch_add(1, Ordering::SeqCst);
        }
        let _heard = tell.lock().unwrap().send(());
        Ok(())
    });
    let rempart = before(&origin.url(), "");
    let mut client = rempart.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    client.head().unwrap();
    drop(client);
    told.recv_timeout(PATIENCE).expect("the origin is told that nobody listens any more");
    assert!(gone.load(Ordering::SeqCst) > 0);
}
