//! A generation as lines a person can read and compare: every setting in effect, defaults included, secrets as hashes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::num::NonZeroU64;
use std::time::Duration;

use api::roles::{FeedSettings, FeedSource, NotifyChannel, NotifyWay, SecretPlace, WatchSettings};
use base::id::ContentHash;
use serde::{Deserialize, Serialize};

use crate::generation::{
    AccessLogTarget, Acme, AcmeChallenge, Analytics, CONNECTIONS_PER_THREAD, Certificate, ClientIpDetail,
    Compatibility, ConnectionLimits, HeaderRule, HostHeader, MemoryLimit, Origin, OriginHttp, OriginVerify,
    Policy, ProxyProtocol, Site, Snapshot, TlsPolicy,
};
use crate::rules::{Normalization, SiteRules};
use crate::units::{ByteSize, Period};

/// One line that differs between two outlines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A setting the old generation does not have.
    Added {
        /// Its path.
        path: String,
        /// Its value.
        new: String,
    },
    /// A setting the new generation does not have.
    Removed {
        /// Its path.
        path: String,
        /// The value it had.
        old: String,
    },
    /// A setting both have, with another value.
    Changed {
        /// Its path.
        path: String,
        /// The value it had.
        old: String,
        /// The value it will have.
        new: String,
    },
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { path, new } => write!(f, "+ {path} = {new}"),
            Self::Removed { path, old } => write!(f, "- {path} = {old}"),
            Self::Changed { path, old, new } => write!(f, "~ {path} = {old} -> {new}"),
        }
    }
}

/// What changes from one outline to another, sorted by path.
pub fn difference(old: &[String], new: &[String]) -> Vec<Change> {
    let split = |lines: &[String]| -> BTreeMap<String, String> {
        let pairs = lines.iter().map(|line| line.split_once(SEPARATOR).unwrap_or((line, "")));
        pairs.map(|(path, value)| (path.to_owned(), value.to_owned())).collect()
    };
    let (old, mut new) = (split(old), split(new));
    let mut changes: Vec<(String, Change)> = Vec::new();
    for (path, old) in old {
        let change = match new.remove(&path) {
            Some(same) if same == old => continue,
            Some(new) => Change::Changed { path: path.clone(), old, new },
            None => Change::Removed { path: path.clone(), old },
        };
        changes.push((path, change));
    }
    changes.extend(new.into_iter().map(|(path, new)| (path.clone(), Change::Added { path, new })));
    changes.sort_by(|(a, _), (b, _)| a.cmp(b));
    changes.into_iter().map(|(_, change)| change).collect()
}

/// Between path and value; paths never hold it.
const SEPARATOR: &str = " = ";

/// Every setting in effect as `path = value`, sorted. Sites, origins and listeners go by name, not by position, so that
/// one more of them does not look as if all had changed.
pub fn outline(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Lines { prefix: String::new(), lines: Vec::new() };
    lines.add("via", text(&snapshot.via));
    let metrics = snapshot.metrics.map_or_else(|| "off".to_owned(), |address| address.to_string());
    lines.add("metrics.listen", text(&metrics));
    let mut proxies: Vec<_> =
        snapshot.trusted_proxies.iter().map(|prefix| text(&prefix.to_string())).collect();
    proxies.sort();
    lines.add("trust.proxies", format!("[{}]", proxies.join(", ")));
    for listener in &snapshot.listeners {
        let path = format!("listen[{}]", text(&listener.address.to_string()));
        lines.add(&format!("{path}.tls"), listener.tls);
        lines.add(&format!("{path}.proxy_protocol"), listener.proxy_protocol);
    }
    lines.access_log(snapshot);
    lines.limits(&snapshot.limits);
    lines.add("drain.idle", period(snapshot.drain.idle));
    lines.add("drain.requests", period(snapshot.drain.requests));
    lines.add("drain.tunnels", period(snapshot.drain.tunnels));
    lines.analytics(snapshot.analytics);
    lines.watch(snapshot.watch.as_ref());
    for (name, list, digest) in snapshot.lists.iter() {
        lines.add(&format!("lists[{}]", text(name)), format!("{} entries, {}", list.len(), hash(digest)));
    }
    snapshot.feeds.iter().for_each(|feed| lines.feed(feed));
    lines.add("standby", snapshot.standby);
    lines.add("bake", period(snapshot.bake));
    if let Some(acme) = &snapshot.acme {
        lines.acme(acme);
    }
    for site in &snapshot.sites {
        lines.prefix = format!("site[{}].", text(&site.name));
        lines.site(site);
    }
    lines.lines.sort();
    lines.lines
}

/// The settings of one site alone, as `path = value`, sorted.
pub fn site(site: &Site) -> Vec<String> {
    let mut lines = Lines { prefix: String::new(), lines: Vec::new() };
    lines.site(site);
    lines.lines.sort();
    lines.lines
}

/// The settings of one site that modules read, as `path = value`, sorted.
pub fn modules(site: &Site) -> Vec<String> {
    let mut lines = Lines { prefix: String::new(), lines: Vec::new() };
    lines.policy(site.policy.as_ref());
    lines.rules(&site.rules);
    lines.lines.sort();
    lines.lines
}

/// A string as it would stand in the file, free of anything that could be taken for the separator.
fn text(value: &str) -> String {
    format!("{:?}", value.replace(SEPARATOR, "="))
}

/// A list of strings as it would stand in the file.
fn list<T: Display>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(|value| text(&value.to_string())).collect();
    format!("[{}]", values.join(", "))
}

/// Twelve digits of the hash: enough to see that a file changed, and nothing of what is in it.
fn hash(bytes: &[u8]) -> String {
    format!("blake3 {}", ContentHash(*blake3::hash(bytes).as_bytes()).short())
}

fn period(duration: Duration) -> Period {
    Period::milliseconds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn size(bytes: usize) -> ByteSize {
    ByteSize::bytes(bytes as u64)
}

fn rate(limit: Option<NonZeroU64>) -> String {
    limit.map_or_else(|| "none".to_owned(), |rate| ByteSize::bytes(rate.get()).to_string())
}

struct Lines {
    prefix: String,
    lines: Vec<String>,
}

impl Lines {
    fn add(&mut self, path: &str, value: impl Display) {
        self.lines.push(format!("{}{path}{SEPARATOR}{value}", self.prefix));
    }

    fn analytics(&mut self, analytics: Option<Analytics>) {
        self.add("analytics.enabled", analytics.is_some());
        if let Some(kept) = analytics {
            self.add("analytics.keep_minutes", period(kept.keep_minutes));
            self.add("analytics.keep_samples", period(kept.keep_samples));
            self.add("analytics.max_size", ByteSize::bytes(kept.max_bytes));
        }
    }

    fn watch(&mut self, watch: Option<&WatchSettings>) {
        self.add("watch.enabled", watch.is_some());
        let Some(watch) = watch else { return };
        let listen = watch.listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
        self.add("watch.listen", text(&listen));
        self.add("watch.title", text(&watch.title));
        if let Some(url) = &watch.url {
            self.add("watch.url", text(url));
        }
        self.add("watch.probe.enabled", watch.probe_seconds > 0);
        if let Some(site) = watch.sites.first().filter(|_| watch.probe_seconds > 0) {
            self.add("watch.probe.every", period(Duration::from_secs(watch.probe_seconds)));
            self.add("watch.probe.path", text(&site.path));
        }
        watch.channels.iter().for_each(|channel| self.channel(channel));
    }

    fn channel(&mut self, channel: &NotifyChannel) {
        let place = format!("watch.notify[{}]", text(&channel.name));
        let secret = |secret: &SecretPlace| match secret {
            SecretPlace::File(path) => format!("file {}", text(&path.display().to_string())),
            SecretPlace::Environment(name) => format!("environment {}", text(name)),
        };
        match &channel.way {
            NotifyWay::Webhook { url, secret: place_of } => {
                // What stands behind the host may be a secret.
                let end = url.find("://").map_or(0, |at| at + 3);
                let host =
                    url.get(end..).unwrap_or_default().find(['/', '?']).map_or(url.len(), |at| end + at);
                let shown = url.get(..host).unwrap_or_default();
                self.add(&format!("{place}.webhook"), format!("{} {}", text(shown), hash(url.as_bytes())));
                if let Some(place_of) = place_of {
                    self.add(&format!("{place}.secret"), secret(place_of));
                }
            }
            NotifyWay::Smtp { host, port, security, login, from, to } => {
                self.add(&format!("{place}.smtp"), text(&format!("{host}:{port}")));
                self.add(&format!("{place}.smtp.security"), text(security.name()));
                self.add(&format!("{place}.smtp.from"), text(from));
                self.add(&format!("{place}.smtp.to"), list(to));
                if let Some((user, password)) = login {
                    self.add(&format!("{place}.smtp.user"), text(user));
                    self.add(&format!("{place}.smtp.password"), secret(password));
                }
            }
        }
    }

    fn feed(&mut self, feed: &FeedSettings) {
        let place = format!("feeds[{}]", text(&feed.name));
        let source = match &feed.source {
            FeedSource::File { path } | FeedSource::Folder { path } => path.display().to_string(),
            FeedSource::Url { url } => url.clone(),
        };
        self.add(&format!("{place}.kind"), text(&feed.kind));
        self.add(&format!("{place}.source"), text(&source));
        self.add(&format!("{place}.every"), period(Duration::from_secs(feed.every_seconds)));
        self.add(&format!("{place}.keys"), list(&feed.keys));
        if let Some(most) = feed.max_entries {
            self.add(&format!("{place}.max_entries"), most);
        }
        if let Some(most) = feed.max_bytes {
            self.add(&format!("{place}.max_bytes"), ByteSize::bytes(most));
        }
    }

    fn access_log(&mut self, snapshot: &Snapshot) {
        let log = &snapshot.access_log;
        let to = match &log.to {
            AccessLogTarget::Off => "\"off\"".to_owned(),
            AccessLogTarget::Stdout => "\"stdout\"".to_owned(),
            AccessLogTarget::File(path) => format!("{{ file: {} }}", text(path)),
        };
        self.add("log.access.to", to);
        let client_ip = match log.client_ip {
            ClientIpDetail::Truncated => "truncated",
            ClientIpDetail::Full => "full",
            ClientIpDetail::None => "none",
        };
        self.add("log.access.client_ip", text(client_ip));
        self.add("log.access.retention", period(log.retention));
        self.add("log.access.rotate", ByteSize::bytes(log.rotate_bytes));
    }

    fn limits(&mut self, limits: &ConnectionLimits) {
        let threads = limits.threads.map_or_else(|| "one per core".to_owned(), |count| count.to_string());
        self.add("limits.threads", threads);
        self.add("limits.connections", limits.connections);
        self.add("limits.connections_per_address", limits.per_address.connections);
        self.add("limits.connection_rate_per_address", limits.per_address.rate);
        self.add("limits.handshakes", limits.handshakes);
        self.add("limits.handshakes_per_address", limits.per_address.handshakes);
        let memory = match limits.memory {
            MemoryLimit::Half => "half of what there is".to_owned(),
            MemoryLimit::Bytes(bytes) => ByteSize::bytes(bytes).to_string(),
            MemoryLimit::None => "none".to_owned(),
        };
        self.add("limits.memory", memory);
        self.add("limits.header_bytes", size(limits.header_bytes));
        self.add("limits.header_count", limits.header_count);
        self.add("limits.target_bytes", size(limits.target_bytes));
        self.add("limits.streams", limits.streams);
        self.add("limits.handshake", period(limits.handshake));
        self.add("limits.header", period(limits.header));
        self.add("limits.keep_alive", period(limits.keep_alive));
        self.add("limits.write", period(limits.write));
        self.add("limits.write_rate", rate(limits.write_rate));
    }

    fn site(&mut self, site: &Site) {
        self.add("hosts", list(&site.hosts));
        let compatibility = match site.compatibility {
            Compatibility::Neutral => "neutral",
            Compatibility::Cloudflare => "cloudflare",
        };
        self.add("compatibility", text(compatibility));
        self.site_tls(site);
        self.add("health.failures", site.health.failures);
        self.add("health.ejection", period(site.health.ejection));
        self.add("health.max_ejection", period(site.health.max_ejection));
        self.add("retry.attempts", site.retry.attempts);
        self.add("retry.budget_percent", site.retry.budget_percent);
        let body_bytes = site.limits.body_bytes.map(|bytes| ByteSize::bytes(bytes).to_string());
        self.add("limits.body_bytes", body_bytes.unwrap_or_else(|| "none".to_owned()));
        self.add("limits.body", period(site.limits.body));
        self.add("limits.body_rate", rate(site.limits.body_rate));
        self.add("limits.tunnel", period(site.limits.tunnel));
        self.add("limits.inspect_body", ByteSize::bytes(site.limits.inspect_body as u64));
        let normalize =
            site.normalize.map_or("none", |normalize| match (normalize.way, normalize.for_origin) {
                (Normalization::Cloudflare, false) => "cloudflare, for rules",
                (Normalization::Cloudflare, true) => "cloudflare, for rules and the origin",
                (Normalization::Rfc3986, false) => "rfc3986, for rules",
                (Normalization::Rfc3986, true) => "rfc3986, for rules and the origin",
            });
        self.add("normalize", text(normalize));
        self.rules(&site.rules);
        self.policy(site.policy.as_ref());
        let outer = self.prefix.clone();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for origin in &site.origins {
            let count = seen.entry(&origin.label).and_modify(|count| *count += 1).or_insert(1);
            // The same origin may be written twice; the second time it needs a path of its own.
            let again = if *count > 1 { format!("#{count}") } else { String::new() };
            self.prefix = format!("{outer}origin[{}]{again}.", text(&origin.label));
            self.origin(origin);
        }
        self.prefix = outer;
    }

    fn rules(&mut self, rules: &SiteRules) {
        for (phase, rules) in rules.phases() {
            self.add(&format!("rules.{}", phase.name()), hash(&rules.digest));
            for rule in rules.rulesets.iter().flat_map(|ruleset| ruleset.rules()) {
                let mode = if rule.log_only { " (noted only)" } else { "" };
                let what = format!("{}{mode} where {}", rule.action.name(), rule.filter.source());
                self.add(&format!("rules.{}[{}]", phase.name(), rule.id), text(&what));
            }
        }
    }

    fn policy(&mut self, policy: Option<&Policy>) {
        let Some(policy) = policy else { return };
        let methods = policy.methods.as_ref().map_or_else(|| "all".to_owned(), |methods| list(methods));
        self.add("policy.methods", methods);
        // Some check a value that only their own proxy knows.
        let rule = |rule: &HeaderRule| match &rule.value {
            Some(value) => format!("{}: {}", text(&rule.name), hash(value.as_bytes())),
            None => text(&rule.name),
        };
        for (name, rules) in [("require", &policy.require), ("forbid", &policy.forbid)] {
            let rules: Vec<_> = rules.iter().map(rule).collect();
            self.add(&format!("policy.{name}"), format!("[{}]", rules.join(", ")));
        }
        self.add("policy.action", text(if policy.log_only { "log" } else { "block" }));
    }

    fn site_tls(&mut self, site: &Site) {
        match &site.certificate {
            Certificate::Development => self.add("tls", "development authority"),
            Certificate::Pem { chain, key, ocsp, .. } => {
                self.add("tls.certificate", hash(chain));
                self.add("tls.key", hash(key));
                if let Some(response) = ocsp {
                    self.add("tls.ocsp", hash(response));
                }
            }
            Certificate::Acme { names, demanded, on_demand, .. } => {
                self.add("tls.acme", true);
                for (name, issued) in names {
                    let state = issued.as_ref().map_or_else(|| "not issued yet".to_owned(), |pem| hash(pem));
                    self.add(&format!("tls.acme[{}]", text(name)), state);
                }
                for (name, pem) in demanded {
                    self.add(&format!("tls.acme[{}]", text(name)), format!("{} on demand", hash(pem)));
                }
                self.add("tls.on_demand", list(on_demand));
            }
        }
        let policy = match site.tls.policy {
            TlsPolicy::Intermediate => "intermediate",
            TlsPolicy::Modern => "modern",
        };
        self.add("tls.policy", text(policy));
        self.add("tls.redirect", site.tls.redirect);
        if let Some(client) = &site.tls.client {
            self.add("tls.client.authorities", hash(&client.authorities));
            self.add("tls.client.required", client.required);
        }
        self.add("tls.hsts", site.tls.hsts.as_ref().map_or_else(|| "none".to_owned(), |hsts| text(hsts)));
    }

    fn acme(&mut self, acme: &Acme) {
        self.add("acme.contact", list(&acme.contact));
        let challenge = match &acme.challenge {
            AcmeChallenge::Http01 => "http-01",
            AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
            AcmeChallenge::Dns01(command) => {
                self.add("acme.dns_command", list(command));
                "dns-01"
            }
        };
        self.add("acme.challenge", text(challenge));
        self.add("acme.on_demand", list(&acme.on_demand));
        let directories: Vec<_> = acme.authorities.iter().map(|authority| &*authority.directory).collect();
        // The order is the one in which they are asked, so it is told.
        self.add("acme.authorities", list(&directories));
        for authority in &acme.authorities {
            let path = format!("acme.authority[{}]", text(&authority.directory));
            let roots = authority.roots.as_ref().map_or_else(|| "system".to_owned(), |roots| text(roots));
            self.add(&format!("{path}.roots"), roots);
            if let Some((kid, key)) = &authority.eab {
                self.add(&format!("{path}.eab_kid"), text(kid));
                self.add(&format!("{path}.eab_key"), text(key));
            }
        }
    }

    fn origin(&mut self, origin: &Origin) {
        self.add("weight", origin.weight);
        match &origin.host_header {
            HostHeader::Preserve => self.add("host", text("preserve")),
            HostHeader::Fixed(host) => self.add("host", text(host)),
        }
        let http = match origin.http {
            OriginHttp::Auto => "auto",
            OriginHttp::Http1 => "1.1",
            OriginHttp::Http2 => "2",
        };
        self.add("http", text(http));
        self.add("max_idle", origin.max_idle);
        let most = origin.max_connections.map(|most| most.to_string());
        self.add("max_connections", most.unwrap_or_else(|| format!("{CONNECTIONS_PER_THREAD} per thread")));
        self.add("queue", origin.queue);
        let proxy_protocol = match origin.proxy_protocol {
            None => "none",
            Some(ProxyProtocol::V1) => "v1",
            Some(ProxyProtocol::V2) => "v2",
        };
        self.add("proxy_protocol", text(proxy_protocol));
        if let Some(tls) = &origin.tls {
            self.add("tls.server_name", text(&tls.server_name));
            self.add("tls.verify", tls.verify != OriginVerify::Off);
            match &tls.verify {
                OriginVerify::Authorities { pem, .. } => self.add("tls.authorities", hash(pem)),
                OriginVerify::System => self.add("tls.authorities", "system"),
                OriginVerify::Off => {}
            }
        }
        self.add("timeouts.connect", period(origin.timeouts.connect));
        self.add("timeouts.queue", period(origin.timeouts.queue));
        self.add("timeouts.response", period(origin.timeouts.response));
        self.add("timeouts.idle", period(origin.timeouts.idle));
        self.add("timeouts.keep_alive", period(origin.timeouts.keep_alive));
        self.add("timeouts.resolve", period(origin.timeouts.resolve));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_names_what_was_added_removed_and_changed() {
        let lines = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let old = lines(&["a = 1", "b = 2", "c = x = y"]);
        let new = lines(&["a = 1", "b = 3", "d = 4"]);
        let shown: Vec<_> = difference(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["~ b = 2 -> 3", "- c = x = y", "+ d = 4"]);
        assert_eq!(difference(&old, &old), []);
    }
}
