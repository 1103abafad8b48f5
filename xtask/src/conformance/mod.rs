//! `cargo xtask conformance`: protocol suites nobody here wrote, against the release binary, a peer and a control.

mod damage;
mod differences;
mod h2spec;
mod http11;
mod lax;
mod reading;
mod tls;
mod vectors;

use std::path::{Path, PathBuf};

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
    /// Does the origin see the requests that were sent
    Requests,
    /// Does the client see the responses that were sent
    Responses,
    /// TLS against Mozilla's intermediate recommendation
    Tls,
}

impl Suite {
    fn run(self, place: &Place, suites: &Path) -> Result<Vec<Score>> {
        match self {
            Self::H2spec => h2spec::run(place),
            Self::Http11 => http11::run(place, suites),
            Self::Requests => differences::requests(place, &request_vectors(suites)?, true),
            Self::Responses => differences::responses(place, &vectors::llhttp_responses(suites)?, true),
            Self::Tls => tls::run(place),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::H2spec => "HTTP/2: h2spec",
            Self::Http11 => "HTTP/1.1: strictness and smuggling",
            Self::Requests => "Requests the origin sees differently",
            Self::Responses => "Responses the client sees differently",
            Self::Tls => "TLS: sslyze",
        }
    }
}

/// Every message that is tried as a request, from both sources.
fn request_vectors(suites: &Path) -> Result<Vec<vectors::Vector>> {
    Ok([vectors::probe(suites)?, vectors::llhttp_requests(suites)?].concat())
}

/// Names another seed for the changed vectors, for who wants to try more.
const SEED: &str = "REMPART_SEED";

/// Changed vectors that CI tries beside the ones as they are, of requests and of responses, and what they are made from.
const CHANGED: (usize, usize, u64) = (800, 400, 9112);

/// With the vectors as they are, as many changed ones.
fn and_changed(vectors: Vec<vectors::Vector>, count: usize, seed: u64) -> Vec<vectors::Vector> {
    let changed = damage::damaged(&vectors, count, seed);
    [vectors, changed].concat()
}

/// What CI asks: no request and no response of the foreign vectors comes out as another one.
pub fn differences(workspace: &Workspace) -> Result<()> {
    let suites = suites_folder(workspace)?;
    let place = Place { workspace, folder: workspace.target.join("differences"), cores: None };
    peers::prepare(workspace, &place.folder)?;
    let (request_count, response_count, fixed) = CHANGED;
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(fixed);
    let requests = and_changed(request_vectors(&suites)?, request_count, seed);
    let responses = and_changed(vectors::llhttp_responses(&suites)?, response_count, seed);
    let mut defects = Vec::new();
    for (suite, scores) in [
        (Suite::Requests, differences::requests(&place, &requests, false)?),
        (Suite::Responses, differences::responses(&place, &responses, false)?),
    ] {
        believable(suite, &scores)?;
        println!("{}", markdown(suite.title(), &scores));
        defects.extend(found_defects(suite, &scores));
    }
    if defects.is_empty() { Ok(()) } else { bail!("{}", defects.join("; ")) }
}

/// What of Rempart's score may not be, whatever the reason.
fn found_defects(suite: Suite, scores: &[Score]) -> Option<String> {
    let ours = scores.iter().find(|score| score.target == Name::Rempart.shown());
    ours.filter(|score| score.defects > 0)
        .map(|score| format!("{}: {} defects", suite.title(), score.defects))
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
    /// Cases that no explanation excuses; one of Rempart's fails the command.
    defects: usize,
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
    let mut defects = Vec::new();
    for suite in chosen {
        peers::prepare(workspace, &place.folder)?;
        let scores = suite.run(&place, &suites)?;
        believable(suite, &scores)?;
        defects.extend(found_defects(suite, &scores));
        section.push_str(&markdown(suite.title(), &scores));
    }
    println!("{section}");
    if options.only.is_none() {
        report::write_section(&workspace.root.join("docs/conformance.md"), &section)?;
    }
    if defects.is_empty() { Ok(()) } else { bail!("{}", defects.join("; ")) }
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
        Score {
            target: target.to_owned(),
            counts: vec![("passed", passed), ("failed", 1)],
            misses,
            control,
            defects: 0,
        }
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
