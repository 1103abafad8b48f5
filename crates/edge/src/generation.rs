//! A generation made ready to run: the snapshot with its certificates read, its TLS settings built, and its counters found.
//!
//! `Loader::load` is the one way a snapshot becomes runnable; `check`, start and reload all go through it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use api::process::SetAside;
use base::module::Module;
use base::time::Timestamp;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use snapshot::generation::{Origin, Site, Snapshot};
use snapshot::outline;
use snapshot::routes::Route;

use crate::artefacts::Artefacts;
use crate::bans::Bans;
use crate::modules::{Earlier, Modules, REVERT_WINDOW, SiteModules};
use crate::telemetry::metrics::{Metrics, SiteMetrics};
use crate::tls::certificates::Expired;
use crate::tls::{
    self, Certificates, Challenges, DevelopmentAuthority, LoadError, OriginTlsConfigs, Protocols,
    ServerSettings, ServerTls, TicketKeys, Wanted,
};
use crate::upstream::budget::RetryBudget;
use crate::upstream::health::{HealthRegistry, SiteHealth};
use crate::upstream::pool::{NO_POOL, PoolKey};

/// A snapshot and everything derived from it. Never changed; a request keeps the one it began with.
pub struct Generation {
    /// Grows by one with every change taken.
    pub number: u64,
    /// What was compiled.
    pub snapshot: Arc<Snapshot>,
    /// In the order of `Snapshot::sites`.
    pub sites: Vec<Arc<SiteRuntime>>,
    /// By position: sites as they were before, where modules read other settings now.
    earlier: HashMap<usize, Earlier>,
    loaded: Instant,
    /// TLS towards visitors; `None` without a TLS listener.
    pub tls: Option<Arc<ServerSettings>>,
    /// The sites' certificates.
    pub certificates: Arc<Certificates>,
    /// What authorities will look for; the same in every generation.
    pub challenges: Arc<Challenges>,
    /// Who is banned; the same in every generation.
    pub bans: Arc<Bans>,
    /// Artefacts beside the configuration; the same in every generation.
    pub artefacts: Arc<Artefacts>,
    /// The state of modules; the same in every generation.
    pub modules: Arc<Modules>,
}

/// One site, ready.
pub struct SiteRuntime {
    /// What was compiled.
    pub site: Arc<Site>,
    /// In the order of `Site::origins`.
    pub origins: Vec<OriginRuntime>,
    /// Shares of requests, same order.
    pub weights: Vec<u32>,
    /// Which origins are set aside; survives reloads.
    pub health: Arc<SiteHealth>,
    /// How many retries are left; survives reloads.
    pub budget: Arc<RetryBudget>,
    /// Counters; survive reloads.
    pub metrics: Arc<SiteMetrics>,
    /// What is switched off or fails here; survives reloads.
    pub modules: Arc<SiteModules>,
    /// The same site with other origins, by what rules say together.
    pub routes: HashMap<Route, Arc<SiteRuntime>>,
    /// Whether it is served as it was before this generation.
    reverted: AtomicBool,
}

/// One origin, ready.
pub struct OriginRuntime {
    /// Position in `Site::origins`.
    pub index: usize,
    /// What was compiled.
    pub origin: Arc<Origin>,
    /// Which connections it may share.
    pub pool: PoolKey,
    /// Client settings; `None` for plain HTTP.
    pub tls: Option<OriginTlsRuntime>,
}

/// TLS towards one origin, ready.
pub struct OriginTlsRuntime {
    /// Checked name, sent as SNI.
    pub name: ServerName<'static>,
    /// Offers what the origin may speak.
    pub config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only, for upgrades.
    pub http1: Arc<ClientConfig>,
}

impl Generation {
    /// How a site is served, and of which generation that is: as this one says, or as the one before did.
    pub fn serving(&self, index: usize) -> Option<(&Arc<SiteRuntime>, u64)> {
        let site = self.sites.get(index)?;
        if site.reverted.load(Ordering::Relaxed)
            && let Some(earlier) = self.earlier.get(&index)
        {
            return Some((&earlier.runtime, earlier.number));
        }
        Some((site, self.number))
    }

    /// Has a site served as before this generation, if this module fails with settings that have only just changed. `site` is
    /// how the failing request was served. `None` when it stays as it is.
    pub(crate) fn revert(&self, site: &SiteRuntime, module: Module) -> Option<&Earlier> {
        #[cfg(feature = "faults")]
        if crate::fault::without("site-revert") {
            return None;
        }
        let own = self.sites.get(site.site.index)?;
        let earlier = self.earlier.get(&site.site.index)?;
        let is_cause = std::ptr::eq::<SiteRuntime>(&**own, site) && earlier.modules & module.bit() != 0;
        if !is_cause || self.loaded.elapsed() > REVERT_WINDOW {
            return None;
        }
        (!own.reverted.swap(true, Ordering::Relaxed)).then_some(earlier)
    }

    /// Sites that are served as they were before, with the settings that were not good.
    pub fn reverted(&self) -> impl Iterator<Item = (&SiteRuntime, &Earlier)> {
        let reverted = self.sites.iter().filter(|site| site.reverted.load(Ordering::Relaxed));
        reverted.filter_map(|site| Some((&**site, self.earlier.get(&site.site.index)?)))
    }
}

/// What outlives generations, and makes new ones runnable.
pub struct Loader {
    server_tls: ServerTls,
    origin_tls: OriginTlsConfigs,
    health: HealthRegistry,
    budgets: Mutex<HashMap<String, Arc<RetryBudget>>>,
    pools: Mutex<HashMap<String, PoolKey>>,
    wanted: Arc<Wanted>,
    bans: Arc<Bans>,
    artefacts: Arc<Artefacts>,
    modules: Arc<Modules>,
    in_force: Mutex<Weak<Generation>>,
    /// Counters of the whole process.
    pub metrics: Arc<Metrics>,
}

/// Origins whose pool identity is remembered; those beyond get no pool, so that none is ever shared by mistake.
const MAX_POOL_KEYS: usize = 4096;
/// Sites whose retry budget is remembered.
const MAX_BUDGETS: usize = 4096;

impl Loader {
    /// An empty loader. Fails when the machine has no randomness for TLS.
    pub fn new(metrics: Arc<Metrics>) -> Result<Self, tls::server::ServerTlsError> {
        let modules = Arc::<Modules>::default();
        metrics.show_modules(&modules);
        Ok(Self {
            server_tls: ServerTls::new()?,
            origin_tls: OriginTlsConfigs::default(),
            health: HealthRegistry::new(Instant::now()),
            budgets: Mutex::default(),
            pools: Mutex::default(),
            wanted: Arc::default(),
            bans: Arc::default(),
            artefacts: Arc::default(),
            modules,
            in_force: Mutex::default(),
            metrics,
        })
    }

    /// The keys of session tickets: one of its own until others are given.
    pub fn tickets(&self) -> &Arc<TicketKeys> {
        self.server_tls.tickets()
    }

    /// What certificate authorities look for.
    pub fn challenges(&self) -> &Arc<Challenges> {
        self.server_tls.challenges()
    }

    /// Artefacts beside the configuration.
    pub fn artefacts(&self) -> &Arc<Artefacts> {
        &self.artefacts
    }

    /// The state of modules.
    pub fn modules(&self) -> &Arc<Modules> {
        &self.modules
    }

    /// This generation serves from now on: sites of later ones may go back to what it says of them.
    pub fn came_into_force(&self, generation: &Arc<Generation>) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(generation);
    }

    /// Who is banned.
    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    /// Names visitors asked for that may be had on demand and have no certificate yet.
    pub fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }

    /// Makes a snapshot runnable; all findings at once. May read the system's authorities from disk.
    pub fn load(
        &self,
        snapshot: Arc<Snapshot>,
        number: u64,
        development: Option<&Arc<DevelopmentAuthority>>,
        now: Timestamp,
        expired: Expired,
    ) -> Result<Generation, Vec<LoadError>> {
        #[cfg(feature = "faults")]
        crate::fault::on_load(&snapshot);
        let mut errors = Vec::new();
        let certificates =
            Certificates::load(&snapshot, development, now, expired, &self.wanted).map(Arc::new);
        let has_tls = snapshot.listeners.iter().any(|listener| listener.tls);
        let loaded = certificates.and_then(|certificates| {
            let tls = has_tls.then(|| self.server_tls.settings(certificates.clone())).transpose()?;
            Ok((certificates, tls))
        });
        let loaded = loaded.map_err(|found| errors.extend(found));
        if let Err(found) = self.origin_tls.load(&snapshot) {
            errors.extend(found);
        }
        let (Ok((certificates, tls)), true) = (loaded, errors.is_empty()) else { return Err(errors) };
        let sites = snapshot.sites.iter().map(|site| self.site(site).map(Arc::new));
        let sites = sites.collect::<Result<Vec<_>, _>>()?;
        let (earlier, loaded) = (self.earlier(&snapshot), Instant::now());
        self.keep_quarantined(&sites, &earlier);
        let challenges = self.challenges().clone();
        let (bans, artefacts, modules) = (self.bans.clone(), self.artefacts.clone(), self.modules.clone());
        Ok(Generation {
            number,
            snapshot,
            sites,
            earlier,
            loaded,
            tls,
            certificates,
            challenges,
            bans,
            artefacts,
            modules,
        })
    }

    /// Origins that are set aside now, for a process that takes over; at most `health::MAX_SET_ASIDE`.
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.health.export(Instant::now())
    }

    /// Sets aside what the process before had set aside. Only sites and origins of generations loaded here are affected, so
    /// load first.
    pub fn import_set_aside(&self, aside: &[SetAside]) {
        self.health.import(aside, Instant::now());
    }

    /// The sites of this snapshot that may go back to what the generation in force says of them.
    fn earlier(&self, snapshot: &Snapshot) -> HashMap<usize, Earlier> {
        let Some(before) = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).upgrade() else {
            return HashMap::new();
        };
        let known: HashMap<_, _> =
            before.sites.iter().map(|site| (&*site.site.name, site.site.index)).collect();
        let each = snapshot.sites.iter().filter_map(|site| {
            let (runtime, number) = before.serving(*known.get(&*site.name)?)?;
            Some((site.index, Earlier::of(runtime, number, site)?))
        });
        each.collect()
    }

    /// A site that went back to its settings of before stays there until somebody changes it, whatever else is changed.
    fn keep_quarantined(&self, sites: &[Arc<SiteRuntime>], earlier: &HashMap<usize, Earlier>) {
        #[cfg(feature = "faults")]
        if crate::fault::without("quarantine") {
            return;
        }
        let before = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        for (bad, _) in before.iter().flat_map(|before| before.reverted()) {
            let same = |site: &&Arc<SiteRuntime>| {
                site.site.name == bad.site.name && outline::site(&site.site) == outline::site(&bad.site)
            };
            if let Some(site) = sites.iter().find(same)
                && earlier.contains_key(&site.site.index)
            {
                site.reverted.store(true, Ordering::Relaxed);
            }
        }
    }

    fn site(&self, site: &Arc<Site>) -> Result<SiteRuntime, Vec<LoadError>> {
        let mut runtime = self.site_at(site, &site.origins, &site.name)?;
        let Some(rules) = site.rules.phase(expr::Phase::Origin) else { return Ok(runtime) };
        let routes = rules.routes().map_err(|error| {
            vec![LoadError {
                place: format!("site[{}].rules", site.index),
                code: "too-many",
                message: error.to_string(),
                hint: "let rules that may match together set the same parameters".to_owned(),
            }]
        })?;
        for route in routes {
            let origins: Vec<Arc<Origin>> =
                site.origins.iter().map(|origin| Arc::new(origin.routed(&route))).collect();
            // Health of its own: that these origins fail says nothing of the others.
            let routed = self.site_at(site, &origins, &format!("{} by rules {route:?}", site.name))?;
            runtime.routes.insert(route, Arc::new(routed));
        }
        Ok(runtime)
    }

    /// A site with these origins; `health` is the name under which their health is known.
    fn site_at(
        &self,
        site: &Arc<Site>,
        origins: &[Arc<Origin>],
        health: &str,
    ) -> Result<SiteRuntime, Vec<LoadError>> {
        let labels: Vec<Arc<str>> = origins.iter().map(|origin| origin.label.clone()).collect();
        let own: Vec<Arc<str>> = site.origins.iter().map(|origin| origin.label.clone()).collect();
        let weights = origins.iter().map(|origin| origin.weight).collect();
        let origins = origins
            .iter()
            .enumerate()
            .map(|(index, origin)| self.origin(site, index, origin))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(SiteRuntime {
            origins,
            weights,
            health: self.health.site(health, &labels, site.health, Instant::now()),
            budget: self.budget(site),
            metrics: self.metrics.site(&site.name, &own),
            modules: self.modules.site(&site.name),
            routes: HashMap::new(),
            reverted: AtomicBool::new(false),
            site: site.clone(),
        })
    }

    fn origin(
        &self,
        site: &Site,
        index: usize,
        origin: &Arc<Origin>,
    ) -> Result<OriginRuntime, Vec<LoadError>> {
        let place = format!("site[{}].origin[{index}].tls", site.index);
        let tls = match &origin.tls {
            None => None,
            Some(settings) => {
                let name = tls::server_name(&settings.server_name).map_err(|error| {
                    vec![LoadError {
                        place: place.clone(),
                        code: "bad-server-name",
                        message: error.to_string(),
                        hint: "give a DNS name or an address as server_name".to_owned(),
                    }]
                })?;
                let get = |protocols| self.origin_tls.get(&settings.verify, protocols, &place);
                let config = get(Protocols::from(origin.http)).map_err(|error| vec![error])?;
                let http1 = get(Protocols::Http1).map_err(|error| vec![error])?;
                Some(OriginTlsRuntime { name, config, http1 })
            }
        };
        Ok(OriginRuntime { index, origin: origin.clone(), pool: self.pool_key(origin), tls })
    }

    /// The retry budget of a site; made anew when its policy changes.
    fn budget(&self, site: &Site) -> Arc<RetryBudget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{}\n{}", site.name, site.retry.budget_percent);
        if budgets.len() >= MAX_BUDGETS && !budgets.contains_key(&key) {
            budgets.clear();
        }
        budgets
            .entry(key)
            .or_insert_with(|| Arc::new(RetryBudget::new(site.retry.budget_percent, Instant::now())))
            .clone()
    }

    /// Equal for origins that can share connections, whatever generation and site they are in.
    fn pool_key(&self, origin: &Origin) -> PoolKey {
        let identity =
            format!("{:?}", (&origin.host, origin.port, &origin.tls, origin.http, origin.proxy_protocol));
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.len() >= MAX_POOL_KEYS && !pools.contains_key(&identity) {
            return NO_POOL;
        }
        let next = pools.len() as PoolKey;
        *pools.entry(identity).or_insert(next)
    }
}
