//! Desired state to generation, top to bottom: text, listeners, sites, origins, certificates, and one identity for all.

mod acme;
mod analytics;
mod certificate;
mod defaults;
mod feed;
mod host;
mod listen;
mod lists;
mod origin;
mod policy;
mod rules;
mod site;
mod tls;
mod watch;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use api::diagnostic::{Diagnostic, Location, Severity};
use base::address::PrefixSet;
use base::id::ContentHash;
use base::time::Timestamp;
use ipnet::IpNet;

pub(crate) use self::certificate::issued_end;
pub(crate) use self::lists::{as_number, host_name};
use crate::check;
use crate::desired::{self, Desired};
use crate::diagnostic::{about_file, quote};
use crate::generation::{
    AccessLog, AccessLogTarget, AddressLimits, Certificate, ClientIpDetail, ConnectionLimits, Drain,
    HostTable, MemoryLimit, Site, Snapshot,
};
use crate::review::{Places, Review};
use crate::source::{CONFIG_BYTES, FileReference, ISSUED, PEM_BYTES, SourceTree, Unreadable};
use crate::units::OptionalSize;

pub use defaults::defaults;

/// Characters of `via`; it travels in every request.
const VIA_CHARACTERS: usize = 64;
/// Names the encoding that is hashed into a generation's identity; changes when that encoding does.
const IDENTITY: &[u8] = b"rempart generation 1";

/// What a generation is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The configuration file as the operator named it; appears in diagnostics only.
    pub file: &'a str,
    /// Its content. Reading one byte more than `source::CONFIG_BYTES` is enough to have it refused as too large.
    pub text: &'a [u8],
    /// The files it refers to; see `references`.
    pub tree: &'a SourceTree,
}

/// How strict to be about what only time has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A configuration somebody asks to be taken: an expired certificate is an error.
    Fresh,
    /// A generation that was accepted before and is started again: an expired certificate is a warning.
    Stored,
}

/// What came out.
#[derive(Debug)]
pub struct Compiled {
    /// The generation; there is none exactly when a diagnostic is an error.
    pub snapshot: Option<Snapshot>,
    /// Everything found, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// Where everything is written: `places.locate` turns the `place` of a listener or certificate into a
    /// location.
    pub places: Places,
}

/// The files a configuration refers to, and the certificates it wants issued, each once; none when it cannot be read
/// (`compile` says why).
pub fn references(file: &str, text: &[u8]) -> Vec<FileReference> {
    let (_, desired) = check::read(file, text);
    desired.map(|desired| referenced(&desired).into_values().collect()).unwrap_or_default()
}

/// Path to reference, for every file a configuration refers to and every certificate it wants issued.
fn referenced(desired: &Desired) -> BTreeMap<String, FileReference> {
    let mut found: BTreeMap<String, FileReference> = BTreeMap::new();
    let mut add = |path: String, place: String, secret: bool| {
        let reference = FileReference { path: path.clone(), place, limit: PEM_BYTES, secret };
        found.entry(path).and_modify(|known| known.secret |= secret).or_insert(reference);
    };
    let nameable = |path: &str| !path.is_empty() && !path.starts_with(ISSUED);
    for (path, place, secret) in site_paths(desired).chain(acme_paths(desired)).filter(|it| nameable(it.0)) {
        add(path.to_owned(), place, secret);
    }
    for (path, place) in rules_files(desired).filter(|(path, _)| nameable(path)) {
        let reference = FileReference { path: path.to_owned(), place, limit: CONFIG_BYTES, secret: false };
        found.entry(path.to_owned()).or_insert(reference);
    }
    let mut add = |path: String, place: String, secret: bool| {
        let reference = FileReference { path: path.clone(), place, limit: PEM_BYTES, secret };
        found.entry(path).and_modify(|known| known.secret |= secret).or_insert(reference);
    };
    for (path, place) in acme::wanted_files(desired) {
        add(path, place, true);
    }
    found
}

/// Every file of rules, and its place.
fn rules_files(desired: &Desired) -> impl Iterator<Item = (&str, String)> {
    let account = desired.rules_files.iter().enumerate();
    let account = account.map(|(index, path)| (path.as_str(), format!("rules_files[{index}]")));
    account.chain(desired.site.iter().enumerate().flat_map(|(s, site)| {
        let own = site.rules_files.iter().enumerate();
        own.map(move |(index, path)| (path.as_str(), format!("site[{s}].rules_files[{index}]")))
    }))
}

/// Every path of a site that a file is read from, its place, and whether the file is secret.
fn site_paths(desired: &Desired) -> impl Iterator<Item = (&str, String, bool)> {
    desired.site.iter().enumerate().flat_map(|(s, site)| {
        let own = site.tls.iter().flat_map(move |tls| {
            let client = tls.client.as_ref().map(|client| &client.authorities);
            let paths = [
                (tls.certificate.as_ref(), "certificate", false),
                (tls.key.as_ref(), "key", true),
                (tls.ocsp.as_ref(), "ocsp", false),
                (client, "client.authorities", false),
            ];
            let written = paths.into_iter().filter_map(|(path, key, secret)| Some((path?, key, secret)));
            written.map(move |(path, key, secret)| (path.as_str(), format!("site[{s}].tls.{key}"), secret))
        });
        let authorities = site.origin.iter().enumerate().filter_map(move |(o, origin)| {
            let path = origin.tls.as_ref()?.authorities.as_deref()?;
            Some((path, format!("site[{s}].origin[{o}].tls.authorities"), false))
        });
        own.chain(authorities)
    })
}

/// Every path of `[acme]` that a file is read from.
fn acme_paths(desired: &Desired) -> impl Iterator<Item = (&str, String, bool)> {
    desired.acme.authority.iter().enumerate().flat_map(|(index, authority)| {
        let paths = [(&authority.roots, "roots", false), (&authority.eab_key, "eab_key", true)];
        paths.into_iter().filter_map(move |(path, key, secret)| {
            Some((path.as_deref()?, format!("acme.authority[{index}].{key}"), secret))
        })
    })
}

impl Compiled {
    /// Where a `place` of the generation is written.
    pub fn locate(&self, place: &str) -> Location {
        self.places.locate(place)
    }
}

/// Makes a generation, or says everything that stands in the way of one.
pub fn compile(input: Input<'_>, now: Timestamp, mode: Mode) -> Compiled {
    let (mut review, desired) = check::read(input.file, input.text);
    let snapshot = desired.map(|desired| judge(&desired, input, now, mode, &mut review));
    let refused = review.has_errors();
    let (places, diagnostics) = review.into_parts();
    Compiled { snapshot: snapshot.filter(|_| !refused), diagnostics, places }
}

/// The diagnostic for a configuration file that could not be read at all.
pub fn unreadable(file: &str, reason: &Unreadable) -> Diagnostic {
    let (code, hint) = match reason {
        Unreadable::NotFound => (
            "config-not-found",
            "give its path with --config, or an origin with --origin http://127.0.0.1:3000",
        ),
        Unreadable::Permission => {
            ("config-unreadable", "let the user that runs Rempart read it, for example with chown or chmod")
        }
        Unreadable::TooLarge { .. } => ("too-large", "check that this is the right file"),
        Unreadable::Directory | Unreadable::NotRegular | Unreadable::Other(_) => {
            ("config-unreadable", "check that this is the right file")
        }
    };
    about_file(Severity::Error, code, format!("{file} cannot be read: {reason}"), hint)
}

/// The configuration for `rempart run --origin ..`: one site for every host, on the listeners given as `http://ADDRESS` or
/// `https://ADDRESS`. What is wrong with them is found when it is compiled, like with any other configuration.
pub fn command_line_config(origins: &[String], listen: &[String]) -> String {
    let mut out = String::new();
    for listener in listen {
        let (tls, address) = match listener.split_once("://") {
            Some(("http", address)) => ("tls = false\n", address),
            Some(("https", address)) => ("tls = true\n", address),
            _ => ("", listener.as_str()),
        };
        let address = toml::Value::from(address.trim_end_matches('/'));
        // Writing to a `String` cannot fail.
        let _written = write!(out, "[[listen]]\naddress = {address}\n{tls}\n");
    }
    out.push_str("[[site]]\nhosts = [\"*\"]\n");
    for origin in origins {
        let _written = write!(out, "\n[[site.origin]]\nurl = {}\n", toml::Value::from(origin.as_str()));
    }
    out
}

/// Everything a look at one configuration needs at hand.
struct Judge<'a> {
    review: &'a mut Review,
    tree: &'a SourceTree,
    now: Timestamp,
    mode: Mode,
}

fn judge(desired: &Desired, input: Input<'_>, now: Timestamp, mode: Mode, review: &mut Review) -> Snapshot {
    let mut judge = Judge { review, tree: input.tree, now, mode };
    let listeners = judge.listeners(&desired.listen, &desired.trust);
    let metrics = judge.metrics(&desired.metrics, &listeners);
    let mut hosts = HostTable::default();
    let (lists, known) = judge.lists(desired);
    let (sites, acme) = judge.sites(desired, &listeners, &mut hosts, known);
    Snapshot {
        id: identity(input, desired, &sites),
        metrics,
        trusted_proxies: judge.proxies(&desired.trust),
        via: judge.via(&desired.via),
        limits: judge.limits(&desired.limits),
        access_log: judge.access_log(&desired.log.access),
        analytics: judge.analytics(&desired.analytics),
        watch: judge.watch(&desired.watch, &listeners, metrics, &sites),
        lists,
        feeds: judge.feeds(&desired.feeds),
        drain: judge.drain(&desired.drain),
        listeners,
        sites,
        hosts,
        standby: desired.standby,
        bake: desired.bake.into(),
        acme,
        is_defaults: false,
    }
}

impl Judge<'_> {
    fn proxies(&mut self, trust: &desired::Trust) -> PrefixSet {
        let mut prefixes = Vec::new();
        for (index, text) in trust.proxies.iter().enumerate() {
            let place = format!("trust.proxies[{index}]");
            let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            match parsed {
                Some(prefix) if prefix.prefix_len() == 0 => self.review.error(
                    &place,
                    "trusts-everybody",
                    format!("{} trusts everybody, so anybody could pose as any address", quote(text)),
                    "name the addresses or networks of your own proxies only",
                ),
                Some(prefix) => prefixes.push(prefix),
                None => self.review.error(
                    &place,
                    "bad-network",
                    format!("{} is neither an address nor a network", quote(text)),
                    "write \"192.0.2.1\", \"10.0.0.0/8\" or \"2001:db8::/32\"",
                ),
            }
        }
        PrefixSet::new(prefixes)
    }

    fn via(&mut self, via: &str) -> Arc<str> {
        // RFC 9110 section 5.6.2: token.
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if via.is_empty() || via.len() > VIA_CHARACTERS || !via.bytes().all(token) {
            self.review.error(
                "via",
                "bad-via",
                format!("{} cannot stand in a `Via` header field", quote(via)),
                format!("use 1 to {VIA_CHARACTERS} letters, digits, dots and hyphens: via = \"rempart-1\""),
            );
        }
        via.into()
    }

    fn limits(&mut self, limits: &desired::Limits) -> ConnectionLimits {
        if limits.target_bytes > limits.header_bytes {
            self.review.error(
                if self.review.places.contains("limits.target_bytes") {
                    "limits.target_bytes"
                } else {
                    "limits.header_bytes"
                },
                "conflicting-limits",
                format!(
                    "a request target of {} does not fit into a head of {}",
                    limits.target_bytes, limits.header_bytes
                ),
                "make target_bytes smaller than header_bytes",
            );
        }
        limits.into()
    }

    fn drain(&mut self, drain: &desired::Drain) -> Drain {
        if drain.idle > drain.requests {
            let written = ["drain.idle", "drain.requests"].into_iter();
            let place = written.clone().find(|place| self.review.places.contains(place)).unwrap_or("drain");
            self.review.warning(
                place,
                "conflicting-limits",
                format!(
                    "idle connections are kept for {}, longer than requests, {}",
                    drain.idle, drain.requests
                ),
                "make idle at most as long as requests: an idle connection has nothing to lose",
            );
        }
        drain.into()
    }

    fn access_log(&mut self, log: &desired::AccessLog) -> AccessLog {
        let to = match &log.to {
            desired::AccessLogTo::Off => AccessLogTarget::Off,
            desired::AccessLogTo::Stdout => AccessLogTarget::Stdout,
            desired::AccessLogTo::File(path) => {
                let place = "log.access.to.file";
                if path.ends_with('/') {
                    self.review.error(
                        place,
                        "bad-path",
                        format!("{} is a directory", quote(path)),
                        "name a file in it: to = { file = \"logs/access.log\" }",
                    );
                } else {
                    self.path(path, place);
                }
                AccessLogTarget::File(path.clone())
            }
        };
        AccessLog {
            to,
            client_ip: match log.client_ip {
                desired::ClientIp::Truncated => ClientIpDetail::Truncated,
                desired::ClientIp::Full => ClientIpDetail::Full,
                desired::ClientIp::None => ClientIpDetail::None,
            },
            retention: Duration::from(log.retention),
            rotate_bytes: log.rotate.get(),
        }
    }

    /// Whether a text can be a path at all.
    fn path(&mut self, path: &str, place: &str) -> bool {
        let bad = path.is_empty() || path.contains(char::is_control);
        if bad {
            let message = format!("{} is no path", quote(path));
            self.review.error(place, "bad-path", message, "write the path of a file, relative to this one");
        }
        !bad
    }

    /// A file of the tree; says why if there is none, or if nothing is in it.
    fn file(&mut self, path: &str, place: &str) -> Option<Arc<[u8]>> {
        if !self.path(path, place) {
            return None;
        }
        if path.starts_with(ISSUED) {
            let message = format!("{} is how an issued certificate is called, not a file", quote(path));
            let hint = format!("if there is a file of that name, write {}", quote(&format!("./{path}")));
            self.review.error(place, "bad-path", message, hint);
            return None;
        }
        let (code, message, hint) = match self.tree.get(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {
                ("empty-file", format!("{} is empty", quote(path)), "check how it was copied here")
            }
            Ok(bytes) => return Some(bytes),
            Err(reason) => {
                let (code, hint) = match reason {
                    Unreadable::NotFound => {
                        ("file-not-found", "check the path; it is relative to the configuration file")
                    }
                    Unreadable::Permission => {
                        ("file-unreadable", "let the user that runs Rempart read it, with chown or chmod")
                    }
                    Unreadable::TooLarge { .. } => ("file-unreadable", "check that this is the right file"),
                    Unreadable::Directory | Unreadable::NotRegular | Unreadable::Other(_) => {
                        ("file-unreadable", "name a regular file")
                    }
                };
                (code, format!("{} cannot be read: {reason}", quote(path)), hint)
            }
        };
        self.review.error(place, code, message, hint);
        None
    }
}

impl From<&desired::Limits> for ConnectionLimits {
    fn from(limits: &desired::Limits) -> Self {
        Self {
            threads: limits.threads,
            connections: limits.connections,
            per_address: AddressLimits {
                connections: limits.connections_per_address,
                rate: limits.connection_rate_per_address,
                handshakes: limits.handshakes_per_address,
            },
            handshakes: limits.handshakes,
            memory: match limits.memory {
                None => MemoryLimit::Half,
                Some(OptionalSize(Some(size))) => MemoryLimit::Bytes(size.get()),
                Some(OptionalSize(None)) => MemoryLimit::None,
            },
            header_bytes: limits.header_bytes.as_usize(),
            header_count: limits.header_count,
            target_bytes: limits.target_bytes.as_usize(),
            streams: limits.streams,
            handshake: limits.handshake.into(),
            header: limits.header.into(),
            keep_alive: limits.keep_alive.into(),
            write: limits.write.into(),
            write_rate: rate(limits.write_rate),
        }
    }
}

/// Bytes per second; none at all is no limit.
fn rate(size: OptionalSize) -> Option<NonZeroU64> {
    NonZeroU64::new(size.0?.get())
}

impl From<&desired::Drain> for Drain {
    fn from(drain: &desired::Drain) -> Self {
        Self { idle: drain.idle.into(), requests: drain.requests.into(), tunnels: drain.tunnels.into() }
    }
}

/// The identity of a generation: a hash of the configuration, of every file it refers to, and of every certificate issued
/// for it, each with its length in front so that no two inputs have the same encoding.
fn identity(input: Input<'_>, desired: &Desired, sites: &[Arc<Site>]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(IDENTITY);
    add(input.text);
    for path in referenced(desired).into_keys() {
        if let Ok(bytes) = input.tree.get(&path) {
            add(path.as_bytes());
            add(&bytes);
        }
    }
    // Sorted within a site, because the tree is.
    for site in sites {
        if let Certificate::Acme { demanded, .. } = &site.certificate {
            for (name, bytes) in demanded {
                add(format!("{ISSUED}{name}").as_bytes());
                add(bytes);
            }
        }
    }
    ContentHash(*hasher.finalize().as_bytes())
}
