//! Sites with certificates from an authority: which certificate a name gets while some are there and some are not.

use std::sync::Arc;

use base::time::Timestamp;
use rustls::sign::CertifiedKey;
use snapshot::generation::{Certificate, Snapshot};

use super::fixture::*;
use crate::tls::certificates::{MAX_WANTED, Wanted};
use crate::tls::{Certificates, DevelopmentAuthority, Expired, LoadError};

/// Chain and key in one file, as the keeper stores them.
fn issued(name: &str, from_day: i64, to_day: i64) -> String {
    let (chain, key) = self_signed(&[name], from_day, to_day);
    format!("{chain}{key}")
}

fn acme(names: &[(&str, Option<&str>)], demanded: &[(&str, &str)], on_demand: &[&str]) -> Certificate {
    Certificate::Acme {
        names: names.iter().map(|&(name, pem)| (name.into(), pem.map(|pem| pem.as_bytes().into()))).collect(),
        demanded: demanded.iter().map(|&(name, pem)| (name.into(), pem.as_bytes().into())).collect(),
        on_demand: on_demand.iter().map(|host| pattern(host)).collect(),
        place: "site[0].tls.acme".to_owned(),
    }
}

fn load_wanting(
    snapshot: &Arc<Snapshot>,
    authority: Option<&Arc<DevelopmentAuthority>>,
    wanted: &Arc<Wanted>,
) -> Result<Certificates, Vec<LoadError>> {
    Certificates::load(snapshot, authority, now(), Expired::Refuse, wanted)
}

/// Names in the certificate a name gets; the common name of development certificates for those.
fn got(certificates: &Certificates, name: Option<&str>) -> String {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let key: Arc<CertifiedKey> = certificates.choose(name, now).unwrap();
    let (_, leaf) = X509Certificate::from_der(&key.cert[0]).unwrap();
    let common = leaf.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    if common != "test" {
        return common;
    }
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    let GeneralName::DNSName(name) = names.general_names[0] else { panic!("{names:?}") };
    name.to_owned()
}

#[test]
fn each_name_gets_its_own_and_those_without_a_development_certificate() {
    let (a, wild, demanded) =
        (issued("a.example", -1, 60), issued("*.w.example", -1, 50), issued("d.shop.example", -1, 40));
    let certificate = acme(
        &[("b.example", None), ("a.example", Some(&a)), ("*.w.example", Some(&wild))],
        &[("d.shop.example", &demanded)],
        &["*.shop.example", "once.example"],
    );
    let hosts = ["a.example", "b.example", "*.w.example", "*.shop.example", "once.example"];
    let snapshot = generation(vec![site(0, &hosts, certificate)]);
    let (authority, wanted) = (authority(), Arc::<Wanted>::default());
    let certificates = load_wanting(&snapshot, Some(&authority), &wanted).unwrap();
    let development = "Rempart development certificate";
    for (name, expected) in [
        (Some("a.example"), "a.example"),
        (Some("a.example."), "a.example"),
        (Some("b.example"), development),
        (Some("x.w.example"), "*.w.example"),
        (Some("y.x.w.example"), development),
        (Some("w.example"), "a.example"),
        (Some("d.shop.example"), "d.shop.example"),
        (Some("nobody.invalid"), "a.example"),
        (None, "a.example"),
    ] {
        assert_eq!(got(&certificates, name), expected, "{name:?}");
    }
    assert!(wanted.take().is_empty(), "none of these may be had on demand and is not there");
    for name in ["new.shop.example", "deep.er.shop.example", "new.shop.example", "once.example"] {
        assert_eq!(got(&certificates, Some(name)), development);
    }
    assert_eq!(wanted.take(), ["deep.er.shop.example", "new.shop.example", "once.example"]);
    assert!(wanted.take().is_empty());
    let first = certificates.expiry(0).unwrap();
    assert!(first < now().plus(DAY * 41) && first > now().plus(DAY * 39), "the earliest counts");
}

#[test]
fn wanted_names_are_bounded() {
    let wanted = Wanted::default();
    for number in 0..2 * MAX_WANTED {
        wanted.note(&format!("{number}.example"));
    }
    wanted.note(&"x".repeat(254));
    assert_eq!(wanted.take().len(), MAX_WANTED);
    wanted.note(&"x".repeat(254));
    assert!(wanted.take().is_empty());
}

#[test]
fn the_development_authority_is_needed_only_while_a_name_is_without() {
    let (a, wild) = (issued("a.example", -1, 60), issued("*.example", -1, 60));
    let (a, wild) = (Some(a.as_str()), Some(wild.as_str()));
    for (hosts, certificate, needed) in [
        (&["a.example"][..], acme(&[("a.example", a)], &[], &[]), false),
        (&["a.example"], acme(&[("a.example", None)], &[], &[]), true),
        (&["a.example"], acme(&[("a.example", a)], &[], &["a.example"]), true),
        (&["a.example", "b.example"], acme(&[("a.example", a)], &[], &[]), true),
        (&["a.example", "b.example"], acme(&[("*.example", wild)], &[], &[]), false),
        (&["*"], acme(&[("a.example", a)], &[], &[]), true),
    ] {
        let snapshot = generation(vec![site(0, hosts, certificate)]);
        assert_eq!(Certificates::needs_development(&snapshot), needed, "{hosts:?}");
        let loaded = load_wanting(&snapshot, None, &Arc::default());
        match loaded {
            Ok(certificates) => {
                assert!(!needed && certificates.choose(Some("nobody.invalid"), now).is_some());
            }
            Err(errors) => assert!(needed && errors[0].code == "development-authority-missing"),
        }
    }
}

#[test]
fn what_has_ended_is_served_and_what_is_damaged_is_named() {
    let (ended, early, good) =
        (issued("old.example", -90, -1), issued("new.example", 1, 90), issued("a.example", -1, 60));
    let names = [("old.example", Some(&*ended)), ("new.example", Some(&*early)), ("a.example", Some(&*good))];
    let hosts = ["old.example", "new.example", "a.example"];
    let snapshot = generation(vec![site(0, &hosts, acme(&names, &[], &[]))]);
    let certificates = load_wanting(&snapshot, None, &Arc::default()).unwrap();
    let codes: Vec<_> = certificates.warnings().iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["certificate-expired", "certificate-not-yet-valid"]);
    assert!(certificates.warnings()[0].message.contains("\"old.example\""));
    assert_eq!(got(&certificates, Some("old.example")), "old.example");
    let ended: Timestamp = certificates.expiry(0).unwrap();
    assert!(ended < now());

    let (chain, _) = self_signed(&["b.example"], -1, 30);
    let (_, key) = self_signed(&["b.example"], -1, 30);
    let mixed = format!("{chain}{key}");
    let names = [("a.example", Some("")), ("b.example", Some(&*mixed)), ("c.example", None)];
    let hosts = ["a.example", "b.example", "c.example"];
    let snapshot = generation(vec![site(0, &hosts, acme(&names, &[("d.example", "x")], &[]))]);
    let errors = load_wanting(&snapshot, None, &Arc::default()).unwrap_err();
    let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
    let missing = "development-authority-missing";
    assert_eq!(
        codes,
        ["certificate-unreadable", "certificate-key-mismatch", "certificate-unreadable", missing]
    );
    for (error, name) in errors.iter().zip(["a.example", "b.example", "d.example"]) {
        assert!(error.message.starts_with(&format!("certificate for \"{name}\": ")), "{}", error.message);
        assert_eq!(error.place, "site[0].tls.acme");
    }
}
