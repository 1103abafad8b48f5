//! Tables for `forwarded`: who is believed, who is not, and what the origin reads.

use super::*;

/// `Name: value` lines as pairs.
pub(super) fn pairs<'a>(lines: &[&'a str]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
    let pairs: Vec<(&[u8], &[u8])> = lines
        .iter()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    pairs.into_iter()
}

fn trusted() -> PrefixSet {
    PrefixSet::new(["10.0.0.0/8", "2001:db8:ffff::/48"].map(|prefix| prefix.parse().unwrap()))
}

fn client(peer: &str, lines: &[&str]) -> Client {
    client_of(peer.parse().unwrap(), &trusted(), pairs(lines))
}

/// `address scheme host source`, absent parts as `-`.
fn told(peer: &str, lines: &[&str]) -> String {
    let client = client(peer, lines);
    let scheme = client.scheme.map_or("-", Scheme::name);
    let host = client.host.as_deref().unwrap_or("-");
    format!("{} {scheme} {host} {:?}", client.address, client.source)
}

#[test]
fn a_stranger_is_not_believed() {
    let lies = [
        "Forwarded: for=1.1.1.1;proto=https;host=a",
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-Proto: https",
        "CF-Connecting-IP: 1.1.1.1",
    ];
    assert_eq!(told("192.0.2.9", &lies), "192.0.2.9 - - Peer");
    assert_eq!(told("::ffff:192.0.2.9", &lies), "192.0.2.9 - - Peer");
    assert!(!client("192.0.2.9", &lies).via_trusted);
    assert!(client("::ffff:10.0.0.1", &[]).via_trusted);
}

#[test]
fn x_forwarded_for_from_a_trusted_peer() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "10.0.0.1 - - Peer"),
        (&["X-Forwarded-For:  , "], "10.0.0.1 - - Peer"),
        (&["X-Forwarded-For: 192.0.2.1"], "192.0.2.1 - - XForwardedFor"),
        // The last untrusted one: whatever stands left of it was said by that stranger.
        (&["X-Forwarded-For: 1.1.1.1, 192.0.2.1"], "192.0.2.1 - - XForwardedFor"),
        (&["x-forwarded-for: rubbish<>, 192.0.2.1 ,10.9.9.9"], "192.0.2.1 - - XForwardedFor"),
        (
            &["X-Forwarded-For: 1.1.1.1", "X-FORWARDED-FOR: 192.0.2.1, 10.2.2.2"],
            "192.0.2.1 - - XForwardedFor",
        ),
        (&["X-Forwarded-For: 192.0.2.1:4711"], "192.0.2.1 - - XForwardedFor"),
        (&["X-Forwarded-For: [2001:db8::7]:443"], "2001:db8::7 - - XForwardedFor"),
        (&["X-Forwarded-For: 2001:db8::7, 2001:db8:ffff::1"], "2001:db8::7 - - XForwardedFor"),
        (&["X-Forwarded-For: ::ffff:192.0.2.1"], "192.0.2.1 - - XForwardedFor"),
        // All trusted: the oldest is the client, such as a prober inside the network.
        (&["X-Forwarded-For: 10.3.3.3, 10.2.2.2"], "10.3.3.3 - - XForwardedFor"),
        // Hidden behind a known proxy.
        (&["X-Forwarded-For: unknown, 10.2.2.2"], "10.2.2.2 - - XForwardedFor"),
        // Malformed where it matters.
        (&["X-Forwarded-For: 192.0.2.1, 1.2.3"], "10.0.0.1 - - Peer"),
        (&["X-Forwarded-For: 192.0.2.1 10.2.2.2"], "10.0.0.1 - - Peer"),
        // Scheme and host: by position, and the oldest where the list is short.
        (
            &[
                "X-Forwarded-For: 192.0.2.1, 10.2.2.2",
                "X-Forwarded-Proto: https, http",
                "X-Forwarded-Host: a.example, b",
            ],
            "192.0.2.1 https a.example XForwardedFor",
        ),
        (
            &["X-Forwarded-For: 192.0.2.1, 10.2.2.2", "X-Forwarded-Proto: HTTPS"],
            "192.0.2.1 https - XForwardedFor",
        ),
        (
            &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http, https"],
            "192.0.2.1 https - XForwardedFor",
        ),
        (
            &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a\"b"],
            "192.0.2.1 - - XForwardedFor",
        ),
        (&["X-Forwarded-Proto: https", "X-Forwarded-Host: [::1]:8443"], "10.0.0.1 https [::1]:8443 Peer"),
    ];
    for (lines, expected) in cases {
        assert_eq!(told("10.0.0.1", lines), *expected, "{lines:?}");
    }
}

#[test]
fn forwarded_from_a_trusted_peer() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["Forwarded: for=192.0.2.1;proto=https;host=\"a.example:8443\""],
            "192.0.2.1 https a.example:8443 Forwarded",
        ),
        (
            &[
                "Forwarded: for=1.1.1.1;proto=http, for=\"[2001:db8::9]:1\";proto=https, for=10.2.2.2;proto=http",
            ],
            "2001:db8::9 https - Forwarded",
        ),
        (&["Forwarded: for=192.0.2.1", "forwarded: for=10.2.2.2"], "192.0.2.1 - - Forwarded"),
        (&["Forwarded: for=_secret;proto=https, for=10.2.2.2"], "10.2.2.2 https - Forwarded"),
        (&["Forwarded: proto=https"], "10.0.0.1 https - Forwarded"),
        (&["Forwarded: for=unknown"], "10.0.0.1 - - Forwarded"),
        // Left of the client nodes may be nonsense, but the grammar must hold: an open quote could hide the end.
        (&["Forwarded: for=nonsense, for=192.0.2.1"], "192.0.2.1 - - Forwarded"),
        (&["Forwarded: for=\"1.1.1.1, for=192.0.2.1"], "10.0.0.1 - - Peer"),
        (&["Forwarded: for=192.0.2.1, for=nonsense"], "10.0.0.1 - - Peer"),
        // A visitor's own Forwarded, passed through by a proxy that writes X-Forwarded-For.
        (&["Forwarded: for=1.1.1.1", "X-Forwarded-For: 192.0.2.1"], "192.0.2.1 - - XForwardedFor"),
        // Broken X-Forwarded-For does not open the door to the others.
        (&["Forwarded: for=1.1.1.1", "CF-Connecting-IP: 1.1.1.1", "X-Forwarded-For: ?"], "10.0.0.1 - - Peer"),
    ];
    for (lines, expected) in cases {
        assert_eq!(told("10.0.0.1", lines), *expected, "{lines:?}");
    }
}

#[test]
fn cf_connecting_ip_from_a_trusted_peer() {
    let cases: &[(&[&str], &str)] = &[
        (&["CF-Connecting-IP: 192.0.2.1", "X-Forwarded-Proto: https"], "192.0.2.1 https - CfConnectingIp"),
        (&["cf-connecting-ip: 2001:db8::5"], "2001:db8::5 - - CfConnectingIp"),
        (&["CF-Connecting-IP: 1.1.1.1, 192.0.2.1"], "10.0.0.1 - - Peer"),
        (&["CF-Connecting-IP: 1.1.1.1", "CF-Connecting-IP: 192.0.2.1"], "10.0.0.1 - - Peer"),
        (
            &["CF-Connecting-IP: 1.1.1.1", "X-Forwarded-For: 1.1.1.1, 192.0.2.1"],
            "192.0.2.1 - - XForwardedFor",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(told("10.0.0.1", lines), *expected, "{lines:?}");
    }
}

#[test]
fn chains_are_bounded() {
    let hops = |count: usize| format!("X-Forwarded-For: 192.0.2.1{}", ", 10.0.0.2".repeat(count));
    assert_eq!(told("10.0.0.1", &[&hops(MAX_HOPS - 1)]), "192.0.2.1 - - XForwardedFor");
    assert_eq!(told("10.0.0.1", &[&hops(MAX_HOPS)]), "10.0.0.1 - - Peer");
    let lines = vec!["X-Forwarded-For: 192.0.2.1"; MAX_LINES];
    assert_eq!(told("10.0.0.1", &lines), "192.0.2.1 - - XForwardedFor");
    let lines = vec!["X-Forwarded-For: 192.0.2.1"; MAX_LINES + 1];
    assert_eq!(told("10.0.0.1", &lines), "10.0.0.1 - - Peer");
    // A stranger cannot push himself out of sight by making the far end of the chain long.
    let stuffed = format!("Forwarded: {}for=192.0.2.1", "for=1.1.1.1, ".repeat(1000));
    assert_eq!(told("10.0.0.1", &[&stuffed]), "192.0.2.1 - - Forwarded");
}

#[test]
fn what_the_origin_reads() {
    // peer, incoming -> Forwarded, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host
    let cases: &[(&str, &[&str], [&str; 4])] = &[
        (
            "192.0.2.9",
            &[
                "Forwarded: for=1.1.1.1",
                "X-Forwarded-For: 1.1.1.1",
                "X-Forwarded-Host: evil",
                "X-Forwarded-Proto: http",
            ],
            [
                "for=192.0.2.9;proto=https;host=\"shop.example:8443\"",
                "192.0.2.9",
                "https",
                "shop.example:8443",
            ],
        ),
        (
            "2001:db8::9",
            &[],
            [
                "for=\"[2001:db8::9]\";proto=https;host=\"shop.example:8443\"",
                "2001:db8::9",
                "https",
                "shop.example:8443",
            ],
        ),
        (
            "10.0.0.1",
            &[
                "Forwarded: for=192.0.2.1;proto=http;host=a;by=_x",
                "Forwarded: for=10.2.2.2",
                "X-Forwarded-Host: ignored",
            ],
            [
                "for=192.0.2.1;proto=http;host=a;by=_x, for=10.2.2.2, for=10.0.0.1;proto=https;host=\"shop.example:8443\"",
                "192.0.2.1, 10.2.2.2, 10.0.0.1",
                "http",
                "a",
            ],
        ),
        (
            "10.0.0.1",
            &["Forwarded: for=1.1.1.1", "X-Forwarded-For: x y, 2001:db8::1", "X-Forwarded-Proto: http"],
            [
                "for=unknown, for=\"[2001:db8::1]\", for=10.0.0.1;proto=https;host=\"shop.example:8443\"",
                "x y, 2001:db8::1, 10.0.0.1",
                "http",
                "shop.example:8443",
            ],
        ),
        (
            "10.0.0.1",
            &["CF-Connecting-IP: 192.0.2.1", "Forwarded: "],
            ["for=10.0.0.1;proto=https;host=\"shop.example:8443\"", "10.0.0.1", "https", "shop.example:8443"],
        ),
        (
            "10.0.0.1",
            &["CF-Connecting-IP: 192.0.2.1"],
            [
                "for=192.0.2.1, for=10.0.0.1;proto=https;host=\"shop.example:8443\"",
                "192.0.2.1, 10.0.0.1",
                "https",
                "shop.example:8443",
            ],
        ),
        (
            "10.0.0.1",
            &["Forwarded: for=_hidden"],
            [
                "for=_hidden, for=10.0.0.1;proto=https;host=\"shop.example:8443\"",
                "unknown, 10.0.0.1",
                "https",
                "shop.example:8443",
            ],
        ),
        // Malformed: replaced, as if from a stranger.
        (
            "10.0.0.1",
            &["Forwarded: for=\"", "X-Forwarded-For: 1.2"],
            ["for=10.0.0.1;proto=https;host=\"shop.example:8443\"", "10.0.0.1", "https", "shop.example:8443"],
        ),
    ];
    for (peer, lines, expected) in cases {
        let client = client(peer, lines);
        let visit = Visit {
            client: &client,
            peer: peer.parse().unwrap(),
            scheme: Scheme::Https,
            host: b"shop.example:8443",
        };
        let (mut forwarded, mut chain) = (Vec::new(), Vec::new());
        visit.write_forwarded(pairs(lines), &mut forwarded);
        visit.write_x_forwarded_for(pairs(lines), &mut chain);
        let got = [
            std::str::from_utf8(&forwarded).unwrap(),
            std::str::from_utf8(&chain).unwrap(),
            visit.client_scheme().name(),
            visit.client_host().unwrap(),
        ];
        assert_eq!(got, *expected, "{peer} {lines:?}");
        // A second Rempart that trusts this one finds the same client, whichever field it is left with.
        let outer = PrefixSet::new(["10.0.0.0/8", "203.0.113.0/24"].map(|prefix| prefix.parse().unwrap()));
        for (name, value) in [("Forwarded", got[0]), ("X-Forwarded-For", got[1])] {
            let next = client_of(
                "203.0.113.5".parse().unwrap(),
                &outer,
                [(name.as_bytes(), value.as_bytes())].into_iter(),
            );
            assert_eq!(next.address, client.address, "{name}: {value}");
        }
    }
}

#[test]
fn a_host_that_cannot_be_quoted_is_left_out() {
    let client = client("192.0.2.9", &[]);
    for host in [
        &b""[..],
        b"a\"b",
        b"a b",
        b"a\r\nb",
        b"a;b",
        b"a,b",
        "\u{e9}".as_bytes(),
        &[b'a'; MAX_HOST_BYTES + 1],
    ] {
        let visit = Visit { client: &client, peer: client.address, scheme: Scheme::Http, host };
        let mut out = Vec::new();
        visit.write_forwarded(pairs(&[]), &mut out);
        assert_eq!(out, b"for=192.0.2.9;proto=http", "{host:?}");
        assert_eq!(visit.client_host(), None);
    }
}

#[test]
fn which_fields_are_copied() {
    use Compatibility::{Cloudflare, Neutral};
    // name -> copied from: a stranger, a trusted peer, a trusted peer with Cloudflare's names in use
    for (name, stranger, trusted, cloudflare) in [
        ("Accept", true, true, true),
        ("Cookie", true, true, true),
        ("Content-Type", true, true, true),
        ("X-Custom", true, true, true),
        ("X-Forwarded", true, true, true),
        ("CDN-Cache-Control", true, true, true),
        ("CFoo", true, true, true),
        ("", true, true, true),
        ("Forwarded", false, false, false),
        ("X-Forwarded-For", false, false, false),
        ("x_forwarded_for", false, false, false),
        ("X-Forwarded-Proto", false, false, false),
        ("x-forwarded-HOST", false, false, false),
        ("Via", false, false, false),
        ("CDN-Loop", false, false, false),
        ("X-Forwarded-Port", false, true, true),
        ("X-Forwarded_Prefix", false, true, true),
        ("X-Real-IP", false, true, true),
        ("True-Client-IP", false, true, true),
        ("True_Client_IP", false, true, true),
        ("CF-IPCountry", false, true, true),
        ("CF-Connecting-IP", false, true, false),
        ("cf_connecting_ip", false, true, false),
        ("CF-Ray", false, true, false),
        ("CF-Visitor", false, true, false),
    ] {
        assert_eq!(passes(name.as_bytes(), false, Neutral), stranger, "{name} from a stranger");
        assert_eq!(passes(name.as_bytes(), false, Cloudflare), stranger, "{name} from a stranger");
        assert_eq!(passes(name.as_bytes(), true, Neutral), trusted, "{name} from a trusted peer");
        assert_eq!(passes(name.as_bytes(), true, Cloudflare), cloudflare, "{name} in compatibility");
    }
}
