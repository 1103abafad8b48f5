//! `rempart drill`: plays drills against this very binary, prints the verdicts, keeps the reports.

use anyhow::{Context as _, bail};
use drills::verdict::{Assertion, Run};
use drills::{Control, Drill, Options, report};
use serde_json::json;

use crate::cli::DrillArguments;
use crate::report::Terminal;
use crate::{EXIT_OK, EXIT_REFUSED};

/// Whether this binary knows planted faults.
const FAULTY: bool = cfg!(feature = "faults");

/// Plays what was asked for.
pub fn drill(arguments: &DrillArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let program = std::env::current_exe().context("the file of this program cannot be found")?;
    let (rate, factor) = (arguments.rate, arguments.factor);
    let options = Options { program, faulty: FAULTY, rate, factor };
    let wanted = match wanted(arguments)? {
        wanted if wanted.is_empty() => {
            list(&options, terminal);
            return Ok(EXIT_OK);
        }
        wanted => wanted,
    };
    if !FAULTY && (arguments.controls || arguments.without.is_some()) {
        bail!(
            "this binary cannot leave out a safeguard, so that nobody can make it; use the one built with \
             `cargo build --package app --features faults --bin rempart-faulty`"
        );
    }
    let mut runs = Vec::new();
    for drill in &wanted {
        if let Some(obstacle) = drill.obstacle(&options) {
            // Asked for by name, it is a failure that it cannot be played; among all, it is said.
            if !arguments.all {
                bail!("drill {} cannot be played: {obstacle}", drill.number);
            }
            terminal.complain(&format!("drill {} {} is NOT played: {obstacle}", drill.number, drill.name));
            continue;
        }
        for control in played(drill, arguments)? {
            if !terminal.json {
                let without =
                    control.map_or_else(String::new, |control| format!(" without {}", control.without));
                terminal.complain(&format!("playing drill {}{without} ...", drill.number));
            }
            let run = drill.play(&options, control);
            if !terminal.json {
                terminal.print(&told(&run));
            }
            runs.push(run);
        }
    }
    if let Some(folder) = &arguments.report {
        report::write(folder, &runs)?;
    }
    if terminal.json {
        terminal.print_json(&runs);
    }
    let fine = !runs.is_empty() && runs.iter().all(Run::is_as_it_should_be);
    Ok(if fine { EXIT_OK } else { EXIT_REFUSED })
}

fn wanted(arguments: &DrillArguments) -> anyhow::Result<Vec<&'static Drill>> {
    if arguments.all {
        return Ok(drills::all().to_vec());
    }
    let find = |which: &String| {
        drills::find(which)
            .with_context(|| format!("there is no drill {which:?}; `rempart drill --list` shows them"))
    };
    let mut wanted = arguments.which.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
    wanted.sort_by_key(|drill| drill.number);
    wanted.dedup_by_key(|drill| drill.number);
    Ok(wanted)
}

/// How often a drill is played: with every safeguard, without one, or both.
fn played(
    drill: &'static Drill,
    arguments: &DrillArguments,
) -> anyhow::Result<Vec<Option<&'static Control>>> {
    let known = || drill.controls.iter().map(|control| control.without).collect::<Vec<_>>().join(", ");
    Ok(match &arguments.without {
        None if arguments.controls => std::iter::once(None).chain(drill.controls.iter().map(Some)).collect(),
        None => vec![None],
        Some(without) => match drill.control(without) {
            Some(control) => vec![Some(control)],
            None => bail!("drill {} has no safeguard {without:?}; it has: {}", drill.number, known()),
        },
    })
}

fn list(options: &Options, terminal: &Terminal) {
    if terminal.json {
        let each = drills::all().iter().map(|drill| {
            let safeguards: Vec<_> = drill.controls.iter().map(|control| control.without).collect();
            json!({
                "number": drill.number, "name": drill.name, "title": drill.title, "outage": drill.outage,
                "story": drill.story, "safeguards": safeguards, "obstacle": drill.obstacle(options),
            })
        });
        return terminal.print_json(&each.collect::<Vec<_>>());
    }
    let mut text = String::new();
    for drill in drills::all() {
        text += &format!("{:>3}  {:<20} {} ({})\n", drill.number, drill.name, drill.title, drill.outage);
        if let Some(obstacle) = drill.obstacle(options) {
            text += &format!("     cannot be played here: {obstacle}\n");
        }
    }
    terminal.print(&text);
}

/// One run as a table.
fn told(run: &Run) -> String {
    let without = run.without.map_or_else(String::new, |(name, _)| format!(" WITHOUT {name}"));
    let mut text = format!(
        "drill {} {}{without}: {} ({:.0} s)\n",
        run.number,
        run.title,
        report::outcome(run),
        run.seconds
    );
    for Assertion { claim, limit, measured, passed, .. } in &run.assertions {
        let mark = if *passed { "held  " } else { "FAILED" };
        text += &format!("  {mark}  {claim}: {measured} (limit {limit})\n");
    }
    for figure in &run.figures {
        text += &format!("          {}: {}\n", figure.name, figure.value);
    }
    text
}
