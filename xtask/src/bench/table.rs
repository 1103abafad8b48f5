//! What is written about a benchmark: bars, tables of medians, the losses, and the raw figures.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::bars::{added, cpu, judge, of, ratio};
use super::cases::Case;
use super::idle::{Idle, VARIANTS};
use super::latency::Delay;
use super::statistics::{Median, median};
use super::{Figures, Sample};
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

/// The generated section of docs/benchmarks.md.
pub fn markdown(date: &str, facts: &Facts, cases: &[&Case], names: &[Name], figures: &Figures) -> String {
    let mut text = format!("## {date}\n\n");
    for (label, value) in facts {
        text.push_str(&format!("- {label}: {value}\n"));
    }
    text.push_str(&format!("- raw figures: [benchmarks/{date}.json](benchmarks/{date}.json)\n"));
    text.push_str(&bars(cases, figures));
    if !figures.samples.is_empty() {
        text.push_str(&processor_time(cases, names, &figures.samples));
        text.push_str(&rates(cases, names, &figures.samples));
    }
    if !figures.delays.is_empty() {
        text.push_str(&latency(names, &figures.delays));
    }
    if !figures.idle.is_empty() {
        text.push_str(&idle(names, &figures.idle));
    }
    if !figures.samples.is_empty() {
        text.push_str(&losses(cases, names, &figures.samples));
    }
    text
}

fn bars(cases: &[&Case], figures: &Figures) -> String {
    let judged = judge(cases, figures);
    if judged.is_empty() {
        return String::new();
    }
    let mut text = "\n### Bars\n\nShares are Rempart's figure divided by the other's in the same round; median (bounds). \
                    The upper bound decides.\n\n| what | with | value | bar | |\n|---|---|---|---|---|\n"
        .to_owned();
    for one in judged {
        let met = if one.met { "met" } else { "**missed**" };
        text.push_str(&format!("| {} | {} | {} | {} | {met} |\n", one.what, one.with, one.value, one.bar));
    }
    text
}

fn processor_time(cases: &[&Case], names: &[Name], samples: &[Sample]) -> String {
    let medians: Vec<Median> = cases.iter().filter_map(|case| cpu(samples, case, *names.first()?)).collect();
    let runs = medians.iter().map(|median| median.count).min().unwrap_or(0);
    let bounds = if medians.iter().all(|median| median.bounds_95) {
        "95 % bounds of the median"
    } else {
        "range: too few runs for bounds"
    };
    let mut text = format!(
        "\n### CPU µs per request\n\nUser + system; median of {runs} runs ({bounds}). Smaller is better.\n\n{}",
        header("case", names)
    );
    for case in cases {
        let cell = |name: &Name| match cpu(samples, case, *name) {
            Some(median) => one_decimal(median),
            None if case.traffic.tls() && !name.has_tls() => "no TLS".to_owned(),
            None => "not measured".to_owned(),
        };
        text.push_str(&row(case.name, names.iter().map(cell)));
    }
    text
}

fn rates(cases: &[&Case], names: &[Name], samples: &[Sample]) -> String {
    let mut text = format!(
        "\n### Requests/s\n\nMedian, and how busy the server's core was (load and origin share the other core). \
         Handshakes come at a fixed rate.\n\n{}",
        header("case", names)
    );
    for case in cases {
        let cell = |name: &Name| {
            let rate = median(&of(samples, case, *name).map(Sample::rate).collect::<Vec<_>>());
            let busy = of(samples, case, *name).map(|sample| sample.cpu_seconds / sample.seconds * 100.0);
            match (rate, median(&busy.collect::<Vec<_>>())) {
                (Some(rate), Some(busy)) => format!("{:.0} ({:.0} %)", rate.median, busy.median),
                _ => "-".to_owned(),
            }
        };
        text.push_str(&row(case.name, names.iter().map(cell)));
    }
    text
}

/// Which figure of a round.
type Which = fn(&Delay) -> f64;

fn latency(names: &[Name], delays: &[Delay]) -> String {
    let of_direct = |which: Which| {
        median(&delays.iter().filter(|delay| delay.through.is_none()).map(which).collect::<Vec<_>>())
    };
    let direct = |which| of_direct(which).map_or_else(|| "-".to_owned(), one_decimal);
    let mut text = format!(
        "\n### Latency\n\nOne connection, one request of 1 KiB at a time. Straight to the origin, µs: p50 {}, p99 {}. \
         Added to that by each server, µs, median of the rounds (bounds):\n\n{}",
        direct(|delay| delay.p50),
        direct(|delay| delay.p99),
        header("", names)
    );
    let rows: [(&str, Which); 2] = [("p50", |delay| delay.p50), ("p99", |delay| delay.p99)];
    for (label, which) in rows {
        let cell = |name: &Name| added(delays, *name, which).map_or_else(|| "-".to_owned(), one_decimal);
        text.push_str(&row(label, names.iter().map(cell)));
    }
    text
}

fn idle(names: &[Name], idles: &[Idle]) -> String {
    let names: Vec<Name> =
        names.iter().copied().filter(|name| idles.iter().any(|idle| idle.server == *name)).collect();
    let find =
        |variant: &str, name: Name| idles.iter().find(|idle| idle.variant == variant && idle.server == name);
    let mut text = format!(
        "\n### Memory\n\nOf all processes of a server, shared pages counted once (PSS); the kernel's socket buffers are \
         not in it. At rest: a server just started that has had 50 connections.\n\n{}",
        header("", &names)
    );
    let rest = |name: &Name| match VARIANTS.first().and_then(|variant| find(variant.name, *name)) {
        Some(idle) => {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            format!("{:.1} ({:.1})", megabytes(idle.before.proportional), megabytes(idle.before.resident))
        }
        None => "-".to_owned(),
    };
    text.push_str(&row("at rest, MB (RSS)", names.iter().map(rest)));
    for variant in VARIANTS {
        let cell = |name: &Name| {
            find(variant.name, *name)
                .map_or_else(|| "-".to_owned(), |idle| format!("{:.0}", idle.per_connection()))
        };
        let label = format!("bytes for each of {} connections, {}", variant.connections, variant.name);
        text.push_str(&row(&label, names.iter().map(cell)));
    }
    text
}

fn header(first: &str, names: &[Name]) -> String {
    let shown: Vec<&str> = names.iter().map(|name| name.shown()).collect();
    format!("| {first} | {} |\n|---|{}\n", shown.join(" | "), "---|".repeat(names.len()))
}

fn row(label: &str, cells: impl Iterator<Item = String>) -> String {
    format!("| {label} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn one_decimal(median: Median) -> String {
    format!("{:.1} ({:.1}-{:.1})", median.median, median.low, median.high)
}

/// Where a peer needs less, said in words so that nobody has to look for it.
fn losses(cases: &[&Case], names: &[Name], samples: &[Sample]) -> String {
    if !names.contains(&Name::Rempart) {
        return String::new();
    }
    let mut lines = Vec::new();
    for case in cases {
        for peer in names.iter().filter(|name| name.is_peer()) {
            let Some(ratio) = ratio(samples, case, *peer).filter(|ratio| ratio.median > 1.0) else {
                continue;
            };
            let clear = match (ratio.low > 1.0, ratio.bounds_95) {
                (true, _) => "",
                (false, true) => ", within the bounds",
                (false, false) => ", within the range",
            };
            let more = (ratio.median - 1.0) * 100.0;
            lines.push(format!("- {}: {more:.0} % more CPU than {}{clear}", case.name, peer.shown()));
        }
    }
    if lines.is_empty() {
        return "\nNo case in which Rempart needs more CPU than a peer.\n".to_owned();
    }
    format!("\n### Where Rempart loses\n\n{}\n", lines.join("\n"))
}

/// The raw figures.
pub fn json(date: &str, facts: &Facts, figures: &Figures) -> String {
    let facts: serde_json::Map<String, serde_json::Value> =
        facts.iter().map(|(label, value)| (label.clone(), json!(value))).collect();
    let samples = figures.samples.iter().map(|sample| {
        json!({
            "case": sample.case,
            "server": sample.server.shown(),
            "round": sample.round,
            "requests": sample.requests,
            "seconds": sample.seconds,
            "cpu_seconds": sample.cpu_seconds,
        })
    });
    let delays = figures.delays.iter().map(|delay| {
        json!({
            "through": delay.through.map_or("nothing", Name::shown),
            "round": delay.round,
            "p50_micros": delay.p50,
            "p99_micros": delay.p99,
        })
    });
    let idle = figures.idle.iter().map(|idle| {
        json!({
            "variant": idle.variant,
            "server": idle.server.shown(),
            "connections": idle.connections,
            "pss_before": idle.before.proportional,
            "pss_after": idle.after.proportional,
            "rss_before": idle.before.resident,
            "rss_after": idle.after.resident,
        })
    });
    format!(
        "{{\n  \"date\": {},\n  \"facts\": {},\n  \"samples\": {},\n  \"latency\": {},\n  \"idle\": {}\n}}\n",
        json!(date),
        json!(facts),
        lines(samples),
        lines(delays),
        lines(idle)
    )
}

/// An array with one element a line, so that a difference between two files can be read.
fn lines(rows: impl Iterator<Item = serde_json::Value>) -> String {
    let rows: Vec<String> = rows.map(|row| format!("\n    {row}")).collect();
    format!("[{}\n  ]", rows.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::{CASES, Traffic};

    fn figures() -> Figures {
        let sample = |server, cpu_seconds| Sample {
            case: CASES[0].name,
            server,
            round: 0,
            requests: 1_000_000,
            seconds: 30.0,
            cpu_seconds,
        };
        let samples = vec![
            sample(Name::Rempart, 22.0),
            sample(Name::Nginx, 20.0),
            sample(Name::Haproxy, 25.0),
            sample(Name::Floor, 5.0),
        ];
        let delays = vec![Delay { round: 0, through: None, p50: 30.0, p99: 40.0 }];
        Figures { samples, delays, idle: Vec::new() }
    }

    #[test]
    fn losses_are_named_and_the_floor_is_no_peer() {
        let names = [Name::Rempart, Name::Nginx, Name::Haproxy, Name::Floor];
        let text = losses(&[&CASES[0]], &names, &figures().samples);
        assert!(text.contains("10 % more CPU than nginx"), "{text}");
        assert!(!text.contains("HAProxy") && !text.contains("floor"), "{text}");
    }

    #[test]
    fn the_page_says_what_was_missed_and_what_has_no_floor() {
        let tls = CASES.iter().find(|case| case.traffic == Traffic::Http1Tls).unwrap();
        let names = [Name::Rempart, Name::Nginx, Name::Haproxy, Name::Floor];
        let text = markdown("2026-01-01", &Vec::new(), &[&CASES[0], tls], &names, &figures());
        assert!(text.contains("| nginx | 1.10 (1.10-1.10) | <= 0.95 x | **missed** |"), "{text}");
        assert!(text.contains("| not measured | not measured | not measured | no TLS |"), "{text}");
    }

    #[test]
    fn raw_figures_can_be_read_again() {
        let raw: serde_json::Value =
            serde_json::from_str(&json("2026-01-01", &Vec::new(), &figures())).unwrap();
        assert_eq!(raw["samples"][1]["cpu_seconds"], 20.0);
        assert_eq!(raw["latency"][0]["through"], "nothing");
        assert_eq!(raw["idle"].as_array().map(Vec::len), Some(0));
    }
}
