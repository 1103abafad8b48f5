//! Certificates: replaced on disk they are picked up without a restart, a bad replacement leaves the old one in
//! force, the right one is shown for each name, and an origin's certificate is checked.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::certificates::{Authority, Pair, Validity};
use harness::client::{Client, tls_config};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::{Place, Rempart};
use harness::servers::Server;
use harness::{PATIENCE, ports};

const HOST: &str = "shop.test";

fn fine() -> Origin {
    Origin::answering(|_| Reply::text(200, "fine"))
}

fn install(place: &Place, pair: &Pair) {
    place.write("key.pem", &pair.key);
    place.write("cert.pem", &pair.certificate);
}

/// The leaf shown to a new connection for this name.
fn shown(rempart: &Rempart, authority: &Authority, name: &str) -> Vec<u8> {
    let client = Client::tls(rempart.tls(), name, tls_config(&authority.pem(), &["http/1.1"])).unwrap();
    client.peer_certificate().expect("a TLS connection has a certificate")
}

#[test]
fn a_replaced_certificate_is_picked_up_and_a_bad_one_is_not() {
    let (origin, authority, place) = (fine(), Authority::new("First authority"), Place::new());
    install(&place, &authority.leaf(&[HOST], Validity::Good));
    let config = Config::new().listeners().site("shop", &[HOST]);
    let config = config.raw("[site.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"").origin(origin.url());
    place.write("rempart.toml", config.text());
    let rempart = place.run();
    let first = shown(&rempart, &authority, HOST);
    let mut kept = Client::tls(rempart.tls(), HOST, tls_config(&authority.pem(), &["http/1.1"])).unwrap();
    assert_eq!(kept.get(HOST, "/").unwrap().text(), "fine");
    install(&place, &authority.leaf(&[HOST], Validity::Good));
    let deadline = Instant::now() + PATIENCE;
    while shown(&rempart, &authority, HOST) == first {
        assert!(Instant::now() < deadline, "the new certificate is not picked up: {}", rempart.log().text());
        thread::sleep(Duration::from_millis(100));
    }
    let second = shown(&rempart, &authority, HOST);
    assert_eq!(
        kept.get(HOST, "/").unwrap().text(),
        "fine",
        "the connection with the old certificate goes on"
    );
    for bad in ["", "junk", &authority.leaf(&[HOST], Validity::Expired).certificate] {
        place.write("cert.pem", bad);
        let (code, outcome) = rempart.reload();
        assert_eq!((code, outcome.active), (Some(1), false), "{outcome:?}");
        assert_eq!(shown(&rempart, &authority, HOST), second, "the certificate in force stays");
    }
    assert!(rempart.status().refused.is_some());
}

#[test]
fn each_name_is_shown_its_own_certificate() {
    let (origin, authority, place) = (fine(), Authority::new("Authority"), Place::new());
    let mut config = Config::new().listeners();
    for (name, hosts) in [("one", "one.test"), ("two", "*.two.test")] {
        let leaf = authority.leaf(&[hosts], Validity::Good);
        place.write(&format!("{name}.pem"), leaf.certificate);
        place.write(&format!("{name}.key"), leaf.key);
        let tls = format!("[site.tls]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"");
        config = config.site(name, &[hosts]).raw(&tls).origin(origin.url());
    }
    place.write("rempart.toml", config.site("dev", &["dev.test"]).origin(origin.url()).text());
    let rempart = place.run();
    // The handshake fails unless the certificate names the host and comes from this authority.
    let (one, two) = (shown(&rempart, &authority, "one.test"), shown(&rempart, &authority, "a.two.test"));
    assert_ne!(one, two);
    let development = tls_config(&rempart.authority(), &["http/1.1"]);
    Client::tls(rempart.tls(), "dev.test", development.clone()).unwrap().get("dev.test", "/").unwrap();
    assert!(
        Client::tls(rempart.tls(), "one.test", development).is_err(),
        "another authority vouches for one.test"
    );
    assert!(fs::metadata(rempart.authority_path()).is_ok());
}

/// nginx with TLS as an origin: its certificate is believed only from the authority named, over HTTP/1.1 and HTTP/2.
#[test]
fn an_origins_certificate_is_checked() {
    let (right, wrong, place) =
        (Authority::new("Right authority"), Authority::new("Wrong authority"), Place::new());
    let leaf = right.leaf(&["origin.internal"], Validity::Good);
    place.write("origin.pem", leaf.certificate);
    place.write("origin.key", leaf.key);
    let (port, path) = (ports::free(), |name: &str| place.path(name).display().to_string());
    let nginx = Server::nginx(&format!(
        "listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ return 200 \"$server_protocol $ssl_server_name\"; }}",
        path("origin.pem"),
        path("origin.key")
    ));
    place.write("right.pem", right.pem());
    place.write("wrong.pem", wrong.pem());
    let origin = |http: &str, tls: &str| {
        let config =
            Config::new().listeners().site("shop", &[HOST]).origin(format!("https://127.0.0.1:{port}"));
        config.raw(&format!("http = \"{http}\"\n[site.origin.tls]\n{tls}"))
    };
    let named = "server_name = \"origin.internal\"\n";
    place.write("rempart.toml", origin("1.1", &format!("{named}authorities = \"right.pem\"")).text());
    let rempart = place.run();
    for (http, tls, expected) in [
        ("1.1", format!("{named}authorities = \"right.pem\""), Some("HTTP/1.1 origin.internal")),
        ("2", format!("{named}authorities = \"right.pem\""), Some("HTTP/2.0 origin.internal")),
        ("auto", format!("{named}authorities = \"right.pem\""), Some("HTTP/2.0 origin.internal")),
        ("auto", format!("{named}authorities = \"wrong.pem\""), None),
        ("auto", named.to_owned(), None),
        ("auto", "server_name = \"other.internal\"\nauthorities = \"right.pem\"".to_owned(), None),
        ("1.1", format!("{named}verify = false"), Some("HTTP/1.1 origin.internal")),
    ] {
        rempart.configure(&origin(http, &tls));
        let response = rempart.client().get(HOST, "/").unwrap();
        match expected {
            Some(text) => {
                assert_eq!((response.status, response.text().as_str()), (200, text), "{http} {tls}")
            }
            None => assert_eq!(response.status, 502, "{http} {tls}: {}", response.text()),
        }
    }
    drop(nginx);
}
