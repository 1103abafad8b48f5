//! Lists as `in $name` looks things up in them: addresses, host names, numbers. Immutable, built once, compact.

mod addresses;

use std::collections::HashSet;
use std::net::IpAddr;

pub use addresses::AddressSet;

use crate::ast::Literal;
use crate::error::Span;
use crate::{List, Truth, literal};

/// Reads one entry of a list of addresses: an address, a network whose host bits are 0, or `a..b` of one family. The error
/// says why it is none.
pub fn address_range(text: &str) -> Result<(IpAddr, IpAddr), String> {
    literal::ip_range(&Literal::Word(text.to_owned()), Span::default()).map_err(|fault| {
        match fault.suggestion {
            Some(suggestion) => format!("{}; {suggestion}", fault.reason),
            None => fault.reason,
        }
    })
}

/// Host names: whole ones, and `*.` with everything below a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    exact: HashSet<Box<[u8]>>,
    below: HashSet<Box<[u8]>>,
}

impl NameSet {
    /// Of names in lower case, some with `*.` in front.
    pub fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut set = Self::default();
        for name in names {
            match name.strip_prefix("*.") {
                Some(parent) => set.below.insert(parent.as_bytes().into()),
                None => set.exact.insert(name.as_bytes().into()),
            };
        }
        set
    }

    /// Whether it has a name; upper and lower case are the same.
    pub fn contains(&self, name: &[u8]) -> bool {
        if name.iter().any(u8::is_ascii_uppercase) {
            return self.has(&name.to_ascii_lowercase());
        }
        self.has(name)
    }

    fn has(&self, name: &[u8]) -> bool {
        if self.exact.contains(name) {
            return true;
        }
        let mut rest = name;
        while !self.below.is_empty()
            && let Some(dot) = rest.iter().position(|byte| *byte == b'.')
        {
            rest = rest.get(dot + 1..).unwrap_or_default();
            if self.below.contains(rest) {
                return true;
            }
        }
        false
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whole numbers, such as those of autonomous systems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberSet(Box<[i64]>);

impl NumberSet {
    /// In any order; those that are there twice count once.
    pub fn new(numbers: impl IntoIterator<Item = i64>) -> Self {
        let mut numbers: Vec<i64> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers.into())
    }

    /// Whether it has a number.
    pub fn contains(&self, number: i64) -> bool {
        self.0.binary_search(&number).is_ok()
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl List for AddressSet {
    fn contains_ip(&self, address: IpAddr) -> Truth {
        Truth::from(self.contains(address))
    }
}

impl List for NameSet {
    fn contains_bytes(&self, bytes: &[u8]) -> Truth {
        Truth::from(self.contains(bytes))
    }
}

impl List for NumberSet {
    fn contains_int(&self, number: i64) -> Truth {
        Truth::from(self.contains(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole_or_below_a_star() {
        let set = NameSet::new(["a.test", "*.b.test", "*.c.d.test"].into_iter());
        for (name, expected) in [
            ("a.test", true),
            ("A.Test", true),
            ("x.a.test", false),
            ("b.test", false),
            ("x.b.test", true),
            ("x.y.b.test", true),
            ("d.test", false),
            ("x.c.d.test", true),
            ("", false),
            (".", false),
        ] {
            assert_eq!(set.contains(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn entries_say_what_is_wrong_with_them() {
        assert!(address_range("10.0.0.0/8").is_ok() && address_range("::1").is_ok());
        for (text, part) in
            [("10.0.0.1/8", "host bits"), ("10.0.0.9..10.0.0.1", "smaller"), ("office", "IP address")]
        {
            let error = address_range(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
