//! Which stored responses a request that changes something makes wrong (RFC 9111 section 4.4).

use super::{Request, Response};

/// Methods that change nothing (RFC 9110 section 9.2.1).
const SAFE: [&[u8]; 5] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND"];

/// Targets on the request's own origin whose stored responses no longer hold; none unless the request succeeded.
pub fn invalidates(request: &Request<'_>, response: &Response<'_>) -> Vec<Vec<u8>> {
    if SAFE.contains(&request.method) || !(200..400).contains(&response.status) {
        return Vec::new();
    }
    let mut targets = vec![request.target.to_vec()];
    // Only on the same origin, or one site could empty another's cache.
    for name in [&b"location"[..], b"content-location"] {
        let found = response.fields.get(name).and_then(|reference| same_origin(request, reference));
        targets.extend(found.filter(|target| !targets.contains(target)));
    }
    targets
}

/// The target of a reference on the request's origin (RFC 3986 section 5.2); `None` on any other.
pub fn same_origin(request: &Request<'_>, reference: &[u8]) -> Option<Vec<u8>> {
    let reference = reference.split(|byte| *byte == b'#').next()?;
    let text = std::str::from_utf8(reference).ok()?;
    let rest = match text.split_once("://") {
        Some((scheme, rest))
            if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            scheme.as_bytes().eq_ignore_ascii_case(request.scheme).then_some(rest)?
        }
        _ => match text.strip_prefix("//") {
            Some(rest) => rest,
            None => return Some(relative(request.target, reference)),
        },
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at_checked(end)?;
    let port = if request.scheme == b"https" { ":443" } else { ":80" };
    let host = host.strip_suffix(port).unwrap_or(host);
    host.as_bytes().eq_ignore_ascii_case(request.host).then(|| relative(b"/", target.as_bytes()))
}

/// A reference without scheme and host, from a target.
fn relative(base: &[u8], reference: &[u8]) -> Vec<u8> {
    let (path, query) = split(base);
    let (new, new_query) = split(reference);
    if new.is_empty() {
        let query = new_query.or(query);
        return [path, query.map_or(&b""[..], |_| b"?"), query.unwrap_or_default()].concat();
    }
    let merged = if new.starts_with(b"/") {
        new.to_vec()
    } else {
        let folder = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        [path.get(..folder).unwrap_or_default(), new].concat()
    };
    let mut target = without_dots(&merged);
    if let Some(query) = new_query {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    target
}

fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
        None => (target, None),
    }
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut open = false;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        open = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut target: Vec<u8> = kept.iter().flat_map(|segment| [b"/", *segment].concat()).collect();
    if open || target.is_empty() {
        target.push(b'/');
    }
    target
}

#[cfg(test)]
mod tests {
    use base::headers::HeaderList;

    use super::super::Visitor;
    use super::*;

    fn request<'r>(method: &'r [u8], target: &'r [u8], fields: &'r HeaderList) -> Request<'r> {
        Request { method, scheme: b"https", host: b"shop.test", target, fields, visitor: Visitor::default() }
    }

    #[test]
    fn references_on_the_same_origin_are_resolved() {
        let fields = HeaderList::default();
        // The examples of RFC 3986 section 5.4, on this base.
        for (reference, expected) in [
            ("g", Some("/b/c/g")),
            ("./g", Some("/b/c/g")),
            ("g/", Some("/b/c/g/")),
            ("/g", Some("/g")),
            ("?y", Some("/b/c/d;p?y")),
            ("g?y", Some("/b/c/g?y")),
            ("#s", Some("/b/c/d;p?q")),
            ("g#s", Some("/b/c/g")),
            (".", Some("/b/c/")),
            ("..", Some("/b/")),
            ("../g", Some("/b/g")),
            ("../../../g", Some("/g")),
            ("", Some("/b/c/d;p?q")),
            ("https://shop.test/x?y", Some("/x?y")),
            ("HTTPS://SHOP.test:443/x", Some("/x")),
            ("//shop.test", Some("/")),
            ("https://shop.test:8443/x", None),
            ("http://shop.test/x", None),
            ("https://other.test/x", None),
            ("//other.test/x", None),
            ("https://shop.test@other.test/x", None),
        ] {
            let found = same_origin(&request(b"POST", b"/b/c/d;p?q", &fields), reference.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{reference}");
        }
    }

    #[test]
    fn only_changes_that_succeeded_invalidate() {
        let none = HeaderList::default();
        let mut fields = HeaderList::default();
        fields.push("Location", "/new");
        fields.push("Content-Location", "https://other.test/elsewhere");
        let of = |method: &'static [u8], status| {
            invalidates(&request(method, b"/a", &none), &Response { status, fields: &fields })
        };
        assert_eq!(of(b"POST", 201), [b"/a".to_vec(), b"/new".to_vec()]);
        assert_eq!(of(b"M-SEARCH", 200).len(), 2);
        assert!(of(b"GET", 200).is_empty() && of(b"POST", 404).is_empty() && of(b"DELETE", 500).is_empty());
    }
}
