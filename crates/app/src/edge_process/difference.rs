//! What a new configuration takes away, compared with the one in force: more than a change may is refused unless it was forced.

use std::fs::File;

use api::diagnostic::Diagnostic;
use snapshot::Mode;
use snapshot::generation::Snapshot;
use snapshot::kind::{Class, difference, over_budget, site_config};
use snapshot::source::SourceTree;

use crate::builder::now;
use crate::package::{self, Sources};

/// Refuses what takes away more than one change may.
pub fn judge(before: &File, after: &Snapshot) -> Result<(), Vec<Diagnostic>> {
    let findings = over_budget(&difference(&classes(before), &site_config::classes(after)));
    if findings.is_empty() { Ok(()) } else { Err(findings) }
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
