//! Challenges of certificate authorities: validations by handshake, who else must not get them, and what is refused.

use std::sync::Arc;

use api::certificates::Challenge;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use snapshot::generation::Certificate;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;

use super::fixture::*;
use crate::edge::{BoundListener, Edge, EdgeOptions, ListenerSet};
use crate::generation::Loader;
use crate::telemetry::access_log::{AccessLog, LogCounts};
use crate::telemetry::metrics::Metrics;
use crate::tls::challenges::MAX_CHALLENGES;
use crate::tls::{Alpn, ChallengeError, Challenges, Expired, ServerSettings, ServerTls, provider};

/// What a keeper makes for a name: self-signed, with the critical extension of RFC 8737 section 3.
fn validation(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn challenge(name: &str) -> (Challenge, Vec<u8>) {
    let (certificate, key) = validation(name);
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec();
    (Challenge::TlsAlpn01 { name: name.to_owned(), certificate, key }, der)
}

fn http(token: &str, content: &str) -> Challenge {
    Challenge::Http01 { token: token.to_owned(), content: content.to_owned() }
}

/// An authority looks at the certificate itself; no chain verifier accepts its critical extension.
#[derive(Debug)]
struct Looks;

impl ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn looking(alpn: &[&str]) -> Arc<ClientConfig> {
    looking_with(alpn, &[&rustls::version::TLS13, &rustls::version::TLS12])
}

fn looking_with(alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looks))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The certificate a client with these protocols is shown and what was agreed on; or why the server refused.
async fn shown(
    server: &Arc<ServerSettings>,
    name: &str,
    alpn: &[&str],
) -> Result<(Vec<u8>, Alpn), &'static str> {
    match join(&looking(alpn), name, server).await {
        (Ok(near), Ok(far)) => {
            Ok((near.get_ref().1.peer_certificates().unwrap()[0].to_vec(), far.facts.alpn))
        }
        (_, Err(error)) => Err(error.reason()),
        (Err(error), Ok(_)) => panic!("only the client failed: {error}"),
    }
}

#[tokio::test]
async fn a_validation_sees_its_certificate_and_nobody_else_does() {
    let authority = authority();
    let tls = ServerTls::new().unwrap();
    let snapshot = generation(vec![site(0, &["*.example"], Certificate::Development)]);
    let server = tls.settings(load(&snapshot, Some(&authority)).unwrap()).unwrap();
    assert_eq!(shown(&server, "a.example", &["acme-tls/1"]).await, Err("no-common-alpn"));

    let (pending, expected) = challenge("a.example");
    tls.challenges().set(&[pending, http("token", "content")]).unwrap();
    // In force at once, for generations loaded before too.
    assert_eq!(shown(&server, "A.example", &["acme-tls/1"]).await, Ok((expected.clone(), Alpn::AcmeTls)));
    assert_eq!(shown(&server, "b.example", &["acme-tls/1"]).await, Err("no-common-alpn"));
    for (alpn, agreed) in [
        (&["acme-tls/1", "h2"][..], Alpn::H2),
        (&["acme-tls/1", "http/1.1"], Alpn::H1),
        (&["h2", "http/1.1"], Alpn::H2),
        (&[], Alpn::None),
    ] {
        let (certificate, alpn) = shown(&server, "a.example", alpn).await.unwrap();
        assert!(certificate != expected && alpn == agreed, "{agreed:?}");
    }
    assert_eq!(shown(&server, "a.example", &["acme-tls/1", "x"]).await, Err("no-common-alpn"));

    tls.challenges().set(&[]).unwrap();
    assert_eq!(shown(&server, "a.example", &["acme-tls/1"]).await, Err("no-common-alpn"));
}

#[test]
fn bad_challenges_are_refused_and_what_was_pending_stays() {
    let challenges = Challenges::default();
    challenges.set(&[http("toKen_-9", "toKen_-9.thumb")]).unwrap();
    let (certificate, key) = validation("a.example");
    let (_, other) = validation("a.example");
    let of = |certificate: &str, key: &str| Challenge::TlsAlpn01 {
        name: "a.example".to_owned(),
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    for bad in [
        http("", "c"),
        http("../secret", "c"),
        http("a b", "c"),
        http(&"t".repeat(257), "c"),
        http("t", ""),
        http("t", &"c".repeat(513)),
    ] {
        assert_eq!(challenges.set(&[bad]), Err(ChallengeError::Http));
    }
    assert_eq!(
        challenges.set(&[of(&certificate, &other)]),
        Err(ChallengeError::Mismatch("a.example".to_owned()))
    );
    for bad in [of(&key, &key), of(&certificate, "no key"), of("", &key)] {
        let error = challenges.set(&[http("new", "c"), bad]).unwrap_err();
        assert!(matches!(&error, ChallengeError::Unreadable { name, .. } if name == "a.example"), "{error}");
        assert!(!error.to_string().contains(&key));
    }
    let many = vec![http("t", "c"); MAX_CHALLENGES + 1];
    assert_eq!(challenges.set(&many), Err(ChallengeError::TooMany(MAX_CHALLENGES + 1)));
    assert_eq!(challenges.http("toKen_-9").as_deref(), Some("toKen_-9.thumb"));
    assert_eq!((challenges.http("new"), challenges.http("token_-9")), (None, None));
    challenges.set(&[of(&certificate, &key)]).unwrap();
    assert_eq!(challenges.http("toKen_-9"), None, "replaced as a whole");
}

#[tokio::test]
async fn an_edge_closes_after_a_validation_and_counts_no_failure() {
    let counts = Arc::<LogCounts>::default();
    let metrics = Arc::new(Metrics::new(1, counts.clone()));
    let loader = Loader::new(metrics.clone()).unwrap();
    let snapshot = generation(vec![site(0, &["a.example"], Certificate::Development)]);
    let access_log = Arc::new(AccessLog::start(&snapshot.access_log, counts).unwrap());
    let first = loader.load(snapshot, 1, Some(&authority()), now(), Expired::Refuse).unwrap();
    let (pending, expected) = challenge("a.example");
    loader.challenges().set(&[pending]).unwrap();

    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let events = Arc::new(crate::telemetry::events::Events::start("unused".into(), Arc::default()).unwrap());
    let options = EdgeOptions { threads: 1, seed: 1, metrics: metrics.clone(), access_log, events };
    let listener = BoundListener { id: 1, configured: address, address, tls: true, proxy_protocol: false };
    // An edge is driven by a thread of its own, never from inside a runtime.
    let edge = tokio::task::spawn_blocking(move || {
        let edge = Edge::start(options, first).unwrap();
        edge.activate(None, vec![ListenerSet { listener, sockets: vec![socket] }]);
        edge
    });
    let edge = edge.await.unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = looking_with(&["acme-tls/1"], &[version]);
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].as_ref(), expected);
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        // A goodbye in TLS, not a connection cut off.
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }
    let figures = metrics.render();
    assert!(figures.contains("rempart_tls_handshakes_total{result=\"failed\"} 0"), "{figures}");
    drop(edge);
}
