//! Client certificates: who gets in, what is told of them, and that no session carries them where they do not count.

use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use snapshot::generation::{Certificate, ClientAuth, Site, SiteTls, TlsPolicy};

use super::fixture::*;
use crate::tls::{DevelopmentAuthority, ServerSettings, ServerTls, TlsFacts};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// An authority that signs visitors' certificates.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
type Pair = (String, String);

impl Signer {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, name: DistinguishedName, from_day: i64, to_day: i64) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        let day = |offset: i64| {
            let seconds = i64::try_from(now().seconds()).unwrap() + offset * 24 * 3600;
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds.cast_unsigned())
        };
        (params.not_before, params.not_after) = (day(from_day), day(to_day));
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn visitor(&self, name: &str) -> Pair {
        self.sign(common(name), -1, 30)
    }

    /// What a site that trusts this authority says.
    fn asked(&self, required: bool) -> ClientAuth {
        ClientAuth {
            authorities: self.pem.as_bytes().into(),
            required,
            place: "site[0].tls.client.authorities".to_owned(),
        }
    }
}

fn common(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn asking(index: usize, host: &str, client: Option<ClientAuth>) -> Site {
    let tls = SiteTls { client, ..SiteTls::default() };
    Site { tls, ..site(index, &[host], Certificate::Development) }
}

fn settings(tls: &ServerTls, authority: &Arc<DevelopmentAuthority>, sites: Vec<Site>) -> Arc<ServerSettings> {
    tls.settings(load(&generation(sites), Some(authority)).unwrap()).unwrap()
}

fn visitor(
    authority: &DevelopmentAuthority,
    version: &'static SupportedProtocolVersion,
    pair: Option<&Pair>,
) -> Arc<rustls::ClientConfig> {
    let pair = pair.map(|(chain, key)| (chain.as_str(), key.as_str()));
    Arc::new(client_with(authority.certificate_pem(), &["h2"], &[version], pair))
}

/// What the server found out about one visit, or why it refused.
async fn outcome(
    client: &Arc<rustls::ClientConfig>,
    name: &str,
    server: &Arc<ServerSettings>,
) -> Result<TlsFacts, String> {
    // In TLS 1.3 the client is done before the server has looked at its certificate; the server's word counts.
    match join(client, name, server).await.1 {
        Ok(accepted) => Ok(accepted.facts),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn who_gets_in_and_what_counts_for_whom() {
    let (authority, tls) = (authority(), ServerTls::new().unwrap());
    let (ours, theirs) = (Signer::new("ours"), Signer::new("theirs"));
    let server = settings(
        &tls,
        &authority,
        vec![
            asking(0, "open.example", None),
            asking(1, "must.example", Some(ours.asked(true))),
            asking(2, "may.example", Some(ours.asked(false))),
            asking(3, "other.example", Some(theirs.asked(true))),
        ],
    );
    let good = ours.visitor("visitor");
    let foreign = theirs.visitor("visitor");
    let ended = ours.sign(common("visitor"), -30, -1);
    let (serving, serving_key) = self_signed(&["visitor"], -1, 30);
    let itself = (serving, serving_key);
    for version in BOTH {
        for (pair, name, expected) in [
            (None, "open.example", Ok(false)),
            (None, "must.example", Err("no certificates")),
            (None, "may.example", Ok(false)),
            (Some(&good), "open.example", Ok(false)),
            (Some(&good), "must.example", Ok(true)),
            (Some(&good), "may.example", Ok(true)),
            (Some(&good), "other.example", Err("UnknownIssuer")),
            (Some(&foreign), "other.example", Ok(true)),
            (Some(&foreign), "must.example", Err("UnknownIssuer")),
            (Some(&ended), "must.example", Err("expired")),
            (Some(&ended), "may.example", Err("expired")),
            (Some(&itself), "must.example", Err("UnknownIssuer")),
        ] {
            let found = outcome(&visitor(&authority, version, pair), name, &server).await;
            match (&found, expected) {
                (Ok(facts), Ok(shown)) => assert_eq!(facts.client.is_some(), shown, "{name} {version:?}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{name} {version:?}: {error}"),
                _ => panic!("{name} {version:?}: {found:?}"),
            }
        }
        // What a connection counts for: required by ours, optional by ours, required by theirs.
        let all = [ours.asked(true), ours.asked(false), theirs.asked(true)];
        for (pair, name, counts) in [
            (None, "open.example", [false, false, false]),
            (None, "may.example", [false, true, false]),
            (Some(&good), "may.example", [true, true, false]),
            (Some(&good), "must.example", [true, true, false]),
            (Some(&foreign), "other.example", [false, false, true]),
        ] {
            let facts = outcome(&visitor(&authority, version, pair), name, &server).await.unwrap();
            assert_eq!(all.clone().map(|client| facts.satisfies(&client)), counts, "{name} {version:?}");
            let shown = all.clone().map(|client| facts.certificate_for(&client).is_some());
            let trusted = [counts[1], counts[1], counts[2]].map(|counts| counts && pair.is_some());
            assert_eq!(shown, trusted, "{name} {version:?}");
        }
    }
}

#[tokio::test]
async fn no_session_spares_a_visitor_its_certificate() {
    let (authority, tls) = (authority(), ServerTls::new().unwrap());
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (old_visitor, new_visitor) = (old.visitor("visitor"), new.visitor("visitor"));
    let serve = |client: Option<ClientAuth>| settings(&tls, &authority, vec![asking(0, "a.example", client)]);
    let (open, by_old, by_new) = (serve(None), serve(Some(old.asked(true))), serve(Some(new.asked(true))));
    for version in BOTH {
        // Sessions are there to be had where nothing is asked for.
        let bare = visitor(&authority, version, None);
        assert!(!visit(&bare, "a.example", &open).await.1.facts.resumed);
        assert!(visit(&bare, "a.example", &open).await.1.facts.resumed);
        let refused = outcome(&bare, "a.example", &by_old).await.unwrap_err();
        assert!(refused.contains("no certificates"), "{refused}");

        // With a certificate each handshake is a full one, so that each checks it.
        let shows = visitor(&authority, version, Some(&old_visitor));
        for _ in 0..3 {
            let facts = visit(&shows, "a.example", &by_old).await.1.facts;
            assert!(facts.client.is_some() && !facts.resumed, "{version:?}");
        }
        let refused = outcome(&shows, "a.example", &by_new).await.unwrap_err();
        assert!(refused.contains("UnknownIssuer"), "{refused}");
        let facts =
            visit(&visitor(&authority, version, Some(&new_visitor)), "a.example", &by_new).await.1.facts;
        assert!(facts.satisfies(&new.asked(true)) && !facts.satisfies(&old.asked(true)));
        // A connection that began before the authorities changed does not satisfy the new ones, nor does the
        // certificate come back where nobody asks for one.
        let facts = visit(&shows, "a.example", &open).await.1.facts;
        assert!(facts.client.is_none() && !facts.satisfies(&old.asked(false)));
    }
}

#[tokio::test]
async fn the_server_name_chooses_versions_and_certificates_asked_for() {
    let (authority, tls) = (authority(), ServerTls::new().unwrap());
    let modern = SiteTls { policy: TlsPolicy::Modern, ..SiteTls::default() };
    let signer = Signer::new("signer");
    let server = settings(
        &tls,
        &authority,
        vec![
            Site { tls: modern.clone(), ..site(0, &["modern.example"], Certificate::Development) },
            site(1, &["old.example"], Certificate::Development),
            // Without a name: the one with an address.
            Site {
                tls: SiteTls { client: Some(signer.asked(true)), ..modern.clone() },
                ..site(2, &["127.0.0.1"], Certificate::Development)
            },
        ],
    );
    let (new, old) = (visitor(&authority, &TLS13, None), visitor(&authority, &TLS12, None));
    let intermediate = SiteTls::default();
    for (client, name, suits_modern) in
        [(&new, "modern.example", true), (&new, "old.example", true), (&old, "old.example", false)]
    {
        let facts = outcome(client, name, &server).await.unwrap();
        let suits = (facts.suits(&intermediate), facts.suits(&modern));
        assert_eq!(suits, (true, suits_modern), "{name} {:?}", facts.version);
        let asks = SiteTls { client: Some(signer.asked(true)), ..intermediate.clone() };
        assert!(!facts.suits(&asks), "{name}");
    }
    let refused = outcome(&old, "modern.example", &server).await.unwrap_err();
    assert!(refused.contains("Tls12NotOffered") || refused.contains("incompatible"), "{refused}");
    for name in ["127.0.0.1", "nobody.invalid"] {
        let refused = outcome(&new, name, &server).await.unwrap_err();
        // A client refuses the certificate of a name nobody has before it would show its own.
        assert!(refused.contains("no certificates") || refused.contains("alert"), "{name}: {refused}");
    }
    let shows = visitor(&authority, &TLS13, Some(&signer.visitor("visitor")));
    let facts = outcome(&shows, "127.0.0.1", &server).await.unwrap();
    assert!(facts.suits(&SiteTls { client: Some(signer.asked(true)), ..modern }));
}

#[tokio::test]
async fn more_authorities_than_a_handshake_can_name_still_work() {
    let (authority, tls) = (authority(), ServerTls::new().unwrap());
    let signers: Vec<Signer> =
        (0..100).map(|number| Signer::new(&format!("{number}{}", "x".repeat(800)))).collect();
    let mut asked = signers[0].asked(true);
    asked.authorities = signers.iter().map(|signer| &*signer.pem).collect::<String>().as_bytes().into();
    let server = settings(&tls, &authority, vec![asking(0, "a.example", Some(asked.clone()))]);
    for version in BOTH {
        let shows = visitor(&authority, version, Some(&signers[99].visitor("visitor")));
        assert!(outcome(&shows, "a.example", &server).await.unwrap().satisfies(&asked), "{version:?}");
    }
}

#[test]
fn bad_authorities_are_named_once_for_each_site() {
    let tls = ServerTls::new().unwrap();
    let bad = |index: usize, pem: &str| {
        let client = ClientAuth {
            authorities: pem.as_bytes().into(),
            required: true,
            place: format!("site[{index}].tls.client.authorities"),
        };
        asking(index, &format!("{index}.example"), Some(client))
    };
    let (_, key) = self_signed(&["a"], -1, 1);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let good = Signer::new("good").pem;
    let sites =
        vec![bad(0, ""), bad(1, &good), bad(2, &key), bad(3, broken), asking(4, "open.example", None)];
    let certificates = load(&generation(sites), Some(&authority())).unwrap();
    let errors = tls.settings(certificates).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| error.place.as_str()).collect();
    assert_eq!(places, [0, 2, 3].map(|site| format!("site[{site}].tls.client.authorities")));
    assert!(
        errors.iter().all(|error| error.code == "client-authorities-unreadable" && !error.hint.is_empty())
    );
}

/// What OpenSSL says of a certificate, without what stands before `=`.
fn openssl(file: &std::path::Path, arguments: &[&str]) -> String {
    let output =
        Command::new("openssl").args(["x509", "-noout", "-in"]).arg(file).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end().split_once('=').map_or(text.clone(), |(_, value)| value.to_owned())
}

#[tokio::test]
async fn its_fields_read_as_openssl_writes_them() {
    let (authority, tls, signer) = (authority(), ServerTls::new().unwrap(), Signer::new("signer"));
    let server = settings(&tls, &authority, vec![asking(0, "a.example", Some(signer.asked(true)))]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("visitor.pem");
    let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
    let numbered = |numbers: &[u64]| DnType::CustomDnType(numbers.to_vec());
    for parts in [
        vec![(DnType::CommonName, DnValue::from("visitor"))],
        vec![
            (DnType::CountryName, printable("DE")),
            (DnType::OrganizationName, DnValue::from("Müller & Söhne, \"Ltd\"; <a+b>\\c")),
            (DnType::OrganizationalUnitName, DnValue::from("#1 unit ")),
            (DnType::CommonName, DnValue::from(" two  blanks = fine\n")),
        ],
        vec![
            (
                numbered(&[0, 9, 2342, 19200300, 100, 1, 25]),
                DnValue::Ia5String("example".try_into().unwrap()),
            ),
            (numbered(&[1, 2, 840, 113549, 1, 9, 1]), DnValue::Ia5String("a@b.example".try_into().unwrap())),
            (numbered(&[1, 3, 6, 1, 4, 1, 99999, 7]), DnValue::from("unknown kind")),
            (numbered(&[2, 5, 4, 5]), printable("0042")),
        ],
        vec![],
    ] {
        let mut name = DistinguishedName::new();
        parts.into_iter().for_each(|(kind, value)| name.push(kind, value));
        let pair = signer.sign(name, -1, 30);
        std::fs::write(&file, &pair.0).unwrap();
        let facts = outcome(&visitor(&authority, &TLS13, Some(&pair)), "a.example", &server).await.unwrap();
        let shown = facts.client.unwrap();
        assert_eq!(shown.subject.rfc2253, openssl(&file, &["-subject", "-nameopt", "RFC2253"]));
        assert_eq!(shown.issuer.rfc2253, "CN=signer,O=Example\\, Inc.");
        assert_eq!(shown.issuer.rfc2253, openssl(&file, &["-issuer", "-nameopt", "RFC2253"]));
        assert_eq!(shown.issuer.slashes, "/O=Example, Inc./CN=signer");
        let digits = |text: String| text.replace(':', "");
        assert_eq!(shown.sha256, digits(openssl(&file, &["-fingerprint", "-sha256"])).to_lowercase());
        assert_eq!(shown.sha1, digits(openssl(&file, &["-fingerprint", "-sha1"])).to_lowercase());
        let serial = openssl(&file, &["-serial"]);
        assert!(shown.serial == serial || shown.serial == format!("00{serial}"), "{} {serial}", shown.serial);
        let identifier = openssl(&file, &["-ext", "authorityKeyIdentifier"]);
        let identifier = digits(identifier.lines().last().unwrap().trim().to_owned());
        assert_eq!(
            shown.issuer_key_identifier.as_deref(),
            identifier.strip_prefix("keyid").or(Some(&identifier))
        );
        assert_eq!(shown.issuer_serial, None, "neither in the identifier nor in the chain");
        let base64 = |pem: &str| -> String { pem.lines().filter(|line| !line.starts_with('-')).collect() };
        assert_eq!(shown.encoded.as_deref(), Some(&*format!(":{}:", base64(&pair.0))));
        assert_eq!(shown.encoded_chain.as_deref(), Some(""));
        let days = (shown.not_after.seconds() - shown.not_before.seconds()) / 86_400;
        assert_eq!(days, 31);
    }
    // The signer's certificate in the chain tells its number.
    let (leaf, key) = signer.visitor("visitor");
    let pair = (format!("{leaf}{}", signer.pem), key);
    let facts = outcome(&visitor(&authority, &TLS13, Some(&pair)), "a.example", &server).await.unwrap();
    std::fs::write(&file, &signer.pem).unwrap();
    let shown = facts.client.unwrap();
    let base64: String = signer.pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(shown.encoded_chain.as_deref(), Some(&*format!(":{base64}:")));
    let number = shown.issuer_serial.clone().unwrap();
    assert_eq!(number.trim_start_matches("00"), openssl(&file, &["-serial"]).trim_start_matches("00"));
}
