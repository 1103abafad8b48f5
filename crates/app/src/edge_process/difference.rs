//! What a new configuration takes away, compared with the one in force, and what it takes of this machine: more than a change
//! may is refused, the former unless it was forced.

use std::fs::File;

use api::diagnostic::{Diagnostic, Severity};
use snapshot::Mode;
use snapshot::generation::Snapshot;
use snapshot::kind::{Class, difference, over_budget, site_config};
use snapshot::source::SourceTree;

use super::describe;
use crate::builder::now;
use crate::package::{self, Sources};

/// Refuses what takes away more than one change may.
pub fn judge(before: &File, after: &Snapshot) -> Result<(), Vec<Diagnostic>> {
    let findings = over_budget(&difference(&classes(before), &site_config::classes(after)));
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// Refuses what would hold more of visitors' bodies than there is memory for, with as many threads as this machine makes of it.
pub fn preflight(after: &Snapshot) -> Result<(), Vec<Diagnostic>> {
    let Some(memory) = edge::pressure::memory_limit(after.limits.memory) else { return Ok(()) };
    let threads = describe::threads(after);
    let sites = after.sites.iter().filter(|site| site.rules.reads_body);
    let judged = sites
        .map(|site| (after.limits.inspected_bytes(threads, site.limits.inspect_body), site.name.to_string()));
    let Some((wanted, site)) = judged.max().filter(|(wanted, _)| *wanted > memory) else { return Ok(()) };
    let mebibytes = |bytes: u64| bytes >> 20;
    Err(vec![Diagnostic {
        severity: Severity::Error,
        code: "inspect-memory".to_owned(),
        message: format!(
            "bodies that rules of the site {site:?} look into take up to {} MiB with {threads} threads, and this process may \
             use {} MiB",
            mebibytes(wanted),
            mebibytes(memory)
        ),
        location: None,
        hint: Some(
            "make limits.threads, limits.connections or the site's limits.inspect_body smaller, or limits.memory larger"
                .to_owned(),
        ),
    }])
}

/// What the configuration in force has. One that says nothing any more, such as the built-in defaults, has nothing to lose.
fn classes(package: &File) -> Vec<Class> {
    let Ok((_, Sources { file, text, tree })) = package::read(package) else { return Vec::new() };
    let compile = |tree: &SourceTree| {
        let input = snapshot::Input { file: &file, text: &text, tree };
        snapshot::compile(input, now(), Mode::Stored).snapshot
    };
    compile(&tree).map(|snapshot| site_config::classes(&snapshot)).unwrap_or_default()
}
