//! What is written about a benchmark: a table of medians, the losses, and the raw figures.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::Sample;
use super::cases::Case;
use super::statistics::{Median, median};
use crate::peers::Name;
use crate::shell::{Workspace, output};

/// The machine and the versions, as label and value.
pub type Facts = Vec<(String, String)>;

/// What one needs to know to compare the figures with others.
pub fn facts(workspace: &Workspace, names: &[Name]) -> Result<Facts> {
    let processor = fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name").map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned());
    let kernel = output(Command::new("uname").arg("-r"))?.trim().to_owned();
    let load = fs::read_to_string("/proc/loadavg")?.split_whitespace().next().unwrap_or_default().to_owned();
    let commit =
        output(workspace.command("git").args(["describe", "--always", "--dirty"]))?.trim().to_owned();
    let mut facts = vec![
        ("processor".to_owned(), processor),
        ("kernel".to_owned(), kernel),
        ("load average at the start".to_owned(), load),
        ("commit".to_owned(), commit),
    ];
    for name in names {
        facts.push((name.shown().to_owned(), name.version(workspace)?));
    }
    Ok(facts)
}

fn of<'a>(samples: &'a [Sample], case: &'a Case, name: Name) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(move |sample| sample.case == case.name && sample.server == name)
}

fn cpu(samples: &[Sample], case: &Case, name: Name) -> Option<Median> {
    median(&of(samples, case, name).map(Sample::cpu_micros).collect::<Vec<_>>())
}

/// The generated section of docs/benchmarks.md.
pub fn markdown(
    date: &str,
    facts: &Facts,
    cases: &[&Case],
    names: &[Name],
    samples: &[Sample],
    runs: usize,
) -> String {
    let mut text = format!("## {date}\n\n");
    for (label, value) in facts {
        text.push_str(&format!("- {label}: {value}\n"));
    }
    let bounded =
        cases.iter().filter_map(|case| cpu(samples, case, *names.first()?)).all(|median| median.bounds_95);
    let bounds = if bounded { "95 % bounds of the median" } else { "range: too few runs for bounds" };
    text.push_str(&format!("- raw figures: [benchmarks/{date}.json](benchmarks/{date}.json)\n\n"));
    text.push_str(&format!(
        "CPU µs per request, user + system; median of {runs} runs ({bounds}). Smaller is better.\n\n"
    ));
    text.push_str(&header(names));
    for case in cases {
        let row = names.iter().map(|&name| cpu(samples, case, name).map_or_else(|| "-".to_owned(), cell));
        text.push_str(&format!("| {} | {} |\n", case.name, row.collect::<Vec<_>>().join(" | ")));
    }
    text.push_str("\nRequests/s, median, and how busy the server's core was (load and origin share the other core).\n\n");
    text.push_str(&header(names));
    for case in cases {
        let row = names.iter().map(|&name| rate_cell(samples, case, name));
        text.push_str(&format!("| {} | {} |\n", case.name, row.collect::<Vec<_>>().join(" | ")));
    }
    text.push_str(&losses(cases, names, samples));
    text
}

fn header(names: &[Name]) -> String {
    let shown: Vec<&str> = names.iter().map(|name| name.shown()).collect();
    format!("| case | {} |\n|---|{}\n", shown.join(" | "), "---|".repeat(names.len()))
}

fn cell(median: Median) -> String {
    format!("{:.1} ({:.1}-{:.1})", median.median, median.low, median.high)
}

fn rate_cell(samples: &[Sample], case: &Case, name: Name) -> String {
    let rate = median(&of(samples, case, name).map(Sample::rate).collect::<Vec<_>>());
    let busy: Vec<f64> =
        of(samples, case, name).map(|sample| sample.cpu_seconds / sample.seconds * 100.0).collect();
    match (rate, median(&busy)) {
        (Some(rate), Some(busy)) => format!("{:.0} ({:.0} %)", rate.median, busy.median),
        _ => "-".to_owned(),
    }
}

/// Where a peer needs less, said in words so that nobody has to look for it.
fn losses(cases: &[&Case], names: &[Name], samples: &[Sample]) -> String {
    if !names.contains(&Name::Rempart) {
        return String::new();
    }
    let mut lines = Vec::new();
    for case in cases {
        let Some(ours) = cpu(samples, case, Name::Rempart) else { continue };
        for &peer in names.iter().filter(|name| **name != Name::Rempart) {
            let Some(theirs) = cpu(samples, case, peer) else { continue };
            if theirs.median < ours.median {
                let clear = if theirs.high < ours.low { "" } else { ", within the bounds" };
                let more = (ours.median / theirs.median - 1.0) * 100.0;
                lines.push(format!("- {}: {more:.0} % more CPU than {}{clear}", case.name, peer.shown()));
            }
        }
    }
    if lines.is_empty() {
        return "\nNo case in which Rempart needs more CPU than a peer.\n".to_owned();
    }
    format!("\nWhere Rempart loses:\n\n{}\n", lines.join("\n"))
}

/// The raw figures.
pub fn json(date: &str, facts: &Facts, samples: &[Sample]) -> String {
    let facts: serde_json::Map<String, serde_json::Value> =
        facts.iter().map(|(label, value)| (label.clone(), json!(value))).collect();
    let rows = samples.iter().map(|sample| {
        json!({
            "case": sample.case,
            "server": sample.server.shown(),
            "requests": sample.requests,
            "seconds": sample.seconds,
            "cpu_seconds": sample.cpu_seconds,
        })
        .to_string()
    });
    let rows = rows.collect::<Vec<_>>().join(",\n    ");
    format!(
        "{{\n  \"date\": {},\n  \"facts\": {},\n  \"samples\": [\n    {rows}\n  ]\n}}\n",
        json!(date),
        json!(facts)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::CASES;

    #[test]
    fn losses_are_named() {
        let sample = |server, cpu_seconds| Sample {
            case: CASES[0].name,
            server,
            requests: 1_000_000,
            seconds: 30.0,
            cpu_seconds,
        };
        let samples = [sample(Name::Rempart, 22.0), sample(Name::Nginx, 20.0), sample(Name::Haproxy, 25.0)];
        let names = [Name::Rempart, Name::Nginx, Name::Haproxy];
        let text = losses(&[&CASES[0]], &names, &samples);
        assert!(text.contains("10 % more CPU than nginx") && !text.contains("HAProxy"), "{text}");
        let raw: serde_json::Value =
            serde_json::from_str(&json("2026-01-01", &Vec::new(), &samples)).unwrap();
        assert_eq!(raw["samples"][1]["cpu_seconds"], 20.0);
    }
}
