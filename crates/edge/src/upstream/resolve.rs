//! Names of origins to addresses: a small cache over hickory-resolver that outlives the failure of the name server.
//!
//! One resolver per edge thread (clones share it). An answer is fresh for its TTL, at least `MIN_TTL` and at most what
//! the origin's configuration allows; it is renewed in the background before that is over, and used beyond it when
//! renewal fails (RFC 8767). `localhost` never leaves the machine (RFC 6761 section 6.3). No hickory type leaves here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, lookup::Lookup, system_conf};
use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::interleave;

/// Names remembered per resolver; the one unused for longest makes room.
pub const MAX_NAMES: usize = 1024;
/// Shortest time an answer is used, whatever its TTL says.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// How long a failure is remembered before the name servers are asked again.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a request waits for renewal when there is an old answer to fall back on (RFC 8767 section 5: 1.8 s).
pub const STALE_PATIENCE: Duration = Duration::from_millis(1800);
/// How long past its time an answer is used while name servers fail (RFC 8767 section 5: one to three days).
pub const MAX_STALE: Duration = Duration::from_secs(24 * 3600);
/// How long an answer is used after the name server says that the name is gone; it may be a slip.
pub const HOLD_GONE: Duration = Duration::from_secs(30);
/// Once one family is known, how long the other is waited for; without it the answer is renewed after `PARTIAL_TTL`.
const FAMILY_PATIENCE: Duration = Duration::from_millis(250);
const PARTIAL_TTL: Duration = Duration::from_secs(5);
/// All attempts of one lookup together.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one name server, whatever `resolv.conf` says.
const MAX_SERVER_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_ATTEMPTS: usize = 3;
/// After this time the next lookup reads `resolv.conf` and the hosts file anew.
const SETUP_AGE: Duration = Duration::from_secs(60);

/// Addresses in the order to try them.
pub type Addresses = SmallVec<[SocketAddr; 4]>;

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name server says there is no such name (NXDOMAIN), or it is not a name at all.
    #[error("no such name")]
    NotFound,
    /// The name exists without any address.
    #[error("the name has no address")]
    NoAddresses,
    /// No name server gave an answer.
    #[error("name lookup failed: {0}")]
    Failed(Arc<str>),
    /// `MAX_NAMES` other names are being looked up.
    #[error("too many names are being looked up")]
    Busy,
}

impl ResolveError {
    /// Whether a name server said so, as opposed to nobody saying anything.
    fn is_answer(&self) -> bool {
        matches!(self, Self::NotFound | Self::NoAddresses)
    }
}

/// Which name servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServers {
    /// Those of `/etc/resolv.conf`, with its options; 127.0.0.1 when there is none.
    System,
    /// These, over UDP and TCP, without any search domain.
    Fixed {
        /// Addresses and ports.
        servers: Vec<SocketAddr>,
        /// Wait for one server and one attempt.
        timeout: Duration,
    },
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveConfig {
    /// Which name servers are asked.
    pub name_servers: NameServers,
    /// File of names that are known without asking, in the format of hosts(5).
    pub hosts: Option<PathBuf>,
}

impl Default for ResolveConfig {
    fn default() -> Self {
        Self { name_servers: NameServers::System, hosts: Some("/etc/hosts".into()) }
    }
}

/// What resolvers have done since the process began; one for all threads.
#[derive(Debug, Default)]
pub struct ResolveCounters {
    lookups: AtomicU64,
    failures: AtomicU64,
    stale: AtomicU64,
}

impl ResolveCounters {
    /// Lookups begun.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Relaxed)
    }

    /// Lookups that brought no address.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Requests that were given an answer past its time.
    pub fn stale(&self) -> u64 {
        self.stale.load(Relaxed)
    }
}

/// Resolves names of origins; one per edge thread, since lookups run on the runtime that first asks.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ResolveConfig,
    counters: Arc<ResolveCounters>,
    /// The resolver behind, and when it read its files.
    backend: Mutex<Option<(TokioResolver, Instant)>>,
    names: Mutex<HashMap<Box<str>, Entry>>,
}

type Found = Arc<[IpAddr]>;
type Pending = watch::Receiver<Option<Result<Found, ResolveError>>>;

#[derive(Debug)]
struct Entry {
    answer: Option<Answer>,
    /// Set while the last lookup was a failure.
    trouble: Option<Trouble>,
    /// Set while a lookup is under way: everybody who wants the name waits for the same one.
    pending: Option<Pending>,
    used: Instant,
}

#[derive(Debug)]
struct Answer {
    addresses: Found,
    ttl: Duration,
    at: Instant,
}

#[derive(Debug)]
struct Trouble {
    error: ResolveError,
    retry_at: Instant,
    /// Since when name servers say that the name is gone.
    gone: Option<Instant>,
}

/// What is to be done for one request.
enum Plan {
    Use(Found),
    Refuse(ResolveError),
    /// Wait for the lookup under way, with an old answer to fall back on if there is one.
    Wait(Pending, Option<Found>),
}

impl Resolver {
    /// A resolver with an empty cache. Nothing is read or asked before the first lookup.
    pub fn new(config: ResolveConfig, counters: Arc<ResolveCounters>) -> Self {
        Self(Arc::new(Inner { config, counters, backend: Mutex::default(), names: Mutex::default() }))
    }

    /// The addresses of a host, IPv6 and IPv4 alternating, with the port put in.
    ///
    /// `host` is a name in A-labels or an address literal; `max_ttl` is the configured `OriginTimeouts::resolve`. Must
    /// be called on a tokio runtime.
    pub async fn resolve(
        &self,
        host: &str,
        port: u16,
        max_ttl: Duration,
        now: Instant,
    ) -> Result<Addresses, ResolveError> {
        let with_port = |found: &[IpAddr]| found.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
        if let Ok(address) = host.parse() {
            return Ok(with_port(&[address]));
        }
        if is_localhost(host) {
            return Ok(with_port(&[Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]));
        }
        let (mut pending, stale) = match self.plan(host, max_ttl, now) {
            Plan::Use(found) => return Ok(with_port(&found)),
            Plan::Refuse(error) => return Err(error),
            Plan::Wait(pending, stale) => (pending, stale),
        };
        let result = async {
            let done = pending.wait_for(Option::is_some).await;
            done.ok().and_then(|result| result.clone()).unwrap_or_else(|| Err(failed("lookup was abandoned")))
        };
        match stale {
            None => result.await.map(|found| with_port(&found)),
            Some(stale) => match timeout(STALE_PATIENCE, result).await {
                Ok(Ok(found)) => Ok(with_port(&found)),
                Ok(Err(_)) | Err(_) => {
                    self.0.counters.stale.fetch_add(1, Relaxed);
                    Ok(with_port(&stale))
                }
            },
        }
    }

    /// Decides under the lock, and starts a lookup if one is due.
    fn plan(&self, host: &str, max_ttl: Duration, now: Instant) -> Plan {
        let key = host.to_ascii_lowercase();
        let mut names = self.0.names();
        if !names.contains_key(key.as_str()) && !make_room(&mut names) {
            return Plan::Refuse(ResolveError::Busy);
        }
        let entry = names.entry(key.clone().into()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        let may_ask = entry.trouble.as_ref().is_none_or(|trouble| now >= trouble.retry_at);
        if let Some(answer) = &entry.answer {
            let (addresses, age) = (answer.addresses.clone(), now.saturating_duration_since(answer.at));
            let fresh_for = answer.ttl.clamp(MIN_TTL, max_ttl.max(MIN_TTL));
            let failing = entry.trouble.is_some();
            if age < fresh_for {
                // The last fifth is left for renewal, so that a busy origin never waits for its name.
                if age >= fresh_for * 4 / 5 && may_ask {
                    self.lookup(key, entry, now);
                }
                return Plan::Use(addresses);
            }
            if entry.may_use_stale(age - fresh_for, now) {
                if !failing {
                    return Plan::Wait(self.lookup(key, entry, now), Some(addresses));
                }
                if may_ask {
                    self.lookup(key, entry, now);
                }
                self.0.counters.stale.fetch_add(1, Relaxed);
                return Plan::Use(addresses);
            }
        }
        match &entry.trouble {
            Some(trouble) if !may_ask => Plan::Refuse(trouble.error.clone()),
            _ => Plan::Wait(self.lookup(key, entry, now), None),
        }
    }

    /// Joins the lookup under way or starts one. It runs to its end even if everybody who wanted it leaves.
    fn lookup(&self, host: String, entry: &mut Entry, now: Instant) -> Pending {
        // A channel that is closed belongs to a lookup that died with its runtime.
        if let Some(pending) = entry.pending.as_ref().filter(|pending| pending.has_changed().is_ok()) {
            return pending.clone();
        }
        let (done, pending) = watch::channel(None);
        entry.pending = Some(pending.clone());
        self.0.counters.lookups.fetch_add(1, Relaxed);
        let inner = self.0.clone();
        let begun = Instant::now();
        tokio::spawn(async move {
            let result = match inner.backend(now) {
                Ok(backend) => timeout(LOOKUP_TIMEOUT, query(&backend, &host))
                    .await
                    .unwrap_or_else(|_| Err(failed("no answer in time"))),
                Err(error) => Err(error),
            };
            let result = inner.store(&host, result, now + begun.elapsed());
            done.send_replace(Some(result));
        });
        pending
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resolver behind, rebuilt when its files may have changed: a process lives longer than a network.
    fn backend(&self, now: Instant) -> Result<TokioResolver, ResolveError> {
        let mut backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((resolver, _)) =
            backend.as_ref().filter(|(_, at)| now.saturating_duration_since(*at) < SETUP_AGE)
        {
            return Ok(resolver.clone());
        }
        let resolver = build(&self.config).map_err(|error| failed(&error.to_string()))?;
        *backend = Some((resolver.clone(), now));
        Ok(resolver)
    }

    /// Notes what a lookup brought, and tells once when a name that has an answer begins or ceases to fail.
    fn store(
        &self,
        host: &str,
        result: Result<(Vec<IpAddr>, Duration), ResolveError>,
        at: Instant,
    ) -> Result<Found, ResolveError> {
        let mut names = self.names();
        let mut forgotten = Entry::new(at);
        let entry = names.get_mut(host).unwrap_or(&mut forgotten);
        entry.pending = None;
        match result {
            Ok((addresses, ttl)) => {
                if entry.trouble.take().is_some() && entry.answer.is_some() {
                    tracing::info!(host, "the name resolves again");
                }
                let addresses: Found = interleave(&addresses).into();
                entry.answer = Some(Answer { addresses: addresses.clone(), ttl, at });
                Ok(addresses)
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Relaxed);
                if entry.trouble.is_none() && entry.answer.is_some() {
                    tracing::warn!(host, %error, "the name does not resolve any more, using the last answer");
                }
                let before = entry.trouble.take().and_then(|trouble| trouble.gone);
                let gone = before.or(error.is_answer().then_some(at));
                entry.trouble = Some(Trouble { error: error.clone(), retry_at: at + RETRY_AFTER, gone });
                Err(error)
            }
        }
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self { answer: None, trouble: None, pending: None, used: now }
    }

    fn may_use_stale(&self, overdue: Duration, now: Instant) -> bool {
        let gone = self.trouble.as_ref().and_then(|trouble| trouble.gone);
        overdue < MAX_STALE && gone.is_none_or(|since| now.saturating_duration_since(since) < HOLD_GONE)
    }
}

/// Drops the name unused for longest when there is no more room; false when all are being looked up.
fn make_room(names: &mut HashMap<Box<str>, Entry>) -> bool {
    if names.len() < MAX_NAMES {
        return true;
    }
    let idle = names.iter().filter(|(_, entry)| entry.pending.is_none());
    let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
    oldest.is_some_and(|name| names.remove(&name).is_some())
}

/// RFC 6761 section 6.3: `localhost` and everything below it.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let start = host.len().saturating_sub("localhost".len());
    host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case("localhost"))
        && (start == 0 || host.get(..start).is_some_and(|front| front.ends_with('.')))
}

fn failed(reason: &str) -> ResolveError {
    ResolveError::Failed(reason.into())
}

/// Builds the resolver once, as each edge thread does for its first name, and says why that cannot be done.
pub fn rehearse() -> Result<(), String> {
    build(&ResolveConfig::default()).map(drop).map_err(|error| error.to_string())
}

/// Builds the resolver behind. It keeps no cache of its own: ours knows when an answer may be used past its time.
fn build(config: &ResolveConfig) -> Result<TokioResolver, NetError> {
    let (servers, mut options) = match &config.name_servers {
        NameServers::System => system_conf::read_system_conf().unwrap_or_else(|error| {
            tracing::warn!(%error, "no usable resolv.conf, asking 127.0.0.1");
            let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (ResolverConfig::from_parts(None, Vec::new(), vec![server]), ResolverOpts::default())
        }),
        NameServers::Fixed { servers, timeout } => {
            let mut options = ResolverOpts::default();
            options.timeout = *timeout;
            let servers = servers.iter().copied().map(name_server).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), options)
        }
    };
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = options.timeout.min(MAX_SERVER_TIMEOUT);
    options.attempts = options.attempts.min(MAX_ATTEMPTS);
    let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let mut resolver = builder.build()?;
    if let Some(path) = &config.hosts {
        let mut hosts = Hosts::default();
        let read = std::fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file));
        if let Err(error) = read {
            tracing::debug!(%error, path = %path.display(), "hosts file not read");
        }
        resolver.set_hosts(Arc::new(hosts));
    }
    Ok(resolver)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// What one address family brought.
enum Family {
    Found(Vec<IpAddr>, Duration),
    Nothing(ResolveError),
    Failed(ResolveError),
}

/// Asks for both families at once; addresses and the time they may be used, unclamped.
async fn query(resolver: &TokioResolver, host: &str) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    // Not `from_utf8`: names inside a container network have underscores, which IDNA refuses.
    let name = Name::from_ascii(host).map_err(|_| ResolveError::NotFound)?;
    let ask = |kind| {
        let (resolver, name) = (resolver.clone(), name.clone());
        Box::pin(async move { sort(resolver.lookup(name, kind).await) })
    };
    let (first, rest) = match select(ask(RecordType::AAAA), ask(RecordType::A)).await {
        Either::Left((first, rest)) | Either::Right((first, rest)) => (first, rest),
    };
    let second = match &first {
        Family::Found(..) => timeout(FAMILY_PATIENCE, rest).await.ok(),
        Family::Nothing(_) | Family::Failed(_) => Some(rest.await),
    };
    match (first, second) {
        (Family::Found(mut found, ttl), Some(Family::Found(more, other))) => {
            found.extend(more);
            Ok((found, ttl.min(other)))
        }
        (Family::Found(found, ttl), Some(Family::Nothing(_)))
        | (Family::Nothing(_), Some(Family::Found(found, ttl))) => Ok((found, ttl)),
        // One family is missing only for now.
        (Family::Found(found, ttl), _) | (_, Some(Family::Found(found, ttl))) => {
            Ok((found, ttl.min(PARTIAL_TTL)))
        }
        (Family::Failed(error), _) | (_, Some(Family::Failed(error))) => Err(error),
        (Family::Nothing(first), Some(Family::Nothing(ResolveError::NoAddresses)) | None) => Err(first),
        (Family::Nothing(_), Some(Family::Nothing(second))) => Err(second),
    }
}

fn sort(result: Result<Lookup, NetError>) -> Family {
    match result {
        Ok(lookup) => {
            let found: Vec<IpAddr> =
                lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
            if found.is_empty() {
                Family::Nothing(ResolveError::NoAddresses)
            } else {
                Family::Found(found, Duration::from_secs(ttl.into()))
            }
        }
        Err(error) if error.is_nx_domain() => Family::Nothing(ResolveError::NotFound),
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Family::Nothing(ResolveError::NoAddresses),
        Err(error) => Family::Failed(failed(&error.to_string())),
    }
}

#[cfg(test)]
mod tests;
