//! Nothing arrives changed: nginx, Node, Python and gRPC origins behind Rempart, asked by clients of other people.
//! The checks run directly against the origin too, so that a check which never holds is not mistaken for a finding.

use std::fs;
use std::path::Path;
use std::process::Command;

use base::random::Random;
use bytes::Bytes;
use harness::client::Client;
use harness::config::Config;
use harness::curl::{Curled, Target};
use harness::rempart::Rempart;
use harness::servers::Server;
use harness::tools;
use harness::wire::{Length, all};
use http::{HeaderMap, HeaderValue, Request};

use crate::heavy;

const HOST: &str = "site.test";

/// Rempart with one site in front of this origin, on a plain and a TLS listener.
fn before(origin: &str) -> Rempart {
    Rempart::with(&Config::new().listeners().site("site", &[HOST]).origin(origin))
}

/// The ways to a server that a check is run over, with the arguments that make curl take them.
fn ways(server: &Server, rempart: &Rempart) -> Vec<(&'static str, Target, Vec<&'static str>)> {
    vec![
        ("direct", Target::plain(server.address(), HOST), vec!["--http1.1"]),
        ("h1", Target::plain(rempart.plain(), HOST), vec!["--http1.1"]),
        ("h1 over TLS", Target::tls(rempart, HOST), vec!["--http1.1"]),
        ("h2", Target::tls(rempart, HOST), vec!["--http2"]),
    ]
}

/// Asks over one of the ways and checks that it was that way.
fn ask(way: &(&str, Target, Vec<&str>), path: &str, arguments: &[&str]) -> Curled {
    let (name, target, flags) = way;
    let got = target.curl(path, &[flags, arguments].concat());
    assert_eq!(got.exit, 0, "{name} {path}: {got:?}");
    assert_eq!(got.version, if *name == "h2" { "2" } else { "1.1" }, "{name} {path}");
    got
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = Random::seeded(bytes as u64);
    (0..bytes).map(|_| random.next_u64() as u8).collect()
}

#[test]
fn nginx_files_ranges_and_conditions_arrive_unchanged() {
    let nginx = Server::nginx("");
    let file = noise(3_000_001);
    fs::write(nginx.folder().join("file.bin"), &file).unwrap();
    fs::write(nginx.folder().join("empty.txt"), "").unwrap();
    let rempart = before(&nginx.url());
    for way in ways(&nginx, &rempart) {
        let name = way.0;
        let whole = ask(&way, "/file.bin", &[]);
        assert_eq!((whole.status, whole.body == file), (200, true), "{name}");
        assert_eq!(whole.field("content-length").as_deref(), Some("3000001"), "{name}");
        let etag = whole.field("etag").expect("nginx tells an ETag");
        for (range, expected) in
            [("100-199", &file[100..200]), ("2999999-", &file[2_999_999..]), ("-5", &file[2_999_996..])]
        {
            let part = ask(&way, "/file.bin", &["--range", range]);
            assert_eq!((part.status, &part.body[..]), (206, expected), "{name} {range}");
        }
        let parts = ask(&way, "/file.bin", &["--range", "0-9,20-29"]);
        assert!(parts.field("content-type").unwrap().starts_with("multipart/byteranges"), "{name}");
        assert!(parts.body.windows(10).any(|window| window == &file[20..30]), "{name}");
        let beyond = ask(&way, "/file.bin", &["--range", "9000000-"]);
        assert_eq!(
            (beyond.status, beyond.field("content-range").as_deref()),
            (416, Some("bytes */3000001")),
            "{name}"
        );
        let unchanged = ask(&way, "/file.bin", &["--header", &format!("If-None-Match: {etag}")]);
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{name}");
        let head = ask(&way, "/file.bin", &["--head"]);
        assert_eq!((head.status, head.downloaded), (200, 0), "{name}");
        assert_eq!(head.field("content-length").as_deref(), Some("3000001"), "{name}");
        let empty = ask(&way, "/empty.txt", &[]);
        assert_eq!((empty.status, empty.body.len()), (200, 0), "{name}");
        let missing = ask(&way, "/missing", &[]);
        assert_eq!(
            (missing.status, missing.text().contains("nginx")),
            (404, true),
            "{name}: the origin's own page"
        );
    }
}

#[test]
fn uploads_reach_node_whole_sized_and_chunked() {
    let node = Server::node();
    let rempart = before(&node.url());
    let file = node.folder().join("upload.bin");
    fs::write(&file, noise(5_000_000)).unwrap();
    let (file, expected) = (file.to_str().unwrap(), digest(&file));
    for way in ways(&node, &rempart) {
        let name = way.0;
        let sized = ask(&way, "/upload?a=1&b=%20", &["--upload-file", file]).json();
        assert_eq!(
            (&sized["bytes"], &sized["sha256"]),
            (&5_000_000.into(), &expected.clone().into()),
            "{name}"
        );
        assert_eq!((&sized["method"], &sized["url"]), (&"PUT".into(), &"/upload?a=1&b=%20".into()), "{name}");
        assert_eq!(raw_field(&sized, "content-length").as_deref(), Some("5000000"), "{name}");
        if name != "h2" {
            let chunked = ["--upload-file", file, "--header", "Transfer-Encoding: chunked"];
            let chunked = ask(&way, "/upload", &chunked).json();
            assert_eq!(
                (&chunked["bytes"], &chunked["sha256"]),
                (&5_000_000.into(), &expected.clone().into()),
                "{name}"
            );
            assert_eq!(raw_field(&chunked, "content-length"), None, "{name}");
        }
        let form = ask(&way, "/upload", &["--data", "user=ada&password=x%26y"]).json();
        assert_eq!((&form["bytes"], &form["method"]), (&23.into(), &"POST".into()), "{name}");
        assert_eq!(
            raw_field(&form, "content-type").as_deref(),
            Some("application/x-www-form-urlencoded"),
            "{name}"
        );
        let echo = ask(&way, "/echo", &["--data-binary", "to and fro"]);
        assert_eq!(echo.text(), "to and fro", "{name}");
    }
}

fn digest(file: &Path) -> String {
    let output = Command::new(tools::program("sha256sum")).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
}

fn raw_field(facts: &serde_json::Value, name: &str) -> Option<String> {
    let list = facts["rawHeaders"].as_array().unwrap();
    let pair = list.chunks(2).find(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name))?;
    pair[1].as_str().map(ToOwned::to_owned)
}

#[test]
fn the_body_is_sent_only_after_100_continue() {
    let node = Server::node();
    let rempart = before(&node.url());
    for (name, mut client) in [
        ("direct", Client::plain(node.address()).unwrap()),
        ("h1", rempart.client()),
        ("h1 over TLS", rempart.tls_client(HOST)),
    ] {
        let head =
            format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n");
        client.send(format!("{head}\r\n")).unwrap();
        let interim = client.wire.head().unwrap().expect("100 before any body");
        assert_eq!(interim.status().unwrap(), 100, "{name}");
        client.send("body").unwrap();
        let response = client.response("POST").unwrap();
        assert_eq!(
            (response.status, response.text().contains("\"bytes\":4")),
            (200, true),
            "{name}: {response:?}"
        );
    }
    for (name, mut client) in [("direct", Client::plain(node.address()).unwrap()), ("h1", rempart.client())] {
        let head =
            format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n");
        client.send(format!("{head}X-Refuse: 1\r\n\r\n")).unwrap();
        let (_, refusal) = client.head().unwrap();
        assert_eq!(
            refusal.status().unwrap(),
            417,
            "{name}: the origin's refusal comes without the body being sent"
        );
    }
}

/// What a request was must not cost the next one its connection, as long as both sides know where it ended.
#[test]
fn one_connection_serves_requests_of_every_kind() {
    let node = Server::node();
    let rempart = before(&node.url());
    let mut client = rempart.client();
    for (kind, request) in [
        ("GET", "GET /hello HTTP/1.1\r\nHost: site.test\r\n\r\n"),
        ("HEAD", "HEAD /hello HTTP/1.1\r\nHost: site.test\r\n\r\n"),
        ("sized body", "POST /upload HTTP/1.1\r\nHost: site.test\r\nContent-Length: 4\r\n\r\nbody"),
        ("empty body", "POST /upload HTTP/1.1\r\nHost: site.test\r\nContent-Length: 0\r\n\r\n"),
        (
            "chunked body",
            "POST /upload HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ),
        ("chunked answer", "GET /stream?bytes=100000&framing=chunked HTTP/1.1\r\nHost: site.test\r\n\r\n"),
        ("missing page", "GET /missing HTTP/1.1\r\nHost: site.test\r\n\r\n"),
        ("trace", "GET /.rempart/trace HTTP/1.1\r\nHost: site.test\r\n\r\n"),
        (
            "pipelined",
            "GET /hello HTTP/1.1\r\nHost: site.test\r\n\r\nGET /hello HTTP/1.1\r\nHost: site.test\r\n\r\n",
        ),
    ] {
        let response = client.exchange(request).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let option = response.head.text("connection").unwrap_or_default();
        assert!(!option.contains("close"), "the answer to {kind} ends the connection: {response:?}");
    }
    assert_eq!(
        client.response("GET").unwrap().text(),
        "hello from node\n",
        "the second of the pipelined ones"
    );
}

#[test]
fn trailers_pass_in_both_directions() {
    let node = Server::node();
    let rempart = before(&node.url());
    let request = format!(
        "POST /trailers HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n"
    );
    for (name, mut client) in [("direct", Client::plain(node.address()).unwrap()), ("h1", rempart.client())] {
        let response = client.exchange(&request).unwrap();
        let trailers = &response.body.trailers;
        assert_eq!(response.body.length, Length::Chunked, "{name}");
        assert_eq!(all(trailers, "x-checksum"), [b"abc123"], "{name}");
        let received = String::from_utf8_lossy(all(trailers, "x-received")[0]).to_ascii_lowercase();
        assert_eq!(received, "x-sum,42", "{name}");
    }
    let mut fields = HeaderMap::new();
    fields.insert("x-sum", HeaderValue::from_static("42"));
    let request =
        Request::post(format!("https://{HOST}/trailers")).header("te", "trailers").body(()).unwrap();
    let answer =
        rempart.http2(HOST).exchange(request, vec![Bytes::from_static(b"body")], Some(fields)).unwrap();
    let trailers = answer.trailers.expect("the answer ends with trailers");
    assert_eq!(answer.body, b"body before trailers\n");
    assert_eq!(trailers["x-checksum"], "abc123");
    assert_eq!(trailers["x-received"].to_str().unwrap().to_ascii_lowercase(), "x-sum,42");
}

#[test]
fn early_hints_arrive_before_the_page() {
    let node = Server::node();
    let rempart = before(&node.url());
    for way in ways(&node, &rempart) {
        let got = ask(&way, "/hints", &[]);
        assert_eq!((got.status, got.text().as_str()), (200, "after hints\n"), "{}", way.0);
        let heads = got.heads.to_ascii_lowercase();
        let (hints, page) = (heads.find(" 103"), heads.rfind(" 200"));
        assert!(hints.is_some() && hints < page, "{}: {heads}", way.0);
        assert!(heads.contains("link: </style.css>; rel=preload; as=style"), "{}: {heads}", way.0);
    }
}

/// The origin sends the next event only when asked to, so this ends only if each one arrives by itself.
#[test]
fn server_sent_events_arrive_one_by_one() {
    let node = Server::node();
    let rempart = before(&node.url());
    for (name, address) in [("direct", node.address()), ("h1", rempart.plain())] {
        let mut events = Client::plain(address).unwrap();
        events
            .send(format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n"))
            .unwrap();
        let (_, head) = events.head().unwrap();
        assert_eq!(head.text("content-type").as_deref(), Some("text/event-stream"), "{name}");
        let mut asking = Client::plain(address).unwrap();
        for number in 1..=5 {
            let mut got = Vec::new();
            let expected = format!("id: {number}\ndata: event {number}\n\n");
            while got.len() < expected.len() {
                let size = events.wire.chunk_size().unwrap();
                events.wire.exactly(size, &mut |piece| got.extend_from_slice(piece)).unwrap();
                assert_eq!(events.wire.line().unwrap().as_deref(), Some(&b""[..]), "{name}");
            }
            assert_eq!(String::from_utf8_lossy(&got), expected, "{name}");
            let next = format!("POST /events/next HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(asking.exchange(next).unwrap().status, 200, "{name}");
        }
    }
}

/// Runs a foreign client, which must end well and say so.
fn run(program: &Path, arguments: &[&str], says: &str) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains(says), "{arguments:?}: {text}");
}

#[test]
fn websockets_hold_a_conversation_over_http1() {
    let node = Server::node();
    let rempart = before(&node.url());
    let script = tools::script("websocket_client.py");
    let talk = |url: &str, address: String, authority: Option<&Path>| {
        let mut arguments = vec![script.to_str().unwrap(), url, &address];
        arguments.extend(authority.and_then(Path::to_str));
        run(&tools::python(), &arguments, "conversation ended as agreed");
    };
    talk(&format!("ws://{HOST}/ws"), node.address().to_string(), None);
    talk(&format!("ws://{HOST}/ws"), rempart.plain().to_string(), None);
    talk(&format!("wss://{HOST}/ws"), rempart.tls().to_string(), Some(&rempart.authority_path()));
}

#[test]
fn websockets_hold_a_conversation_over_http2() {
    let node = Server::node();
    let rempart = before(&node.url());
    let (script, authority) = (tools::script("websocket_h2.py"), rempart.authority_path());
    let (script, authority) = (script.to_str().unwrap(), authority.to_str().unwrap());
    let address = rempart.tls().to_string();
    run(&tools::python(), &[script, &address, HOST, "/ws", authority], "conversation ended as agreed");
}

#[test]
fn grpc_calls_of_all_kinds_are_answered() {
    let grpc = Server::grpc();
    let script = tools::script("grpc_client.py");
    let script = script.to_str().unwrap();
    run(&tools::python(), &[script, &grpc.address().to_string()], "all calls answered");
    let rempart = before(&grpc.url());
    let (address, authority) = (rempart.tls().to_string(), rempart.authority_path());
    run(&tools::python(), &[script, &address, authority.to_str().unwrap(), HOST], "all calls answered");
}

#[test]
fn python_answers_of_every_age_arrive() {
    let python = Server::python();
    let rempart = before(&python.url());
    for way in ways(&python, &rempart) {
        let name = way.0;
        if name == "direct" {
            assert_eq!(way.1.curl("/old", &[]).text(), "until the end\n");
        } else {
            let old = ask(&way, "/old", &[]);
            assert_eq!((old.status, old.text().as_str()), (200, "until the end\n"), "{name}");
        }
        assert_eq!(ask(&way, "/hello", &[]).text(), "hello from python\n", "{name}");
        let cookies = ask(&way, "/cookies", &[]);
        let count =
            cookies.heads.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).count();
        assert_eq!(count, 20, "{name}: {}", cookies.heads);
        let posted = ask(&way, "/", &["--data-binary", "0123456789"]).json();
        assert_eq!(posted["bytes"], 10, "{name}");
    }
}

#[test]
fn ten_thousand_requests_are_all_answered_with_200() {
    let _alone = heavy();
    let nginx = Server::nginx("");
    fs::write(nginx.folder().join("small.txt"), "x".repeat(1024)).unwrap();
    let rempart = before(&nginx.url());
    for (name, target, flags) in [
        ("h2", Target::tls(&rempart, HOST), &["-c20", "-m10"][..]),
        ("h1", Target::plain(rempart.plain(), HOST), &["-c20", "--h1"][..]),
    ] {
        let mut command = Command::new(tools::program("h2load"));
        command.args(["-n10000", "-t1"]).args(flags).arg(format!("--connect-to={}", target.address));
        let output = command.arg(target.url("/small.txt")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("status codes: 10000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{name}: {text}");
        assert!(text.contains("10000 succeeded, 0 failed, 0 errored, 0 timeout"), "{name}: {text}");
    }
    let status = rempart.status();
    assert_eq!(status.requests, 20_000, "each request is counted once");
}
