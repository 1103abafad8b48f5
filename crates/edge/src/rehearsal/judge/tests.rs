//! Right and wrong answers, one aspect at a time.

use super::*;
use crate::message::ResponseHead;

fn answer(status: u16, fields: &[(&str, &str)], body: &str) -> Answer {
    let mut head = ResponseHead::new(status);
    fields.iter().for_each(|(name, value)| head.headers.push(*name, *value));
    Answer { head, body: body.as_bytes().to_vec() }
}

fn echo() -> Echo {
    Echo {
        mark: "m".to_owned(),
        method: Method::POST,
        target: "/a?b".to_owned(),
        body: b"hello".to_vec(),
        hosts: vec!["origin.example".to_owned(), "shop.example".to_owned()],
        authority: "shop.example".to_owned(),
        scheme: "https",
        via: "edge".to_owned(),
        compatibility: Compatibility::Cloudflare,
        hsts: Some("max-age=1".to_owned()),
    }
}

const ECHOED: &str = "POST /a?b HTTP/1.1\r\nHost: origin.example\r\nForwarded: for=127.0.0.1;proto=https;host=shop.example\r\n\
    X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nVia: 1.1 edge\r\n\
    CDN-Loop: edge\r\nCF-Connecting-IP: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello";
const FIELDS: [(&str, &str); 2] = [("Rempart-Golden", "m"), ("Strict-Transport-Security", "max-age=1")];

#[test]
fn an_echo_is_right_only_when_everything_is() {
    assert_eq!(Expected::Echo(Box::new(echo())).judge(&answer(200, &FIELDS, ECHOED)), Ok(()));
    for (before, after, named) in [
        ("POST", "GET", "POST /a?b"),
        ("/a?b", "/a", "POST /a?b"),
        ("Host: origin.example", "Host: other.example", "origin.example or shop.example"),
        ("hello", "hallo", "\"hello\""),
        ("For: 127.0.0.1", "For: 192.0.2.1, 127.0.0.1", "X-Forwarded-For: 127.0.0.1"),
        ("Proto: https", "Proto: http", "X-Forwarded-Proto: https"),
        ("Host: shop.example", "Host: shop", "X-Forwarded-Host: shop.example"),
        ("for=127.0.0.1;", "for=192.0.2.1;", "Forwarded with for=127.0.0.1"),
        ("proto=https", "proto=http", "Forwarded with proto=https"),
        ("Via: 1.1 edge", "Via: 1.1 other", "Via with edge"),
        ("CDN-Loop: edge", "CDN-Loop: other", "CDN-Loop with edge"),
        ("CF-Connecting-IP", "CF-IP", "CF-Connecting-IP"),
    ] {
        assert!(ECHOED.contains(before), "{before}");
        let wrong = echo().judge(&answer(200, &FIELDS, &ECHOED.replace(before, after))).unwrap_err();
        assert!(wrong.expected.contains(named), "{before}: {wrong:?}");
    }
    for (status, fields, body, named) in [
        (502, &FIELDS[..], ECHOED, "status 200"),
        (200, &FIELDS[1..], ECHOED, "golden origin"),
        (200, &FIELDS[..1], ECHOED, "max-age=1"),
        (200, &FIELDS, "wrong", "unchanged"),
    ] {
        let wrong = echo().judge(&answer(status, fields, body)).unwrap_err();
        assert!(wrong.expected.contains(named), "{wrong:?}");
    }
}

#[test]
fn a_redirect_keeps_host_and_target() {
    for (status, location, right) in [
        (301, "https://a.example/x?y", true),
        (308, "https://a.example:8443/x?y", true),
        (302, "https://a.example/x?y", false),
        (308, "http://a.example/x?y", false),
        (308, "https://a.example.evil/x?y", false),
        (308, "https://a.example:/x?y", false),
        (308, "https://a.example/x", false),
        (308, "https://b.example/x?y", false),
    ] {
        let outcome = judge_redirect("a.example", "/x?y", &answer(status, &[("Location", location)], ""));
        assert_eq!(outcome.is_ok(), right, "{status} {location}");
    }
    assert!(judge_redirect("a.example", "/x", &answer(308, &[], "")).is_err());
}

#[test]
fn a_trace_says_who_asked_whom() {
    let trace = Trace {
        authority: "a.example".to_owned(),
        scheme: "https",
        protocol: "h2",
        server_name: Some("a.example".to_owned()),
        site: "a".to_owned(),
    };
    let text = "h=a.example\nvisit_scheme=https\nhttp=h2\nsni=a.example\n";
    assert_eq!(trace.judge(&answer(200, &[], text)), Ok(()));
    assert_eq!(trace.judge(&answer(200, &[], &format!("{text}site=a\n"))), Ok(()));
    for (before, after) in [("h=a", "h=b"), ("https", "http"), ("h2", "HTTP/1.1"), ("sni=a", "sni=b")] {
        let wrong = trace.judge(&answer(200, &[], &text.replacen(before, after, 1))).unwrap_err();
        assert!(wrong.got.contains(after), "{wrong:?}");
    }
    assert!(trace.judge(&answer(200, &[], &format!("{text}site=b\n"))).is_err());
    assert!(trace.judge(&answer(404, &[], text)).is_err());
}

#[test]
fn one_of_two_is_enough() {
    let either = Expected::Either(Box::new(Expected::Status(403)), Box::new(Expected::Status(421)));
    for (status, right) in [(403, true), (421, true), (200, false)] {
        assert_eq!(either.judge(&answer(status, &[], "")).is_ok(), right, "{status}");
    }
}
