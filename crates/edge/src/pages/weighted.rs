//! Lists with weights (`Accept`, `Accept-Language`): split and weighed, and whatever is malformed has no say.

/// Bytes of a header field that are looked at; the elements beyond have no say.
const MAX_BYTES: usize = 4096;
/// Elements of a list that are looked at.
const MAX_ELEMENTS: usize = 64;
/// Parameters of one element that are looked at.
const MAX_PARAMETERS: usize = 8;
/// The weight of an element that names none, in thousandths (RFC 9110 section 12.4.2).
const FULL_WEIGHT: u16 = 1000;

/// One element of a weighted list: `text/html;level=1;q=0.5`.
#[derive(Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// What the element names, without parameters; never empty.
    pub value: &'a str,
    /// Parameters before the weight, as (name, value), quotation marks removed.
    pub parameters: Vec<(&'a str, &'a str)>,
    /// The weight in thousandths: 0 means "not this", 1000 is the most.
    pub quality: u16,
}

/// The well-formed elements of a list, in the order written.
pub fn elements(field: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let seen = match field.get(..MAX_BYTES) {
        // A field cut in the middle of an element could lose its `;q=0`, so that element goes as a whole.
        Some(head) if field.len() > MAX_BYTES => {
            let whole = head.iter().rposition(|&byte| byte == b',').unwrap_or(0);
            head.get(..whole).unwrap_or_default()
        }
        _ => field,
    };
    split_unquoted(seen, b',').take(MAX_ELEMENTS).filter_map(element)
}

/// Reads one element; `None` when it is empty or malformed.
fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let mut parts = split_unquoted(bytes, b';').map(|part| std::str::from_utf8(part).map(trim));
    let value = parts.next()?.ok().filter(|value| !value.is_empty())?;
    let mut parameters = Vec::new();
    for part in parts.take(MAX_PARAMETERS) {
        let Some((name, setting)) = part.ok()?.split_once('=') else { continue };
        let (name, setting) = (trim(name), trim(setting));
        if name.eq_ignore_ascii_case("q") {
            // What follows the weight was once an extension of Accept and means nothing today.
            return Some(Element { value, parameters, quality: quality(setting)? });
        }
        parameters.push((name, setting.trim_matches('"')));
    }
    Some(Element { value, parameters, quality: FULL_WEIGHT })
}

/// A weight: `0`, `1`, `0.5`, `1.000`; at most three decimals (RFC 9110 section 12.4.2).
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = decimals.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = thousandths.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(FULL_WEIGHT),
        _ => None,
    }
}

/// Removes optional whitespace (RFC 9110 section 5.6.3).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Splits at a separator that does not stand inside a quoted string (RFC 9110 section 5.6.4).
fn split_unquoted(bytes: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    bytes.split(move |&byte| {
        let at_separator = byte == separator && !quoted;
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && byte == b'\\' && !escaped;
        at_separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &str, expected: &[(&str, u16)]) {
        let found: Vec<_> =
            elements(field.as_bytes()).map(|element| (element.value, element.quality)).collect();
        assert_eq!(found, expected, "{field}");
    }

    #[test]
    fn weights_are_read_in_thousandths() {
        check("a, b;q=0.5 ,c ; Q=0, d;q=1.000", &[("a", 1000), ("b", 500), ("c", 0), ("d", 1000)]);
        check("a;q=0.001,b;q=0.25", &[("a", 1), ("b", 250)]);
    }

    #[test]
    fn a_malformed_element_has_no_say() {
        check("a;q=2, b;q=, c;q=.5, d;q=0.1234, e;q=-1, f;q=1.001, ok", &[("ok", 1000)]);
        check(",,  ,a,;q=1", &[("a", 1000)]);
        check("a;b", &[("a", 1000)]);
        assert_eq!(elements(b"\xff\xfe, ok").count(), 1);
    }

    #[test]
    fn quoted_strings_hide_separators() {
        let found: Vec<_> = elements(br#"a;t="x,y;q=0\",", b;q=0.5"#).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].value, found[0].quality), ("a", 1000));
        assert_eq!((found[1].value, found[1].quality), ("b", 500));
        check("a;t=\"never closed, b", &[("a", 1000)]);
    }

    #[test]
    fn a_long_list_is_cut_between_elements() {
        let field = format!("{}last;q=0", "a,".repeat(MAX_BYTES));
        assert_eq!(elements(field.as_bytes()).count(), MAX_ELEMENTS);
        let field = format!("a,{};q=0", "b".repeat(MAX_BYTES));
        check(&field, &[("a", 1000)]);
    }
}
