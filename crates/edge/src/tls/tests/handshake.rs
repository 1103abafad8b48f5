//! Handshakes in memory: names, protocols, groups, resumption across reloads, and clients that speak no TLS.

use std::sync::Arc;

use rustls::HandshakeKind;
use snapshot::generation::Certificate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::*;
use crate::tls::{
    Alpn, DevelopmentAuthority, HandshakeError, HelloTee, ServerSettings, ServerTls, Version, accept,
};

fn leaf(stream: &tokio_rustls::client::TlsStream<tokio::io::DuplexStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let (exact, exact_key) = self_signed(&["shop.example"], -1, 30);
    let (wild, wild_key) = self_signed(&["*.shop.example"], -1, 30);
    let snapshot = generation(vec![
        site(0, &["shop.example"], given(&exact, &exact_key)),
        site(1, &["*.shop.example"], given(&wild, &wild_key)),
    ]);
    let server = ServerTls::new().unwrap().settings(load(&snapshot, None).unwrap()).unwrap();
    let client = Arc::new(client(&format!("{exact}{wild}"), &[]));
    let (near, far) = visit(&client, "shop.example", &server).await;
    let first = leaf(&near);
    assert_eq!(far.facts.server_name.as_deref(), Some("shop.example"));
    let (near, far) = visit(&client, "WWW.Shop.Example", &server).await;
    assert_ne!(leaf(&near), first);
    assert_eq!(far.facts.server_name.as_deref(), Some("www.shop.example"));
    // A name of nobody still gets a certificate (the first site's), which this client then refuses.
    let (near, far) = join(&client, "unknown.example", &server).await;
    let error = near.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    match far {
        Err(error @ HandshakeError::Refused { hello: Some(_), .. }) => {
            assert_eq!(error.reason(), "alert-received")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_agreed_is_told() {
    let authority = authority();
    let server = development_server(&authority, &["*"]);
    let mut both = client(authority.certificate_pem(), &["h2", "http/1.1"]);
    both.enable_sni = false;
    let (near, far) = visit(&Arc::new(both), "127.0.0.1", &server).await;
    assert_eq!(far.facts.alpn, Alpn::H2);
    assert_eq!(far.facts.version, Version::Tls13);
    assert_eq!(far.facts.cipher, "TLS_AES_256_GCM_SHA384");
    assert_eq!(far.facts.group, Some("X25519MLKEM768"));
    assert_eq!(far.facts.server_name, None);
    assert!(!far.facts.resumed);
    assert_eq!(near.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let one = Arc::new(client(authority.certificate_pem(), &["http/1.1"]));
    assert_eq!(visit(&one, "localhost", &server).await.1.facts.alpn, Alpn::H1);
    let none = Arc::new(client(authority.certificate_pem(), &[]));
    assert_eq!(visit(&none, "localhost", &server).await.1.facts.alpn, Alpn::None);
    let other = Arc::new(client(authority.certificate_pem(), &["acme-tls/1"]));
    let (near, far) = join(&other, "localhost", &server).await;
    assert!(near.is_err());
    assert_eq!(far.unwrap_err().reason(), "no-common-alpn");
}

#[tokio::test]
async fn tls_1_2_with_a_classic_group_still_works() {
    let authority = authority();
    let server = development_server(&authority, &["*"]);
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut old = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(Arc::new(rustls::RootCertStore {
            roots: client_roots(authority.certificate_pem()),
        }))
        .with_no_client_auth();
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (_, far) = visit(&Arc::new(old), "localhost", &server).await;
    assert_eq!(far.facts.version, Version::Tls12);
    assert_eq!(far.facts.version.as_str(), "TLSv1.2");
    assert_eq!(far.facts.group, Some("x25519"));
    assert!(far.facts.cipher.starts_with("TLS_ECDHE_ECDSA_WITH_"), "{}", far.facts.cipher);
}

fn client_roots(pem: &str) -> Vec<rustls::pki_types::TrustAnchor<'static>> {
    use rustls::pki_types::pem::PemObject;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut store = rustls::RootCertStore::empty();
    store.add(der).unwrap();
    store.roots
}

#[tokio::test]
async fn sessions_continue_across_a_reload_and_only_for_their_own_name() {
    let authority = authority();
    let shared = ServerTls::new().unwrap();
    let snapshot = || generation(vec![site(0, &["*.example"], Certificate::Development)]);
    let before = shared.settings(load(&snapshot(), Some(&authority)).unwrap()).unwrap();
    let client = Arc::new(client(authority.certificate_pem(), &["h2"]));
    let (near, far) = visit(&client, "a.example", &before).await;
    assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert!(!far.facts.resumed);

    let after = shared.settings(load(&snapshot(), Some(&authority)).unwrap()).unwrap();
    let (near, far) = visit(&client, "a.example", &after).await;
    assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(far.facts.resumed);
    let (_, far) = visit(&client, "b.example", &after).await;
    assert!(!far.facts.resumed, "a ticket of one name must not open another");

    // Another process has other keys: its clients shake hands in full again, nothing fails.
    let elsewhere = ServerTls::new().unwrap();
    let elsewhere = elsewhere.settings(load(&snapshot(), Some(&authority)).unwrap()).unwrap();
    assert!(!visit(&client, "a.example", &elsewhere).await.1.facts.resumed);
}

#[tokio::test]
async fn tls_1_2_sessions_continue_across_a_reload_too() {
    let authority = authority();
    let shared = ServerTls::new().unwrap();
    let snapshot = generation(vec![site(0, &["a.example"], Certificate::Development)]);
    let mut old = rustls::ClientConfig::builder_with_provider(crate::tls::provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore { roots: client_roots(authority.certificate_pem()) })
        .with_no_client_auth();
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    let old = Arc::new(old);
    let mut resumed = Vec::new();
    for _ in 0..2 {
        let server = shared.settings(load(&snapshot, Some(&authority)).unwrap()).unwrap();
        resumed.push(visit(&old, "a.example", &server).await.1.facts.resumed);
    }
    assert_eq!(resumed, [false, true]);
}

#[tokio::test]
async fn the_hello_is_kept_however_small_the_reads_and_handed_over_once() {
    let authority = authority();
    for server in both_ways(&authority) {
        hello_is_kept(&authority, &server).await;
    }
}

async fn hello_is_kept(authority: &DevelopmentAuthority, server: &ServerSettings) {
    let client = Arc::new(client(authority.certificate_pem(), &["h2"]));
    for pipe in [7, 64, 1024, 64 * 1024] {
        let (near, far) = tokio::io::duplex(pipe);
        let connector = tokio_rustls::TlsConnector::from(client.clone());
        // The client goes on reading: a pipe this narrow does not hold the session tickets.
        let talk = async {
            let mut near = connector.connect("localhost".try_into().unwrap(), near).await.unwrap();
            near.read_u8().await.unwrap()
        };
        let answer = async {
            let mut far = accept(far, server).await.unwrap();
            far.stream.write_all(b"!").await.unwrap();
            far.stream.flush().await.unwrap();
            far
        };
        let (heard, far) = tokio::join!(talk, answer);
        let hello = far.hello.unwrap();
        assert!(heard == b'!' && !hello.truncated && hello.raw.len() > 1200, "{}", hello.raw.len());
        let view = hello.view().unwrap();
        assert_eq!(view.server_name(), Some("localhost"));
        assert_eq!(view.alpn().collect::<Vec<_>>(), [b"h2"]);
        assert!(far.stream.get_ref().0.hello().is_none(), "the connection itself keeps no copy");
    }
}

#[tokio::test]
async fn reading_byte_by_byte_loses_nothing() {
    let mut hello = vec![22, 3, 1, 0, 9, 1, 0, 0, 5, 1, 2, 3, 4, 5];
    hello.extend_from_slice(b"what follows");
    for (said, kept) in [
        (&hello[..], Some(&hello[5..14])),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None),
        (b"GETAWAY", None),
        (b"GET", None),
        (b"\x16\x03", None),
        (b"", None),
    ] {
        let mut tee = HelloTee::new(tokio::io::join(said, tokio::io::sink()));
        let mut heard = Vec::new();
        while let Ok(byte) = tee.read_u8().await {
            heard.push(byte);
        }
        assert_eq!(heard, said);
        assert_eq!(tee.take_hello().map(|hello| hello.raw.to_vec()).as_deref(), kept);
        assert!(tee.take_hello().is_none() && tee.plain_http().is_none());
        assert_eq!(tee.is_untouched(), said.is_empty());
    }
    let mut tee = HelloTee::new(tokio::io::join(&b"GET / HTTP/1.1\r\n"[..], tokio::io::sink()));
    assert!(tee.read_u8().await.is_err());
    assert!(tee.read_u8().await.is_err(), "it stays so");
    assert_eq!(tee.plain_http(), Some(&b"GET /"[..]));
    assert_eq!(tee.into_inner().into_inner().0, b" HTTP/1.1\r\n");
}

#[tokio::test]
async fn plain_http_is_recognised_before_an_alert_is_sent() {
    for server in both_ways(&authority()) {
        plain_http_is_recognised(&server).await;
    }
}

async fn plain_http_is_recognised(server: &ServerSettings) {
    for (said, pieces) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5),
        ("OPTIONS * HTTP/1.1\r\n\r\n", 1),
        ("CONNECT a.example:443 HTTP/1.1\r\n\r\n", 1),
        ("POST http://a/ HTTP/1.1\r\n\r\n", 6),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4),
    ] {
        // A pipe of few bytes cuts what was said into as many reads.
        let (mut near, far) =
            tokio::io::duplex(if pieces == 1 { 1024 } else { said.len().min(8) / pieces + 1 });
        let talk = async {
            near.write_all(said.as_bytes()).await.unwrap();
            near.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answer = async {
            let error = accept(far, server).await.unwrap_err();
            assert_eq!(error.reason(), "plain-http");
            let HandshakeError::PlainHttp { mut io, first } = error else { panic!("not recognised: {said}") };
            assert!(said.as_bytes().starts_with(&first), "{first:?}");
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await.unwrap();
            assert_eq!([&first[..], &rest].concat(), said.as_bytes(), "nothing may be lost");
            io.write_all(b"HTTP/1.1 400 ").await.unwrap();
        };
        let (heard, ()) = tokio::join!(talk, answer);
        assert_eq!(heard, b"HTTP/1.1 400 ", "after {said}");
    }
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_gets_an_alert() {
    for server in both_ways(&authority()) {
        an_alert_answers(&server).await;
    }
}

async fn an_alert_answers(server: &ServerSettings) {
    for said in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"GETAWAY now please, thank you",
        b"GET \x00",
        b"\x80\x2e\x01\x03\x01",
        b"\0\0\0\0\0\0",
        b"G",
    ] {
        let (mut near, far) = tokio::io::duplex(1024);
        let talk = async {
            near.write_all(said).await.unwrap();
            near.shutdown().await.unwrap();
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let (heard, result) = tokio::join!(talk, accept(far, server));
        assert_eq!(result.unwrap_err().reason(), "not-tls", "{said:?}");
        assert_eq!(heard.first(), Some(&21), "an alert record answers {said:?}");
    }
}

#[tokio::test]
async fn a_silent_client_and_one_that_leaves_are_told_apart() {
    for server in both_ways(&authority()) {
        silence_and_loss(&server).await;
    }
}

async fn silence_and_loss(server: &ServerSettings) {
    let (near, far) = tokio::io::duplex(64);
    drop(near);
    assert_eq!(accept(far, server).await.unwrap_err().reason(), "silent");
    let (mut near, far) = tokio::io::duplex(64);
    near.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    drop(near);
    assert_eq!(accept(far, server).await.unwrap_err().reason(), "connection-lost");
}
