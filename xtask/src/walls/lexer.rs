//! Just enough of Rust's grammar to look at code without being fooled by comments and strings.

/// The source with the inside of comments, strings and character literals turned into spaces; lines stay lines.
pub fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = match skipped(&text, at) {
            Some(end) => end,
            None => {
                code.push(text[at]);
                at += 1;
                continue;
            }
        };
        code.extend(text[at..end].iter().map(|&letter| if letter == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins here ends; `None` when none begins here.
fn skipped(text: &[char], at: usize) -> Option<usize> {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => Some(find(text, at, |rest| rest[0] == '\n').unwrap_or(text.len())),
        '/' if next == Some('*') => Some(block_comment(text, at)),
        '"' => Some(string(text, at + 1)),
        'r' if !word_before(text, at, 1) => raw_string(text, at + 1),
        'b' if next == Some('r') && !word_before(text, at, 0) => raw_string(text, at + 2),
        '\'' => character(text, at + 1),
        _ => None,
    }
}

/// Whether the letter before belongs to the same word; `prefix` letters of `b` or `c` are a string's own.
fn word_before(text: &[char], at: usize, prefix: usize) -> bool {
    let mut at = at;
    for _ in 0..prefix {
        if at > 0 && matches!(text[at - 1], 'b' | 'c') {
            at -= 1;
        }
    }
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
}

fn find(text: &[char], from: usize, wanted: impl Fn(&[char]) -> bool) -> Option<usize> {
    (from..text.len()).find(|&at| wanted(&text[at..]))
}

fn block_comment(text: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    while at < text.len() {
        if text[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at.min(text.len())
}

fn string(text: &[char], from: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// `from` is after the `r`: hashes and a quote make it a raw string, anything else is a name that begins with r.
fn raw_string(text: &[char], from: usize) -> Option<usize> {
    let hashes = text[from..].iter().take_while(|&&letter| letter == '#').count();
    if text.get(from + hashes) != Some(&'"') {
        return None;
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&letter| letter == '#')
    };
    Some(find(text, from + hashes + 1, closes).map_or(text.len(), |quote| quote + 1 + hashes))
}

/// `from` is after the quote: a lifetime has no quote behind its first letter.
fn character(text: &[char], from: usize) -> Option<usize> {
    match text.get(from)? {
        '\\' => find(text, from + 2, |rest| rest[0] == '\'').map(|quote| quote + 1),
        _ if text.get(from + 1) == Some(&'\'') => Some(from + 2),
        _ => None,
    }
}

/// Whether the code names the foreign crate `path`, and not a module of ours with the same name.
pub fn names_crate(code: &str, path: &str) -> bool {
    let ours = imports_module(code, path);
    mentions(code, path).any(|(before, after)| {
        let word_before =
            |text: &str| text.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        let absolute =
            before.strip_suffix("::").is_some_and(|before| !word_before(before) && !before.ends_with('>'));
        let relative = !before.ends_with("::") && !ours;
        let imported = before.ends_with("use ") && [";", " as "].iter().any(|end| after.starts_with(end));
        imported || (after.starts_with("::") && (absolute || relative))
    })
}

/// Whether the file declares or imports a module of ours with this name.
fn imports_module(code: &str, path: &str) -> bool {
    code.split(';').any(|statement| {
        let statement = statement.trim_start_matches([' ', '\n', '}']).trim_start_matches("pub ");
        let ours =
            ["use crate", "use super", "use self", "mod "].iter().any(|start| statement.starts_with(start));
        ours && mentions(statement, path).next().is_some()
    })
}

/// Every place where the word stands alone: the text before and after it.
fn mentions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        (!before.ends_with(is_word) && !after.starts_with(is_word)).then_some((before, after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_vanish_and_lines_stay() {
        let source = "a // h2::x\n\"h2::y \\\" z\" b /* c /* d */ \n e */ f r#\"g\"h\"# i 'j' 'k: '\\'' l br\"m\" attr";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "f", "i", "'k:", "l", "attr"]);
    }

    #[test]
    fn a_foreign_crate_is_told_from_a_module_of_the_same_name() {
        for foreign in
            ["use h2::client;", "fn f() -> h2::Error {}", "use ::h2::x; mod h2;", "use h2;", "(h2::Reason)"]
        {
            assert!(names_crate(foreign, "h2"), "{foreign}");
        }
        for ours in [
            "use crate::h2::serve;",
            "use crate::h2; h2::serve()",
            "mod h2; h2::serve()",
            "auth2::x",
            "x::h2::y",
        ] {
            assert!(!names_crate(ours, "h2"), "{ours}");
        }
    }
}
