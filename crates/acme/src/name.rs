//! Names certificates are for: checked once, so that a name can be a folder and never a path.

use std::fmt;

/// Longest name in bytes, without the root's dot (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 253;
/// Longest label in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// A host name in lower-case A-labels, or `*.` and one; never an address, never with anything a path could be made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is no name a certificate can be had for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host name a certificate can be had for; write lower-case letters, digits, hyphens and dots"
)]
pub struct BadName(pub String);

impl Name {
    /// Reads a name; upper case is refused, because whoever hands names in has lowered them already.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = || BadName(text.chars().take(MAX_NAME_BYTES).collect());
        let base = text.strip_prefix("*.").unwrap_or(text);
        let all_labels_are_good = base.split('.').all(is_label);
        // A last label of digits only would be an IPv4 address, for which authorities have another kind of order.
        let is_address = base.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() > MAX_NAME_BYTES || !all_labels_are_good || is_address {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }

    /// As it stands in a certificate: `example.org` or `*.example.org`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without `*.`: what an authority checks.
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }

    /// Whether it stands for every name one label below its base.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Its folder in a store: `example.org`, or `_.example.org` for a wildcard. No label can begin with `_`, so both differ.
    pub fn folder(&self) -> String {
        if self.is_wildcard() { format!("_.{}", self.base()) } else { self.0.clone() }
    }

    /// The other way round; `None` for a folder no name has.
    pub fn from_folder(folder: &str) -> Option<Self> {
        match folder.strip_prefix("_.") {
            Some(base) => Self::parse(&format!("*.{base}")).ok(),
            None => Self::parse(folder).ok().filter(|name| !name.is_wildcard()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL_BYTES
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a pattern of `on_demand` lets a name in: `example.org` is itself, `*.example.org` any labels in front of it.
pub fn pattern_allows(pattern: &str, name: &Name) -> bool {
    if name.is_wildcard() {
        return false;
    }
    match pattern.strip_prefix("*.") {
        // An empty base would let every name in.
        Some(base) => {
            !base.is_empty()
                && name
                    .as_str()
                    .strip_suffix(base)
                    .is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        }
        None => pattern == name.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders_and_never_paths() {
        let check = |text: &str, folder: Option<&str>| {
            let name = Name::parse(text).ok();
            assert_eq!(name.as_ref().map(Name::folder).as_deref(), folder, "{text:?}");
            if let Some(name) = name {
                assert_eq!(Name::from_folder(&name.folder()), Some(name), "{text:?}");
            }
        };
        check("example.org", Some("example.org"));
        check("*.example.org", Some("_.example.org"));
        check("localhost", Some("localhost"));
        check("xn--bcher-kva.example", Some("xn--bcher-kva.example"));
        check("1.example.org", Some("1.example.org"));
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "../a",
            "a/b",
            "/etc",
            "a\0b",
            "A.example",
            "_.example.org",
            "*",
            "*.",
            "*.*.a",
            "a.*.b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "127.0.0.1",
            "::1",
            "a b",
            "a.b\n",
        ] {
            check(bad, None);
        }
        check(&"a".repeat(64), None);
        check(&"a.".repeat(127), None);
        assert_eq!(Name::from_folder("*.example.org"), None);
        assert_eq!(Name::from_folder(".lock"), None);
    }

    #[test]
    fn patterns_let_in_what_they_say_and_nothing_else() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(pattern_allows(pattern, &Name::parse(name).unwrap()), expected, "{pattern} {name}");
        };
        check("example.org", "example.org", true);
        check("example.org", "www.example.org", false);
        check("*.example.org", "www.example.org", true);
        check("*.example.org", "a.b.example.org", true);
        check("*.example.org", "example.org", false);
        check("*.example.org", "badexample.org", false);
        check("*.example.org", "*.example.org", false);
        check("*", "example.org", false);
        check("*.", "example.org", false);
        check("", "example.org", false);
    }
}
