//! Certificates from an authority, pebble: asked for, shown, renewed, revoked and asked for again, while the site is
//! served.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use api::admin::{Answer, Request};
use api::certificates::{CertificateSource, CertificateStatus};
use harness::PATIENCE;
use harness::client::{Client, tls_config};
use harness::companions::Host;
use harness::config::Config;
use harness::pebble::Pebble;
use harness::rempart::{Place, Rempart};

use crate::stage::{Addresses, PATIENT};

/// Names with a certificate each.
const NAMES: [&str; 3] = ["one.acme.test", "two.acme.test", "three.acme.test"];
/// Good nonces the authority refuses, in per cent.
const REFUSED_NONCES: u8 = 20;

/// The leaf shown for a name, if the handshake succeeds in the eyes of somebody who trusts this root.
fn shown(rempart: &Rempart, root: &str, name: &str) -> Option<Vec<u8>> {
    let mut client = Client::tls(rempart.tls(), name, tls_config(root, &["http/1.1"])).ok()?;
    let certificate = client.peer_certificate()?;
    assert_eq!(client.get(name, "/ok").unwrap().text(), "ok", "{name}");
    Some(certificate)
}

/// Waits for a certificate of a name that is not `old`.
fn await_certificate(rempart: &Rempart, root: &str, name: &str, old: Option<&[u8]>) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(certificate) = shown(rempart, root, name).filter(|new| Some(&new[..]) != old) {
            return certificate;
        }
        let told = rempart.ask(&Request::Certificates);
        assert!(Instant::now() < deadline, "{name}: {told:#?}\n{}", rempart.log().text());
        thread::sleep(Duration::from_millis(100));
    }
}

fn listed(rempart: &Rempart, name: &str) -> CertificateStatus {
    let Answer::Certificates { certificates } = rempart.ask(&Request::Certificates) else {
        panic!("not the certificates")
    };
    let found = certificates.iter().find(|certificate| certificate.names.iter().any(|other| other == name));
    found.unwrap_or_else(|| panic!("{name} is not listed: {certificates:#?}")).clone()
}

/// `rempart certs VERB NAME`, which must succeed.
fn order(rempart: &Rempart, verb: &str, name: &str) {
    let ended = rempart.place().ask(&["certs", verb, name]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn acme(challenge: &str) -> String {
    let contact = "contact = [\"mailto:a@example.test\"]\nagree_to_terms = true";
    format!("[acme]\n{contact}\nchallenge = \"{challenge}\"\n")
}

/// Where nobody listens.
fn nobody() -> SocketAddr {
    Addresses::free().0[0]
}

/// With `first_down`, nothing listens where the first authority should be, and pebble is the second.
fn life_of_a_certificate(challenge: &str, first_down: bool) {
    let (host, addresses) = (Host::new(), Addresses::free());
    let pebble = Pebble::start(addresses.0[0].port(), addresses.0[1].port(), REFUSED_NONCES);
    let place = Place::new();
    place.write("pebble.pem", pebble.server_authority());
    let mut acme = acme(challenge);
    if first_down {
        acme += &format!("[[acme.authority]]\ndirectory = \"https://{}/dir\"\n", nobody());
    }
    acme += &format!("[[acme.authority]]\ndirectory = \"{}\"\nroots = \"pebble.pem\"", pebble.directory());
    let config = addresses.listeners(Config::new().raw(PATIENT).raw(&acme));
    let config = config.site("acme", &NAMES).raw("[site.tls]\nacme = true").origin(host.url());
    place.write("rempart.toml", config.text());
    let rempart = place.run();
    let root = pebble.root();
    let first = NAMES.map(|name| await_certificate(&rempart, &root, name, None));
    for name in NAMES {
        let status = listed(&rempart, name);
        assert_eq!((status.source, status.site.as_str()), (CertificateSource::Acme, "acme"), "{status:#?}");
        assert!(
            status.expires.is_some() && status.renews.is_some() && status.problem.is_none(),
            "{status:#?}"
        );
    }
    let ended = rempart.place().ask(&["certs"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(NAMES.iter().all(|name| ended.stdout.contains(name)), "{ended:?}");

    order(&rempart, "renew", NAMES[0]);
    let renewed = await_certificate(&rempart, &root, NAMES[0], Some(&first[0]));
    assert!(!pebble.has_revoked(&renewed) && !pebble.has_revoked(&first[0]));

    order(&rempart, "revoke", NAMES[1]);
    let deadline = Instant::now() + PATIENCE;
    while !pebble.has_revoked(&first[1]) {
        assert!(Instant::now() < deadline, "not revoked:\n{}", rempart.log().text());
        thread::sleep(Duration::from_millis(50));
    }
    order(&rempart, "renew", NAMES[1]);
    let again = await_certificate(&rempart, &root, NAMES[1], Some(&first[1]));
    assert!(!pebble.has_revoked(&again));
    assert_eq!(
        shown(&rempart, &root, NAMES[2]).as_ref(),
        Some(&first[2]),
        "the third has nothing to do with it"
    );

    // What was issued is on disk: the next start shows it without asking anybody.
    drop(pebble);
    let rempart = rempart.stop().run();
    for (name, expected) in [(NAMES[0], &renewed), (NAMES[1], &again), (NAMES[2], &first[2])] {
        assert_eq!(shown(&rempart, &root, name).as_ref(), Some(expected), "{name} after a restart");
    }
}

#[test]
fn certificates_come_by_http_01() {
    life_of_a_certificate("http-01", false);
}

#[test]
fn certificates_come_by_tls_alpn_01() {
    life_of_a_certificate("tls-alpn-01", false);
}

#[test]
fn the_second_authority_is_asked_while_the_first_is_down() {
    life_of_a_certificate("http-01", true);
}

/// An authority that cannot be reached costs its certificates, and nothing else.
#[test]
fn without_an_authority_the_rest_is_served_and_the_trouble_is_told() {
    let (host, addresses) = (Host::new(), Addresses::free());
    let place = Place::new();
    let acme = acme("http-01") + &format!("[[acme.authority]]\ndirectory = \"https://{}/dir\"", nobody());
    let config = addresses.listeners(Config::new().raw(PATIENT).raw(&acme));
    let config = config.site("acme", &NAMES[..1]).raw("[site.tls]\nacme = true").origin(host.url());
    place.write("rempart.toml", config.site("dev", &["dev.test"]).origin(host.url()).text());
    let rempart = place.run();
    assert_eq!(rempart.tls_client("dev.test").get("dev.test", "/ok").unwrap().text(), "ok");
    let deadline = Instant::now() + PATIENCE;
    while listed(&rempart, NAMES[0]).problem.is_none() {
        assert!(Instant::now() < deadline, "{:#?}", listed(&rempart, NAMES[0]));
        thread::sleep(Duration::from_millis(100));
    }
    let status = listed(&rempart, NAMES[0]);
    assert!(status.expires.is_none(), "{status:#?}");
}

#[test]
fn a_name_on_the_list_gets_its_certificate_when_a_visitor_asks_for_it() {
    let (host, addresses) = (Host::new(), Addresses::free());
    let pebble = Pebble::start(addresses.0[0].port(), addresses.0[1].port(), REFUSED_NONCES);
    let place = Place::new();
    place.write("pebble.pem", pebble.server_authority());
    let mut acme = acme("http-01");
    acme += "on_demand = [\"*.shops.acme.test\"]\n";
    acme += &format!("[[acme.authority]]\ndirectory = \"{}\"\nroots = \"pebble.pem\"", pebble.directory());
    let config = addresses.listeners(Config::new().raw(PATIENT).raw(&acme));
    let config = config.site("shops", &["one.acme.test", "*.shops.acme.test", "*.other.acme.test"]);
    let refused = config.clone().raw("[site.tls]\nacme = true").origin(host.url());
    place.write("rempart.toml", refused.text());
    let (code, report) = place.check("rempart.toml");
    assert_eq!(code, Some(1), "nobody shows control over *.other.acme.test: {report:?}");

    let addresses_again = addresses.listeners(Config::new().raw(PATIENT).raw(&acme));
    let config = addresses_again.site("shops", &["one.acme.test", "*.shops.acme.test"]);
    place.write("rempart.toml", config.raw("[site.tls]\nacme = true").origin(host.url()).text());
    let rempart = place.run();
    let root = pebble.root();
    let asked = await_certificate(&rempart, &root, "a.shops.acme.test", None);
    assert_ne!(asked, await_certificate(&rempart, &root, "one.acme.test", None), "one certificate each");
    let Answer::Certificates { certificates } = rempart.ask(&Request::Certificates) else { panic!() };
    let names: Vec<_> = certificates.iter().flat_map(|certificate| &certificate.names).collect();
    assert!(!names.iter().any(|name| *name == "b.shops.acme.test"), "nobody asked for that: {names:?}");
}
