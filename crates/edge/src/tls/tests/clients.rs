//! Clients people use, over loopback: curl and `openssl s_client` against the development authority.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::fixture::*;
use crate::tls::{Alpn, ServerSettings, TlsFacts, accept};

/// Serves one HTTP/1.1 answer to each of `visitors`, and tells what was agreed with each.
async fn serve(listener: TcpListener, server: Arc<ServerSettings>, visitors: usize) -> Vec<Option<TlsFacts>> {
    let mut seen = Vec::new();
    for _ in 0..visitors {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut accepted) = accept(stream, &server).await else {
            seen.push(None);
            continue;
        };
        if read_head(&mut accepted.stream).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            accepted.stream.write_all(answer).await.unwrap();
            accepted.stream.shutdown().await.unwrap();
        }
        seen.push(Some(accepted.facts));
    }
    seen
}

/// A whole request head; `None` from a client that leaves instead.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(head)
}

/// Runs a program while the server above serves it once.
async fn against(
    hosts: &[&str],
    program: &'static str,
    arguments: impl Fn(u16, &str) -> Vec<String>,
    input: &'static str,
) -> (Output, Option<TlsFacts>) {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("authority.pem");
    std::fs::write(&trusted, authority.certificate_pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let arguments = arguments(port, trusted.to_str().unwrap());
    let run = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let (output, mut seen) = tokio::join!(run, serve(listener, development_server(&authority, hosts), 1));
    (output.unwrap(), seen.remove(0))
}

fn curl(host: &'static str, more: &'static [&'static str]) -> impl Fn(u16, &str) -> Vec<String> {
    move |port, trusted| {
        let mut arguments: Vec<String> =
            ["-sS", "--noproxy", "*", "--http1.1", "--cacert", trusted].map(str::to_owned).to_vec();
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        arguments.extend(["--resolve".to_owned(), format!("{host}:{port}:127.0.0.1")]);
        arguments.push(format!("https://{host}:{port}/"));
        arguments
    }
}

#[tokio::test]
async fn curl_trusts_names_wildcards_and_addresses_signed_by_the_authority() {
    for (hosts, host, named) in [
        (&["shop.example"][..], "shop.example", true),
        (&["*.shop.example"], "www.shop.example", true),
        (&["*.shop.example"], "a.b.shop.example", true),
        (&["*"], "localhost", true),
        (&["*"], "anything.example", true),
        (&["*"], "127.0.0.1", false),
    ] {
        let (output, facts) = against(hosts, "curl", curl(host, &[]), "").await;
        assert_eq!(output.stdout, b"hello", "{host}: {}", String::from_utf8_lossy(&output.stderr));
        let facts = facts.unwrap();
        assert_eq!(facts.server_name.as_deref(), named.then_some(host));
        assert_eq!((facts.alpn, facts.version.as_str()), (Alpn::H1, "TLSv1.3"));
    }
}

#[tokio::test]
async fn curl_refuses_a_name_nobody_has() {
    // curl looks at the name once the handshake is done, so only its exit code (60, peer not verified) tells.
    let (output, _) = against(&["shop.example"], "curl", curl("other.example", &[]), "").await;
    assert_eq!(output.status.code(), Some(60), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn curl_with_tls_1_2_only_is_served() {
    let (output, facts) = against(&["*"], "curl", curl("localhost", &["--tls-max", "1.2"]), "").await;
    assert_eq!(output.stdout, b"hello", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(facts.unwrap().version.as_str(), "TLSv1.2");
}

#[tokio::test]
async fn openssl_verifies_the_chain_and_agrees_on_h2() {
    let arguments = |port: u16, trusted: &str| {
        let address = format!("127.0.0.1:{port}");
        ["s_client", "-connect", &address, "-servername", "shop.example", "-verify_hostname", "shop.example"]
            .into_iter()
            .chain(["-CAfile", trusted, "-verify_return_error", "-alpn", "h2,http/1.1", "-ign_eof"])
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (output, facts) = against(&["shop.example"], "openssl", arguments, "GET / HTTP/1.1\r\n\r\n").await;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("Verify return code: 0 (ok)") && text.contains("ALPN protocol: h2"),
        "{text}{errors}"
    );
    assert!(text.contains("hello"), "{text}{errors}");
    assert_eq!(facts.unwrap().alpn, Alpn::H2);
}

#[tokio::test]
async fn keys_as_openssl_writes_them_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("sec1", &["ecparam", "-name", "prime256v1", "-genkey", "-noout"][..]),
        ("sec1 with parameters", &["ecparam", "-name", "secp384r1", "-genkey"]),
        ("pkcs1", &["genrsa", "-traditional", "2048"]),
        ("pkcs8", &["genpkey", "-algorithm", "ed25519"]),
    ] {
        let (key, chain) = (folder.path().join("key"), folder.path().join("chain"));
        let made = Command::new("openssl").args(arguments).output().unwrap();
        std::fs::write(&key, &made.stdout).unwrap();
        let request =
            ["req", "-x509", "-days", "2", "-subj", "/CN=a", "-addext", "subjectAltName=DNS:a.example"];
        let signed =
            Command::new("openssl").args(request).arg("-key").arg(&key).arg("-out").arg(&chain).output();
        let signed = signed.unwrap();
        assert!(signed.status.success(), "{name}: {}", String::from_utf8_lossy(&signed.stderr));
        let (chain, key) = (std::fs::read_to_string(chain).unwrap(), std::fs::read_to_string(key).unwrap());
        let snapshot = generation(vec![site(0, &["a.example"], given(&chain, &key))]);
        let loaded = load(&snapshot, None).unwrap_or_else(|errors| panic!("{name}: {errors:?}\n{key}"));
        assert!(loaded.warnings().is_empty(), "{name}: {:?}", loaded.warnings());
    }
}
