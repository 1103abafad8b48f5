//! What the case files cannot say: identity, references, limits, and that no damage to a file makes the compiler panic.
use std::sync::Arc;

use api::diagnostic::Severity;
use base::id::ContentHash;
use snapshot::diagnostic::{MAXIMUM_FINDINGS, render};
use snapshot::generation::{AccessLogTarget, AcmeChallenge, Certificate, HostPattern, TlsPolicy};
use snapshot::outline::outline;
use snapshot::routes::Route;
use snapshot::source::{CONFIG_BYTES, SourceTree, Unreadable};
use snapshot::{Compiled, Input, Mode, command_line_config, compile, defaults, references, unreadable};

use crate::support::{self, NOW};

const SMALL: &str = "[[listen]]\naddress = \":8080\"\n[[site]]\nhosts = [\"a.example\"]\n[[site.origin]]\nurl = \"http://10.0.0.1\"\n";

/// The certificate that is issued for `WITH_FILES`.
const ISSUED_PATH: &str = "acme:news.example";

const WITH_FILES: &str = include_str!("with-files.toml");

fn compile_text(text: &[u8], tree: &SourceTree) -> Compiled {
    compile(Input { file: "rempart.toml", text, tree }, NOW, Mode::Fresh)
}

/// A tree with a certificate, its key, an authority and an issued certificate, for `WITH_FILES`.
fn tree() -> SourceTree {
    support::parse(
        "file tls/cert.pem: certificate a 2026-01-01 2027-01-01 shop.example www.shop.example\n\
         file tls/key.pem: key a\n\
         file ca.pem: certificate ca 2026-01-01 2027-01-01 ca.example\n\
         file eab.key: text abc-_123\n\
         file made.pem: certificate n 2026-01-01 2027-01-01 news.example\n\
         file acme:news.example: both n\n\
         --- config\n--- expected\n",
    )
    .tree
}

fn id(text: &str, tree: &SourceTree) -> ContentHash {
    let compiled = compile_text(text.as_bytes(), tree);
    compiled.snapshot.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics)).id
}

#[test]
fn identity_follows_content_and_nothing_else() {
    let tree = tree();
    let first = id(WITH_FILES, &tree);
    assert_eq!(first, id(WITH_FILES, &tree), "the same content");

    let renamed = Input { file: "elsewhere.toml", text: WITH_FILES.as_bytes(), tree: &tree };
    assert_eq!(
        first,
        compile(renamed, NOW, Mode::Stored).snapshot.unwrap().id,
        "name and mode do not matter"
    );

    let mut more = tree.clone();
    more.insert("unrelated", Ok(Arc::from(*b"x")));
    assert_eq!(first, id(WITH_FILES, &more), "a file nobody refers to does not matter");

    let mut changed = tree.clone();
    let mut authority = tree.get("ca.pem").unwrap().to_vec();
    authority.push(b'\n');
    changed.insert("ca.pem", Ok(authority.into()));
    assert_ne!(first, id(WITH_FILES, &changed), "a referenced file changed");

    let mut missing = tree.clone();
    missing.insert(ISSUED_PATH, Err(Unreadable::NotFound));
    let before = id(WITH_FILES, &missing);
    assert_ne!(first, before, "a certificate was issued");

    let issued = tree.get(ISSUED_PATH).unwrap();
    more.insert("acme:elsewhere.example", Ok(issued.clone()));
    assert_eq!(first, id(WITH_FILES, &more), "a certificate nobody wants does not matter");
    more.insert("acme:a.customers.example", Ok(issued));
    assert_eq!(first, id(WITH_FILES, &more), "nor does one that cannot be used");
    more.insert("acme:a.customers.example", Ok(demanded("a.customers.example")));
    assert_ne!(first, id(WITH_FILES, &more), "a certificate was issued on demand");
    assert_ne!(first, id(&format!("{WITH_FILES}\n"), &tree), "the text changed");
}

/// An issued file: certificate and key of a name.
fn demanded(name: &str) -> Arc<[u8]> {
    let directives = format!(
        "file certificate: certificate x 2026-01-01 2027-01-01 {name}\nfile both: both x\n\
         --- config\n--- expected\n"
    );
    support::parse(&directives).tree.get("both").unwrap()
}

#[test]
fn what_is_wanted_of_an_authority_is_compiled() {
    let mut tree = tree();
    tree.insert("acme:a.customers.example", Ok(demanded("a.customers.example")));
    tree.insert("acme:b.elsewhere.example", Ok(demanded("b.elsewhere.example")));
    tree.insert("acme:*.customers.example", Ok(demanded("*.customers.example")));
    let snapshot = compile_text(WITH_FILES.as_bytes(), &tree).snapshot.unwrap();
    let acme = snapshot.acme.as_ref().unwrap();
    assert_eq!(acme.contact, ["mailto:ops@shop.example"]);
    assert_eq!(acme.names, ["news.example".into()]);
    assert_eq!(acme.on_demand, [HostPattern::Suffix("customers.example".into())]);
    assert_eq!(acme.challenge, AcmeChallenge::Http01);
    let [authority] = acme.authorities.as_slice() else { panic!("{acme:?}") };
    assert_eq!(authority.directory, "https://[::1]:14000/dir");
    assert_eq!(authority.roots.as_deref(), Some("ca.pem"), "as written");
    assert_eq!(authority.eab, Some(("k".to_owned(), "eab.key".to_owned())));
    let Certificate::Acme { names, demanded, on_demand, place } = &snapshot.sites[2].certificate else {
        panic!("{:?}", snapshot.sites[2].certificate);
    };
    assert_eq!(names, &[("news.example".into(), tree.get(ISSUED_PATH).ok())]);
    assert_eq!(demanded, &[("a.customers.example".into(), tree.get("acme:a.customers.example").unwrap())]);
    assert_eq!((on_demand, place.as_str()), (&acme.on_demand, "site[2].tls.acme"));
    let tls = &snapshot.sites[0].tls;
    assert_eq!(tls.hsts.as_deref(), Some("max-age=31536000; includeSubDomains"));
    assert!(tls.redirect && tls.client.as_ref().is_some_and(|client| !client.required));
    assert_eq!(snapshot.sites[2].tls.policy, TlsPolicy::Modern);
    assert!(!snapshot.standby && !snapshot.is_defaults);
    assert_eq!(snapshot.drain.tunnels.as_secs(), 300);
}

#[test]
fn wildcards_are_wanted_with_dns_01_only() {
    let wanted = |challenge: &str| {
        let text = format!(
            "[[listen]]\naddress = \":443\"\n[acme]\nagree_to_terms = true\n{challenge}\n[[site]]\n\
             hosts = [\"*.a.example\", \"A.example\", \"*\"]\ntls.acme = true\n"
        );
        let found = references("rempart.toml", text.as_bytes());
        found.into_iter().map(|reference| reference.path).collect::<Vec<_>>()
    };
    assert_eq!(wanted("challenge = \"dns-01\""), ["acme:*.a.example", "acme:a.example"]);
    assert_eq!(wanted("challenge = \"tls-alpn-01\""), ["acme:a.example"]);
}

#[test]
fn defaults_listen_and_serve_no_site() {
    let listeners = [("[::]:80".parse().unwrap(), false), ("127.0.0.1:443".parse().unwrap(), true)];
    let snapshot = defaults(&listeners);
    assert!(snapshot.is_defaults && snapshot.sites.is_empty() && snapshot.hosts.find("a.example").is_none());
    let bound: Vec<_> = snapshot.listeners.iter().map(|listener| (listener.address, listener.tls)).collect();
    assert_eq!(bound, listeners);
    assert_eq!((snapshot.metrics, &snapshot.access_log.to), (None, &AccessLogTarget::Off));
    let compiled = compile_text(SMALL.as_bytes(), &SourceTree::default()).snapshot.unwrap();
    assert_eq!(
        (snapshot.limits, snapshot.drain),
        (compiled.limits, compiled.drain),
        "those of a file without any"
    );
    assert_eq!(snapshot.id, defaults(&listeners).id);
    assert_ne!(snapshot.id, defaults(&listeners[..1]).id);
    assert!(!outline(&snapshot).is_empty());
}

#[test]
fn references_name_every_file_once_and_say_which_are_secret() {
    let found = references("rempart.toml", WITH_FILES.as_bytes());
    let shown: Vec<_> = found.iter().map(|it| (it.path.as_str(), it.place.as_str(), it.secret)).collect();
    assert_eq!(
        shown,
        [
            (ISSUED_PATH, "site[2].tls.acme", true),
            ("ca.pem", "site[0].tls.client.authorities", false),
            ("eab.key", "acme.authority[0].eab_key", true),
            ("tls/cert.pem", "site[0].tls.certificate", false),
            ("tls/key.pem", "site[0].tls.key", true),
        ]
    );
    assert_eq!(references("rempart.toml", b"[[["), []);
    // What is wrong elsewhere does not keep files from being read: all findings come in one go.
    let typo = WITH_FILES.replace("compatibility", "compatibilty");
    assert_eq!(references("rempart.toml", typo.as_bytes()), found);
}

#[test]
fn the_command_line_makes_a_configuration_like_any_other() {
    let origins = ["http://127.0.0.1:3000".to_owned(), "https://app.internal".to_owned()];
    let listen = ["http://127.0.0.1:8080".to_owned(), "https://[::1]:9443/".to_owned(), ":443".to_owned()];
    let text = command_line_config(&origins, &listen);
    let compiled = compile_text(text.as_bytes(), &SourceTree::default());
    let snapshot = compiled.snapshot.unwrap_or_else(|| panic!("{:?}\n{text}", compiled.diagnostics));
    let listeners: Vec<_> = snapshot.listeners.iter().map(|it| (it.address.to_string(), it.tls)).collect();
    assert_eq!(
        listeners,
        [
            ("127.0.0.1:8080".to_owned(), false),
            ("[::1]:9443".to_owned(), true),
            ("[::]:443".to_owned(), true)
        ]
    );
    let labels: Vec<_> = snapshot.sites[0].origins.iter().map(|origin| &*origin.label).collect();
    assert_eq!(labels, ["http://127.0.0.1:3000", "https://app.internal:443"]);
    assert_eq!(snapshot.hosts.find("anything.example"), Some(0));

    // Nothing typed on a command line can break out of its string.
    let hostile = ["x\"\n[limits]\nthreads = 0 #".to_owned()];
    let compiled = compile_text(command_line_config(&hostile, &listen).as_bytes(), &SourceTree::default());
    let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["bad-origin"]);
}

#[test]
fn places_of_a_generation_lead_back_to_the_file() {
    let compiled = compile_text(SMALL.as_bytes(), &SourceTree::default());
    let place = compiled.snapshot.as_ref().unwrap().listeners[0].place.clone();
    let location = compiled.locate(&place);
    assert_eq!((location.line, location.column, location.width), (2, 11, 7));
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_with_a_way_out() {
    for reason in [
        Unreadable::NotFound,
        Unreadable::Permission,
        Unreadable::Directory,
        Unreadable::NotRegular,
        Unreadable::TooLarge { limit: CONFIG_BYTES },
        Unreadable::Other("stale file handle".to_owned()),
    ] {
        let diagnostic = unreadable("/etc/rempart.toml", &reason);
        assert_eq!(diagnostic.severity, Severity::Error);
        assert!(
            diagnostic.message.contains("/etc/rempart.toml") && diagnostic.hint.is_some(),
            "{diagnostic:?}"
        );
    }
}

#[test]
fn too_large_is_refused_without_a_closer_look() {
    let mut text = SMALL.as_bytes().to_vec();
    text.resize(CONFIG_BYTES + 1, b'\n');
    let compiled = compile_text(&text, &SourceTree::default());
    assert!(compiled.snapshot.is_none());
    assert_eq!(compiled.diagnostics.len(), 1);
    assert_eq!(compiled.diagnostics[0].code, "too-large");
}

#[test]
fn findings_are_bounded_and_the_rest_is_counted() {
    let many: String = (0..5_000).map(|n| format!("unknown{n} = 1\n")).collect();
    let compiled = compile_text((many + SMALL).as_bytes(), &SourceTree::default());
    assert!(compiled.snapshot.is_none());
    assert_eq!(compiled.diagnostics.len(), MAXIMUM_FINDINGS + 1);
    let last = &compiled.diagnostics[MAXIMUM_FINDINGS];
    assert!(last.code == "more-findings" && last.message.contains("4900"), "{last:?}");
}

#[test]
fn lists_are_bounded() {
    let listeners: String = (0..65).map(|n| format!("[[listen]]\naddress = \":{}\"\n", 20_000 + n)).collect();
    let rest = SMALL.split_once("[[site]]").unwrap().1;
    let compiled = compile_text(format!("{listeners}[[site]]{rest}").as_bytes(), &SourceTree::default());
    let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["too-many"], "and not that there is no listener");
}

/// Rules that route, one for each of these parameters.
fn routing(parameters: impl Iterator<Item = String>) -> String {
    let rule = |(number, parameters)| {
        format!(
            "[[site.rules]]\nid = \"r{number}\"\nphase = \"http_request_origin\"\nexpression = \"http.request.uri.path contains \\\"{number}\\\"\"\naction = \"route\"\naction_parameters = {parameters}\n"
        )
    };
    SMALL.to_owned() + &parameters.enumerate().map(rule).collect::<String>()
}

#[test]
fn rules_that_route_are_combined_and_in_so_many_ways_only() {
    let hosts = (0..16).map(|n| format!("{{ origin = {{ host = \"h{n}.internal\" }} }}"));
    let ports = (0..14).map(|n| format!("{{ origin = {{ port = {} }} }}", 9000 + n));
    let text = routing(hosts.clone().chain(ports));
    let compiled = compile_text(text.as_bytes(), &SourceTree::default());
    let snapshot = compiled.snapshot.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
    let rules = snapshot.sites[0].rules.phase(expr::Phase::Origin).unwrap();
    // Each by itself, and each host with each port.
    let routes = rules.routes().unwrap();
    assert_eq!(routes.len(), 16 + 14 + 16 * 14);
    let pair = |route: &&Route| route.host.as_deref() == Some("h3.internal") && route.port == Some(9005);
    assert_eq!(routes.iter().filter(pair).count(), 1);

    let ports = (0..15).map(|n| format!("{{ origin = {{ port = {} }} }}", 9000 + n));
    let text = routing(hosts.chain(ports));
    let compiled = compile_text(text.as_bytes(), &SourceTree::default());
    let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["too-many"]);

    // Rules that say everything replace each other, however many there are.
    let whole = (0..200).map(|n| {
        format!(
            "{{ host_header = \"a\", sni.value = \"b\", origin = {{ host = \"h{n}.internal\", port = 80 }} }}"
        )
    });
    let compiled = compile_text(routing(whole).as_bytes(), &SourceTree::default());
    let snapshot = compiled.snapshot.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
    assert_eq!(snapshot.sites[0].rules.phase(expr::Phase::Origin).unwrap().routes().unwrap().len(), 200);
}

/// Compiles, and holds what comes out against what must always be true of it.
fn survives(text: &[u8], tree: &SourceTree) {
    let compiled = compile_text(text, tree);
    let errors = compiled.diagnostics.iter().filter(|it| it.severity == Severity::Error).count();
    assert_eq!(compiled.snapshot.is_none(), errors > 0, "refused exactly when an error says why");
    for diagnostic in &compiled.diagnostics {
        assert_ne!(diagnostic.code, "internal", "{diagnostic:?}");
        let everywhere = diagnostic.code == "more-findings";
        assert!(diagnostic.hint.is_some() && (everywhere || diagnostic.location.is_some()), "{diagnostic:?}");
        assert!(!render(diagnostic, false).is_empty());
    }
    if let Some(snapshot) = &compiled.snapshot {
        assert!(!snapshot.sites.is_empty() && snapshot.sites.iter().all(|site| !site.origins.is_empty()));
        assert!(!outline(snapshot).is_empty());
    }
}

#[test]
fn no_truncation_of_a_good_configuration_panics() {
    let tree = tree();
    survives(WITH_FILES.as_bytes(), &tree);
    assert!(compile_text(WITH_FILES.as_bytes(), &tree).snapshot.is_some(), "it is good to begin with");
    for end in 0..WITH_FILES.len() {
        survives(&WITH_FILES.as_bytes()[..end], &tree);
    }
}

#[test]
fn no_flipped_byte_of_a_good_configuration_panics() {
    let tree = tree();
    let mut text = WITH_FILES.as_bytes().to_vec();
    for at in 0..text.len() {
        for mask in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
            text[at] ^= mask;
            survives(&text, &tree);
            text[at] ^= mask;
        }
    }
}

#[test]
fn no_flipped_byte_of_a_certificate_or_key_panics() {
    let tree = tree();
    for path in ["tls/cert.pem", "tls/key.pem", "ca.pem", ISSUED_PATH] {
        let good = tree.get(path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            let mut tree = tree.clone();
            tree.insert(path, Ok(bad.into()));
            survives(WITH_FILES.as_bytes(), &tree);
            // What a machine wrote never stands in the way of a person.
            assert!(path != ISSUED_PATH || compile_text(WITH_FILES.as_bytes(), &tree).snapshot.is_some());
            tree.insert(path, Ok(good[..at].into()));
            survives(WITH_FILES.as_bytes(), &tree);
        }
    }
}
