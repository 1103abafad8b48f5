//! The PROXY protocol in and out: whose word about visitors counts, that nothing else is read, and HAProxy and nginx at the
//! other ends.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use harness::certificates::{Authority, Validity};
use harness::client::{self, Client, tls_config};
use harness::config::Config;
use harness::curl::Target;
use harness::origin::{Origin, Reply, Seen};
use harness::rempart::{Place, Rempart, binary};
use harness::servers::Server;
use harness::{PATIENCE, ports};

use crate::heavy;

const HOST: &str = "behind.test";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    [V2, &[command, family], &u16::try_from(block.len()).unwrap().to_be_bytes(), block].concat()
}

/// `2001:db8:1:2::7` port 56324 to `2001:db8::1` port 443.
fn v2_over_ipv6() -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    v2(0x21, 0x21, &[&address("2001:db8:1:2::7")[..], &address("2001:db8::1"), &[0xdc, 4, 1, 187]].concat())
}

/// Listeners where loopback IPv4 is a trusted proxy with PROXY headers, plain and TLS; `[::1]` is nobody special.
fn expecting() -> Config {
    let mut config = Config::empty()
        .raw("[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"")
        .raw("[trust]\nproxies = [\"127.0.0.1\", \"10.0.0.0/8\"]");
    for (address, tls) in [("127.0.0.1:0", false), ("127.0.0.1:0", true), ("[::1]:0", false)] {
        config = config.listen(address, tls).raw("proxy_protocol = true");
    }
    config
}

fn origin() -> Origin {
    Origin::answering(|_| Reply::text(200, "fine"))
}

fn before(origin: &Origin) -> Rempart {
    Rempart::with(&expecting().site("behind", &[HOST]).origin(origin.url()))
}

fn told(seen: &Seen) -> (String, String) {
    let field = |name| seen.head.text(name).unwrap_or_default();
    (field("x-forwarded-for"), field("forwarded"))
}

fn refused(rempart: &Rempart) -> u64 {
    let text = client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text();
    let line = text.lines().find(|line| line.starts_with("rempart_proxy_headers_refused_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_visitor_is_who_the_header_names() {
    let origin = origin();
    let rempart = before(&origin);
    let local = v2(0x20, 0, b"");
    let v6 = v2_over_ipv6();
    for (header, said, expected) in [
        (&b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n"[..], "", "192.0.2.7"),
        // What a visitor says about himself is discarded, whoever passed the connection on.
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n", "X-Forwarded-For: 203.0.113.5\r\n", "192.0.2.7"),
        // Unless the header names another trusted proxy.
        (
            b"PROXY TCP4 10.1.2.3 198.51.100.1 56324 80\r\n",
            "X-Forwarded-For: 203.0.113.5\r\n",
            "203.0.113.5, 10.1.2.3",
        ),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 80\r\n", "", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 80\r\n", "", "192.0.2.7"),
        (&v6, "", "2001:db8:1:2::7"),
        // Health checks and what a proxy cannot describe are the proxy's own connections.
        (b"PROXY UNKNOWN\r\n", "", "127.0.0.1"),
        (&local, "X-Forwarded-For: 203.0.113.5\r\n", "203.0.113.5, 127.0.0.1"),
    ] {
        origin.forget();
        let shown = header.escape_ascii().to_string();
        for in_pieces in [false, true] {
            let mut client = rempart.client();
            if in_pieces {
                header.iter().for_each(|&byte| client.send([byte]).unwrap());
            } else {
                client.send(header).unwrap();
            }
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{said}\r\n");
            assert_eq!(client.exchange(&request).unwrap().status, 200, "{shown}");
            assert_eq!(client.exchange(&request).unwrap().status, 200, "{shown}: the header counts for all");
        }
        let mut encrypted = Client::plain(rempart.tls()).unwrap();
        encrypted.send(header).unwrap();
        let mut encrypted = encrypted.upgrade(HOST, tls_config(&rempart.authority(), &["http/1.1"])).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{said}\r\n");
        assert_eq!(encrypted.exchange(request).unwrap().status, 200, "{shown}");
        let seen = origin.wait_for(5);
        for seen in &seen {
            let (list, forwarded) = told(seen);
            assert_eq!(list, expected, "{shown}");
            let peer = expected.rsplit(' ').next().unwrap();
            let node = if peer.contains(':') { format!("for=\"[{peer}]\";") } else { format!("for={peer};") };
            assert!(forwarded.contains(&node), "{shown}: {forwarded}");
        }
    }
    assert_eq!(refused(&rempart), 0);
}

#[test]
fn a_proxy_without_a_good_header_is_hung_up_on() {
    let origin = origin();
    let config = expecting().raw("[limits]\nhandshake = \"300ms\"");
    let rempart = Rempart::with(&config.site("behind", &[HOST]).origin(origin.url()));
    let bad_sum = v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 1, 1, 0, 80, 3, 0, 4, 0, 0, 0, 0]);
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: behind.test\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 056 80\r\nGET / HTTP/1.1\r\nHost: behind.test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &bad_sum,
        // Never completed: the time of a handshake is all there is.
        b"PROXY TCP4 192.0.2.7",
        &V2[..7],
    ];
    for (n, bytes) in cases.iter().enumerate() {
        let mut client = rempart.client();
        client.send(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end: bytes may be unread.
        let _ended = client.wire.stream_mut().read_to_end(&mut answer);
        assert!(answer.is_empty(), "{n}: {}", answer.escape_ascii());
        assert_eq!(refused(&rempart), n as u64 + 1);
    }
    // A look whether somebody listens is no offence.
    drop(rempart.client());
    assert!(origin.seen().is_empty());
    let mut client = rempart.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1 80\r\n").unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status, 200, "another connection is not concerned");
    assert_eq!(refused(&rempart), cases.len() as u64);
}

fn third_listener(rempart: &Rempart) -> SocketAddr {
    let status = rempart.ask_status();
    let addresses = status.listeners.iter().map(|listener| listener.address.parse::<SocketAddr>().unwrap());
    addresses.into_iter().find(SocketAddr::is_ipv6).unwrap()
}

#[test]
fn from_everybody_else_no_header_is_read() {
    let origin = origin();
    let rempart = before(&origin);
    let open = third_listener(&rempart);
    let mut client = Client::plain(open).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status, 200);
    assert_eq!(told(&origin.wait_for(1)[0]).0, "::1");
    for header in [&b"PROXY TCP4 192.0.2.7 198.51.100.1 1 80\r\n"[..], &v2_over_ipv6()] {
        let mut client = Client::plain(open).unwrap();
        let request = [header, b"GET / HTTP/1.1\r\nHost: behind.test\r\n\r\n"].concat();
        client.send(request).unwrap();
        assert_eq!(client.response("GET").unwrap().status, 400, "{}", header.escape_ascii());
    }
    assert_eq!((origin.seen().len(), refused(&rempart)), (1, 0));
}

#[test]
fn it_changes_with_a_reload_for_new_connections() {
    let origin = origin();
    let config = |expects: bool| {
        let trust = "[trust]\nproxies = [\"127.0.0.1\"]";
        let config = Config::new().raw(trust).listen("127.0.0.1:0", false);
        config.raw(&format!("proxy_protocol = {expects}")).site("behind", &[HOST]).origin(origin.url())
    };
    let rempart = Rempart::with(&config(false));
    let mut before = rempart.client();
    assert_eq!(before.get(HOST, "/").unwrap().status, 200);
    let outcome = rempart.configure(&config(true));
    assert!(outcome.active, "{outcome:?}");
    assert_eq!(before.get(HOST, "/").unwrap().status, 200, "connections that are open stay as they are");
    let mut introduced = rempart.client();
    introduced.send("PROXY TCP4 192.0.2.7 198.51.100.1 1 80\r\n").unwrap();
    assert_eq!(introduced.get(HOST, "/").unwrap().status, 200);
    assert_eq!(told(&origin.wait_for(3)[2]).0, "192.0.2.7");
    rempart.configure(&config(false));
    assert_eq!(rempart.client().get(HOST, "/").unwrap().status, 200);
}

#[test]
fn a_redirect_names_no_port_that_the_proxy_may_not_have() {
    let origin = origin();
    let tls = format!("127.0.0.1:{}", ports::free());
    let config = Config::new().raw("[trust]\nproxies = [\"127.0.0.1\"]").listen(&tls, true);
    let config = config.listen("127.0.0.1:0", false).raw("proxy_protocol = true").site("behind", &[HOST]);
    let rempart = Rempart::with(&config.raw("tls.redirect = true").origin(origin.url()));
    let mut client = rempart.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1 80\r\n").unwrap();
    let answer = client.get(HOST, "/page").unwrap();
    let location = answer.head.text("location");
    assert_eq!((answer.status, location), (301, Some(format!("https://{HOST}/page"))), "{answer:?}");
}

#[test]
fn an_upgrade_probes_listeners_that_expect_a_header() {
    let _alone = heavy();
    let origin = origin();
    let place = Place::with(&expecting().site("behind", &[HOST]).origin(origin.url()));
    let copy = place.copy_of(binary(), "rempart-next");
    let rempart = place.run();
    rempart.await_standby();
    let (code, outcome) = rempart.upgrade(Some(&copy), 1);
    assert_eq!((code, outcome.upgraded), (Some(0), true), "{outcome:#?}");
    let mut client = rempart.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1 80\r\n").unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status, 200, "the setting has come along");
    assert_eq!(told(&origin.wait_for(1)[0]).0, "192.0.2.7");
    // And to one that takes over after a crash.
    rempart.await_standby();
    harness::process::end(rempart.edge_pid());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = rempart.client();
        let asked =
            client.send("PROXY TCP4 192.0.2.8 198.51.100.1 1 80\r\n").and_then(|()| client.get(HOST, "/"));
        match asked {
            Ok(answer) => break assert_eq!(answer.status, 200),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// nginx that tells what a PROXY header told it, on a plain and on a TLS port.
fn nginx() -> (Server, [u16; 2], Place) {
    let authority = Authority::new("proxy test");
    let leaf = authority.leaf(&["127.0.0.1"], Validity::Good);
    let folder = Place::new();
    folder.write("authority.pem", authority.pem());
    folder.write("leaf.pem", &leaf.certificate);
    folder.write("leaf.key", &leaf.key);
    let ports = [ports::free(), ports::free()];
    let server = Server::nginx(&format!(
        "listen 127.0.0.1:{} proxy_protocol; listen 127.0.0.1:{} ssl proxy_protocol;\n\
         ssl_certificate {root}/leaf.pem; ssl_certificate_key {root}/leaf.key;\n\
         location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr \
         $connection $connection_requests $http_x_forwarded_for\"; }}",
        ports[0],
        ports[1],
        root = folder.path("").display(),
    ));
    (server, ports, folder)
}

#[test]
fn between_haproxy_and_nginx_the_visitor_is_known_at_both_ends() {
    let (_nginx, ports, folder) = nginx();
    for version in ["v1", "v2"] {
        let url = [format!("http://127.0.0.1:{}", ports[0]), format!("https://127.0.0.1:{}", ports[1])];
        for (url, tls) in url.iter().zip([false, true]) {
            let authority = folder.path("authority.pem");
            let verify = format!("[site.origin.tls]\nauthorities = \"{}\"", authority.display());
            let verify = if tls { verify.as_str() } else { "" };
            let config = expecting().site("behind", &[HOST]).origin(url);
            let config = config.raw(&format!("proxy_protocol = \"{version}\"")).raw(verify);
            let rempart = Rempart::with(&config);
            let option = if version == "v1" {
                "send-proxy"
            } else {
                "send-proxy-v2 proxy-v2-options crc32c,unique-id"
            };
            for (address, to, family) in [
                ("127.0.0.1:0", rempart.plain(), "127.0.0.7"),
                ("[::1]:0", rempart.plain(), "::1"),
                ("127.0.0.1:0", rempart.tls(), "127.0.0.7"),
            ] {
                let socket = TcpListener::bind(address).unwrap();
                let haproxy = Server::haproxy(&socket, to, option);
                let mut target = Target::plain(haproxy.address(), HOST);
                target.authority = (to == rempart.tls()).then(|| rempart.authority_path());
                let from: &[&str] = if family == "::1" { &[] } else { &["--interface", family] };
                let arguments = [from, &["-H", "X-Forwarded-For: 203.0.113.9"]].concat();
                let answer = target.curl("/", &arguments);
                assert_eq!(
                    answer.status,
                    200,
                    "{version} {url} {address} to {to}: {answer:?}\n{}",
                    haproxy.log()
                );
                let words: Vec<String> = answer.text().split(' ').map(str::to_owned).collect();
                let shown = format!("{version} {url} {address} to {to}: {words:?}");
                assert_eq!((words[0].as_str(), words[5].as_str()), (family, family), "{shown}");
                assert_eq!(words[2], haproxy.address().ip().to_string(), "{shown}");
                assert_ne!(words[1], "0", "{shown}");
            }
        }
    }
}

#[test]
fn curl_s_header_is_read() {
    let origin = origin();
    let rempart = before(&origin);
    for target in [Target::plain(rempart.plain(), HOST), Target::tls(&rempart, HOST)] {
        let answer = target.curl("/", &["--haproxy-protocol"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(target.curl("/", &[]).status, 0, "without it there is no answer");
    }
}

#[test]
fn towards_an_origin_each_visitor_s_connection_has_connections_of_its_own() {
    let (_nginx, ports, _) = nginx();
    let url = format!("http://127.0.0.1:{}", ports[0]);
    let trust = "[limits]\nthreads = 1\n[trust]\nproxies = [\"127.0.0.1\"]";
    let config = Config::new().raw(trust).listeners().site("behind", &[HOST]).origin(url);
    let rempart = Rempart::with(&config.raw("proxy_protocol = \"v2\"\nmax_idle = 2"));
    let ask = |client: &mut Client, said: &str| -> Vec<String> {
        let answer = client.exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{said}\r\n")).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().split(' ').map(str::to_owned).collect()
    };
    let (mut one, mut two) = (rempart.client(), rempart.client());
    let (first, second) = (ask(&mut one, ""), ask(&mut two, ""));
    assert_eq!((first[0].as_str(), second[0].as_str()), ("127.0.0.1", "127.0.0.1"));
    assert_ne!(first[1], second[1], "each port is told");
    assert_ne!(first[3], second[3], "and none uses the other's connection");
    let (again, other) = (ask(&mut one, ""), ask(&mut two, ""));
    assert_eq!((&again[3], again[4].as_str()), (&first[3], "2"), "one's own is used again");
    assert_eq!((&other[3], other[4].as_str()), (&second[3], "2"));
    // Behind a proxy that speaks HTTP the visitor is who it names, and his port is unknown.
    let named = ask(&mut one, "X-Forwarded-For: 192.0.2.7\r\n");
    // nginx shows port 0 as nothing.
    assert_eq!((named[0].as_str(), named[1].as_str()), ("192.0.2.7", ""));
    assert_ne!(named[3], first[3]);
    // Three have been kept, two may be: the oldest has made room.
    assert_eq!(ask(&mut two, "")[3], second[3]);
    assert_ne!(ask(&mut one, "")[3], first[3]);
}
