//! Verification of origins: trusted, untrusted, wrong name, expired, self-signed, and switched off.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_native_certs::CertificateResult;
use snapshot::generation::{
    HostHeader, Origin, OriginHost, OriginHttp, OriginTimeouts, OriginTls, OriginVerify,
};

use super::fixture::*;
use crate::tls::origin::system_roots;
use crate::tls::{OriginTlsConfigs, Protocols, ServerSettings, ServerTls, server_name};

fn trusting(pem: &str) -> OriginVerify {
    OriginVerify::Authorities {
        pem: Arc::from(pem.as_bytes()),
        place: "site[0].origin[0].tls.authorities".to_owned(),
    }
}

fn serving(chain: &str, key: &str) -> Arc<ServerSettings> {
    let snapshot = generation(vec![site(0, &["origin.example"], given(chain, key))]);
    let certificates =
        crate::tls::Certificates::load(&snapshot, None, now(), crate::tls::Expired::Serve, &Arc::default())
            .unwrap();
    ServerTls::new().unwrap().settings(Arc::new(certificates)).unwrap()
}

/// `ok`, or what the client says of the server.
async fn verdict(verify: &OriginVerify, name: &str, server: &Arc<ServerSettings>) -> String {
    let config = OriginTlsConfigs::default().get(verify, Protocols::Any, "test").unwrap();
    match join(&config, name, server).await {
        (Ok(_), Ok(_)) => "ok".to_owned(),
        (Err(error), _) => error.to_string(),
        (Ok(_), Err(error)) => panic!("only the server failed: {error}"),
    }
}

#[tokio::test]
async fn an_authority_of_its_own_is_trusted_and_no_other() {
    let authority = authority();
    let server = development_server(&authority, &["origin.example"]);
    let own = trusting(authority.certificate_pem());
    assert_eq!(verdict(&own, "origin.example", &server).await, "ok");
    let wrong_name = verdict(&own, "elsewhere.example", &server).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let other = trusting(super::fixture::authority().certificate_pem());
    assert!(verdict(&other, "origin.example", &server).await.contains("UnknownIssuer"));
    assert_eq!(verdict(&OriginVerify::Off, "elsewhere.example", &server).await, "ok");
}

#[tokio::test]
async fn a_self_signed_origin_is_trusted_by_its_own_certificate() {
    // As `openssl req -x509` makes them: its own authority.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["origin.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let chain = params.self_signed(&key).unwrap().pem();
    let server = serving(&chain, &key.serialize_pem());
    assert_eq!(verdict(&trusting(&chain), "origin.example", &server).await, "ok");
    let wrong_name = verdict(&trusting(&chain), "elsewhere.example", &server).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let (expired, expired_key) = self_signed(&["origin.example"], -30, -1);
    let server = serving(&expired, &expired_key);
    let late = verdict(&trusting(&expired), "origin.example", &server).await;
    assert!(late.contains("Expired"), "{late}");
    assert_eq!(verdict(&OriginVerify::Off, "origin.example", &server).await, "ok");
}

#[tokio::test]
async fn protocols_are_offered_as_asked_and_sessions_resume() {
    let authority = authority();
    let server = development_server(&authority, &["origin.example"]);
    let configs = OriginTlsConfigs::default();
    let verify = trusting(authority.certificate_pem());
    for (protocols, expected) in
        [(Protocols::Any, &b"h2"[..]), (Protocols::Http1, b"http/1.1"), (Protocols::Http2, b"h2")]
    {
        let config = configs.get(&verify, protocols, "test").unwrap();
        let (near, _) = visit(&config, "origin.example", &server).await;
        assert_eq!(near.get_ref().1.alpn_protocol(), Some(expected));
        let again = configs.get(&verify, protocols, "test").unwrap();
        assert!(Arc::ptr_eq(&config, &again));
        let (near, _) = visit(&again, "origin.example", &server).await;
        assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    assert_eq!(Protocols::from(OriginHttp::Auto), Protocols::Any);
    assert_eq!(Protocols::from(OriginHttp::Http1), Protocols::Http1);
    assert_eq!(Protocols::from(OriginHttp::Http2), Protocols::Http2);
}

#[tokio::test]
async fn the_system_does_not_trust_a_development_authority() {
    let server = development_server(&authority(), &["origin.example"]);
    match OriginTlsConfigs::default().get(&OriginVerify::System, Protocols::Any, "site[0].origin[0].tls") {
        Ok(config) => {
            let (near, _) = join(&config, "origin.example", &server).await;
            let error = near.unwrap_err().to_string();
            assert!(error.contains("UnknownIssuer"), "{error}");
        }
        // A container without the package; what it says is checked below.
        Err(error) => assert_eq!(error.code, "no-system-authorities"),
    }
}

#[test]
fn a_machine_without_authorities_is_told_the_way_out() {
    let error = system_roots(CertificateResult::default(), "site[0].origin[0].tls").unwrap_err();
    assert_eq!((error.place.as_str(), error.code), ("site[0].origin[0].tls", "no-system-authorities"));
    assert!(error.hint.contains("ca-certificates"));
    let mut found = CertificateResult::default();
    found.certs.push(vec![0x30, 0].into());
    assert!(system_roots(found, "x").is_err(), "junk alone is none either");
    let mut found = CertificateResult::default();
    let (good, _) = self_signed(&["a.example"], -1, 30);
    found.certs.push(vec![0x30, 0].into());
    found.certs.push(CertificateDer::from_pem_slice(good.as_bytes()).unwrap());
    assert_eq!(system_roots(found, "x").unwrap().len(), 1, "junk beside a good one is passed over");
}

fn origin(server_name: &str, verify: OriginVerify) -> Arc<Origin> {
    let second = std::time::Duration::from_secs(1);
    Arc::new(Origin {
        label: "https://origin.example:443".into(),
        host: OriginHost::Name("origin.example".into()),
        port: 443,
        weight: 1,
        host_header: HostHeader::Preserve,
        tls: Some(OriginTls { server_name: server_name.into(), verify }),
        http: OriginHttp::Auto,
        max_idle: 1,
        max_connections: None,
        queue: 1,
        proxy_protocol: None,
        timeouts: OriginTimeouts {
            connect: second,
            queue: second,
            response: second,
            idle: second,
            keep_alive: second,
            resolve: second,
        },
    })
}

#[test]
fn a_generation_is_loaded_whole_or_refused_with_every_finding() {
    let good = trusting(authority().certificate_pem());
    let configs = OriginTlsConfigs::default();
    let of = |origins| {
        let (chain, key) = self_signed(&["a.example"], -1, 30);
        let mut site = site(0, &["a.example"], given(&chain, &key));
        site.origins = origins;
        generation(vec![site])
    };
    configs.load(&of(vec![origin("origin.example", good.clone())])).unwrap();
    let kept = configs.get(&good, Protocols::Http1, "test").unwrap();
    let broken = of(vec![
        origin("origin.example", trusting("")),
        origin("no name", good.clone()),
        origin("192.0.2.1", OriginVerify::Off),
    ]);
    let errors = configs.load(&broken).unwrap_err();
    let found: Vec<_> = errors.iter().map(|error| (error.place.as_str(), error.code)).collect();
    assert_eq!(
        found,
        [
            ("site[0].origin[0].tls.authorities", "authorities-unreadable"),
            ("site[0].origin[1].tls.server_name", "origin-server-name"),
        ]
    );
    let again = configs.get(&good, Protocols::Http1, "test").unwrap();
    assert!(Arc::ptr_eq(&kept, &again), "a refused generation leaves the running one's in place");
    configs.load(&of(vec![origin("192.0.2.1", OriginVerify::Off)])).unwrap();
    assert_eq!(format!("{configs:?}"), "OriginTlsConfigs(2 kept)", "what is no longer used is forgotten");
}

#[test]
fn server_names_are_names_or_addresses() {
    for good in [
        "origin.example",
        "origin.example.",
        "192.0.2.1",
        "2001:db8::1",
        "[2001:db8::1]",
        "under_score.example",
    ] {
        assert!(server_name(good).is_ok(), "{good}");
    }
    for bad in ["", "no name", "a..b", "https://a.example", "a.example:443", "*.example"] {
        assert!(server_name(bad).is_err(), "{bad}");
    }
}
