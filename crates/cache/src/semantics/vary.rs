//! Which stored response of several a request selects: `Vary`, with fields brought into one form (RFC 9111 section 4.1).

use base::headers::HeaderList;

/// Names in one `Vary`; a response with more is not kept.
const NAMES_MOST: usize = 16;
/// Longest value of a selecting field; a response to a longer one is not kept.
const VALUE_MOST: usize = 4096;

/// The fields of a request that a response depends on, in one form, by name. A field that was not sent has no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selecting(pub Vec<Choice>);

/// A name in lower case, and the value in one form.
pub type Choice = (Box<[u8]>, Option<Box<[u8]>>);

/// What the `Vary` of a response and its request come to; `None`: it can never be selected again (`*`), or depends on too much.
pub fn selecting(response: &HeaderList, request: &HeaderList) -> Option<Selecting> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for name in
        response.all(b"vary").flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    {
        if name == b"*" {
            return None;
        }
        let name = name.to_ascii_lowercase().into_boxed_slice();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > NAMES_MOST {
        return None;
    }
    names.sort_unstable();
    let mut selecting = Vec::with_capacity(names.len());
    for name in names {
        let value = normal(&name, request);
        if value.as_ref().is_some_and(|value| value.len() > VALUE_MOST) {
            return None;
        }
        selecting.push((name, value));
    }
    Some(Selecting(selecting))
}

impl Selecting {
    /// Whether a request selects the response that these belong to. `language` is its `Content-Language`.
    pub fn selects(&self, request: &HeaderList, language: Option<&[u8]>) -> bool {
        self.0.iter().all(|(name, value)| {
            normal(name, request) == *value
                || (&**name == b"accept-language"
                    && language.is_some_and(|language| prefers(request, language)))
        })
    }
}

/// A field of a request in one form: all its lines together, without white space around commas; what is negotiated in the order of
/// preference and in lower case.
fn normal(name: &[u8], request: &HeaderList) -> Option<Box<[u8]>> {
    if !request.contains(name) {
        return None;
    }
    let negotiated = matches!(name, b"accept" | b"accept-encoding" | b"accept-language" | b"accept-charset");
    let parts = request.all(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let parts = parts.filter(|part| !part.is_empty());
    if !negotiated {
        return Some(parts.collect::<Vec<_>>().join(&b","[..]).into());
    }
    let mut weighed: Vec<(u16, Vec<u8>)> = parts.map(weighed).collect();
    // What stands for the same preferences is the same: those of one weight in the order of their names.
    weighed.sort_unstable_by(|(one, name), (other, named)| other.cmp(one).then_with(|| name.cmp(named)));
    weighed.dedup();
    let written = weighed.into_iter().map(|(weight, name)| match weight {
        1000 => name,
        weight => [&name[..], format!(";q={weight}").as_bytes()].concat(),
    });
    Some(written.collect::<Vec<_>>().join(&b","[..]).into())
}

/// One offer in lower case without white space, and its weight in thousandths (RFC 9110 section 12.4.2).
fn weighed(part: &[u8]) -> (u16, Vec<u8>) {
    let mut weight = 1000;
    let mut name = Vec::with_capacity(part.len());
    for (position, piece) in part.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).enumerate() {
        let piece = piece.to_ascii_lowercase();
        match piece.strip_prefix(b"q=") {
            Some(value) if position > 0 => weight = quality(value),
            _ => {
                if position > 0 {
                    name.push(b';');
                }
                name.extend(piece.iter().filter(|byte| !byte.is_ascii_whitespace()));
            }
        }
    }
    (weight, name)
}

/// A weight; what cannot be read is 1000, as without one.
fn quality(value: &[u8]) -> u16 {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<f32>().ok());
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .map_or(1000, |number| (number * 1000.0).round() as u16)
}

/// Whether a language is the one that a request prefers to all others, alone (RFC 4647 section 3.4).
fn prefers(request: &HeaderList, language: &[u8]) -> bool {
    let language = language.trim_ascii().to_ascii_lowercase();
    let offers = request.all(b"accept-language").flat_map(|value| value.split(|byte| *byte == b','));
    let offers: Vec<(u16, Vec<u8>)> =
        offers.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).map(weighed).collect();
    let best = offers.iter().map(|(weight, _)| *weight).max().unwrap_or(0);
    let mut first = offers.iter().filter(|(weight, _)| *weight == best && best > 0);
    matches!((first.next(), first.next()), (Some((_, name)), None) if *name == language)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str)]) -> HeaderList {
        let mut fields = HeaderList::default();
        lines.iter().for_each(|(name, value)| fields.push(name, value));
        fields
    }

    fn same(vary: &str, one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
        selecting(&of(&[("Vary", vary)]), &of(one)).unwrap().selects(&of(other), None)
    }

    #[test]
    fn a_request_selects_what_was_made_for_one_like_it() {
        assert!(same("Foo", &[("foo", "1")], &[("FOO", "1")]));
        assert!(!same("Foo", &[("foo", "1")], &[("foo", "2")]));
        assert!(!same("Foo", &[("foo", "1")], &[]) && !same("Foo", &[], &[("foo", "")]));
        assert!(same("Foo, Bar", &[("foo", "1")], &[("foo", "1")]));
        assert!(same("foo", &[("foo", "1,2")], &[("foo", "1"), ("foo", " 2")]));
        assert!(
            same("foo", &[("foo", "1,2")], &[("foo", " 1 , 2 ")])
                && !same("foo", &[("foo", "1,2")], &[("foo", "2,1")])
        );
        assert!(same(
            "Accept-Encoding",
            &[("accept-encoding", "gzip, br")],
            &[("accept-encoding", "BR,gzip;q=1.0")]
        ));
        assert!(!same("Accept-Encoding", &[("accept-encoding", "gzip;q=0")], &[("accept-encoding", "gzip")]));
        for never in ["*", "Foo, *", "*, Foo", ", *"] {
            assert_eq!(selecting(&of(&[("Vary", never)]), &of(&[])), None, "{never}");
        }
    }

    #[test]
    fn the_language_one_prefers_is_as_good_as_the_same_list() {
        let stored =
            selecting(&of(&[("Vary", "Accept-Language")]), &of(&[("accept-language", "en, de")])).unwrap();
        assert!(stored.selects(&of(&[("Accept-Language", "fr;q=0.5, de;q=1.0")]), Some(b"de")));
        assert!(!stored.selects(&of(&[("Accept-Language", "fr, de")]), Some(b"de")), "both alike");
        assert!(!stored.selects(&of(&[("Accept-Language", "de")]), None), "nobody knows the language");
    }
}
