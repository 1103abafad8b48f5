//! One spelling of a path: what rules compare, so that nobody slips past one by writing a path differently.
//!
//! RFC 3986 section 6.2.2: hexadecimal digits of percent-encoding in upper case, unreserved characters decoded, dot segments
//! removed. Cloudflare's way first turns backslashes into slashes, and several slashes into one. Only paths; what is encoded
//! because it would mean something else (`%2F`) stays so.

use snapshot::rules::Normalization;

/// The path of a target in its one spelling; `None` when it is that already. `*` and what is no path stay as they are.
pub fn target(target: &str, way: Normalization) -> Option<String> {
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    if !path.starts_with('/') || !may_differ(path.as_bytes(), way) {
        return None;
    }
    let made = without_dots(&spelled(path.as_bytes(), way));
    let made = format!("{}{query}", String::from_utf8_lossy(&made));
    (made != target).then_some(made)
}

/// A look that costs next to nothing: nearly no path has any of these.
fn may_differ(path: &[u8], way: Normalization) -> bool {
    path.contains(&b'%')
        || path.windows(2).any(|pair| pair == b"/.")
        || (way == Normalization::Cloudflare
            && (path.contains(&b'\\') || path.windows(2).any(|pair| pair == b"//")))
}

/// Percent-encoding in its one form; and Cloudflare's slashes.
fn spelled(path: &[u8], way: Normalization) -> Vec<u8> {
    let cloudflare = way == Normalization::Cloudflare;
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        match (byte, digit(path.get(at)), digit(path.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                // Two digits of base 16 fit into a byte.
                let decoded = (high * 16 + low) as u8;
                if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) {
                    out.push(decoded);
                } else {
                    out.extend_from_slice(format!("%{decoded:02X}").as_bytes());
                }
            }
            (b'\\', ..) | (b'/', ..) if cloudflare => {
                if out.last() != Some(&b'/') {
                    out.push(b'/');
                }
            }
            _ => out.push(byte),
        }
    }
    out
}

/// RFC 3986 section 5.2.4; the path begins with a slash.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.get(1..).unwrap_or_default().split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    out.truncate(parent);
                }
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    #[test]
    fn paths_come_in_one_spelling() {
        use Normalization::{Cloudflare, Rfc3986};
        for (path, rfc, cloudflare) in [
            ("/", "/", "/"),
            ("/a/b", "/a/b", "/a/b"),
            ("/%61%2fb%c3%a4", "/a%2Fb%C3%A4", "/a%2Fb%C3%A4"),
            ("/a/./b/../c", "/a/c", "/a/c"),
            ("/a/%2e%2e/%2E/admin", "/admin", "/admin"),
            ("/../../etc", "/etc", "/etc"),
            ("/a/..", "/", "/"),
            ("/a/.", "/a/", "/a/"),
            ("//a///b", "//a///b", "/a/b"),
            ("/a//../b", "/a/b", "/b"),
            ("/a\\..\\b", "/a\\..\\b", "/b"),
            ("/a%5c..%5cb", "/a%5C..%5Cb", "/a%5C..%5Cb"),
            ("/%zz%", "/%zz%", "/%zz%"),
            ("/.env/..hidden", "/.env/..hidden", "/.env/..hidden"),
            ("/a/../b?x=/../%61", "/b?x=/../%61", "/b?x=/../%61"),
            ("*", "*", "*"),
        ] {
            for (way, expected) in [(Rfc3986, rfc), (Cloudflare, cloudflare)] {
                let found = target(path, way).unwrap_or_else(|| path.to_owned());
                assert_eq!(found, expected, "{path} {way:?}");
            }
        }
    }

    #[test]
    fn what_is_in_its_one_spelling_stays_so() {
        let mut random = Random::seeded(17);
        let pieces = ["/", "//", ".", "..", "%2e", "%2F", "a", "%41", "\\", "%", "~", "?", "%25", "é"];
        let mut changed = 0;
        for _ in 0..20_000 {
            let mut path = String::from("/");
            (0..random.below(10)).for_each(|_| path += pieces[random.below(pieces.len() as u32) as usize]);
            for way in [Normalization::Rfc3986, Normalization::Cloudflare] {
                if let Some(once) = target(&path, way) {
                    changed += 1;
                    assert_eq!(target(&once, way), None, "{path} became {once}");
                    assert!(once.starts_with('/') && !once.contains("/../"), "{path} became {once}");
                }
            }
        }
        assert!(changed > 10_000);
    }
}
