//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/fuzzing`, one after the other, each with its share of the time.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::Value;

use crate::shell::{Workspace, output, shown, succeed};

/// What makes rustc write down which edges run and what is compared, in the form libFuzzer reads.
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// What no input may exceed: seconds, MiB of memory, and its own length in bytes, which reaches every limit of a target.
const BOUNDS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=768", "-max_len=3072"];
/// Minutes, unless asked for otherwise.
const MINUTES: u64 = 60;
/// Lines shown of what a target says before it ends badly.
const LINES_SHOWN: usize = 60;

/// Inputs of one target in the repository, as far as they are not put there by hand.
const MOST_KEPT: usize = 36;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// How long, all targets together
    #[arg(long, default_value_t = MINUTES, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Run only these targets
    #[arg(long, value_name = "TARGET")]
    only: Vec<String>,
    /// Add inputs that reach new code to the corpus in the repository
    #[arg(long)]
    keep: bool,
    /// Run one input, such as one a failure has left, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "keep"])]
    reproduce: Option<PathBuf>,
}

/// The folders of a run.
struct Place<'a> {
    workspace: &'a Workspace,
    binary: PathBuf,
    /// Below the target folder: what is found, and what is left by failures.
    folder: PathBuf,
    /// In the repository, a folder for each target.
    corpus: PathBuf,
}

/// What one target's time has brought.
#[derive(Default)]
struct Score {
    executions: u64,
    per_second: u64,
    features: u64,
    edges: u64,
    inputs: u64,
    new: u64,
    peak_mib: u64,
    failure: Option<PathBuf>,
}

/// Builds, runs every chosen target, and fails when an input made one fail.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let corpus = workspace.root.join("tests/fuzzing/corpus");
    let all = folders(&corpus)?;
    if let Some(unknown) = options.only.iter().find(|name| !all.contains(name)) {
        bail!("no target is named {unknown}; there are: {}", all.join(" "));
    }
    let chosen: Vec<&String> =
        all.iter().filter(|name| options.only.is_empty() || options.only.contains(name)).collect();
    let place =
        Place { workspace, binary: build(workspace)?, folder: workspace.target.join("fuzz-found"), corpus };
    if let Some(input) = &options.reproduce {
        let input = std::path::absolute(input)?;
        return succeed(workspace.command(&place.binary).env("RUST_BACKTRACE", "1").args(BOUNDS).arg(input));
    }
    let seconds = (options.minutes * 60 / chosen.len() as u64).max(1);
    println!("{} targets, {seconds} s each", chosen.len());
    let mut failures = Vec::new();
    println!(
        "{:<14} {:>11} {:>8} {:>6} {:>8} {:>7} {:>5} {:>5}",
        "target", "executions", "each s", "edges", "features", "inputs", "new", "MiB"
    );
    for name in chosen {
        let score = place.fuzz(name, seconds)?;
        println!(
            "{name:<14} {:>11} {:>8} {:>6} {:>8} {:>7} {:>5} {:>5}",
            score.executions,
            score.per_second,
            score.edges,
            score.features,
            score.inputs,
            score.new,
            score.peak_mib
        );
        failures.extend(score.failure);
        if options.keep {
            place.keep(name)?;
        }
    }
    for failure in &failures {
        println!("an input fails; see it with: cargo xtask fuzz --reproduce {}", failure.display());
    }
    if !failures.is_empty() {
        bail!("{} targets failed; a fix puts the input into {}", failures.len(), place.corpus.display());
    }
    Ok(())
}

/// Builds the fuzz binary in a target folder of its own: all of it is instrumented, so nothing can be shared.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let host = output(workspace.command("rustc").arg("-vV"))?;
    let host =
        host.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    let target = workspace.target.join("fuzz");
    println!("building the fuzz binary");
    // Naming the host as a target keeps build scripts from being instrumented; they would not link.
    let mut cargo = workspace.cargo(&["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    succeed(
        cargo.args(["--target", host]).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", INSTRUMENTATION),
    )?;
    Ok(target.join(host).join("release/fuzz"))
}

impl Place<'_> {
    /// One target for so many seconds, on one core.
    fn fuzz(&self, name: &str, seconds: u64) -> Result<Score> {
        let found = self.fresh_or_old(&format!("corpus/{name}"))?;
        let seeds = self.seeds(name)?;
        let failures = self.fresh_or_old("failures")?;
        let before = newest(&failures)?;
        let mut command = self.workspace.command(&self.binary);
        command
            .env("REMPART_FUZZ_TARGET", name)
            .args(BOUNDS)
            .args([format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned()])
            .arg("-dict=fuzz/dictionary.txt")
            .arg(format!("-artifact_prefix={}/{name}-", failures.display()))
            .arg(&found)
            .arg(self.corpus.join(name))
            .args(seeds)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let mut score = Score::default();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stderr.take().context("a pipe was asked for")?).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            score.read(&line);
            lines.push(line);
            // Only the end is ever shown.
            if lines.len() > 2 * LINES_SHOWN {
                lines.drain(..LINES_SHOWN);
            }
        }
        let status = child.wait()?;
        if !status.success() {
            println!("{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
            let after = newest(&failures)?.filter(|after| Some(after) != before.as_ref());
            score.failure =
                Some(after.with_context(|| format!("{name} ended with {status} and left no input"))?);
        }
        Ok(score)
    }

    /// Adds the inputs that reach most of what no input of the repository reaches, as far as there is room; none is ever taken
    /// away, since each may be there for a failure it once made.
    fn keep(&self, name: &str) -> Result<()> {
        let kept = self.corpus.join(name);
        let control = self.folder.join(format!("merge-{name}"));
        let unused = self.folder.join("merged");
        for old in [&control, &unused].into_iter().filter(|old| old.exists()) {
            if old.is_dir() { fs::remove_dir_all(old)? } else { fs::remove_file(old)? }
        }
        fs::create_dir_all(&unused)?;
        let mut command = self.workspace.command(&self.binary);
        // Edges only: how often each runs would make every length of an input a new one.
        command.env("REMPART_FUZZ_TARGET", name).args(["-set_cover_merge=1", "-use_counters=0"]).args(BOUNDS);
        command.arg(format!("-merge_control_file={}", control.display()));
        command.arg(unused).arg(&kept).arg(self.folder.join("corpus").join(name));
        succeed(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let reached = reached(&fs::read_to_string(&control)?)?;
        let (old, new): (Vec<_>, Vec<_>) = reached.into_iter().partition(|(file, _)| file.starts_with(&kept));
        let room = MOST_KEPT.saturating_sub(fs::read_dir(&kept)?.count());
        let added = choose(&old, new, room);
        for file in &added {
            fs::copy(file, kept.join(file.file_name().context("a file has a name")?))?;
        }
        println!("{name}: {} inputs added to the corpus", added.len());
        Ok(())
    }

    fn fresh_or_old(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A folder of requests from the HTTP/1.1 suite, where the suites are at hand; they never get into the repository.
    fn seeds(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(suites) = std::env::var_os("REMPART_SUITES").filter(|_| name == "h1_request") else {
            return Ok(None);
        };
        let text = fs::read_to_string(Path::new(&suites).join("http11/cases.json"))?;
        let cases: Vec<Value> = serde_json::from_str(&text)?;
        let folder = self.fresh_or_old("suites")?;
        for (number, case) in cases.iter().enumerate() {
            let Some(payload) = case["payload_b64"].as_str() else { continue };
            // In front: the target's byte, and the cuts, which are none.
            let mut input = b"q\0\0".to_vec();
            input.extend(STANDARD.decode(payload)?);
            fs::write(folder.join(number.to_string()), input)?;
        }
        Ok(Some(folder))
    }
}

impl Score {
    /// Takes what libFuzzer says in its final statistics, and the coverage of its last line about that.
    fn read(&mut self, line: &str) {
        let after = |key: &str| {
            let (_, rest) = line.split_once(key)?;
            rest.split_whitespace().next()?.split('/').next()?.parse::<u64>().ok()
        };
        for (key, slot) in [
            ("stat::number_of_executed_units:", &mut self.executions),
            ("stat::average_exec_per_sec:", &mut self.per_second),
            ("stat::new_units_added:", &mut self.new),
            ("stat::peak_rss_mb:", &mut self.peak_mib),
            (" cov: ", &mut self.edges),
            (" ft: ", &mut self.features),
            (" corp: ", &mut self.inputs),
        ] {
            if let Some(number) = after(key) {
                *slot = number;
            }
        }
    }
}

/// An input, and the numbers of what it reaches.
type Reached = (PathBuf, BTreeSet<u32>);

/// Reads libFuzzer's notes of a merge: how many files, how many of them in the first folder, their names, then for each a
/// line `FT`, its number, and what it reaches.
fn reached(notes: &str) -> Result<Vec<Reached>> {
    let mut lines = notes.lines();
    let count: usize = lines.next().and_then(|line| line.parse().ok()).context("a merge has a count")?;
    let mut all: Vec<Reached> =
        lines.by_ref().skip(1).take(count).map(|name| (PathBuf::from(name), BTreeSet::new())).collect();
    for line in lines {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        if words.next() == Some("FT") {
            let mut numbers = words.map_while(|word| word.parse::<u32>().ok());
            let index = numbers.next().and_then(|number| usize::try_from(number).ok());
            let (_, slot) =
                index.and_then(|index| all.get_mut(index)).context("a file the merge has not named")?;
            slot.extend(numbers);
        }
    }
    Ok(all)
}

/// The inputs that add most to `old`, at most `room` of them, the best first.
fn choose(old: &[Reached], mut new: Vec<Reached>, room: usize) -> Vec<PathBuf> {
    let mut covered: BTreeSet<u32> = old.iter().flat_map(|(_, reached)| reached).copied().collect();
    let mut chosen = Vec::new();
    while chosen.len() < room {
        new.iter_mut().for_each(|(_, reached)| reached.retain(|number| !covered.contains(number)));
        new.sort_by_key(|(_, reached)| reached.len());
        let Some((file, reached)) = new.pop().filter(|(_, reached)| !reached.is_empty()) else { break };
        covered.extend(reached);
        chosen.push(file);
    }
    chosen
}

/// The folders in a folder, sorted by name.
fn folders(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The file that was written last.
fn newest(folder: &Path) -> Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        newest = newest.max(Some((entry.metadata()?.modified()?, entry.path())));
    }
    Ok(newest.map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_libfuzzer_says() {
        let mut score = Score::default();
        for line in [
            "#2\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 27Mb",
            "#8192\tpulse  cov: 91 ft: 204 corp: 31/7b lim: 4096 exec/s: 2796 rss: 27Mb",
            "stat::number_of_executed_units: 46642489",
            "stat::average_exec_per_sec:     2221070",
            "stat::new_units_added:          5",
            "stat::peak_rss_mb:              28",
        ] {
            score.read(line);
        }
        assert_eq!((score.edges, score.features, score.inputs), (91, 204, 31));
        assert_eq!((score.executions, score.per_second), (46_642_489, 2_221_070));
        assert_eq!((score.new, score.peak_mib), (5, 28));
    }

    #[test]
    fn the_inputs_that_add_most_are_kept() {
        let notes = "4\n0\nold/a\nnew/b\nnew/c\nnew/d\nSTARTED 0 9\nFT 0 1 2\nCOV 0 7\nSTARTED 1 9\nFT 1 1 3\n\
                     STARTED 2 9\nFT 2 2 3 4 \nSTARTED 3 9\nFT 3 1 2\n";
        let mut all = reached(notes).unwrap();
        let old = vec![all.remove(0)];
        assert_eq!(old[0].1.len(), 2);
        assert_eq!(choose(&old, all.clone(), 9), [PathBuf::from("new/c")], "b and d add nothing to that");
        assert_eq!(choose(&[], all.clone(), 9).len(), 2, "c, and b or d for 1");
        assert!(choose(&old, all, 0).is_empty());
        assert!(reached("1\n0\na\nFT 1 1\n").is_err());
    }
}
