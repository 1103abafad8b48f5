//! `cargo xtask conformance`: protocol suites nobody here wrote, against the release binary, a peer and a control.

mod h2spec;
mod http11;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::peers::{self, Name, Place, Server};
use crate::shell::{Workspace, output, today};
use crate::{report, setup};

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Run only this suite, and write nothing
    #[arg(long)]
    only: Option<Suite>,
}

/// A foreign suite.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// HTTP/2 framing, streams and HPACK
    H2spec,
    /// HTTP/1.1 strictness and request smuggling
    Http11,
}

impl Suite {
    fn run(self, place: &Place, suites: &std::path::Path) -> Result<Vec<Score>> {
        match self {
            Self::H2spec => h2spec::run(place),
            Self::Http11 => http11::run(place, suites),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::H2spec => "HTTP/2: h2spec",
            Self::Http11 => "HTTP/1.1: strictness and smuggling",
        }
    }
}

/// What one target made of one suite.
struct Score {
    target: String,
    /// Label and count, in the order they are shown.
    counts: Vec<(&'static str, usize)>,
    /// One line for each case that did not pass.
    misses: Vec<String>,
    /// Whether the target is there to prove that the suite can fail.
    control: bool,
}

impl Score {
    fn passed(&self) -> usize {
        self.counts.first().map_or(0, |(_, count)| *count)
    }
}

/// Runs the suites, prints the tables, writes docs/conformance.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let suites = suites_folder(workspace)?;
    setup::debian(setup::CONFORMANCE)?;
    workspace.build_release()?;
    let place = Place { workspace, folder: workspace.target.join("conformance"), cores: None };
    let commit = output(workspace.command("git").args(["describe", "--always", "--dirty"]))?;
    let mut section = format!("Measured on {} at commit {}.\n", today()?, commit.trim());
    let chosen: Vec<Suite> =
        options.only.map_or_else(|| Suite::value_variants().to_vec(), |suite| vec![suite]);
    for suite in chosen {
        peers::prepare(workspace, &place.folder)?;
        let scores = suite.run(&place, &suites)?;
        believable(suite, &scores)?;
        section.push_str(&markdown(suite.title(), &scores));
    }
    println!("{section}");
    if options.only.is_some() {
        return Ok(());
    }
    report::write_section(&workspace.root.join("docs/conformance.md"), &section)
}

/// Where the suites lie; they are other projects' data and never copied into this repository.
fn suites_folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = match std::env::var_os("REMPART_SUITES") {
        Some(folder) => PathBuf::from(folder),
        None => workspace.root.join("../shared/suites"),
    };
    if !folder.join("http11/cases.json").is_file() {
        bail!("no suites in {}; say where they are with REMPART_SUITES", folder.display());
    }
    Ok(folder)
}

/// A suite that a target without any of the tested behaviour passes as well as Rempart proves nothing.
fn believable(suite: Suite, scores: &[Score]) -> Result<()> {
    let ours = scores.iter().find(|score| score.target == Name::Rempart.shown()).map_or(0, Score::passed);
    for control in scores.iter().filter(|score| score.control) {
        if control.passed() >= ours {
            bail!("{}: the control passes {} cases, Rempart {ours}", suite.title(), control.passed());
        }
    }
    Ok(())
}

fn markdown(title: &str, scores: &[Score]) -> String {
    let mut text = format!("\n## {title}\n\n");
    let Some(first) = scores.first() else { return text };
    let labels: Vec<&str> = first.counts.iter().map(|(label, _)| *label).collect();
    text.push_str(&format!("| target | {} |\n|---|{}\n", labels.join(" | "), "---|".repeat(labels.len())));
    for score in scores {
        let counts: Vec<String> = score.counts.iter().map(|(_, count)| count.to_string()).collect();
        text.push_str(&format!("| {} | {} |\n", score.target, counts.join(" | ")));
    }
    let ours = scores.iter().filter(|score| score.target == Name::Rempart.shown());
    let misses: Vec<&str> = ours.flat_map(|score| &score.misses).map(String::as_str).collect();
    if misses.is_empty() {
        text.push_str("\nRempart misses none.\n");
    } else {
        text.push_str(&format!("\nWhat Rempart does not pass:\n\n- {}\n", misses.join("\n- ")));
    }
    text
}

/// Starts Rempart in front of an origin on this port.
fn rempart(place: &Place, origin_port: u16) -> Result<Server> {
    Server::start(place, Name::Rempart, origin_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(target: &str, passed: usize, control: bool) -> Score {
        let misses = vec!["RFC 9113 5.1: DATA on an idle stream".to_owned()];
        Score { target: target.to_owned(), counts: vec![("passed", passed), ("failed", 1)], misses, control }
    }

    #[test]
    fn a_control_must_score_worse() {
        let good = [score("Rempart", 140, false), score("silence", 3, true)];
        assert!(believable(Suite::H2spec, &good).is_ok());
        let bad = [score("Rempart", 140, false), score("silence", 140, true)];
        assert!(believable(Suite::H2spec, &bad).is_err());
    }

    #[test]
    fn only_our_misses_are_listed() {
        let text = markdown("Suite", &[score("Rempart", 140, false), score("nginx", 115, false)]);
        assert!(text.contains("| nginx | 115 | 1 |"), "{text}");
        assert_eq!(text.matches("idle stream").count(), 1, "{text}");
    }
}
