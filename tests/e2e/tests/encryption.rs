//! What a site's encryption asks of visitors: redirects to https, HSTS, and certificates of their own.

use std::io::{Read as _, Write as _};

use harness::certificates::Authority;
use harness::client::{Client, Response};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::ports;
use harness::rempart::{Place, Rempart};

const HOST: &str = "shop.test";
/// What the origin says about HSTS.
const THEIRS: &str = "max-age=7";

fn fine() -> Origin {
    Origin::answering(|_| {
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nStrict-Transport-Security: {THEIRS}\r\nContent-Length: 4\r\n\r\nfine"
        ))
    })
}

fn with(top: &str, origin: &Origin, tls: &str) -> Rempart {
    let config = Config::empty().raw(top).raw("[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\"");
    Rempart::with(&config.listeners().site("shop", &[HOST]).raw(tls).origin(origin.url()))
}

fn ask(client: &mut Client, method: &str, target: &str, lines: &str) -> Response {
    client.exchange(format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n")).unwrap()
}

fn location(response: &Response) -> (u16, Option<String>) {
    (response.status, response.head.text("location"))
}

#[test]
fn plain_http_is_redirected_on_a_connection_that_stays() {
    let origin = fine();
    let rempart = with("", &origin, "[site.tls]\nredirect = true");
    let mut client = rempart.client();
    for (method, target, status) in [("GET", "/a?b=c", 301), ("HEAD", "/", 301), ("PUT", "/a%20b", 308)] {
        let response = ask(&mut client, method, target, "");
        // The TLS port is one the system chose, so the usual one is taken for it.
        let expected = (status, Some(format!("https://{HOST}{target}")));
        assert_eq!(location(&response), expected, "{method}");
        assert!(response.head.text("rempart-request-id").is_some() && response.body.bytes.is_empty());
    }
    assert!(origin.seen().is_empty(), "nothing of it reaches the origin");
    assert_eq!(rempart.tls_client(HOST).get(HOST, "/").unwrap().text(), "fine");
    assert_eq!(rempart.http2(HOST).get(HOST, "/").unwrap().status, 200);
    let trace = ask(&mut client, "GET", "/.rempart/trace", "").text();
    assert!(trace.contains("visit_scheme=http\n"), "{trace}");
}

#[test]
fn a_redirect_names_the_port_that_was_written() {
    let origin = fine();
    let (plain, tls) = (ports::free(), ports::free());
    let config = Config::new()
        .listen(&format!("127.0.0.1:{plain}"), false)
        .listen(&format!("127.0.0.1:{tls}"), true)
        .site("shop", &[HOST])
        .raw("tls.redirect = true")
        .origin(origin.url());
    let rempart = Rempart::with(&config);
    let asked = format!("GET / HTTP/1.1\r\nHost: {HOST}:{plain}\r\n\r\n");
    let response = rempart.client().exchange(asked).unwrap();
    assert_eq!(location(&response), (301, Some(format!("https://{HOST}:{tls}/"))));
}

#[test]
fn a_trusted_proxy_that_did_tls_is_believed() {
    let origin = fine();
    let top = "[trust]\nproxies = [\"127.0.0.1\"]";
    let rempart = with(top, &origin, "[site.tls]\nredirect = true\nhsts.max_age = \"1d\"");
    let mut client = rempart.client();
    let from = "X-Forwarded-For: 192.0.2.7\r\n";
    let response = ask(&mut client, "GET", "/", &format!("{from}X-Forwarded-Proto: https\r\n"));
    assert_eq!((response.status, response.text().as_str()), (200, "fine"));
    assert_eq!(response.head.text("strict-transport-security").as_deref(), Some("max-age=86400"));
    let response = ask(&mut client, "GET", "/", &format!("{from}X-Forwarded-Proto: http\r\n"));
    assert_eq!(location(&response), (301, Some(format!("https://{HOST}/"))));
}

#[test]
fn hsts_is_told_over_https_alone() {
    let origin = fine();
    let rempart = with("", &origin, "[site.tls.hsts]\ninclude_subdomains = true");
    let told = |response: &Response| -> Vec<String> {
        let lines = response.head.all("strict-transport-security");
        lines.into_iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    };
    let ours = ["max-age=31536000; includeSubDomains"];
    let mut tls = rempart.tls_client(HOST);
    assert_eq!(told(&ask(&mut tls, "GET", "/", "")), ours, "instead of the origin's");
    assert_eq!(
        told(&ask(&mut tls, "GET", "/", "CDN-Loop: rempart\r\n")),
        ours,
        "on a failure of the edge too"
    );
    assert_eq!(told(&ask(&mut rempart.client(), "GET", "/", "")), [""; 0], "RFC 6797 section 7.2");
    let silent = with("", &origin, "");
    assert_eq!(
        told(&ask(&mut silent.tls_client(HOST), "GET", "/", "")),
        [THEIRS],
        "nothing is added unasked"
    );
}

#[test]
fn a_site_that_wants_certificates_is_closed_to_plain_http() {
    let origin = fine();
    let place = Place::new();
    place.write("ca.pem", Authority::new("Authority of visitors").pem());
    let config = Config::new().listeners().site("shop", &[HOST]);
    let config = config.raw("[site.tls.client]\nauthorities = \"ca.pem\"").origin(origin.url());
    place.write("rempart.toml", config.text());
    let rempart = place.run();
    for target in ["/", "/.well-known/acme-challenge/x"] {
        let response = ask(&mut rempart.client(), "GET", target, "");
        assert_eq!(response.status, 403, "{target}");
        assert!(response.text().contains("client_certificate_required"), "{}", response.text());
    }
    assert!(origin.seen().is_empty());
}

/// Passes a connection on and keeps what the server said.
fn overhear(to: std::net::SocketAddr) -> (std::net::SocketAddr, std::thread::JoinHandle<Vec<u8>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = std::net::TcpStream::connect(to).unwrap();
        let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut into));
        let (mut heard, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(count @ 1..) = server.read(&mut piece) {
            heard.extend_from_slice(&piece[..count]);
            if client.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        heard
    });
    (address, heard)
}

#[test]
fn tls_records_are_small_at_first_and_large_in_a_long_answer() {
    const LARGE: usize = 16 << 10;
    let origin = Origin::answering(|_| Reply::text(200, &"x".repeat(400 << 10)));
    let rempart = with("", &origin, "");
    let (relay, heard) = overhear(rempart.tls());
    let url = format!("https://{HOST}:{}/", relay.port());
    let resolve = format!("{HOST}:{}:127.0.0.1", relay.port());
    let curl = std::process::Command::new("curl")
        .args(["-sk", "--http1.1", "--noproxy", "*", "--resolve", &resolve, &url])
        .output()
        .unwrap();
    assert_eq!(curl.stdout.len(), 400 << 10, "{}", String::from_utf8_lossy(&curl.stderr));
    let (heard, mut records) = (heard.join().unwrap(), Vec::new());
    let mut rest = &heard[..];
    while let [kind, _, _, high, low, ..] = *rest {
        let length = usize::from(high) << 8 | usize::from(low);
        rest = &rest[(5 + length).min(rest.len())..];
        if kind == 23 {
            records.push(length);
        }
    }
    // Content, its type and the tag; handshake messages of TLS 1.3 look like content and are small as well.
    let small = records.iter().take_while(|&&length| length <= (4 << 10) + 17).sum::<usize>();
    assert!((64 << 10..80 << 10).contains(&small), "{small} bytes in small records: {records:?}");
    assert!(records.iter().any(|&length| length > LARGE - 512), "{records:?}");
}
