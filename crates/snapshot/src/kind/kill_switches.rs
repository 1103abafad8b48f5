//! Kill switches: which modules are off, everywhere or at one site. JSON, an array of `api::process::Switch`.

use std::collections::BTreeSet;

use api::diagnostic::Diagnostic;
use api::process::Switch;
use base::module::Module;
use base::time::Timestamp;

use super::{Class, Content, Kind, OnFailure, Value, error};
use crate::package::Caps;

/// The kind.
pub struct KillSwitches;

impl Kind for KillSwitches {
    fn name(&self) -> &'static str {
        "kill-switches"
    }

    fn schema(&self) -> u32 {
        1
    }

    fn consumers(&self) -> (u32, u32) {
        (1, 1)
    }

    fn caps(&self) -> Caps {
        Caps { bytes: 1 << 20, entries: 10_000, memory: 4 << 20 }
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::LastGood
    }

    fn read(&self, payload: &[u8], _now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
        let switches: Vec<Switch> = serde_json::from_slice(payload).map_err(|found| {
            vec![error("not-json", format!("it is not a list of switches: {found}"), "have it made again")]
        })?;
        let mut keys = BTreeSet::new();
        for switch in &switches {
            // A blank is not "all": that is written as null.
            if switch.module.is_empty() || switch.site.as_deref() == Some("") {
                let message = "a switch without a module, or with a blank site".to_owned();
                return Err(vec![error(
                    "blank",
                    message,
                    "name the module, and the site or null for every one",
                )]);
            }
            // A switch that switches nothing off would be noticed in the middle of an incident.
            if Module::by_name(&switch.module).is_none() && Module::rule_of(&switch.module).is_none() {
                let message = format!("there is no module {:?}", switch.module);
                let names: Vec<_> = Module::ALL.iter().map(|module| module.name()).collect();
                let hint = format!("one of {}, or rule/ and the id of a rule", names.join(", "));
                return Err(vec![error("unknown-module", message, &hint)]);
            }
            let key = format!("{} at {}", switch.module, switch.site.as_deref().unwrap_or("every site"));
            if !keys.insert(key.clone()) {
                let message = format!("{key} is switched off twice");
                return Err(vec![error("duplicate-keys", message, "name each once")]);
            }
        }
        let memory = payload.len() as u64;
        // All of them may go at once: that is the normal end of an incident.
        let classes = vec![Class { name: "switches", keys, needed: false }];
        Ok(Content { classes, spreads: Vec::new(), memory, value: Value::Switches(switches) })
    }

    fn exercise(&self, _content: &Content) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}
