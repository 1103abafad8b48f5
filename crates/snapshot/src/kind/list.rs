//! Lists that rules look things up in: one entry in each line, `#` before comments. Redirects are a JSON list of objects, as
//! `[[lists.redirects]]` writes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::diagnostic::Diagnostic;
use base::time::Timestamp;
use expr::lists::{AddressSet, NameSet, NumberSet, address_range};

use super::{Class, Content, Kind, OnFailure, Value, error};
use crate::compile::{as_number, host_name};
use crate::desired::lists::Redirect;
use crate::lists::{NamedList, RedirectList};
use crate::package::Caps;

/// Findings told of one list.
const MAX_FINDINGS: usize = 10;
/// Memory of an entry beside its text: its place among the keys that are compared, and in the list itself.
const ENTRY: u64 = 120;

/// One of the kinds of lists.
pub struct ListKind {
    name: &'static str,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Ip,
    Hostname,
    Asn,
    Redirect,
}

/// Addresses and networks.
pub const IP: ListKind = ListKind { name: "ip-list", what: What::Ip };
/// Host names.
pub const HOSTNAME: ListKind = ListKind { name: "hostname-list", what: What::Hostname };
/// Numbers of autonomous systems.
pub const ASN: ListKind = ListKind { name: "asn-list", what: What::Asn };
/// Redirects.
pub const REDIRECT: ListKind = ListKind { name: "redirect-list", what: What::Redirect };

impl Kind for ListKind {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> u32 {
        1
    }

    fn consumers(&self) -> (u32, u32) {
        (1, 1)
    }

    fn caps(&self) -> Caps {
        match self.what {
            What::Ip => Caps { bytes: 64 << 20, entries: 1_000_000, memory: 256 << 20 },
            What::Hostname | What::Redirect => Caps { bytes: 64 << 20, entries: 250_000, memory: 128 << 20 },
            What::Asn => Caps { bytes: 2 << 20, entries: 100_000, memory: 32 << 20 },
        }
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Unknown
    }

    fn read(&self, payload: &[u8], _now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
        let text = std::str::from_utf8(payload).map_err(|found| {
            vec![error("not-utf-8", format!("it is no UTF-8: {found}"), "have it made again")]
        })?;
        let mut reader = Reader { keys: BTreeSet::new(), findings: Vec::new() };
        let list = match self.what {
            What::Ip => {
                let ranges = reader.lines(text, |item| {
                    let (first, last) = address_range(item)?;
                    Ok((format!("{first}-{last}"), (first, last)))
                });
                NamedList::Ip(AddressSet::new(ranges))
            }
            What::Hostname => {
                let names = reader.lines(text, |item| {
                    let name = host_name(item).ok_or("it is no host name")?;
                    Ok((name.clone(), name))
                });
                NamedList::Hostname(NameSet::new(names.iter().map(String::as_str)))
            }
            What::Asn => {
                let numbers = reader.lines(text, |item| {
                    let number = as_number(item).ok_or("it is no number of an autonomous system")?;
                    Ok((number.to_string(), number))
                });
                NamedList::Asn(NumberSet::new(numbers))
            }
            What::Redirect => NamedList::Redirect(reader.redirects(payload)?),
        };
        if !reader.findings.is_empty() {
            return Err(reader.findings);
        }
        let memory = 2 * payload.len() as u64 + reader.keys.len() as u64 * ENTRY;
        let classes = vec![Class { name: "entries", keys: reader.keys, needed: true }];
        Ok(Content { classes, spreads: Vec::new(), memory, value: Value::List(Arc::new(list)) })
    }

    fn exercise(&self, content: &Content) -> Result<(), Vec<Diagnostic>> {
        let Value::List(list) = &content.value else {
            return Err(vec![error("not-a-list", "it is no list".to_owned(), "have it made again")]);
        };
        // What was read must be found; what is not in it, not.
        let found = match &**list {
            NamedList::Ip(set) => set.iter().all(|(first, last)| set.contains(first) && set.contains(last)),
            NamedList::Hostname(_) | NamedList::Asn(_) | NamedList::Redirect(_) => !list.is_empty(),
        };
        if found {
            return Ok(());
        }
        let message = "something that was read into it is not found in it".to_owned();
        Err(vec![error("not-found", message, "please report this")])
    }
}

struct Reader {
    keys: BTreeSet<String>,
    findings: Vec<Diagnostic>,
}

impl Reader {
    /// Entries of a text, one in each line; `read` gives the key of one, and what it is.
    fn lines<T>(&mut self, text: &str, read: impl Fn(&str) -> Result<(String, T), String>) -> Vec<T> {
        let mut found = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let item = line.split('#').next().unwrap_or_default().trim();
            if item.is_empty() {
                continue;
            }
            match read(item) {
                Ok((key, value)) => {
                    if self.keys.insert(key) {
                        found.push(value);
                    } else {
                        self.find("duplicate-keys", format!("line {}: {item:?} is there twice", index + 1));
                    }
                }
                Err(reason) => self.find("bad-item", format!("line {}: {item:?}: {reason}", index + 1)),
            }
        }
        found
    }

    fn redirects(&mut self, payload: &[u8]) -> Result<RedirectList, Vec<Diagnostic>> {
        let written: Vec<Redirect> = serde_json::from_slice(payload).map_err(|found| {
            vec![error("not-json", format!("it is no list of redirects: {found}"), "have it made again")]
        })?;
        let mut list = RedirectList::default();
        for (index, redirect) in written.iter().enumerate() {
            let bulk = redirect.bulk();
            match bulk.and_then(|bulk| list.insert(&redirect.source_url, bulk).map_err(str::to_owned)) {
                Ok(true) => {
                    self.keys.insert(redirect.source_url.clone());
                }
                Ok(false) => {
                    self.find(
                        "duplicate-keys",
                        format!("entry {index}: {:?} is there twice", redirect.source_url),
                    );
                }
                Err(reason) => {
                    self.find("bad-item", format!("entry {index}: {:?}: {reason}", redirect.source_url))
                }
            }
        }
        Ok(list)
    }

    fn find(&mut self, code: &str, message: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(error(
                code,
                message,
                "have its maker correct it; the one before stays in force",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(0);

    #[test]
    fn lists_are_read_and_what_is_wrong_is_named_by_its_line() {
        let content = IP.read(b"# office\n192.0.2.0/24 # hq\n\n2001:db8::1\n", NOW).unwrap();
        assert_eq!(content.classes[0].keys.len(), 2);
        assert!(IP.exercise(&content).is_ok());
        let Value::List(list) = &content.value else { panic!("a list") };
        assert!(list.list().unwrap().contains_ip("192.0.2.9".parse().unwrap()).fires());
        for (kind, text, code, part) in [
            (&IP, &b"192.0.2.1/24"[..], "bad-item", "line 1"),
            (&IP, b"192.0.2.1\n192.0.2.1/32", "duplicate-keys", "line 2"),
            (&HOSTNAME, b"a.test\nb_c.test\na..test", "bad-item", "line 3"),
            (&ASN, b"64500\nAS64501\n-1", "bad-item", "line 3"),
            (&REDIRECT, b"[{}]", "not-json", "source_url"),
            (
                &REDIRECT,
                br#"[{"source_url":"a.test/x","target_url":"javascript:1"}]"#,
                "bad-item",
                "javascript",
            ),
            (&IP, b"\xff", "not-utf-8", "UTF-8"),
        ] {
            let found = kind.read(text, NOW).unwrap_err();
            assert_eq!(found[0].code, code);
            assert!(found[0].message.contains(part), "{}", found[0].message);
        }
        let redirect = br#"[{"source_url":"a.test/x","target_url":"https://b.test/","status_code":308}]"#;
        let content = REDIRECT.read(redirect, NOW).unwrap();
        let Value::List(list) = &content.value else { panic!("a list") };
        assert_eq!(
            list.redirects().unwrap().find("http://a.test/x"),
            Some(("https://b.test/".to_owned(), 308))
        );
    }
}
