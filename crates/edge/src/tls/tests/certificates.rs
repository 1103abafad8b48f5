//! What is refused when certificates are loaded, what is only warned of, and which one a name gets.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::sign::CertifiedKey;
use snapshot::generation::Certificate;

use super::fixture::*;
use crate::tls::pem::MAX_PEM_BYTES;
use crate::tls::{Certificates, Expired};

/// The code of the one finding for one site with these files, followed by its hint.
fn refusal(chain: &str, key: &str) -> String {
    let snapshot = generation(vec![site(0, &["a.example"], given(chain, key))]);
    let errors = load(&snapshot, None).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].place, "site[0].tls.certificate");
    assert!(!errors[0].hint.is_empty() && !errors[0].message.is_empty());
    format!("{}: {}", errors[0].code, errors[0].hint)
}

fn warnings(chain: &str, key: &str) -> Vec<&'static str> {
    let snapshot = generation(vec![site(0, &["a.example"], given(chain, key))]);
    load(&snapshot, None).unwrap().warnings().iter().map(|warning| warning.code).collect()
}

#[test]
fn every_kind_of_broken_file_is_told_apart() {
    let (chain, key) = self_signed(&["a.example"], -1, 30);
    let (other_chain, other_key) = self_signed(&["a.example"], -1, 30);
    let (expired, expired_key) = self_signed(&["a.example"], -30, -1);
    let (future, future_key) = self_signed(&["a.example"], 2, 30);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcG\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let not_a_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let not_a_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let large = format!("{chain}{}", " ".repeat(MAX_PEM_BYTES));
    let cut = &chain[..chain.len() / 2];
    for (chain, key, expected) in [
        ("", key.as_str(), "certificate-unreadable: use the full chain"),
        (" \n", &key, "certificate-unreadable: use the full chain"),
        (&chain, "", "key-unreadable: use the private key as PEM"),
        ("\0\u{1}\u{2}", &key, "certificate-unreadable: convert it: openssl"),
        ("hello", &key, "certificate-unreadable: use the full chain"),
        (cut, &key, "certificate-unreadable: use the full chain"),
        (&key, &chain, "certificate-unreadable: the two files seem to be swapped"),
        (&chain, &chain, "key-unreadable: the two files seem to be swapped"),
        (request, &key, "certificate-unreadable: this is the request"),
        (not_a_certificate, &key, "certificate-unreadable: check it with"),
        (&chain, not_a_key, "key-unsupported: use ECDSA"),
        (&chain, encrypted, "key-encrypted: remove the passphrase"),
        (&chain, traditional, "key-encrypted: remove the passphrase"),
        (&chain, &format!("{key}{other_key}"), "key-unreadable: keep only the key"),
        (&chain, &other_key, "certificate-key-mismatch: use the key"),
        (&format!("{other_chain}{chain}"), &key, "certificate-order: put the site's own certificate first"),
        (&chain.repeat(17), &key, "pem-too-large"),
        (&large, &key, "pem-too-large"),
        (&expired, &expired_key, "certificate-expired: renew it"),
        (&future, &future_key, "certificate-not-yet-valid: check this machine's clock"),
    ] {
        let found = refusal(chain, key);
        assert!(found.starts_with(expected), "{found}\nshould be: {expected}");
    }
}

#[test]
fn keys_of_every_supported_form_load() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain = signed_with(&key, &["a.example"], -1, 30);
        assert!(warnings(&chain, &key.serialize_pem()).is_empty());
        // Key and chain in one file, as some tools write them.
        let both = format!("{}{chain}", key.serialize_pem());
        assert!(warnings(&both, &both).is_empty());
    }
}

#[test]
fn the_last_good_generation_starts_with_an_expired_certificate() {
    let (chain, key) = self_signed(&["a.example"], -30, -1);
    let snapshot = generation(vec![site(0, &["a.example"], given(&chain, &key))]);
    let certificates = Certificates::load(&snapshot, None, now(), Expired::Serve, &Arc::default()).unwrap();
    assert_eq!(certificates.warnings()[0].code, "certificate-expired");
    assert!(certificates.expiry(0).unwrap() < now());
    assert!(certificates.choose(Some("a.example"), now).is_some());
}

#[test]
fn all_findings_come_at_once_and_one_good_site_does_not_hide_them() {
    let (chain, key) = self_signed(&["b.example"], -1, 30);
    let snapshot = generation(vec![
        site(0, &["a.example"], given("", "")),
        site(1, &["b.example"], given(&chain, &key)),
        site(2, &["c.example"], Certificate::Development),
    ]);
    assert!(Certificates::needs_development(&snapshot));
    let codes: Vec<_> = load(&snapshot, None).unwrap_err().into_iter().map(|error| error.code).collect();
    assert_eq!(codes, ["certificate-unreadable", "development-authority-missing"]);
}

#[test]
fn without_a_tls_listener_nothing_is_asked_for() {
    let mut snapshot = generation(vec![site(0, &["a.example"], given("", ""))]);
    Arc::get_mut(&mut snapshot).unwrap().listeners[0].tls = false;
    let certificates = load(&snapshot, None).unwrap();
    assert_eq!(certificates.expiry(0), None);
    assert!(certificates.choose(Some("a.example"), now).is_none());
}

#[test]
fn names_choose_and_the_nameless_get_the_site_they_can_mean() {
    let authority = authority();
    let first = |hosts: &[&[&str]]| {
        let sites = hosts.iter().enumerate().map(|(i, hosts)| site(i, hosts, Certificate::Development));
        load(&generation(sites.collect()), Some(&authority)).unwrap()
    };
    let own = |certificates: &Certificates, name: Option<&str>| certificates.choose(name, now).unwrap();
    let same = |a: &Arc<CertifiedKey>, b: &Arc<CertifiedKey>| Arc::ptr_eq(a, b);

    let named = first(&[&["a.example"], &["b.example"]]);
    let a = own(&named, Some("a.example"));
    assert!(same(&a, &own(&named, Some("a.example."))));
    assert!(same(&a, &own(&named, None)), "no name: the first site");
    assert!(same(&a, &own(&named, Some("unknown.example"))), "nobody's name: the first site");
    assert!(!same(&a, &own(&named, Some("b.example"))));

    let addressed = first(&[&["a.example"], &["*"], &["192.0.2.1"]]);
    assert!(!same(&own(&addressed, None), &own(&addressed, Some("a.example"))));
    assert!(
        same(&own(&addressed, None), &own(&addressed, Some("192.0.2.1"))),
        "an address is among its hosts"
    );
    let any = first(&[&["a.example"], &["*"]]);
    assert!(same(&own(&any, None), &own(&any, Some("localhost"))), "`*` answers to addresses");
}

#[test]
fn a_development_site_signs_names_beyond_its_own_certificate_and_renews() {
    let authority = authority();
    let snapshot = generation(vec![site(0, &["*.shop.example"], Certificate::Development)]);
    let certificates = load(&snapshot, Some(&authority)).unwrap();
    let shallow = certificates.choose(Some("a.shop.example"), now).unwrap();
    let deep = certificates.choose(Some("b.a.shop.example"), now).unwrap();
    assert!(Arc::ptr_eq(&shallow, &certificates.choose(None, now).unwrap()), "the site's own covers it");
    assert!(!Arc::ptr_eq(&shallow, &deep), "a wildcard covers one label");
    assert!(Arc::ptr_eq(&deep, &certificates.choose(Some("b.a.shop.example"), now).unwrap()));
    let before = certificates.expiry(0).unwrap();
    let later = || now().plus(DAY * 75);
    let renewed = certificates.choose(Some("a.shop.example"), later).unwrap();
    assert!(!Arc::ptr_eq(&shallow, &renewed));
    assert!(certificates.expiry(0).unwrap() > before);
    assert!(Arc::ptr_eq(&renewed, &certificates.choose(None, later).unwrap()));
}
