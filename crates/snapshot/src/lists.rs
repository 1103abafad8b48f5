//! Named lists as requests look things up in them, from the configuration or from data files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use expr::lists::{AddressSet, NameSet, NumberSet};
use expr::{List, Type};

/// The lists of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    by_name: BTreeMap<String, (Arc<NamedList>, [u8; 32])>,
}

/// One list.
#[derive(Clone, Debug)]
pub enum NamedList {
    /// Addresses and networks.
    Ip(AddressSet),
    /// Host names.
    Hostname(NameSet),
    /// Numbers of autonomous systems.
    Asn(NumberSet),
    /// Redirects.
    Redirect(RedirectList),
}

impl Lists {
    /// Enters a list, with a hash of all that is written in it.
    pub(crate) fn insert(&mut self, name: &str, list: NamedList, digest: [u8; 32]) {
        self.by_name.insert(name.to_owned(), (Arc::new(list), digest));
    }

    /// The list of a name.
    pub fn find(&self, name: &str) -> Option<&NamedList> {
        self.by_name.get(name).map(|(list, _)| &**list)
    }

    /// All of them by name, with hashes of what is written in them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NamedList, &[u8; 32])> {
        self.by_name.iter().map(|(name, (list, digest))| (name.as_str(), &**list, digest))
    }
}

impl NamedList {
    /// The list as expressions use it; `None` for redirects.
    pub fn list(&self) -> Option<&dyn List> {
        match self {
            Self::Ip(set) => Some(set),
            Self::Hostname(set) => Some(set),
            Self::Asn(set) => Some(set),
            Self::Redirect(_) => None,
        }
    }

    /// The redirects; `None` for other lists.
    pub fn redirects(&self) -> Option<&RedirectList> {
        if let Self::Redirect(list) = self { Some(list) } else { None }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Ip(set) => set.ranges(),
            Self::Hostname(set) => set.len(),
            Self::Asn(set) => set.len(),
            Self::Redirect(list) => list.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a list of a kind of data file holds, as expressions see it; `None` when it is no list, or one of redirects.
pub fn type_of(kind: &str) -> Option<Type> {
    match kind {
        "ip-list" => Some(Type::Ip),
        "hostname-list" => Some(Type::Bytes),
        "asn-list" => Some(Type::Int),
        _ => None,
    }
}

/// How expressions call the list of a data file: names of lists have no hyphens.
pub fn name_of_feed(feed: &str) -> String {
    feed.replace('-', "_")
}

/// Redirects by the URLs they are for (Cloudflare, "Bulk Redirects: URL matching").
#[derive(Clone, Debug, Default)]
pub struct RedirectList {
    /// By host and path: those with a scheme, and those for both.
    by_place: HashMap<Box<str>, Vec<Entry>>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    https: Option<bool>,
    redirect: BulkRedirect,
}

/// One redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkRedirect {
    /// Where to.
    pub target: Box<str>,
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// Whether the query goes along.
    pub keep_query: bool,
    /// Whether hosts below the host count too.
    pub subdomains: bool,
    /// Whether paths below the path count too.
    pub subpaths: bool,
    /// Whether, of such a path, what is below is put behind the target.
    pub keep_path: bool,
}

impl RedirectList {
    /// Enters one. `source` is a URL with or without scheme, without query. Answers why it cannot be, or false when there is
    /// one for it already.
    pub fn insert(&mut self, source: &str, redirect: BulkRedirect) -> Result<bool, &'static str> {
        let (https, rest) = match source.split_once("://") {
            Some(("https", rest)) => (Some(true), rest),
            Some(("http", rest)) => (Some(false), rest),
            Some(_) => return Err("its scheme is neither http nor https"),
            None => (None, source),
        };
        if rest.contains(['?', '#', ' ']) {
            return Err("a source has no query and no fragment");
        }
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.is_empty() || host.contains(['*', '@']) {
            return Err("a source begins with a host: example.org/path");
        }
        let place = place(&host.to_ascii_lowercase(), path);
        let entries = self.by_place.entry(place.into()).or_default();
        if entries.iter().any(|entry| entry.https == https) {
            return Ok(false);
        }
        entries.push(Entry { https, redirect });
        self.count += 1;
        Ok(true)
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The URL to send a request to, with the status, if a redirect is for it: that of the longest path, of the host itself
    /// before those above it, and with a scheme before that for both. `uri` is a whole URL.
    pub fn find(&self, uri: &str) -> Option<(String, u16)> {
        let (scheme, rest) = uri.split_once("://")?;
        let https = scheme == "https";
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { authority }
        });
        let host = host.to_ascii_lowercase();
        let mut at = host.as_str();
        loop {
            if let Some((redirect, below)) = self.at_host(at, at != host, https, path) {
                return Some((target(redirect, below, query), redirect.status));
            }
            at = at.split_once('.').map(|(_, parent)| parent)?;
        }
    }

    fn at_host<'p>(
        &self,
        host: &str,
        below: bool,
        https: bool,
        path: &'p str,
    ) -> Option<(&BulkRedirect, &'p str)> {
        let mut end = path.len();
        loop {
            let front = path.get(..end)?;
            if let Some(entries) = self.by_place.get(place(host, front).as_str()) {
                let mut good: Vec<&Entry> = entries
                    .iter()
                    .filter(|entry| entry.https.is_none_or(|only| only == https))
                    .filter(|entry| !below || entry.redirect.subdomains)
                    .filter(|entry| end == path.len() || entry.redirect.subpaths)
                    .collect();
                good.sort_by_key(|entry| entry.https.is_none());
                if let Some(entry) = good.first() {
                    return Some((&entry.redirect, path.get(end..).unwrap_or_default()));
                }
            }
            if front.is_empty() {
                return None;
            }
            end = front.trim_end_matches('/').rfind('/').unwrap_or(0);
        }
    }
}

/// Host and path as they are compared: a slash at the end does not matter.
fn place(host: &str, path: &str) -> String {
    format!("{host}{}", path.trim_end_matches('/'))
}

fn target(redirect: &BulkRedirect, below: &str, query: &str) -> String {
    let mut target = redirect.target.to_string();
    if redirect.keep_path && !below.is_empty() {
        let (front, own_query) = match target.split_once('?') {
            Some((front, query)) => (front.to_owned(), format!("?{query}")),
            None => (target.clone(), String::new()),
        };
        target = format!("{}/{}{own_query}", front.trim_end_matches('/'), below.trim_start_matches('/'));
    }
    if redirect.keep_query && !query.is_empty() {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(query);
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_those_of_the_nearest_source() {
        let mut list = RedirectList::default();
        let to =
            |target: &str| BulkRedirect { target: target.into(), status: 301, ..BulkRedirect::default() };
        let below =
            |target: &str| BulkRedirect { subpaths: true, keep_path: true, keep_query: true, ..to(target) };
        for (source, redirect) in [
            ("a.test/", to("https://new.test/")),
            ("https://a.test/secure", to("https://secure.test/")),
            ("a.test/secure", to("https://plain.test/")),
            ("a.test/docs", below("https://docs.test/v2?x=1")),
            ("a.test/docs/old/", to("https://old.test/")),
            ("b.test", BulkRedirect { subdomains: true, ..below("https://c.test") }),
        ] {
            assert_eq!(list.insert(source, redirect), Ok(true), "{source}");
        }
        assert_eq!(list.insert("A.test/docs/", to("https://x.test")), Ok(false));
        for bad in ["ftp://a.test", "a.test/?q", "/path", "*.a.test"] {
            assert!(list.insert(bad, to("/")).is_err(), "{bad}");
        }
        for (uri, expected) in [
            ("http://a.test/", Some("https://new.test/")),
            ("http://a.test/?x", Some("https://new.test/")),
            ("http://a.test/other", None),
            ("https://a.test/secure", Some("https://secure.test/")),
            ("http://a.test/secure/", Some("https://plain.test/")),
            ("https://a.test:8443/docs/a/b?y=2", Some("https://docs.test/v2/a/b?x=1&y=2")),
            ("https://a.test/docs/old", Some("https://old.test/")),
            ("https://a.test/docs/old/page", Some("https://docs.test/v2/old/page?x=1")),
            ("https://a.test/docsx", None),
            ("https://B.test/p", Some("https://c.test/p")),
            ("https://www.b.test/p?q", Some("https://c.test/p?q")),
            ("https://x.a.test/", None),
        ] {
            assert_eq!(list.find(uri).map(|(target, _)| target).as_deref(), expected, "{uri}");
        }
    }
}
