//! Compiles `[[feeds]]`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use api::roles::{FeedSettings, FeedSource};
use api::seal::Keyring;

use super::Judge;
use crate::desired;
use crate::diagnostic::quote;
use crate::{kind, package};

/// Octets of a URL.
const URL_OCTETS: usize = 2_000;
/// Kinds that a feed cannot have: a configuration is the file itself.
const NO_FEED: &str = "site-config";

impl Judge<'_> {
    pub(super) fn feeds(&mut self, feeds: &[desired::Feed]) -> Vec<FeedSettings> {
        let mut names = BTreeSet::new();
        let feeds = feeds.iter().enumerate();
        feeds.filter_map(|(index, feed)| self.feed(feed, &format!("feeds[{index}]"), &mut names)).collect()
    }

    fn feed<'d>(
        &mut self,
        feed: &'d desired::Feed,
        place: &str,
        names: &mut BTreeSet<&'d str>,
    ) -> Option<FeedSettings> {
        let at = |key: &str| format!("{place}.{key}");
        if !package::is_name(&feed.name) {
            let message = format!("{} is no name for a feed", quote(&feed.name));
            let hint = "use 1 to 64 lower-case letters, digits and hyphens: name = \"bot-features\"";
            self.review.error(&at("name"), "bad-feed-name", message, hint);
        } else if !names.insert(&feed.name) {
            let message = format!("there is another feed {}", quote(&feed.name));
            self.review.error(&at("name"), "duplicate-feed", message, "give each feed a name of its own");
        }
        if feed.kind == NO_FEED || kind::find(&feed.kind).is_none() {
            let kinds = kind::KINDS.iter().map(|kind| kind.name()).filter(|name| *name != NO_FEED);
            let hint = format!("write one of: {}", kinds.collect::<Vec<_>>().join(", "));
            self.review.error(
                &at("kind"),
                "unknown-kind",
                format!("{} is no kind of feed", quote(&feed.kind)),
                hint,
            );
        }
        self.keys(feed, &at("keys"));
        let source = self.feed_source(&feed.source, &at("source"))?;
        Some(FeedSettings {
            name: feed.name.clone(),
            kind: feed.kind.clone(),
            source,
            every_seconds: Duration::from(feed.every).as_secs().max(1),
            keys: feed.keys.clone(),
            max_entries: feed.max_entries,
            max_bytes: feed.max_bytes.map(crate::units::ByteSize::get),
        })
    }

    fn keys(&mut self, feed: &desired::Feed, place: &str) {
        if feed.keys.is_empty() {
            let hint =
                "write the public key of whoever makes its packages; `rempart feed keygen` makes a pair";
            self.review.error(place, "no-keys", "nobody is trusted to make this feed", hint);
        }
        for (index, key) in feed.keys.iter().enumerate() {
            if let Err(error) = Keyring::parse([key.as_str()]) {
                // A private key looks the same but for its length, so it is not repeated.
                let hint = "write the public key that `rempart feed keygen` has printed";
                self.review.error(&format!("{place}[{index}]"), "bad-key", error.to_string(), hint);
            }
        }
    }

    fn feed_source(&mut self, source: &str, place: &str) -> Option<FeedSource> {
        let Some((scheme, rest)) = source.split_once("://") else {
            let path = source.into();
            let source =
                if source.ends_with('/') { FeedSource::Folder { path } } else { FeedSource::File { path } };
            return self.path(path_of(&source)?, place).then_some(source);
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let form = "write a path, or a URL such as \"https://data.example/bot-features.package\"";
        let not_graphic = |c: char| !c.is_ascii_graphic() || c == '#' || c == '"';
        let (message, hint) =
            if source.len() > URL_OCTETS || authority.is_empty() || source.contains(not_graphic) {
                (format!("{} is no URL", quote(source)), form)
            } else if authority.contains('@') {
                // The message does not repeat what may be a password.
                ("the URL of a feed holds a user name or password".to_owned(), form)
            } else if scheme == "https" || (scheme == "http" && is_loopback(authority)) {
                return Some(FeedSource::Url { url: source.to_owned() });
            } else {
                let hint = "use https; http is for 127.0.0.1 and [::1] only, where nobody is on the way";
                (format!("{} is not asked", quote(source)), hint)
            };
        self.review.error(place, "bad-source", message, hint);
        None
    }
}

fn path_of(source: &FeedSource) -> Option<&str> {
    match source {
        FeedSource::File { path } | FeedSource::Folder { path } => path.to_str(),
        FeedSource::Url { .. } => None,
    }
}

/// Whether an authority (RFC 3986 section 3.2) is an address of this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
