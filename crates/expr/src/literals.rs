//! Strings of which one must occur wherever a regex matches, with letters in lower case.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

/// A regex that needs one of more strings than this is taken as one that needs none.
const ALTERNATIVES_MOST: usize = 64;

/// One of these occurs, whatever the case of its ASCII letters, in every text the regex matches. None: nothing is known.
pub fn needed(regex: &str) -> Option<Vec<Vec<u8>>> {
    // As the checker builds it: bytes, not characters, unless the pattern says otherwise.
    let tree = ParserBuilder::new().unicode(false).utf8(false).build().parse(regex).ok()?;
    of(&tree)
}

fn of(tree: &Hir) -> Option<Vec<Vec<u8>>> {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(_) | HirKind::Class(_) => {
            exact(tree).filter(|text| !text.is_empty()).map(|text| vec![text])
        }
        HirKind::Repetition(repeated) if repeated.min > 0 => of(&repeated.sub),
        HirKind::Repetition(_) => None,
        HirKind::Capture(group) => of(&group.sub),
        HirKind::Concat(parts) => of_sequence(parts),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(of(part)?);
                if all.len() > ALTERNATIVES_MOST {
                    return None;
                }
            }
            Some(all)
        }
    }
}

/// The best of: runs of literals next to each other, and what single parts need.
fn of_sequence(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let (mut best, mut run) = (None, Vec::new());
    for part in parts {
        match exact(part) {
            Some(text) => run.extend(text),
            None => {
                best = better(best, taken(&mut run));
                best = better(best, of(part));
            }
        }
    }
    better(best, taken(&mut run))
}

fn taken(run: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let run = std::mem::take(run);
    if run.is_empty() { None } else { Some(vec![run]) }
}

/// Longer strings are rarer; of equally long ones the fewer.
fn better(left: Option<Vec<Vec<u8>>>, right: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let (Some(one), Some(other)) = (&left, &right) else { return left.or(right) };
    let worth = |texts: &[Vec<u8>]| {
        let shortest = texts.iter().map(Vec::len).min().unwrap_or(0);
        (shortest.min(8), std::cmp::Reverse(texts.len()))
    };
    if worth(other) > worth(one) { right } else { left }
}

/// The only text, but for the case of ASCII letters, that a part matches.
fn exact(tree: &Hir) -> Option<Vec<u8>> {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(Vec::new()),
        HirKind::Literal(literal) => Some(literal.0.to_ascii_lowercase()),
        HirKind::Class(class) => only_letter(class).map(|letter| vec![letter]),
        HirKind::Capture(group) => exact(&group.sub),
        HirKind::Concat(parts) => {
            let mut text = Vec::new();
            for part in parts {
                text.extend(exact(part)?);
            }
            Some(text)
        }
        HirKind::Repetition(_) | HirKind::Alternation(_) => None,
    }
}

/// The ASCII letter of which a class has both cases and nothing else.
fn only_letter(class: &Class) -> Option<u8> {
    let bytes: Vec<u8> = match class {
        Class::Bytes(class) => class
            .iter()
            .map(|range| (range.start() == range.end()).then(|| range.start()))
            .collect::<Option<_>>()?,
        Class::Unicode(class) => class
            .iter()
            .map(|range| (range.start() == range.end()).then(|| u8::try_from(range.start()).ok()).flatten())
            .collect::<Option<_>>()?,
    };
    let letter = bytes.first()?.to_ascii_lowercase();
    (letter.is_ascii() && bytes.iter().all(|byte| byte.to_ascii_lowercase() == letter)).then_some(letter)
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn a_match_needs_these() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("abc", Some(&["abc"])),
            ("(?i)SqlMap|nikto", Some(&["sqlmap", "nikto"])),
            ("^/wp-(login|admin)[.]php$", Some(&["login", "admin"])),
            ("/api/v[0-9]+/users/", Some(&["/users/"])),
            ("(?i)union\\s+(all\\s+)?select", Some(&["select"])),
            ("a*b?", None),
            ("[0-9]{3}", None),
            ("(abc)+x", Some(&["abc"])),
            ("abc|", None),
            ("(?iu)k", None),
            ("(?u)\u{e9}t", Some(&["\u{e9}t"])),
            (".", None),
        ];
        for (regex, expected) in cases {
            let expected =
                expected.map(|texts| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(needed(regex), expected, "{regex}");
        }
    }
}
