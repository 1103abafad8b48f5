//! What is told of certificates in use: their state, and warnings that come once per step.

use base::time::Timestamp;
use rcgen::KeyPair;
use snapshot::generation::Certificate;

use api::certificates::CertificateSource;

use super::fixture::*;

fn acme(names: &[(&str, Option<&str>)]) -> Certificate {
    Certificate::Acme {
        names: names.iter().map(|&(name, pem)| (name.into(), pem.map(|pem| pem.as_bytes().into()))).collect(),
        demanded: Vec::new(),
        on_demand: Vec::new(),
        place: "site[0].tls.acme".to_owned(),
    }
}

#[test]
fn every_certificate_has_its_state() {
    let key = KeyPair::generate().unwrap();
    let many: Vec<String> = (0..150).map(|number| format!("h{number}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let chain = signed_with(&key, &many, -10, 20);
    let (mut issued, issued_key) = self_signed(&["a.example", "192.0.2.7", "::1"], -10, -2);
    issued.push_str(&issued_key);
    let snapshot = generation(vec![
        site(0, &["h0.example"], given(&chain, &key.serialize_pem())),
        site(1, &["a.example", "b.example"], acme(&[("a.example", Some(&issued)), ("b.example", None)])),
        site(2, &["*.dev.example"], Certificate::Development),
    ]);
    let certificates = load(&snapshot, Some(&authority())).unwrap();
    // Half an hour before, so that no day is cut short by the time the certificates took to make.
    let statuses = certificates.statuses(ago(DAY / 48));
    let told: Vec<_> = statuses
        .iter()
        .map(|status| (&*status.site, status.source, status.names.len(), status.days_left))
        .collect();
    assert_eq!(
        told,
        [
            ("site-0", CertificateSource::File, 100, Some(20)),
            ("site-1", CertificateSource::Acme, 3, Some(-2)),
            ("site-1", CertificateSource::Acme, 1, None),
            ("site-2", CertificateSource::Development, 1, Some(89)),
        ]
    );
    assert_eq!(statuses[1].names, ["a.example", "192.0.2.7", "::1"]);
    assert_eq!(statuses[2].names, ["b.example"]);
    assert_eq!((&statuses[2].expires, &statuses[2].issuer), (&None, &None));
    assert_eq!(statuses[0].issuer.as_deref(), Some("test"));
    let issuer = statuses[3].issuer.as_deref().unwrap();
    assert!(
        issuer.starts_with("Rempart development authority ") && issuer.ends_with(" (Rempart)"),
        "{issuer}"
    );
    let expires: Vec<_> = (0..3).map(|site| certificates.expiry(site).unwrap()).collect();
    for (status, expected) in [(0, expires[0]), (1, expires[1]), (3, expires[2])] {
        let text = statuses[status].expires.as_deref().unwrap();
        let second = text.parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!(u64::try_from(second).unwrap(), expected.seconds());
    }
}

/// The codes of what is warned of `days` after now, for a certificate of this many days that began now.
fn codes(certificate: impl Fn(&str, &str) -> Certificate, life: i64, days: &[u32]) -> Vec<&'static str> {
    let (chain, key) =
        self_signed(&["a.example", "b.example", "c.example", "d.example", "e.example"], -1, life - 1);
    let snapshot = generation(vec![
        site(0, &["a.example"], certificate(&chain, &key)),
        site(1, &["dev.example"], Certificate::Development),
    ]);
    let certificates = load(&snapshot, Some(&authority())).unwrap();
    let at = |days: u32| -> Timestamp { ago(DAY).plus(DAY * days).plus(DAY / 2) };
    days.iter()
        .map(|&days| {
            let warnings = certificates.warnings_at(at(days));
            assert!(warnings.len() < 2, "{warnings:?}");
            let Some(warning) = warnings.first() else { return "" };
            assert!(
                warning.message.contains("\"site-0\" for a.example, b.example, c.example and 2 more"),
                "{warning}"
            );
            warning.code.strip_prefix("certificate-expire").unwrap()
        })
        .collect()
}

#[test]
fn the_end_is_announced_in_steps_that_fit_the_certificate() {
    let file = |chain: &str, key: &str| given(chain, key);
    let (month, week, day, over) = ("s-within-30-days", "s-within-7-days", "s-within-1-day", "d");
    assert_eq!(
        codes(file, 365, &[0, 334, 335, 357, 358, 363, 364, 365, 500]),
        ["", "", month, month, week, week, day, over, over]
    );
    assert_eq!(codes(file, 90, &[59, 60, 82, 83, 89, 90]), ["", month, month, week, day, over]);
    // Six days is what some certificates have: a third of that is early enough.
    assert_eq!(codes(file, 6, &[0, 3, 4, 5, 6]), ["", "", week, day, over]);

    let issued = |chain: &str, key: &str| acme(&[("a.example", Some(&format!("{chain}{key}")))]);
    // Renewed on day 60; a quarter is left from day 67.5 on.
    assert_eq!(codes(issued, 90, &[59, 60, 66, 68, 83, 89, 90]), ["", "", "", month, week, day, over]);
    assert_eq!(codes(issued, 8, &[0, 5, 6, 7, 8]), ["", "", week, day, over]);
}
