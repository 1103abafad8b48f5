//! The ClientHello parser: real hellos cut everywhere, fragments, limits, and bytes that are no hello.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base::random::Random;
use rustls::ClientConnection;

use super::fixture::*;
use crate::tls::client_hello::{
    ClientHello, ClientHelloView, HelloParser, MAX_CLIENT_HELLO, Progress, is_grease,
};

/// The first flight of a rustls client, as it goes over the wire.
fn rustls_hello() -> Vec<u8> {
    let config = client(authority().certificate_pem(), &["h2", "http/1.1"]);
    let mut connection = ClientConnection::new(Arc::new(config), "shop.example".try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    connection.write_tls(&mut wire).unwrap();
    wire
}

fn collect<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<ClientHello> {
    let mut parser = HelloParser::default();
    for piece in pieces {
        parser.push(piece);
    }
    parser.finish()
}

/// The same message in records of `size` bytes.
fn fragmented(message: &[u8], size: usize) -> Vec<u8> {
    let record =
        |piece: &[u8]| [&[22, 3, 1], &u16::try_from(piece.len()).unwrap().to_be_bytes()[..], piece].concat();
    message.chunks(size).flat_map(record).collect()
}

/// What a program sends first to a listener on loopback; the program is ended afterwards.
fn captured(program: &str, arguments: impl Fn(u16) -> Vec<String>) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut child = Command::new(program)
        .args(arguments(port))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let (mut stream, _) = listener.accept().unwrap();
    let mut parser = HelloParser::default();
    let mut wire = Vec::new();
    let mut byte = [0];
    while parser.push(&wire[wire.len().saturating_sub(1)..]) == Progress::More {
        stream.read_exact(&mut byte).unwrap();
        wire.push(byte[0]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    wire
}

#[test]
fn a_hello_is_the_same_however_it_is_cut() {
    let wire = rustls_hello();
    let whole = collect([&wire[..]]).unwrap();
    assert!(whole.raw.len() > 1200, "an ML-KEM share makes it larger than a segment: {}", whole.raw.len());
    assert_eq!(whole.raw, wire[5..]);
    for cut in 0..=wire.len() {
        let (first, second) = wire.split_at(cut);
        assert_eq!(collect([first, second]), Some(whole.clone()), "cut at {cut}");
        assert_eq!(collect([first]).is_some(), cut == wire.len(), "complete too early at {cut}");
    }
    assert_eq!(collect(wire.chunks(1)), Some(whole.clone()));
    for size in [1, 2, 3, 4, 5, 100, 1000] {
        let records = fragmented(&whole.raw, size);
        assert_eq!(collect([&records[..]]), Some(whole.clone()), "records of {size}");
        assert_eq!(collect(records.chunks(7)), Some(whole.clone()), "records of {size} in reads of 7");
    }
    // What follows in the same read belongs to the connection, not to the hello.
    assert_eq!(collect([&[&wire[..], &[20, 3, 3, 0, 1, 1]].concat()[..]]), Some(whole));
}

#[test]
fn a_rustls_hello_reads_as_it_was_configured() {
    let hello = collect([&rustls_hello()[..]]).unwrap();
    let view = hello.view().unwrap();
    assert_eq!(view.legacy_version, 0x0303);
    assert_eq!((view.random.len(), view.session_id.len(), view.compression), (32, 32, &[0][..]));
    assert_eq!(view.server_name(), Some("shop.example"));
    assert_eq!(view.alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert_eq!(view.supported_versions().iter().collect::<Vec<_>>(), [0x0304, 0x0303]);
    assert_eq!(view.groups().iter().next(), Some(0x11ec), "X25519MLKEM768 first");
    assert!(view.key_shares().any(|group| group == 0x11ec));
    assert!(view.cipher_suites.iter().any(|suite| suite == 0x1301));
    assert!(view.signature_algorithms().iter().any(|scheme| scheme == 0x0403));
    let facts = view.facts();
    assert_eq!(facts.version, 0x0304);
    assert!(facts.server_name);
    assert_eq!(facts.first_alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(facts.extensions.len(), view.extensions().count());
}

#[test]
fn hellos_of_openssl_and_python_are_read_and_cut_everywhere() {
    let openssl = captured("openssl", |port| {
        [
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-servername",
            "shop.example",
            "-alpn",
            "h2,http/1.1",
        ]
        .map(str::to_owned)
        .to_vec()
    });
    let script = |port: u16| {
        format!(
            "import socket, ssl\ncontext = ssl.create_default_context()\ncontext.set_alpn_protocols(['http/1.1'])\n\
             context.wrap_socket(socket.create_connection(('127.0.0.1', {port})), server_hostname='shop.example')"
        )
    };
    let python = captured("python3", |port| vec!["-c".to_owned(), script(port)]);
    for (wire, alpn) in [(openssl, &b"h2"[..]), (python, b"http/1.1")] {
        let hello = collect([&wire[..]]).unwrap();
        let view = hello.view().unwrap();
        assert_eq!(view.server_name(), Some("shop.example"));
        let facts = view.facts();
        assert_eq!((facts.version, facts.first_alpn.as_deref()), (0x0304, Some(alpn)));
        assert!(facts.cipher_suites.len() > 3 && facts.signature_algorithms.len() > 3, "{facts:?}");
        for cut in 0..wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(collect([first, second]), Some(hello.clone()), "cut at {cut}");
        }
    }
}

#[test]
fn what_is_no_hello_ends_the_collection_at_once() {
    for (wire, why) in [
        (&b"G"[..], "HTTP"),
        (&[22, 2], "SSL 2"),
        (&[22, 3, 1, 0, 0], "an empty record"),
        (&[22, 3, 1, 0x40, 1], "a record above 2^14"),
        (&[22, 3, 1, 0, 4, 2], "a ServerHello"),
        (&[22, 3, 1, 0, 1, 1, 21], "an alert in the middle"),
    ] {
        let mut parser = HelloParser::default();
        assert_eq!(parser.push(wire), Progress::NotTls, "{why}");
        assert_eq!(parser.push(&rustls_hello()), Progress::NotTls, "{why}: it stays so");
        assert!(parser.finish().is_none());
    }
}

#[test]
fn a_hello_above_the_limit_is_cut_and_says_so() {
    let mut message = vec![1, 1, 0, 0];
    message.resize(4 + 0x10000, 7);
    let wire = fragmented(&message, 16_384);
    let hello = collect([&wire[..]]).unwrap();
    assert!(hello.truncated);
    assert_eq!(hello.raw, message[..MAX_CLIENT_HELLO]);
    assert!(hello.view().is_none());
    // Exactly at the limit it is whole.
    let mut message = vec![1, 0, 0xff, 0xfc];
    message.resize(MAX_CLIENT_HELLO, 7);
    let hello = collect([&fragmented(&message, 16_384)[..]]).unwrap();
    assert!(!hello.truncated);
    assert_eq!(hello.raw, message);
}

#[test]
fn a_hello_with_any_byte_cut_off_or_changed_never_panics() {
    let hello = collect([&rustls_hello()[..]]).unwrap();
    for length in 0..hello.raw.len() {
        assert!(ClientHelloView::parse(&hello.raw[..length]).is_none(), "cut to {length}");
    }
    assert!(ClientHelloView::parse(&[&hello.raw[..], &[0]].concat()).is_none(), "something follows");
    let mut random = Random::seeded(20);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut message = hello.raw.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(u32::try_from(message.len()).unwrap()) as usize;
            message[at] = random.next_u64() as u8;
        }
        if let Some(view) = ClientHelloView::parse(&message) {
            read += 1;
            let facts = view.facts();
            assert!(facts.extensions.len() <= message.len() / 4);
            assert!(view.key_shares().count() <= message.len() / 4);
            assert!(view.server_name().is_none_or(|name| name.bytes().all(|byte| byte.is_ascii_graphic())));
        }
        let mut parser = HelloParser::default();
        for piece in message.chunks(97) {
            parser.push(piece);
        }
    }
    assert!(read > 1_000, "most changes leave the lengths alone: {read}");
}

#[test]
fn grease_is_left_out_of_fingerprints() {
    let extension = |kind: u16, content: &[u8]| {
        [&kind.to_be_bytes()[..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    };
    let extensions = [
        extension(0x1a1a, &[]),
        extension(43, &[6, 0x3a, 0x3a, 3, 4, 3, 3]),
        extension(13, &[0, 4, 0x0a, 0x0a, 4, 3]),
    ]
    .concat();
    let mut body = [&[3, 3][..], &[9; 32], &[0], &[0, 4, 0xfa, 0xfa, 0x13, 1], &[1, 0]].concat();
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let message = [&[1, 0, 0][..], &[u8::try_from(body.len()).unwrap()], &body].concat();
    let view = ClientHelloView::parse(&message).unwrap();
    assert_eq!(view.cipher_suites.iter().collect::<Vec<_>>(), [0xfafa, 0x1301]);
    let facts = view.facts();
    assert_eq!(facts.cipher_suites, [0x1301]);
    assert_eq!(facts.extensions, [43, 13]);
    assert_eq!(facts.signature_algorithms, [0x0403]);
    assert_eq!(facts.version, 0x0304);
    assert!(!facts.server_name && facts.first_alpn.is_none());
    assert!(is_grease(0x0a0a) && !is_grease(0x0a1a) && !is_grease(0x1301));
}
