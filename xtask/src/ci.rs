//! `cargo xtask ci`: the stages a change must pass, in order, each with its budget in minutes.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::shell::{Workspace, logged};
use crate::{conformance, docs, licences, setup, walls};

/// A stage that takes this many times its budget is stopped, unless somebody sits at a terminal and can do that.
const LIMIT_BUDGETS: u32 = 3;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Run only these stages
    #[arg(long, value_name = "STAGE", value_parser = stage_names())]
    only: Vec<String>,
    /// Leave these stages out
    #[arg(long, value_name = "STAGE", value_parser = stage_names())]
    skip: Vec<String>,
}

fn stage_names() -> Vec<&'static str> {
    STAGES.iter().map(|stage| stage.name).collect()
}

/// One stage.
struct Stage {
    name: &'static str,
    /// What it proves, one clause.
    what: &'static str,
    /// Minutes it may take from a cold cache on two cores; being over is reported, not failed.
    budget_minutes: u32,
    /// Stages that must not have failed before.
    needs: &'static [&'static str],
    run: fn(&Runner) -> Result<()>,
}

/// All stages, in order: cheap ones first, so that a small mistake is told early.
const STAGES: &[Stage] = &[
    Stage {
        name: "setup",
        what: "tools of the tests",
        budget_minutes: 6,
        needs: &[],
        run: |r| setup::run(r.workspace),
    },
    Stage {
        name: "fmt",
        what: "formatting",
        budget_minutes: 1,
        needs: &[],
        run: |r| r.cargo(&["fmt", "--all", "--check"]),
    },
    Stage {
        name: "walls",
        what: "crate walls, files",
        budget_minutes: 1,
        needs: &[],
        run: |r| walls::run(r.workspace),
    },
    Stage {
        name: "licences",
        what: "licences, bans, registries",
        budget_minutes: 1,
        needs: &[],
        run: |r| licences::run(r.workspace),
    },
    Stage { name: "clippy", what: "lints, all targets", budget_minutes: 8, needs: &[], run: clippy },
    Stage { name: "docs", what: "rustdoc without warnings", budget_minutes: 3, needs: &[], run: rustdoc },
    Stage { name: "unit", what: "tests of every crate", budget_minutes: 12, needs: &[], run: unit },
    Stage { name: "build", what: "release binary", budget_minutes: 10, needs: &[], run: build },
    Stage {
        name: "reference",
        what: "docs/reference/ is what the binary says",
        budget_minutes: 1,
        needs: &["build"],
        run: |r| docs::check(r.workspace),
    },
    Stage {
        name: "strictness",
        what: "foreign HTTP/1.1 vectors come out as they went in",
        budget_minutes: 1,
        needs: &["setup", "build"],
        run: |r| conformance::differences(r.workspace),
    },
    Stage {
        name: "e2e",
        what: "the binary against real servers and clients",
        budget_minutes: 15,
        needs: &["setup", "build"],
        run: end_to_end,
    },
];

/// Runs programs for the stage at hand.
struct Runner<'a> {
    workspace: &'a Workspace,
    log: PathBuf,
    limit: Option<Duration>,
}

impl Runner<'_> {
    fn cargo(&self, arguments: &[&str]) -> Result<()> {
        logged(&mut self.workspace.cargo(arguments), &self.log, self.limit, worth_showing)
    }
}

/// Test totals stay visible when a stage passes: people and CI count them.
fn worth_showing(line: &str) -> bool {
    line.starts_with("test result:")
}

fn clippy(runner: &Runner) -> Result<()> {
    runner.cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

fn rustdoc(runner: &Runner) -> Result<()> {
    let mut command =
        runner.workspace.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    // Private items are documented for developers, so links to them are wanted.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    logged(&mut command, &runner.log, runner.limit, worth_showing)
}

fn unit(runner: &Runner) -> Result<()> {
    runner.cargo(&["test", "--workspace", "--exclude", "e2e", "--locked", "--no-fail-fast"])?;
    // What the faults do is only there with them.
    runner.cargo(&["test", "--package", "edge", "--features", "faults", "--test", "rehearsal", "--locked"])
}

fn build(runner: &Runner) -> Result<()> {
    runner.cargo(&["build", "--release", "--locked", "--package", "app"])
}

fn end_to_end(runner: &Runner) -> Result<()> {
    runner.cargo(&["test", "--package", "e2e", "--locked", "--no-fail-fast"])
}

/// How a stage ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Over,
    Failed,
    NotRun,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Over => "ok, over budget",
            Self::Failed => "FAILED",
            Self::NotRun => "not run: a stage it needs failed",
        }
    }
}

/// Runs the chosen stages; a failure does not keep later, independent stages from running.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let chosen = STAGES.iter().filter(|stage| {
        let named = |list: &[String]| list.iter().any(|name| name == stage.name);
        (options.only.is_empty() || named(&options.only)) && !named(&options.skip)
    });
    let mut results: Vec<(&Stage, Duration, Outcome)> = Vec::new();
    let mut outcomes: HashMap<&str, Outcome> = HashMap::new();
    for stage in chosen {
        let blocked = stage
            .needs
            .iter()
            .any(|need| matches!(outcomes.get(need), Some(Outcome::Failed | Outcome::NotRun)));
        let (time, outcome) =
            if blocked { (Duration::ZERO, Outcome::NotRun) } else { run_stage(workspace, stage)? };
        outcomes.insert(stage.name, outcome);
        results.push((stage, time, outcome));
    }
    summary(&results);
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, _, outcome)| matches!(outcome, Outcome::Failed | Outcome::NotRun))
        .map(|(stage, _, _)| stage.name)
        .collect();
    if results.is_empty() {
        bail!("no stage was chosen");
    }
    if !failed.is_empty() {
        bail!("ci failed in: {}", failed.join(", "));
    }
    Ok(())
}

fn run_stage(workspace: &Workspace, stage: &Stage) -> Result<(Duration, Outcome)> {
    println!("== {} ({}; budget {} min)", stage.name, stage.what, stage.budget_minutes);
    let budget = Duration::from_secs(60) * stage.budget_minutes;
    let log = workspace.target.join("ci").join(format!("{}.log", stage.name));
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let limit = (!std::io::stdin().is_terminal()).then_some(budget * LIMIT_BUDGETS);
    let started = Instant::now();
    let result = (stage.run)(&Runner { workspace, log, limit });
    let time = started.elapsed();
    let outcome = match result {
        Ok(()) if time > budget => Outcome::Over,
        Ok(()) => Outcome::Ok,
        Err(error) => {
            println!("    {error:#}");
            Outcome::Failed
        }
    };
    println!("== {}: {} after {:.1} s", stage.name, outcome.word(), time.as_secs_f64());
    Ok((time, outcome))
}

fn summary(results: &[(&Stage, Duration, Outcome)]) {
    println!("\nstage        seconds   budget");
    for (stage, time, outcome) in results {
        let budget = stage.budget_minutes * 60;
        println!("{:<10} {:>9.1} {:>8}  {}", stage.name, time.as_secs_f64(), budget, outcome.word());
    }
    let seconds: f64 = results.iter().map(|(_, time, _)| time.as_secs_f64()).sum();
    let budget: u32 = results.iter().map(|(stage, _, _)| stage.budget_minutes * 60).sum();
    println!("{:<10} {seconds:>9.1} {budget:>8}", "total");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_only_needs_stages_before_it() {
        for (position, stage) in STAGES.iter().enumerate() {
            for need in stage.needs {
                let found = STAGES.iter().position(|other| other.name == *need);
                assert!(found.is_some_and(|found| found < position), "{} needs {need}", stage.name);
            }
        }
    }

    #[test]
    fn budgets_stay_within_an_hour() {
        let minutes: u32 = STAGES.iter().map(|stage| stage.budget_minutes).sum();
        assert!(minutes <= 60, "{minutes} minutes");
    }
}
