//! What a message says about its own way: how far it may travel, over what, and what it offers instead of an answer.

use harness::client::Client;
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::Rempart;

const HOST: &str = "journey.test";

fn before(origin: &Origin) -> Rempart {
    Rempart::with(&Config::new().listeners().site("journey", &[HOST]).origin(origin.url()))
}

/// RFC 9110 section 7.6.2.
#[test]
fn options_travel_as_far_as_max_forwards_says() {
    let origin = Origin::answering(|_| Reply::text(200, "from the origin"));
    let rempart = before(&origin);
    let ask = |method: &str, value: &str| {
        let request = format!("{method} * HTTP/1.1\r\nHost: {HOST}\r\nMax-Forwards: {value}\r\n\r\n");
        rempart.client().exchange(request.replace("GET *", "GET /")).unwrap()
    };
    let here = ask("OPTIONS", "0");
    assert_eq!((here.status, here.text().as_str()), (200, ""));
    assert_eq!(here.head.text("content-length").as_deref(), Some("0"));
    assert!(origin.seen().is_empty());
    for (method, value, told) in [
        ("OPTIONS", "7", "6"),
        ("OPTIONS", "1", "0"),
        ("OPTIONS", "99999999999999999999999", "18446744073709551614"),
        // Other methods may ignore it.
        ("GET", "0", "0"),
    ] {
        origin.forget();
        assert_eq!(ask(method, value).text(), "from the origin", "{method} {value}");
        assert_eq!(origin.seen()[0].head.all("max-forwards"), [told.as_bytes()], "{method} {value}");
    }
}

/// RFC 9110 section 15.5.22: a 426 names what it wants, and the connection option that goes with it.
#[test]
fn an_answer_that_demands_an_upgrade_says_to_what() {
    let origin = Origin::answering(|seen| {
        let wanted = if seen.target() == "/socket" { "websocket" } else { "h2c" };
        Reply::raw(format!(
            "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: {wanted}\r\nContent-Length: 0\r\n\r\n"
        ))
    });
    let rempart = before(&origin);
    let mut client = rempart.client();
    let answer = client.get(HOST, "/socket").unwrap();
    assert_eq!(answer.head.text("upgrade").as_deref(), Some("websocket"));
    assert_eq!(answer.head.text("connection").as_deref(), Some("Upgrade"));
    // No tunnel is ever opened for HTTP/2, so it is not offered.
    let answer = client.get(HOST, "/other").unwrap();
    assert_eq!(
        (answer.status, answer.head.text("upgrade"), answer.head.text("connection")),
        (426, None, None)
    );
    let request = format!("GET /socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    assert_eq!(client.exchange(request).unwrap().head.text("connection").as_deref(), Some("close, Upgrade"));
    let answer = rempart.http2(HOST).get(HOST, "/socket").unwrap();
    assert_eq!((answer.status.to_string().as_str(), answer.fields.get("upgrade")), ("426", None));
}

/// RFC 9110 section 7.4: an https URI is served over TLS, or for a proxy that is trusted to have had TLS.
#[test]
fn an_https_target_needs_tls_or_a_trusted_proxy() {
    let origin = Origin::answering(|_| Reply::text(200, "fine"));
    let site = |config: Config| config.listeners().site("journey", &[HOST]).origin(origin.url());
    let ask = |mut client: Client| {
        let request = format!("GET https://{HOST}/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.exchange(request).unwrap().status
    };
    let rempart = Rempart::with(&site(Config::new()));
    assert_eq!(ask(rempart.client()), 421);
    assert_eq!(ask(rempart.tls_client(HOST)), 200);
    let trusting = Config::new().raw("[trust]\nproxies = [\"127.0.0.0/8\"]");
    assert_eq!(ask(Rempart::with(&site(trusting)).client()), 200);
}
