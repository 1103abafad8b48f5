//! `forwarded`: who the client is, according to fields anybody can write; and that the next hop reads the same.

use std::net::{IpAddr, Ipv4Addr};

use base::address::PrefixSet;
use edge::forwarded::{LoopError, MAX_HOPS, Scheme, Source, Visit, check_loop, client_of, write_cdn_loop};
use edge::h1::syntax;

/// A trusted proxy in front of the edge; all of 10.0.0.0/8 is trusted.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The edge itself, as its origin sees it.
const EDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// Names of the fields, by the first letter of a line.
const NAMES: [(u8, &[u8]); 6] = [
    (b'f', b"Forwarded"),
    (b'x', b"X-Forwarded-For"),
    (b'p', b"x-forwarded-proto"),
    (b'h', b"X-Forwarded-Host"),
    (b'c', b"CF-Connecting-IP"),
    (b'l', b"CDN-Loop"),
];

/// Lines: a letter for the field, then its value.
pub fn run(data: &[u8]) {
    let lines: Vec<(&[u8], &[u8])> = data.split(|&byte| byte == b'\n').filter_map(line).collect();
    let trusted = PrefixSet::new(["10.0.0.0/8".parse().unwrap()]);
    let pairs = || lines.iter().copied();
    let client = client_of(PROXY, &trusted, pairs());
    assert!(client.via_trusted);
    assert_eq!(client.address, base::address::canonical(client.address));
    let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    let peer = client_of(stranger, &trusted, pairs());
    assert_eq!((peer.address, peer.source), (stranger, Source::Peer), "a stranger is believed nothing");

    let visit = Visit { client: &client, peer: PROXY, scheme: Scheme::Https, host: b"a.example:8443" };
    let (mut standard, mut usual) = (Vec::new(), Vec::new());
    visit.write_forwarded(pairs(), &mut standard);
    visit.write_x_forwarded_for(pairs(), &mut usual);
    for (name, value) in [(&b"forwarded"[..], &standard), (b"x-forwarded-for", &usual)] {
        assert!(syntax::is_field_value(value), "{}", value.escape_ascii());
        let hops = value.split(|&byte| byte == b',').count();
        if hops < MAX_HOPS {
            let said = client_of(EDGE, &trusted, std::iter::once((name, value.as_slice())));
            assert_eq!(said.address, client.address, "{}", value.escape_ascii());
        }
    }
    loops(pairs());
}

fn line(line: &[u8]) -> Option<(&'static [u8], &[u8])> {
    let (letter, value) = line.split_first()?;
    let name = NAMES.iter().find(|(own, _)| own == letter)?.1;
    syntax::is_field_value(value).then(|| (name, syntax::trim(value)))
}

/// A request that went through the edge is known when it comes back.
fn loops<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) {
    let before = check_loop(pairs.clone(), "edge");
    let mut value = Vec::new();
    write_cdn_loop(pairs, "edge", &mut value);
    let after = check_loop(std::iter::once((&b"cdn-loop"[..], value.as_slice())), "edge");
    match before {
        Err(LoopError::Malformed) => {}
        Ok(()) => assert_eq!(after, Err(LoopError::Loop { count: 1 }), "{}", value.escape_ascii()),
        Err(LoopError::Loop { count }) => assert_eq!(after, Err(LoopError::Loop { count: count + 1 })),
    }
}
