//! Every field of the language that needs no detection, asked of requests as rules ask: a field without a case fails here.

mod fixture;
mod place;

use std::collections::BTreeSet;

use expr::fields::Tier;
use expr::{Context, Filter, Options, Steps, Truth};

use self::fixture::House;
use super::{Announced, Answered, Facts, Timings};
use crate::message::{BodyLength, HeaderList, ResponseHead};

const STEPS: usize = 100_000;

fn truth(context: &dyn Context, expression: &str) -> Truth {
    let filter = Filter::parse(expression, &Options::default()).unwrap_or_else(|error| panic!("{error:?}"));
    filter.evaluate(context, &mut Steps::new(STEPS))
}

/// Asserts that each holds; answers which fields they ask for.
fn hold(context: &dyn Context, expressions: &[&str]) -> BTreeSet<&'static str> {
    let mut asked = BTreeSet::new();
    for expression in expressions {
        assert_eq!(truth(context, expression), Truth::True, "{expression}");
        let reads = Filter::parse(expression, &Options::default()).unwrap().reads();
        asked.extend(reads.fields.into_iter().map(|field| field.field().name));
    }
    asked
}

const FIELDS: [(&str, &str); 10] = [
    ("Cookie", "a=1; b%20c=2"),
    ("cookie", "a=3"),
    ("Referer", "https://other.example/"),
    ("User-Agent", "probe/1"),
    ("X-Forwarded-For", "203.0.113.1"),
    ("x-forwarded-for", "203.0.113.2"),
    ("Accept-Language", "de;q=0.5, fr, *;q=0.1"),
    ("X-Two", "one"),
    ("x-two", "two"),
    ("Content-Type", "Text/Plain; charset=utf-8"),
];

const TARGET: &str = "/a//b/../%7Euser/Photo.PNG?q=1&q=%20&x=A";

const HEAD: &[&str] = &[
    r#"http.cookie eq "a=1; b%20c=2; a=3""#,
    r#"http.host eq "shop.example""#,
    r#"http.referer eq "https://other.example/""#,
    r#"http.user_agent eq "probe/1""#,
    r#"http.x_forwarded_for eq "203.0.113.1, 203.0.113.2""#,
    r#"http.request.full_uri eq "http://shop.example:8443/a/~user/Photo.PNG?q=1&q=%20&x=A""#,
    r#"http.request.method eq "POST""#,
    r#"http.request.version eq "HTTP/1.1""#,
    r#"http.request.uri eq "/a/~user/Photo.PNG?q=1&q=%20&x=A""#,
    r#"http.request.uri.path eq "/a/~user/Photo.PNG""#,
    r#"http.request.uri.path.extension eq "png""#,
    r#"http.request.uri.query eq "q=1&q=%20&x=A""#,
    r#"http.request.uri.args["q"][1] eq "%20" and http.request.uri.args["x"][0] eq "A""#,
    r#"not any(http.request.uri.args["none"][*] eq "")"#,
    r#"http.request.uri.args.names[2] eq "x" and len(http.request.uri.args.names) eq 3"#,
    r#"http.request.uri.args.values[0] eq "1" and http.request.uri.args.values[1] eq "%20""#,
    r#"http.request.headers["x-two"][0] eq "one" and http.request.headers["x-two"][1] eq "two""#,
    r#"http.request.headers["host"][0] eq "shop.example:8443""#,
    r#"http.request.headers["content-length"][0] eq "7""#,
    r#"any(http.request.headers.names[*] eq "X-Two") and any(http.request.headers.names[*] eq "x-two")"#,
    r#"any(http.request.headers.values[*] eq "two")"#,
    "not http.request.headers.truncated",
    r#"http.request.cookies["a"][1] eq "3" and http.request.cookies["b c"][0] eq "2""#,
    r#"http.request.accepted_languages[0] eq "fr" and http.request.accepted_languages[1] eq "de""#,
    "len(http.request.accepted_languages) eq 2",
    "http.request.timestamp.sec eq 1700000000",
    "http.request.timestamp.msec eq 123",
    r#"raw.http.request.full_uri eq "http://shop.example:8443/a//b/../%7Euser/Photo.PNG?q=1&q=%20&x=A""#,
    r#"raw.http.request.uri eq "/a//b/../%7Euser/Photo.PNG?q=1&q=%20&x=A""#,
    r#"raw.http.request.uri.path eq "/a//b/../%7Euser/Photo.PNG""#,
    r#"raw.http.request.uri.path.extension eq "png""#,
    r#"raw.http.request.uri.query eq "q=1&q=%20&x=A""#,
    r#"raw.http.request.uri.args["q"][0] eq "1""#,
    r#"raw.http.request.uri.args.names[1] eq "q""#,
    r#"raw.http.request.uri.args.values[2] eq "A""#,
    "ip.src in {192.0.2.0/24}",
    "not ssl",
    "tcp.dstport eq 8443",
    "cf.edge.server_ip eq 192.0.2.1",
    "cf.edge.server_port eq 8443",
    "cf.edge.client_tcp",
    "cf.timings.client_quic_rtt_msec eq 0",
    "cf.timings.client_tcp_rtt_msec eq 7",
    "cf.edge.l4.delivery_rate eq 250000",
    r#"len(cf.ray_id) eq 20 and cf.ray_id contains "-""#,
    "len(cf.random_seed) eq 16",
    r#"cf.zone.name eq "shop""#,
    r#"cf.worker.upstream_zone eq """#,
    r#"cf.hostname.metadata eq """#,
    "cf.threat_score eq 0",
    // Without TLS there is nothing to tell of it, which is known.
    r#"cf.tls_version eq "" and cf.tls_cipher eq "" and cf.tls_client_random eq """#,
    r#"cf.tls_client_hello_length eq 0 and cf.bot_management.ja3_hash eq "" and cf.bot_management.ja4 eq """#,
    "not cf.tls_client_auth.cert_presented and not cf.tls_client_auth.cert_revoked",
    r#"cf.tls_client_auth.cert_not_after eq "" and cf.tls_client_auth.cert_rfc9440 eq """#,
];

const TLS: &[&str] = &[
    "ssl",
    r#"http.request.version eq "HTTP/2""#,
    r#"cf.tls_version eq "TLSv1.3""#,
    r#"cf.tls_cipher eq "AEAD-AES128-GCM-SHA256""#,
    r#"cf.tls_ciphers_sha1 eq "3GEOPWXZofgwujp3LM79YjDiIsA=""#,
    r#"cf.tls_client_extensions_sha1 eq "F5ZnTMVVSrGrkSDbdKdfLDoS75c=""#,
    r#"cf.tls_client_extensions_sha1_le eq "RgN95Ys5KOVtKDdBwm8QEynJiDo=""#,
    "cf.tls_client_hello_length eq 115",
    r#"cf.tls_client_random eq "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=""#,
    r#"cf.bot_management.ja3_hash eq "f5357fc93f217a6c7e3f71ee88b85d88""#,
    r#"cf.bot_management.ja4 eq "t12d0305h2_385fe8715b7f_876bcc86782c""#,
    "cf.tls_client_auth.cert_presented",
    "cf.tls_client_auth.cert_verified",
    r#"cf.tls_client_auth.cert_serial eq "527E""#,
    r#"cf.tls_client_auth.cert_issuer_serial eq "7A01""#,
    r#"cf.tls_client_auth.cert_subject_dn eq "CN=visitor,O=Example""#,
    r#"cf.tls_client_auth.cert_subject_dn_rfc2253 eq "CN=visitor,O=Example""#,
    r#"cf.tls_client_auth.cert_subject_dn_legacy eq "/O=Example/CN=visitor""#,
    r#"cf.tls_client_auth.cert_issuer_dn eq "CN=signer,O=Example""#,
    r#"cf.tls_client_auth.cert_issuer_dn_rfc2253 eq "CN=signer,O=Example""#,
    r#"cf.tls_client_auth.cert_issuer_dn_legacy eq "/O=Example/CN=signer""#,
    r#"cf.tls_client_auth.cert_not_before eq "Feb  3 00:00:00 2024 GMT""#,
    r#"cf.tls_client_auth.cert_not_after eq "Dec 24 00:00:00 2034 GMT""#,
    r#"cf.tls_client_auth.cert_ski eq "AA01""#,
    r#"cf.tls_client_auth.cert_issuer_ski eq "BB02""#,
    r#"cf.tls_client_auth.cert_rfc9440 wildcard ":MI*:""#,
    r#"cf.tls_client_auth.cert_chain_rfc9440 wildcard ":MI*:""#,
    "not cf.tls_client_auth.cert_rfc9440_too_large",
    "not cf.tls_client_auth.cert_chain_rfc9440_too_large",
];

const PLACE: &[&str] = &[
    r#"ip.src.country eq "FR" and ip.geoip.country eq "FR""#,
    r#"ip.src.continent eq "EU""#,
    "ip.src.asnum eq 64500 and ip.geoip.asnum in {64500}",
    r#"ip.src.city eq "Lyon""#,
    r#"ip.src.region eq "Auvergne-Rhone-Alpes""#,
    r#"ip.src.region_code eq "ARA""#,
    r#"ip.src.postal_code eq "69001""#,
    r#"ip.src.metro_code eq "501""#,
    r#"ip.src.lat eq "45.75""#,
    r#"ip.src.lon eq "-4.5""#,
    r#"ip.src.timezone.name eq "Europe/Paris""#,
    r#"ip.src.subdivision_1_iso_code eq "ARA""#,
    r#"ip.src.subdivision_2_iso_code eq "69""#,
    "ip.src.is_in_european_union",
];

const BODY: &[&str] = &[
    r#"http.request.body.raw eq "a=1&b=x%20y&a=+""#,
    "not http.request.body.truncated",
    "http.request.body.size eq 15",
    r#"http.request.body.mime eq "application/x-www-form-urlencoded""#,
    r#"http.request.body.form["a"][1] eq " ""#,
    r#"http.request.body.form.names[1] eq "b""#,
    r#"http.request.body.form.values[1] eq "x y""#,
    "len(http.request.body.multipart.values) eq 0",
];

const PARTS: &str = "--x\r\nContent-Disposition: form-data; name=\"who\"\r\n\r\nalice\r\n--x\r\nContent-Disposition: \
                     form-data; name=\"file\"; filename=\"a.php\"\r\nContent-Type: text/plain\r\n\
                     Content-Transfer-Encoding: binary\r\n\r\n<?php\r\n--x--\r\n";

const MULTIPART: &[&str] = &[
    r#"any(http.request.body.multipart["who"][*] eq "alice")"#,
    r#"http.request.body.multipart.values[1] eq "<?php""#,
    r#"any(http.request.body.multipart.names[*][0] eq "file")"#,
    r#"http.request.body.multipart.filenames[1][0] eq "a.php""#,
    r#"http.request.body.multipart.content_types[1][0] eq "text/plain""#,
    r#"http.request.body.multipart.content_dispositions[0][0] eq "form-data; name=\"who\"""#,
    r#"http.request.body.multipart.content_transfer_encodings[1][0] eq "binary""#,
    "len(http.request.body.form.names) eq 0",
];

const RESPONSE: &[&str] = &[
    "http.response.code eq 404",
    r#"http.response.headers["x-a"][0] eq "2""#,
    r#"any(http.response.headers.names[*] eq "X-A")"#,
    r#"any(http.response.headers.values[*] eq "2")"#,
    r#"raw.http.response.headers["x-a"][0] eq "1""#,
    r#"raw.http.response.headers.names[0] eq "X-A""#,
    r#"raw.http.response.headers.values[0] eq "1""#,
    r#"http.response.content_type.media_type eq "text/html""#,
    r#"any(http.response.headers["content-length"][*] eq "2")"#,
    r#"any(raw.http.response.headers["content-length"][*] eq "9")"#,
    "cf.response.1xxx_code eq 0",
    r#"cf.response.error_type eq "waf""#,
    "cf.timings.edge_msec eq 7",
    "cf.timings.origin_ttfb_msec eq 5",
    "cf.timings.worker_msec eq 0",
    // What is asked of the request is still there.
    r#"http.request.method eq "POST""#,
];

fn answered<T>(facts: &Facts<'_>, see: impl FnOnce(&Answered<'_, '_>) -> T) -> T {
    let mut head = ResponseHead::new(404);
    head.headers.push("X-A", "2");
    head.headers.push("Content-Type", "Text/HTML; charset=utf-8");
    let mut raw = HeaderList::default();
    raw.push("X-A", "1");
    see(&Answered::new(
        facts,
        &head,
        &raw,
        "waf",
        Timings { edge: Some(7), origin: Some(5) },
        Announced { now: BodyLength::Exact(2), raw: BodyLength::Exact(9) },
    ))
}

#[test]
fn every_field_says_what_it_is_to_say() {
    let house = House::new(true);
    let mut plain = house.facts(&house.plain, TARGET, &FIELDS);
    plain.announces(BodyLength::Exact(7));
    let mut asked = hold(&plain, HEAD);
    asked.extend(hold(&plain, PLACE));
    let encrypted = house.facts(&house.encrypted, "/", &[]);
    asked.extend(hold(&encrypted, TLS));
    let certificate = &house.certificate;
    asked.extend(hold(
        &encrypted,
        &[
            &format!(r#"cf.tls_client_auth.cert_fingerprint_sha1 eq "{}""#, certificate.sha1),
            &format!(r#"cf.tls_client_auth.cert_fingerprint_sha256 eq "{}""#, certificate.sha256),
        ],
    ));
    let form = house.with_body("Application/X-WWW-Form-Urlencoded;charset=utf-8", "a=1&b=x%20y&a=+", 1000);
    asked.extend(hold(&form, BODY));
    asked.extend(hold(&house.with_body("multipart/form-data; boundary=x", PARTS, 1000), MULTIPART));
    asked.extend(answered(&plain, |answered| hold(answered, RESPONSE)));

    let unknown = |name: &&str| name.starts_with("http.request.jwt.claims.");
    let all = expr::fields::all().filter(|(_, field)| field.tier != Tier::Detection);
    let missing: Vec<_> =
        all.map(|(_, field)| field.name).filter(|name| !asked.contains(name) && !unknown(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    assert!(!asked.iter().any(unknown), "said to be computed by nobody");
}

#[test]
fn what_nobody_knows_is_unknown() {
    let house = House::new(false);
    let facts = house.facts(&house.encrypted, "/", &[]);
    for (id, field) in expr::fields::all() {
        let known = facts.field(id);
        let unknown = matches!(known, expr::Fetched::Unknown);
        let expected = match field.tier {
            // No database, no body looked into but for its media type, no response, no detection.
            Tier::Geography | Tier::Detection => true,
            Tier::Body => field.name != "http.request.body.mime",
            Tier::Response => true,
            // A certificate was shown, and nobody has a list of revoked ones.
            Tier::Connection => field.name == "cf.tls_client_auth.cert_revoked",
        };
        assert_eq!(unknown, expected, "{}", field.name);
    }
}

#[test]
fn absent_fields_are_empty_and_absent_keys_are_no_values() {
    let house = House::new(false);
    let facts = house.facts(&house.plain, "/", &[]);
    crate::ignore(hold(
        &facts,
        &[
            r#"http.referer eq "" and http.user_agent eq "" and http.cookie eq "" and http.x_forwarded_for eq """#,
            r#"http.request.uri.query eq "" and http.request.uri.path.extension eq """#,
            "len(http.request.uri.args.names) eq 0 and len(http.request.accepted_languages) eq 0",
        ],
    ));
    for expression in [
        r#"http.request.headers["x-two"][0] eq "one""#,
        r#"any(http.request.headers["x-two"][*] eq "one")"#,
        r#"http.request.cookies["a"][0] eq "1""#,
        r#"http.request.uri.args["q"][0] eq "1""#,
    ] {
        assert_eq!(truth(&facts, expression), Truth::False, "{expression}");
    }
}

#[test]
fn rules_see_what_rules_have_changed() {
    let house = House::new(false);
    let mut facts = house.facts(&house.plain, "/a/../b.txt?x=1", &[("X-A", "1")]);
    crate::ignore(hold(
        &facts,
        &[
            r#"http.request.uri.path eq "/b.txt" and raw.http.request.uri.path eq "/a/../b.txt""#,
            r#"http.request.uri.args["x"][0] eq "1" and http.request.headers["x-a"][0] eq "1""#,
            r#"http.request.full_uri contains "/b.txt?x=1""#,
        ],
    ));
    assert_eq!(facts.head().target, "/a/../b.txt?x=1", "the origin gets it as it came");
    facts.rewrite("/c/./d.HTML?y=2".to_owned());
    facts.headers_mut().push("X-A", "2");
    crate::ignore(hold(
        &facts,
        &[
            r#"http.request.uri.path eq "/c/d.HTML" and http.request.uri.path.extension eq "html""#,
            r#"http.request.uri.args["y"][0] eq "2" and len(http.request.uri.args.names) eq 1"#,
            r#"http.request.full_uri contains "/c/d.HTML?y=2""#,
            r#"raw.http.request.uri eq "/a/../b.txt?x=1" and raw.http.request.uri.path.extension eq "txt""#,
            r#"raw.http.request.uri.args["x"][0] eq "1" and raw.http.request.full_uri contains "b.txt""#,
            r#"http.request.headers["x-a"][1] eq "2""#,
        ],
    ));
    assert_eq!(facts.received_headers().map(HeaderList::len), Some(1));
}

#[test]
fn what_a_body_holds_that_cannot_be_read_is_not_known() {
    let house = House::new(false);
    let parts = |body: &str, limit| house.with_body("multipart/form-data; boundary=x", body, limit);
    let alice = r#"any(http.request.body.multipart["who"][*] eq "alice")"#;
    let file = r#"any(http.request.body.multipart.names[*][0] eq "file")"#;
    let cut = parts(PARTS, 100);
    assert_eq!((truth(&cut, alice), truth(&cut, file)), (Truth::True, Truth::False));
    assert_eq!(truth(&cut, "http.request.body.truncated and http.request.body.size eq 203"), Truth::True);
    let broken = parts(&PARTS.replace("--x--", ""), 1000);
    assert_eq!((truth(&broken, alice), truth(&broken, file)), (Truth::Unknown, Truth::Unknown));
    assert_eq!(truth(&broken, r#"http.request.body.raw contains "alice""#), Truth::True);

    let form = |count| {
        let body = vec!["a=1"; count].join("&");
        let facts = house.with_body("application/x-www-form-urlencoded", &body, 1 << 20);
        truth(&facts, r#"http.request.body.form["a"][0] eq "1""#)
    };
    assert_eq!((form(4096), form(4097)), (Truth::True, Truth::Unknown));
}
