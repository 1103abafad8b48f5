//! Grammar shared by `Forwarded` (RFC 7239) and `CDN-Loop` (RFC 8586): tokens, quoted strings, elements, nodes.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::address::canonical;
use smallvec::SmallVec;

use super::MAX_HOPS;
use crate::hop::is_token_byte;

/// A place on the path of a request, as a proxy names it (RFC 7239 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// An address; the port, if one was given, is dropped.
    Address(IpAddr),
    /// `unknown` or an obfuscated identifier: somebody, and the proxy does not say who.
    Hidden,
}

/// One element of `Forwarded`, of which only what the edge uses is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Element<'a> {
    pub(super) node: Option<Cow<'a, [u8]>>,
    pub(super) proto: Option<Cow<'a, [u8]>>,
    pub(super) host: Option<Cow<'a, [u8]>>,
}

impl Element<'_> {
    /// Who made the request to the proxy that wrote this element; `None` when that is malformed.
    pub(super) fn node(&self) -> Option<Node> {
        self.node.as_deref().map_or(Some(Node::Hidden), forwarded_node)
    }
}

/// A position in a field value; every method either consumes what it names or leaves the position alone.
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn skip_whitespace(&mut self) {
        self.take_while(|byte| byte == b' ' || byte == b'\t');
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    pub(super) fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !accept(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    pub(super) fn token(&mut self) -> Option<&'a [u8]> {
        Some(self.take_while(is_token_byte)).filter(|token| !token.is_empty())
    }

    /// `token / quoted-string` (RFC 9110 sections 5.6.2 and 5.6.4), unescaped.
    pub(super) fn value(&mut self) -> Option<Cow<'a, [u8]>> {
        if self.eat(b'"') { self.quoted_rest() } else { self.token().map(Cow::Borrowed) }
    }

    /// What follows an opening quote, up to and with the closing one.
    fn quoted_rest(&mut self) -> Option<Cow<'a, [u8]>> {
        let plain = self.take_while(is_quoted_text);
        if self.eat(b'"') {
            return Some(Cow::Borrowed(plain));
        }
        let mut text = plain.to_vec();
        loop {
            if self.eat(b'"') {
                return Some(Cow::Owned(text));
            }
            if !self.eat(b'\\') {
                return None;
            }
            let (&escaped, rest) = self.rest.split_first()?;
            if escaped != b'\t' && (escaped < b' ' || escaped == 0x7f) {
                return None;
            }
            text.push(escaped);
            self.rest = rest;
            text.extend_from_slice(self.take_while(is_quoted_text));
        }
    }
}

/// The elements of all `Forwarded` lines, oldest first; of more than `MAX_HOPS` the newest. `None` when malformed.
pub(super) fn elements<'a>(lines: &[&'a [u8]]) -> Option<SmallVec<[Element<'a>; 4]>> {
    let mut found: SmallVec<[Element<'a>; 4]> = SmallVec::new();
    let mut count = 0;
    for line in lines {
        let mut scanner = Scanner::new(line);
        loop {
            scanner.skip_whitespace();
            if scanner.eat(b',') {
                continue;
            }
            if scanner.at_end() {
                break;
            }
            let element = element(&mut scanner)?;
            match found.get_mut(count % MAX_HOPS) {
                Some(oldest) => *oldest = element,
                None => found.push(element),
            }
            count += 1;
        }
    }
    if count > MAX_HOPS {
        found.rotate_left(count % MAX_HOPS);
    }
    Some(found)
}

/// `[ pair ] *( ";" [ pair ] )` up to a comma or the end. Spaces around `;` are not in the grammar of RFC 7239
/// section 4, yet in its examples, so they are accepted.
fn element<'a>(scanner: &mut Scanner<'a>) -> Option<Element<'a>> {
    let mut element = Element::default();
    loop {
        scanner.skip_whitespace();
        if let Some(name) = scanner.token() {
            let value = scanner.eat(b'=').then(|| scanner.value()).flatten()?;
            let slot = match name {
                _ if name.eq_ignore_ascii_case(b"for") => Some(&mut element.node),
                _ if name.eq_ignore_ascii_case(b"proto") => Some(&mut element.proto),
                _ if name.eq_ignore_ascii_case(b"host") => Some(&mut element.host),
                _ => None,
            };
            // A parameter occurs once per element (section 4); which of two would be true?
            if slot.is_some_and(|slot| slot.replace(value).is_some()) {
                return None;
            }
        }
        scanner.skip_whitespace();
        if scanner.eat(b';') {
            continue;
        }
        return (scanner.at_end() || scanner.rest.first() == Some(&b',')).then_some(element);
    }
}

/// `nodename [ ":" node-port ]` (RFC 7239 section 6): IPv6 only in brackets.
fn forwarded_node(text: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() && !is_node_port(port.strip_prefix(':')?) {
            return None;
        }
        return address.parse::<Ipv6Addr>().ok().map(|v6| Node::Address(canonical(v6.into())));
    }
    let name = match text.split_once(':') {
        Some((name, port)) if is_node_port(port) => name,
        Some(_) => return None,
        None => text,
    };
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(Node::Hidden);
    }
    name.parse::<Ipv4Addr>().ok().map(|v4| Node::Address(v4.into()))
}

/// An item of `X-Forwarded-For`, which has no grammar: addresses of either family, with or without port and brackets.
pub(super) fn loose_node(text: &[u8]) -> Option<Node> {
    let address = std::str::from_utf8(text).ok()?.parse::<IpAddr>();
    address.ok().map(|address| Node::Address(canonical(address))).or_else(|| forwarded_node(text))
}

/// `_` and at least one of ALPHA, DIGIT, `.`, `_`, `-` (RFC 7239 section 6.3).
fn is_obfuscated(text: &str) -> bool {
    text.strip_prefix('_').is_some_and(|rest| {
        !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    })
}

fn is_node_port(text: &str) -> bool {
    ((1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())) || is_obfuscated(text)
}

/// `qdtext` of RFC 9110 section 5.6.4.
fn is_quoted_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != b'"' && byte != b'\\' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        let cases = [
            ("192.0.2.43", "192.0.2.43"),
            ("192.0.2.43:47011", "192.0.2.43"),
            ("192.0.2.43:_port", "192.0.2.43"),
            ("[2001:db8:cafe::17]", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]:4711", "2001:db8:cafe::17"),
            ("[::ffff:192.0.2.1]", "192.0.2.1"),
            ("unknown", "hidden"),
            ("UNKNOWN", "hidden"),
            ("_gazonk", "hidden"),
            ("_a.b-c:80", "hidden"),
            ("_", "malformed"),
            ("", "malformed"),
            ("2001:db8::1", "malformed"),
            ("[2001:db8::1", "malformed"),
            ("[2001:db8::1]x", "malformed"),
            ("[192.0.2.1]", "malformed"),
            ("[fe80::1%eth0]", "malformed"),
            ("192.0.2.043", "malformed"),
            ("192.0.2.1:", "malformed"),
            ("192.0.2.1:123456", "malformed"),
            ("example.org", "malformed"),
        ];
        for (text, expected) in cases {
            let got = match forwarded_node(text.as_bytes()) {
                Some(Node::Address(address)) => address.to_string(),
                Some(Node::Hidden) => "hidden".into(),
                None => "malformed".into(),
            };
            assert_eq!(got, expected, "{text}");
        }
        let bare = Some(Node::Address("2001:db8::1".parse().unwrap()));
        assert_eq!(loose_node(b"2001:db8::1"), bare, "X-Forwarded-For has bare IPv6");
        assert_eq!(loose_node(b"[2001:db8::1]:80"), bare);
        assert_eq!(loose_node(b"1.2.3"), None);
    }

    /// The elements as `for/proto/host`, absent parts as `-`.
    fn parsed(lines: &[&str]) -> Option<Vec<String>> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let part = |part: &Option<Cow<'_, [u8]>>| {
            part.as_deref().map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        elements(&lines).map(|found| {
            found.iter().map(|e| format!("{}/{}/{}", part(&e.node), part(&e.proto), part(&e.host))).collect()
        })
    }

    #[test]
    fn forwarded_elements() {
        let cases: &[(&[&str], Option<&[&str]>)] = &[
            // The examples of RFC 7239 section 4.
            (&["for=\"_gazonk\""], Some(&["_gazonk/-/-"])),
            (&["For=\"[2001:db8:cafe::17]:4711\""], Some(&["[2001:db8:cafe::17]:4711/-/-"])),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], Some(&["192.0.2.60/http/-"])),
            (&["for=192.0.2.43, for=198.51.100.17"], Some(&["192.0.2.43/-/-", "198.51.100.17/-/-"])),
            // Several lines, empty list items, empty pairs, spaces, an extension.
            (&["for=a", ", ,for=b ; HOST=\"x:1\";;ext=\"q,;\" ,"], Some(&["a/-/-", "b/-/x:1"])),
            (&[r#"for="a\"b\\c";proto=https"#], Some(&[r#"a"b\c/https/-"#])),
            (&["", " "], Some(&[])),
            (&["proto=https"], Some(&["-/https/-"])),
            // Malformed.
            (&["for=\"a"], None),
            (&["for=\"a\\"], None),
            (&["for = a"], None),
            (&["for"], None),
            (&["for="], None),
            (&["for=a b"], None),
            (&["for=[::1]"], None),
            (&["for=a;for=b"], None),
            (&["for=a", "for=\"b\"x"], None),
        ];
        for (lines, expected) in cases {
            let expected = expected.map(|list| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
            assert_eq!(parsed(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn of_a_long_chain_the_newest_hops_are_kept_in_order() {
        for extra in [0, 1, MAX_HOPS - 1, MAX_HOPS, MAX_HOPS + 5] {
            let total = MAX_HOPS + extra;
            let line = (0..total).map(|i| format!("for=h{i}")).collect::<Vec<_>>().join(",");
            let expected: Vec<_> = (extra..total).map(|i| format!("h{i}/-/-")).collect();
            assert_eq!(parsed(&[&line]).unwrap(), expected, "{extra} too many");
        }
    }
}
