//! The development authority: made once, whole on disk whatever happens, and able to sign what sites need.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use base::time::Timestamp;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::fixture::*;
use crate::tls::authority::{CERTIFICATE_FILE, KEY_FILE, Leaf, MAX_NAMED_LEAFS};
use crate::tls::{AuthorityError, DevelopmentAuthority};

fn covers(leaf: &Leaf, name: &str) -> bool {
    let parsed = ParsedCertificate::try_from(&leaf.key.cert[0]).unwrap();
    rustls::client::verify_server_name(&parsed, &ServerName::try_from(name).unwrap()).is_ok()
}

fn open(folder: &std::path::Path) -> Result<DevelopmentAuthority, AuthorityError> {
    DevelopmentAuthority::open_or_create(folder, now())
}

#[test]
fn it_is_made_once_and_opened_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state/tls");
    let first = open(&folder).unwrap();
    let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(KEY_FILE), mode(CERTIFICATE_FILE)), (0o600, 0o644));
    assert_eq!(open(&folder).unwrap().certificate_pem(), first.certificate_pem());
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
}

#[test]
fn a_key_without_certificate_is_completed_and_a_loose_mode_narrowed() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join(CERTIFICATE_FILE)).unwrap();
    let key = folder.path().join(KEY_FILE);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let second = open(folder.path()).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    // Same key and same subject: who trusted the first trusts the second's certificates.
    let leaf = second.issue(&[pattern("a.example")], now()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new({
            use rustls::pki_types::pem::PemObject;
            let mut roots = rustls::RootCertStore::empty();
            let der = rustls::pki_types::CertificateDer::from_pem_slice(first.certificate_pem().as_bytes());
            roots.add(der.unwrap()).unwrap();
            roots
        }),
        crate::tls::provider().clone(),
    );
    use rustls::client::danger::ServerCertVerifier;
    let name = ServerName::try_from("a.example").unwrap();
    let when = rustls::pki_types::UnixTime::now();
    verifier.build().unwrap().verify_server_cert(&leaf.key.cert[0], &[], &name, &[], when).unwrap();
}

#[test]
fn many_processes_starting_at_once_agree() {
    let folder = tempfile::tempdir().unwrap();
    let authorities: Vec<String> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| open(folder.path()).unwrap().certificate_pem().to_owned()))
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(authorities.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn damage_is_named_with_its_way_out() {
    type Damage = fn(&std::path::Path, &std::path::Path);
    let cases: [(&str, Damage); 8] = [
        ("certificate is unusable: the file is empty", |certificate, _| {
            std::fs::write(certificate, "").unwrap();
        }),
        ("certificate is unusable: the file is not PEM text", |certificate, _| {
            std::fs::write(certificate, [0u8, 159, 146, 150]).unwrap();
        }),
        ("certificate is unusable: the PEM text is damaged", |certificate, _| {
            let text = std::fs::read_to_string(certificate).unwrap();
            std::fs::write(certificate, &text[..text.len() / 2]).unwrap();
        }),
        ("certificate is not one of a certificate authority", |certificate, _| {
            std::fs::write(certificate, self_signed(&["a.example"], -1, 1).0).unwrap();
        }),
        ("private key is unusable: the file is empty", |_, key| std::fs::write(key, "").unwrap()),
        ("private key is unusable: the file holds no private key", |certificate, key| {
            std::fs::copy(certificate, key).unwrap();
        }),
        ("development-ca.key is missing", |_, key| std::fs::remove_file(key).unwrap()),
        ("key does not belong to its certificate", |_, key| {
            let other = DevelopmentAuthority::generate(now()).unwrap();
            std::fs::write(key, other.key).unwrap();
        }),
    ];
    for (expected, damage) in cases {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        damage(&folder.path().join(CERTIFICATE_FILE), &folder.path().join(KEY_FILE));
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nshould say: {expected}");
        assert!(error.contains("delete"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    DevelopmentAuthority::open_or_create(folder.path(), ago(DAY * 3651)).unwrap();
    assert!(matches!(open(folder.path()), Err(AuthorityError::Expired)));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(open(&file.path().join("below")), Err(AuthorityError::Io { .. })));
}

#[test]
fn a_certificate_covers_names_wildcards_and_addresses() {
    let authority = Arc::into_inner(authority()).unwrap().with_machine_name(Some("Workbench".to_owned()));
    let hosts = [pattern("a.example"), pattern("*.b.example"), pattern("192.0.2.7"), pattern("2001:db8::7")];
    let leaf = authority.issue(&hosts, now()).unwrap();
    for name in ["a.example", "x.b.example", "192.0.2.7", "2001:db8::7"] {
        assert!(covers(&leaf, name), "{name}");
    }
    for name in ["b.example", "x.y.b.example", "localhost", "192.0.2.8"] {
        assert!(!covers(&leaf, name), "{name}");
    }
    let any = authority.issue(&[pattern("*")], now()).unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "workbench"] {
        assert!(covers(&any, name), "{name}");
    }
    let (_, parsed) = X509Certificate::from_der(&any.key.cert[0]).unwrap();
    let days = (parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp()) / 86_400;
    assert!((1..=90).contains(&days), "{days}");
    assert_eq!(u64::try_from(parsed.validity().not_after.timestamp()).unwrap(), any.expires.seconds());
    assert!(matches!(authority.issue(&[pattern("no name")], now()), Err(AuthorityError::Name(_))));
}

#[test]
fn certificates_for_single_names_are_kept_replaced_and_bounded() {
    let authority = authority();
    let first = authority.leaf_for("a.example", now()).unwrap();
    let again = authority.leaf_for("a.example", now()).unwrap();
    assert!(Arc::ptr_eq(&first.key, &again.key));
    let later = Timestamp::plus(now(), DAY * 70);
    let renewed = authority.leaf_for("a.example", later).unwrap();
    assert!(renewed.expires > first.expires);
    for number in 0..MAX_NAMED_LEAFS {
        authority.leaf_for(&format!("{number}.example"), later).unwrap();
    }
    let evicted = authority.leaf_for("a.example", later).unwrap();
    assert!(!Arc::ptr_eq(&renewed.key, &evicted.key), "the oldest had to make room");
    assert!(format!("{authority:?}").len() < 2_000, "debug output holds no key and no cache");
}
