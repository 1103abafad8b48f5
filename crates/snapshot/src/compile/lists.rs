//! Compiles `[[lists]]`, and knows which lists data files are.

use std::collections::BTreeMap;

use expr::Type;
use expr::lists::{AddressSet, NameSet, NumberSet, address_range};

use super::Judge;
use crate::desired::Desired;
use crate::desired::lists::{List, ListKind};
use crate::diagnostic::quote;
use crate::lists::{Lists, NamedList, RedirectList, name_of_feed, type_of};

/// Characters of a name.
const NAME_CHARACTERS: usize = 50;

/// Lists that exist, for whoever checks expressions.
pub(super) struct Known {
    /// Those expressions may name, with the type of what is in them.
    pub lists: Vec<(String, Type)>,
    /// Those of redirects.
    pub redirects: Vec<String>,
}

impl Judge<'_> {
    pub(super) fn lists(&mut self, desired: &Desired) -> (Lists, Known) {
        let (mut lists, mut known) = (Lists::default(), Known { lists: Vec::new(), redirects: Vec::new() });
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (index, list) in desired.lists.iter().enumerate() {
            let place = format!("lists[{index}]");
            self.list_name(&list.name, &format!("{place}.name"), &mut names);
            let found = self.list(list, &place);
            match list.kind {
                ListKind::Ip => known.lists.push((list.name.clone(), Type::Ip)),
                ListKind::Hostname => known.lists.push((list.name.clone(), Type::Bytes)),
                ListKind::Asn => known.lists.push((list.name.clone(), Type::Int)),
                ListKind::Redirect => known.redirects.push(list.name.clone()),
            }
            // Its types have nothing that could not be written as JSON.
            let digest = blake3::hash(&serde_json::to_vec(list).unwrap_or_default());
            lists.insert(&list.name, found, *digest.as_bytes());
        }
        for (index, feed) in desired.feeds.iter().enumerate() {
            let kind = type_of(&feed.kind);
            if kind.is_none() && feed.kind != "redirect-list" {
                continue;
            }
            let (name, place) = (name_of_feed(&feed.name), format!("feeds[{index}].name"));
            if let Some(other) = names.get(&name) {
                let line = self.review.places.line(other);
                let message = format!(
                    "rules would call it {}, and so is the list in line {line} called",
                    quote(&format!("${name}"))
                );
                self.review.error(&place, "duplicate-list", message, "give one of them another name");
            }
            names.insert(name.clone(), place);
            match kind {
                Some(kind) => known.lists.push((name, kind)),
                None => known.redirects.push(name),
            }
        }
        (lists, known)
    }

    fn list_name(&mut self, name: &str, place: &str, names: &mut BTreeMap<String, String>) {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > NAME_CHARACTERS || !name.bytes().all(good) {
            let message = format!("{} is no name for a list", quote(name));
            let hint =
                format!("use 1 to {NAME_CHARACTERS} lower-case letters, digits and `_`: name = \"office\"");
            self.review.error(place, "bad-list-name", message, hint);
        } else if let Some(other) = names.get(name) {
            let line = self.review.places.line(other);
            let message = format!("the list in line {line} is called {} too", quote(name));
            self.review.error(place, "duplicate-list", message, "give each list a name of its own");
        }
        names.insert(name.to_owned(), place.to_owned());
    }

    fn list(&mut self, list: &List, place: &str) -> NamedList {
        let (wrong, right) = if list.kind == ListKind::Redirect {
            (!list.items.is_empty(), "redirects")
        } else {
            (!list.redirects.is_empty(), "items")
        };
        if wrong {
            let message = format!("a list of this kind has {right}");
            self.review.error(place, "wrong-items", message, format!("write them as {right} = [..]"));
        }
        if list.items.is_empty() && list.redirects.is_empty() {
            let message = format!("nothing is in the list {}", quote(&list.name));
            let hint = "rules find nothing in it; add items";
            self.review.warning(&format!("{place}.name"), "empty-list", message, hint);
        }
        let items = list
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| (format!("{place}.items[{index}]"), item.trim()));
        match list.kind {
            ListKind::Ip => {
                let ranges = items.filter_map(|(place, item)| {
                    let range = address_range(item);
                    let refused = |reason| {
                        self.bad_item(&place, item, reason, "192.0.2.0/24, 2001:db8::/32 or 192.0.2.7")
                    };
                    range.map_err(refused).ok()
                });
                NamedList::Ip(AddressSet::new(ranges.collect::<Vec<_>>()))
            }
            ListKind::Hostname => {
                let names: Vec<String> = items
                    .filter_map(|(place, item)| {
                        let name = host_name(item);
                        if name.is_none() {
                            let reason = "it is no host name".to_owned();
                            self.bad_item(&place, item, reason, "example.org or *.example.org");
                        }
                        name
                    })
                    .collect();
                NamedList::Hostname(NameSet::new(names.iter().map(String::as_str)))
            }
            ListKind::Asn => {
                let numbers = items.filter_map(|(place, item)| {
                    let number = as_number(item);
                    if number.is_none() {
                        self.bad_item(
                            &place,
                            item,
                            "it is no number of an autonomous system".to_owned(),
                            "64500",
                        );
                    }
                    number
                });
                NamedList::Asn(NumberSet::new(numbers.collect::<Vec<_>>()))
            }
            ListKind::Redirect => NamedList::Redirect(self.redirects(list, place)),
        }
    }

    fn redirects(&mut self, list: &List, place: &str) -> RedirectList {
        let mut redirects = RedirectList::default();
        for (index, redirect) in list.redirects.iter().enumerate() {
            let place = format!("{place}.redirects[{index}]");
            let entered = redirect
                .bulk()
                .and_then(|bulk| redirects.insert(&redirect.source_url, bulk).map_err(str::to_owned));
            match entered {
                Ok(true) => {}
                Ok(false) => self.bad_item(
                    &place,
                    &redirect.source_url,
                    "it is there twice".to_owned(),
                    "one of the two",
                ),
                Err(reason) => self.bad_item(&place, &redirect.source_url, reason, "example.org/old"),
            }
        }
        redirects
    }

    fn bad_item(&mut self, place: &str, item: &str, reason: String, example: &str) {
        let message = format!("{} cannot be in this list: {reason}", quote(item));
        self.review.error(place, "bad-item", message, format!("write {example}"));
    }
}

/// A host name in lower case, perhaps with `*.` in front; `None` for anything else.
pub(crate) fn host_name(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (plain.len() <= 253 && plain.split('.').all(label)).then_some(name)
}

/// The number of an autonomous system, with or without `AS` in front (RFC 5396).
pub(crate) fn as_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix("AS").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse::<u32>().ok()).flatten().map(i64::from)
}
