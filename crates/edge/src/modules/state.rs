//! The state of all modules in this process: what is switched off, whose breakers are open, what happened to them.
//!
//! Requests read one word of their site. Everything that writes it comes from threads that do not serve, or from a failure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use api::process::{Suspect, Switch};
use arc_swap::ArcSwap;
use base::happening::Happening;
use base::module::{Module, Reason};
use base::time::Timestamp;

use super::breaker::{Admission, Breaker, Change, Standing};
use super::revert;
use crate::rules::walk::Switches;

/// Sites with switches and breakers of their own; those beyond share one of each.
pub const MAX_SITES: usize = 16_384;
/// Happenings waiting to be told.
const NEWS: usize = 64;
/// Number of modules.
pub const MODULES: usize = Module::ALL.len();

/// All modules of a process.
#[derive(Debug)]
pub struct Modules {
    /// Moments are milliseconds since then.
    origin: Instant,
    sites: Mutex<Sites>,
    news: SyncSender<Happening>,
    told: Mutex<Option<Receiver<Happening>>>,
    lost: AtomicU64,
    /// Calls that failed, by module.
    failed: [AtomicU64; MODULES],
    /// Open breakers, by module.
    open: [AtomicU32; MODULES],
    /// Rules and rulesets that are switched off.
    rules_off: ArcSwap<Vec<RuleOff>>,
}

/// A rule or ruleset that is switched off.
#[derive(Debug)]
struct RuleOff {
    id: String,
    /// `None` is every site.
    site: Option<String>,
}

/// Rules and rulesets that are switched off at one site, as things are at one moment.
pub struct RulesOff<'s> {
    all: arc_swap::Guard<Arc<Vec<RuleOff>>>,
    site: &'s str,
}

impl Switches for RulesOff<'_> {
    fn is_off(&self, id: &str) -> bool {
        self.all.iter().any(|off| off.id == id && off.site.as_deref().is_none_or(|site| site == self.site))
    }
}

#[derive(Debug)]
struct Sites {
    by_name: BTreeMap<Arc<str>, Arc<SiteModules>>,
    /// For sites beyond the limit.
    others: Arc<SiteModules>,
    switches: Vec<Switch>,
    /// Number of the next site.
    next: u32,
}

/// The modules at one site. Survives reloads, as the site's name does.
#[derive(Debug)]
pub struct SiteModules {
    /// The site's name.
    pub name: Arc<str>,
    /// Names the site in `Running`.
    pub number: u32,
    /// Modules that are switched off in the lower half, those whose breakers need attention in the upper one.
    flags: AtomicU64,
    breakers: [Breaker; MODULES],
    /// Whether a module has ever failed here; says which entries may be forgotten.
    touched: AtomicBool,
}

impl SiteModules {
    fn new(name: Arc<str>, number: u32, off: u32) -> Arc<Self> {
        Arc::new(Self {
            name,
            number,
            flags: AtomicU64::new(off.into()),
            breakers: std::array::from_fn(|_| Breaker::default()),
            touched: AtomicBool::new(false),
        })
    }

    fn breaker(&self, module: Module) -> Option<&Breaker> {
        self.breakers.get(module.index())
    }

    /// Whether a module may be asked now. While nothing is wrong and nothing is off, this is one relaxed load.
    pub fn admit(&self, module: Module, now: impl FnOnce() -> u64) -> Result<Admission, Reason> {
        let flags = self.flags.load(Relaxed);
        let both = u64::from(module.bit()) | attention(module);
        if flags & both == 0 {
            return Ok(Admission::Plain);
        }
        if flags & u64::from(module.bit()) != 0 {
            return Err(Reason::SwitchedOff);
        }
        let Some(breaker) = self.breaker(module) else { return Ok(Admission::Plain) };
        let admitted = breaker.admit(now()).ok_or(Reason::BreakerOpen);
        self.note_attention(module, breaker);
        admitted
    }

    fn note_attention(&self, module: Module, breaker: &Breaker) {
        if breaker.needs_attention() {
            self.flags.fetch_or(attention(module), Relaxed);
            return;
        }
        self.flags.fetch_and(!attention(module), Relaxed);
        // Another thread may have seen a failure in between.
        if breaker.needs_attention() {
            self.flags.fetch_or(attention(module), Relaxed);
        }
    }

    fn switch_off(&self, off: u32) {
        let set = |flags: u64| Some((flags & !u64::from(u32::MAX)) | u64::from(off));
        // A closure that always gives a value cannot fail.
        crate::ignore(self.flags.fetch_update(Relaxed, Relaxed, set));
    }
}

fn attention(module: Module) -> u64 {
    u64::from(module.bit()) << 32
}

/// A module that is passed over at a site by its breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// The module.
    pub module: Module,
    /// The site.
    pub site: Arc<str>,
    /// How it stands.
    pub standing: Standing,
}

impl Default for Modules {
    fn default() -> Self {
        let (news, told) = mpsc::sync_channel(NEWS);
        Self {
            origin: Instant::now(),
            sites: Mutex::new(Sites {
                by_name: BTreeMap::new(),
                others: SiteModules::new("other".into(), 0, 0),
                switches: Vec::new(),
                next: 1,
            }),
            news,
            told: Mutex::new(Some(told)),
            lost: AtomicU64::new(0),
            failed: std::array::from_fn(|_| AtomicU64::new(0)),
            open: std::array::from_fn(|_| AtomicU32::new(0)),
            rules_off: ArcSwap::default(),
        }
    }
}

impl Modules {
    fn sites(&self) -> MutexGuard<'_, Sites> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment as breakers count them.
    pub fn moment(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }

    /// The state of a site's modules: the same as before if a site of this name has been there.
    pub fn site(&self, name: &Arc<str>) -> Arc<SiteModules> {
        let mut sites = self.sites();
        if let Some(known) = sites.by_name.get(name) {
            return known.clone();
        }
        if sites.by_name.len() >= MAX_SITES {
            // Sites that no generation has any more, and where nothing was ever wrong.
            sites.by_name.retain(|_, site| Arc::strong_count(site) > 1 || site.touched.load(Relaxed));
        }
        if sites.by_name.len() >= MAX_SITES {
            return sites.others.clone();
        }
        let made = SiteModules::new(name.clone(), sites.next, off_at(&sites.switches, name));
        sites.next += 1;
        sites.by_name.insert(name.clone(), made.clone());
        made
    }

    /// Switches these off, and nothing else. Does not wait for any request: they look with their next call.
    pub fn set_switches(&self, switches: Vec<Switch>) {
        let mut sites = self.sites();
        for site in sites.by_name.values() {
            site.switch_off(off_at(&switches, &site.name));
        }
        sites.others.switch_off(off_at(&switches, &sites.others.name));
        let rules = switches.iter().filter_map(|switch| {
            let id = Module::rule_of(&switch.module)?.to_owned();
            Some(RuleOff { id, site: switch.site.clone() })
        });
        self.rules_off.store(Arc::new(rules.collect()));
        sites.switches = switches;
    }

    /// Rules and rulesets that are switched off at a site.
    pub fn rules_off<'s>(&self, site: &'s str) -> RulesOff<'s> {
        RulesOff { all: self.rules_off.load(), site }
    }

    /// What is switched off.
    pub fn switches(&self) -> Vec<Switch> {
        self.sites().switches.clone()
    }

    /// Takes the result of a call that was not plain, or failed; answers what changed.
    pub fn settle(
        &self,
        module: Module,
        site: &SiteModules,
        admission: Admission,
        failed: bool,
        now: u64,
    ) -> Option<Change> {
        if failed && let Some(count) = self.failed.get(module.index()) {
            count.fetch_add(1, Relaxed);
            site.touched.store(true, Relaxed);
        }
        #[cfg(feature = "faults")]
        if crate::fault::without("breaker") {
            return None;
        }
        let breaker = site.breaker(module)?;
        let change = breaker.settle(admission, failed, now);
        site.note_attention(module, breaker);
        match change {
            Some(Change::Opened) => self.count_open(module, true),
            Some(Change::Closed) => self.count_open(module, false),
            None => {}
        }
        change
    }

    /// Closes a breaker that has just opened, because what made it open is gone.
    pub fn forgive(&self, module: Module, site: &SiteModules) {
        if let Some(breaker) = site.breaker(module) {
            breaker.close();
            site.note_attention(module, breaker);
            self.count_open(module, false);
        }
    }

    /// Opens the breakers of what a thread of this process hangs in, or one of a process before it. Sites are known by name even
    /// before a generation has them.
    pub fn suspect(&self, suspects: &[Suspect], at: Timestamp) {
        for suspect in suspects {
            let Some(module) = Module::by_name(&suspect.module) else { continue };
            let site = self.site(&Arc::from(suspect.site.as_str()));
            let Some(breaker) = site.breaker(module) else { continue };
            let was_open = breaker.standing(0).is_some();
            breaker.suspect(suspect.times, self.moment(Instant::now()));
            site.touched.store(true, Relaxed);
            site.note_attention(module, breaker);
            if !was_open {
                self.count_open(module, true);
                self.tell(revert::passed_over(module, &site, revert::HUNG, at));
            }
        }
    }

    fn count_open(&self, module: Module, opens: bool) {
        if let Some(open) = self.open.get(module.index()) {
            // Wraps only for the moment in which two threads count in the wrong order.
            let _before = if opens { open.fetch_add(1, Relaxed) } else { open.fetch_sub(1, Relaxed) };
        }
    }

    /// Open breakers, at most so many.
    pub fn open_breakers(&self, limit: usize) -> Vec<OpenBreaker> {
        let now = self.moment(Instant::now());
        let sites = self.sites();
        let each = sites.by_name.values().chain([&sites.others]).flat_map(|site| {
            Module::ALL.into_iter().filter_map(|module| {
                let standing = site.breaker(module)?.standing(now)?;
                Some(OpenBreaker { module, site: site.name.clone(), standing })
            })
        });
        each.take(limit).collect()
    }

    /// Open breakers of a module.
    pub fn open_count(&self, module: Module) -> u32 {
        // Below zero for a moment is none.
        let open = self.open.get(module.index()).map_or(0, |open| open.load(Relaxed));
        if open > u32::MAX / 2 { 0 } else { open }
    }

    /// Modules that have failed since the process started, with how often.
    pub fn failures(&self) -> Vec<(Module, u64)> {
        let counts = Module::ALL.into_iter().zip(&self.failed);
        counts.map(|(module, count)| (module, count.load(Relaxed))).filter(|(_, count)| *count > 0).collect()
    }

    /// Tells what happened. Never waits: what there is no room for is counted.
    pub fn tell(&self, happening: Happening) {
        if self.news.try_send(happening).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Happenings there was no room for.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Where what happened is read; only the first time.
    pub fn news(&self) -> Option<Receiver<Happening>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The name of a site by its number.
    pub fn site_name(&self, number: u32) -> Option<Arc<str>> {
        let sites = self.sites();
        let found = sites.by_name.values().chain([&sites.others]).find(|site| site.number == number);
        found.map(|site| site.name.clone())
    }
}

/// The modules that are off at a site.
fn off_at(switches: &[Switch], site: &str) -> u32 {
    let here = |switch: &&Switch| switch.site.as_deref().is_none_or(|name| name == site);
    let modules = switches.iter().filter(here).filter_map(|switch| Module::by_name(&switch.module));
    modules.fold(0, |off, module| off | module.bit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(module: &str, site: Option<&str>) -> Switch {
        Switch {
            module: module.to_owned(),
            site: site.map(str::to_owned),
            since: Timestamp(0),
            by: "root".to_owned(),
            reason: "test".to_owned(),
        }
    }

    #[test]
    fn switches_hold_where_they_were_thrown_and_for_sites_that_come_later() {
        let modules = Modules::default();
        let a = modules.site(&"a".into());
        let admits = |site: &SiteModules, module| site.admit(module, || 0).is_ok();
        modules.set_switches(vec![
            switch("waf", Some("a")),
            switch("request-policy", None),
            switch("new", None),
        ]);
        let b = modules.site(&"b".into());
        for (site, module, expected) in [
            (&a, Module::Waf, false),
            (&b, Module::Waf, true),
            (&a, Module::RequestPolicy, false),
            (&b, Module::RequestPolicy, false),
            (&a, Module::Trial, true),
        ] {
            assert_eq!(admits(site, module), expected, "{module} at {}", site.name);
        }
        modules.set_switches(vec![switch("waf", Some("b"))]);
        assert!(admits(&a, Module::Waf) && admits(&a, Module::RequestPolicy) && !admits(&b, Module::Waf));
        assert_eq!(a.admit(Module::Trial, || 0), Ok(Admission::Plain));
    }

    #[test]
    fn a_breaker_is_of_one_module_at_one_site_and_outlives_generations() {
        let modules = Modules::default();
        let (a, b) = (modules.site(&"a".into()), modules.site(&"b".into()));
        let fail = |site: &SiteModules| {
            let admission = site.admit(Module::Trial, || 0).unwrap();
            modules.settle(Module::Trial, site, admission, true, 0)
        };
        assert_eq!((0..5).filter_map(|_| fail(&a)).collect::<Vec<_>>(), [Change::Opened]);
        assert_eq!(a.admit(Module::Trial, || 0), Err(Reason::BreakerOpen));
        assert_eq!(modules.site(&"a".into()).admit(Module::Trial, || 0), Err(Reason::BreakerOpen));
        assert_eq!(b.admit(Module::Trial, || 0), Ok(Admission::Plain));
        assert_eq!(a.admit(Module::Waf, || 0), Ok(Admission::Plain));
        assert_eq!((modules.open_count(Module::Trial), modules.open_breakers(9).len()), (1, 1));
        assert_eq!(modules.failures(), [(Module::Trial, 5)]);
        modules.forgive(Module::Trial, &a);
        assert_eq!(a.admit(Module::Trial, || 0), Ok(Admission::Plain));
        assert_eq!((modules.open_count(Module::Trial), modules.open_breakers(9).len()), (0, 0));
    }

    #[test]
    fn suspects_are_passed_over_from_the_first_request_on() {
        let modules = Modules::default();
        let suspect = Suspect { module: "trial".to_owned(), site: "a".to_owned(), times: 1 };
        modules.suspect(
            &[suspect.clone(), Suspect { module: "unheard-of".to_owned(), ..suspect }],
            Timestamp(0),
        );
        assert_eq!(modules.news().unwrap().try_iter().count(), 1);
        let site = modules.site(&"a".into());
        assert_eq!(site.admit(Module::Trial, || 0), Err(Reason::BreakerOpen));
        assert!(modules.open_breakers(9)[0].standing.suspect);
    }

    #[test]
    fn beyond_the_limit_sites_share_and_those_that_are_gone_make_room() {
        let modules = Modules::default();
        let name = |number: usize| Arc::from(format!("site-{number}"));
        let held: Vec<_> = (0..MAX_SITES).map(|number| modules.site(&name(number))).collect();
        assert_eq!(&*modules.site(&name(MAX_SITES)).name, "other");
        drop(held);
        assert_eq!(modules.site(&name(MAX_SITES)).name, name(MAX_SITES));
    }

    #[test]
    fn news_never_waits() {
        let modules = Modules::default();
        let happening = Happening::new(
            Timestamp(0),
            base::happening::What::BreakerOpened,
            base::happening::Severity::Warning,
            base::happening::Component::Modules,
            "x",
            String::new(),
        );
        (0..NEWS + 3).for_each(|_| modules.tell(happening.clone()));
        assert_eq!(modules.lost(), 3);
        assert_eq!(modules.news().unwrap().try_iter().count(), NEWS);
        assert!(modules.news().is_none());
    }
}
