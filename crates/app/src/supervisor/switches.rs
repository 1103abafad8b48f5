//! Kill switches: thrown by a signal, reset through the admin socket, kept in the state folder, given to every edge.
//!
//! Nothing here waits for requests: an edge takes the order on a thread that does not serve, and requests read one word.

use api::process::{Reply, Switch, Task};
use base::happening::{Component, Happening, Severity, What};
use base::module::Module;

use super::Supervisor;
use super::child::Child;
use super::fleet::SMALL;
use crate::builder::now;

/// Switches kept; a site and a module have one at most.
const MAX_SWITCHES: usize = 1024;

impl Supervisor {
    /// Switches a module off, everywhere or at one site; answers what was done, for a person.
    pub fn switch_off(
        &self,
        module: &str,
        site: Option<&str>,
        reason: &str,
        by: &str,
    ) -> Result<String, String> {
        let known = known(module)?;
        // An edge that does not answer is no reason not to switch anything off.
        if let (Some(site), Ok(edge)) = (site, self.edge_status()) {
            let sites = edge.sites;
            if !sites.iter().any(|known| known.name == site) {
                let names: Vec<_> = sites.iter().map(|site| site.name.as_str()).collect();
                return Err(format!("there is no site {site:?}; there are: {}", names.join(", ")));
            }
        }
        if let Some(id) = Module::rule_of(module) {
            self.check_rule(id, site)?;
        }
        let switch = Switch {
            module: module.to_owned(),
            site: site.map(str::to_owned),
            since: now(),
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        self.set_switches(|switches| {
            switches.retain(|other| !same(other, &switch));
            if switches.len() >= MAX_SWITCHES {
                return Err(
                    "there is no room for further switches; reset some with `rempart enable`".to_owned()
                );
            }
            switches.push(switch.clone());
            Ok(())
        })?;
        let meanwhile =
            known.map_or("requests pass as if it were not there", |known| known.failure_policy().describe());
        let message = format!("{module} is switched off {}: {reason}; {meanwhile}", place(site));
        self.tell_of_switch(What::SwitchThrown, Severity::Warning, &switch, by, &message);
        Ok(message)
    }

    /// A switch for what is not there would hold nothing back, and whoever threw it would think that it does.
    fn check_rule(&self, id: &str, site: Option<&str>) -> Result<(), String> {
        #[cfg(feature = "faults")]
        if edge::fault::without("switch-checks") {
            return Ok(());
        }
        let active = self.fleet().active.clone();
        let task = Task::Rule { id: id.to_owned(), site: site.map(str::to_owned) };
        // An edge that does not answer is no reason not to switch anything off.
        let answer = active.and_then(|active| active.ask(task, &[], SMALL).ok());
        let Some((Reply::Rule { known: false, similar }, _)) = answer else { return Ok(()) };
        let whose = site.map_or_else(|| "no site".to_owned(), |site| format!("the site {site} does not"));
        let verb = if site.is_some() { "have" } else { "has" };
        let way_out = if similar.is_empty() {
            "ids are those of `[[site.rules]]`, `[[rules]]` and `[[rulesets]]`".to_owned()
        } else {
            format!("similar: {}", similar.join(", "))
        };
        Err(format!("{whose} {verb} a rule or ruleset {id:?}, so nothing was switched off; {way_out}"))
    }

    /// Switches a module on again where it was switched off in these very words.
    pub fn switch_on(&self, module: &str, site: Option<&str>, by: &str) -> Result<String, String> {
        let mut found = None;
        self.set_switches(|switches| {
            let at = switches
                .iter()
                .position(|switch| switch.module == module && switch.site.as_deref() == site)
                .ok_or_else(|| {
                    let thrown: Vec<_> = switches.iter().map(describe).collect();
                    let thrown = if thrown.is_empty() { "none".to_owned() } else { thrown.join(", ") };
                    format!("{module} was not switched off {}; switched off are: {thrown}", place(site))
                })?;
            found = Some(switches.remove(at));
            Ok(())
        })?;
        let message = format!("{module} is switched on again {}", place(site));
        if let Some(switch) = &found {
            self.tell_of_switch(What::SwitchReset, Severity::Info, switch, by, &message);
        }
        Ok(message)
    }

    /// On disk first: what was switched off stays off, whatever ends.
    fn set_switches(
        &self,
        change: impl FnOnce(&mut Vec<Switch>) -> Result<(), String>,
    ) -> Result<(), String> {
        let edges: Vec<_> = {
            let mut fleet = self.fleet();
            let mut switches = fleet.switches.clone();
            change(&mut switches)?;
            if let Err(error) = self.state.keep_switches(&switches) {
                // The disk may be what is broken. The switch holds now; only a restart would lose it.
                tracing::error!(%error, "the switches could not be kept on disk");
            }
            fleet.switches = switches;
            let standby = fleet.standby.iter().map(|standby| &standby.child);
            fleet.active.iter().chain(standby).chain(&fleet.trial).cloned().collect()
        };
        let task = || Task::Switches { switches: self.fleet().switches.clone() };
        // Who does not answer is replaced, and its successor told before it serves.
        edges.iter().for_each(|edge| drop(edge.ask(task(), &[], SMALL)));
        Ok(())
    }

    fn tell_of_switch(&self, what: What, severity: Severity, switch: &Switch, by: &str, message: &str) {
        tracing::warn!(by, "{message}");
        let cause = switch.site.as_deref().unwrap_or("every site");
        let happening = Happening::new(now(), what, severity, Component::Modules, cause, message.to_owned());
        let happening = match &switch.site {
            Some(site) => happening.of_site(site.as_str()),
            None => happening,
        };
        self.journal.tell(happening.about(switch.module.as_str()).done_by(by));
    }

    /// Tells a process that is about to serve or to rehearse what it must not do: whom it turns away, which modules are off.
    pub fn tell_restrictions(&self, child: &Child) {
        let (bans, switches) = {
            let fleet = self.fleet();
            (fleet.bans.clone(), fleet.switches.clone())
        };
        if !bans.is_empty() {
            child.tell(Task::Bans { bans });
        }
        if !switches.is_empty() {
            child.tell(Task::Switches { switches });
        }
    }
}

/// The module of this name, if it can be switched off here; `None` for a rule or ruleset.
fn known(name: &str) -> Result<Option<Module>, String> {
    if name.starts_with("rule/") {
        return match Module::rule_of(name) {
            Some(_) => Ok(None),
            None => Err(format!("{name:?} names no rule: write rule/ and the id of a rule or a ruleset")),
        };
    }
    let trial = cfg!(feature = "faults").then_some(Module::Trial);
    let mut here = Module::BUILT_IN.into_iter().chain(trial);
    here.clone().find(|module| module.name() == name).map(Some).ok_or_else(|| {
        let names = here.by_ref().map(Module::name).collect::<Vec<_>>().join(", ");
        if Module::by_name(name).is_some() {
            format!("this version has no {name} yet; it has: {names}")
        } else {
            format!("there is no module {name:?}; there are: {names}")
        }
    })
}

fn same(one: &Switch, other: &Switch) -> bool {
    one.module == other.module && one.site == other.site
}

fn describe(switch: &Switch) -> String {
    format!("{} {}", switch.module, place(switch.site.as_deref()))
}

fn place(site: Option<&str>) -> String {
    site.map_or_else(|| "at every site".to_owned(), |site| format!("at {site}"))
}
