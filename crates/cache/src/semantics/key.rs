//! The key of a request: everything that tells its response from others, in one unambiguous text, and its hash.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::Request;
use super::settings::{KeyParts, QueryPart};
use crate::key::KeyHash;

/// Ends each part; in no part, since neither targets nor field values hold it (RFC 9110 section 5.5).
const END: u8 = 0;

/// A secret of this cache, so that nobody outside can find two keys with one hash.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// A key; `text` is kept with an object and compared, since hashes may meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is found by.
    pub hash: KeyHash,
    /// All that counts, each part ended by a zero byte.
    pub text: Box<[u8]>,
}

impl Key {
    /// Of a text made before.
    pub fn of(text: impl Into<Box<[u8]>>, secret: &Secret) -> Self {
        let text = text.into();
        let mut hasher = SipHasher13::new_with_key(&secret.0);
        hasher.write(&text);
        let hash = hasher.finish128();
        Self { hash: KeyHash((u128::from(hash.h1) << 64) | u128::from(hash.h2)), text }
    }

    /// Of a request to a site.
    pub fn new(site: &str, request: &Request<'_>, parts: &KeyParts, secret: &Secret) -> Self {
        Self::of(text(site, request, request.target, parts), secret)
    }

    /// Of a URL of the same request's host and kind, as invalidation and purges name it.
    pub fn of_target(
        site: &str,
        request: &Request<'_>,
        target: &[u8],
        parts: &KeyParts,
        secret: &Secret,
    ) -> Self {
        Self::of(text(site, request, target, parts), secret)
    }
}

fn text(site: &str, request: &Request<'_>, target: &[u8], parts: &KeyParts) -> Vec<u8> {
    let mut text = Vec::with_capacity(site.len() + request.host.len() + target.len() + 16);
    let scheme = if parts.any_scheme { b"*" } else { request.scheme };
    for part in [site.as_bytes(), scheme, request.host] {
        text.extend_from_slice(part);
        text.push(END);
    }
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
        None => (target, None),
    };
    text.extend_from_slice(path);
    put_query(&mut text, query, parts);
    text.push(END);
    for name in &parts.fields {
        put(&mut text, b'h', name, request.fields.all(name));
    }
    for name in &parts.fields_present {
        put(&mut text, b'H', name, request.fields.contains(name).then_some(&b""[..]).into_iter());
    }
    for name in &parts.cookies {
        put(
            &mut text,
            b'c',
            name,
            cookies(request).filter(|(found, _)| found == name).map(|(_, value)| value),
        );
    }
    for name in &parts.cookies_present {
        let there = cookies(request).any(|(found, _)| found == name);
        put(&mut text, b'C', name, there.then_some(&b""[..]).into_iter());
    }
    let visitor = [
        (parts.device, b'd', request.visitor.device),
        (parts.country, b'g', request.visitor.country),
        (parts.language, b'l', request.visitor.language),
    ];
    for (_, mark, value) in visitor.into_iter().filter(|(wanted, ..)| *wanted) {
        // What nobody knows is a value of its own.
        put(&mut text, mark, b"", value.map(str::as_bytes).into_iter());
    }
    text
}

/// A part with a mark of its own, so that no two kinds can be taken for each other; nothing there differs from an empty value.
fn put<'v>(text: &mut Vec<u8>, mark: u8, name: &[u8], values: impl Iterator<Item = &'v [u8]>) {
    text.push(mark);
    text.extend_from_slice(name);
    for value in values {
        text.push(b'=');
        text.extend_from_slice(value);
    }
    text.push(END);
}

fn put_query(text: &mut Vec<u8>, query: Option<&[u8]>, parts: &KeyParts) {
    let Some(query) = query else { return };
    let named = |argument: &[u8]| argument.split(|byte| *byte == b'=').next().unwrap_or_default().to_vec();
    let counts = |argument: &&[u8]| match &parts.query {
        QueryPart::All => true,
        QueryPart::None => false,
        QueryPart::Only(names) => names.contains(&named(argument)),
        QueryPart::Without(names) => !names.contains(&named(argument)),
    };
    if parts.query == QueryPart::All && !parts.sorted_query {
        text.push(b'?');
        text.extend_from_slice(query);
        return;
    }
    let mut arguments: Vec<&[u8]> = query.split(|byte| *byte == b'&').filter(counts).collect();
    if parts.sorted_query {
        // Those of one name stay in their order: it may mean something.
        arguments.sort_by_key(|argument| named(argument));
    }
    for (position, argument) in arguments.iter().enumerate() {
        text.push(if position == 0 { b'?' } else { b'&' });
        text.extend_from_slice(argument);
    }
}

fn cookies<'r>(request: &Request<'r>) -> impl Iterator<Item = (&'r [u8], &'r [u8])> + use<'r> {
    let lines = request.fields.all(b"cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    lines.map(<[u8]>::trim_ascii).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((pair.get(..at)?, pair.get(at + 1..)?))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use base::headers::HeaderList;

    use super::super::Visitor;
    use super::*;

    const SECRET: Secret = Secret([7; 16]);

    fn key(target: &str, lines: &[(&str, &str)], parts: &KeyParts) -> Key {
        let mut fields = HeaderList::default();
        lines.iter().for_each(|(name, value)| fields.push(name, value));
        let request = Request {
            method: b"GET",
            scheme: b"https",
            host: b"shop.test",
            target: target.as_bytes(),
            fields: &fields,
            visitor: Visitor { country: Some("FR"), ..Visitor::default() },
        };
        Key::new("shop", &request, parts, &SECRET)
    }

    #[test]
    fn what_counts_tells_keys_apart_and_nothing_else_does() {
        let plain = KeyParts::default();
        assert_eq!(key("/a?b=1", &[("x", "1")], &plain), key("/a?b=1", &[], &plain));
        let different = ["/a", "/a?", "/a?b", "/a?b=1", "/a?b=1&c=2", "/a?c=2&b=1", "/A", "/a/"];
        let keys: HashSet<u128> = different.iter().map(|target| key(target, &[], &plain).hash.0).collect();
        assert_eq!(keys.len(), different.len());
        let sorted = KeyParts { sorted_query: true, ..KeyParts::default() };
        assert_eq!(key("/a?c=2&b=1", &[], &sorted), key("/a?b=1&c=2", &[], &sorted));
        assert_ne!(key("/a?b=2&b=1", &[], &sorted), key("/a?b=1&b=2", &[], &sorted));
        let only = KeyParts { query: QueryPart::Only(vec![b"b".to_vec()]), ..KeyParts::default() };
        assert_eq!(key("/a?utm=7&b=1", &[], &only), key("/a?b=1", &[], &only));
        assert_eq!(key("/a?utm=7", &[], &only), key("/a", &[], &only));
        let without = KeyParts { query: QueryPart::Without(vec![b"utm".to_vec()]), ..KeyParts::default() };
        assert_eq!(key("/a?utm=7&b=1", &[], &without), key("/a?b=1", &[], &without));
        let by_field = KeyParts { fields: vec![b"x".to_vec()], ..KeyParts::default() };
        let of_field = |lines: &[(&str, &str)]| key("/", lines, &by_field).hash.0;
        assert_eq!(HashSet::from([of_field(&[]), of_field(&[("X", "")]), of_field(&[("x", "1")])]).len(), 3);
        let by_cookie = KeyParts {
            cookies: vec![b"a".to_vec()],
            cookies_present: vec![b"b".to_vec()],
            ..KeyParts::default()
        };
        let of_cookie = |value: &str| key("/", &[("Cookie", value)], &by_cookie).hash.0;
        assert_eq!(of_cookie("a=1; b=2"), of_cookie("b=3; c=4; a=1"));
        assert_ne!(of_cookie("a=1; b=2"), of_cookie("a=1"));
        let by_country = KeyParts { country: true, ..KeyParts::default() };
        let by_device = KeyParts { device: true, ..KeyParts::default() };
        assert_ne!(key("/", &[], &by_country).hash, key("/", &[], &by_device).hash);
    }

    #[test]
    fn another_secret_is_another_hash_of_the_same_text() {
        let one = key("/a", &[], &KeyParts::default());
        let other = Key::of(one.text.clone(), &Secret([8; 16]));
        assert!(one.text == other.text && one.hash != other.hash);
    }
}
