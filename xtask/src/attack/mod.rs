//! `cargo xtask attack`: attacks on the release binary, a peer and a control while golden requests must all be served.

mod attackers;
mod golden;
mod process;
mod runs;
mod servers;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{Workspace, output, today};
use crate::{report, setup};
use attackers::Attackers;
use golden::Golden;
use process::{Usage, Watch};
use runs::{ATTACKS, Attack};
use servers::{Origin, Place, Server, Target};
use table::{DESCRIPTOR_SLACK, Outcome};

/// Time for an attack with `--quick`.
const QUICK: Duration = Duration::from_secs(4);
/// Characters shown of a failed request.
const FAILURE_SHOWN: usize = 120;
/// Time that golden traffic goes on after an attack.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Time a server has to close what an attack left, after it.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Run only attacks whose names begin with this; write nothing
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// A few seconds for each attack; write nothing
    #[arg(long)]
    quick: bool,
    /// Let nginx face every attack, not only a choice of them
    #[arg(long)]
    all_peers: bool,
}

/// Runs the attacks, prints the figures, writes docs/hardening.md; an attack that Rempart does not withstand is an error.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let attacks = chosen(&options.only)?;
    setup::debian(setup::ATTACK)?;
    setup::python(workspace)?;
    let place =
        Place { workspace, folder: workspace.target.join("attack"), binary: release_binary(workspace)? };
    Golden::build(&place)?;
    let mut outcomes = Vec::new();
    for attack in &attacks {
        for target in targets(attack, options.all_peers) {
            // The control falls over only after a while, and must have the chance.
            let quick = options.quick && target != Target::Control;
            let lasts = if quick { QUICK } else { attack.lasts };
            let outcome = one(&place, attack, target, lasts)
                .with_context(|| format!("{} against {}", attack.name, target.shown()))?;
            tell(&outcome);
            outcomes.push(outcome);
        }
    }
    let section = section(&place, &outcomes)?;
    println!("{section}");
    believable(&outcomes)?;
    if options.only.is_empty() && !options.quick {
        report::write_section(&workspace.root.join("docs/hardening.md"), &section)?;
    }
    let ours: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.target == Target::Rempart).collect();
    let fell: Vec<&str> =
        ours.iter().filter(|outcome| !outcome.faults().is_empty()).map(|outcome| outcome.attack).collect();
    if !fell.is_empty() {
        bail!("{} of {} attacks were not withstood: {}", fell.len(), ours.len(), fell.join(", "));
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<Attack>> {
    let wanted = |attack: &&Attack| only.is_empty() || only.iter().any(|name| attack.name.starts_with(name));
    let chosen: Vec<Attack> = ATTACKS.iter().filter(wanted).copied().collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        bail!("no attack begins with that; there are: {}", names.join(", "));
    }
    Ok(chosen)
}

/// The binary that `REMPART_BIN` names, or else the one built here.
fn release_binary(workspace: &Workspace) -> Result<PathBuf> {
    let Some(binary) = std::env::var_os("REMPART_BIN") else { return workspace.build_release() };
    let binary = workspace.root.join(binary);
    if !binary.is_file() {
        bail!("REMPART_BIN names no file: {}", binary.display());
    }
    Ok(binary)
}

fn targets(attack: &Attack, all_peers: bool) -> Vec<Target> {
    let mut targets = vec![Target::Rempart];
    targets.extend((attack.peer || all_peers).then_some(Target::Nginx));
    targets.extend(attack.control.then_some(Target::Control));
    targets
}

/// One attack on one server, both fresh, with golden traffic from before the attack until after it.
fn one(place: &Place, attack: &Attack, target: Target, lasts: Duration) -> Result<Outcome> {
    println!("{} against {}: {} s", attack.name, target.shown(), lasts.as_secs());
    place.prepare()?;
    let origin = Origin::start(place)?;
    let server = Server::start(place, target, &origin)?;
    let (idle, origin_idle) = (Usage::of(server.id())?, Usage::of(origin.id())?);
    let golden = Golden::start(place, &server)?;
    let (identity, counters) = (server.identity()?, server.counters()?);
    let before = Usage { descriptors: idle.descriptors, ..Usage::of(server.id())? };
    let origin_before = Usage::of(origin.id())?;
    let watch = Watch::start([server.id(), origin.id()]);
    let started = Instant::now();
    let met = Attackers::start(place, attack, &server, lasts)?.finish()?;
    let lasted = started.elapsed().as_secs_f64();
    let (ended, origin_ended) = (Usage::of(server.id())?, Usage::of(origin.id())?);
    // What an attack leaves behind must not hurt either.
    std::thread::sleep(AFTERMATH);
    let [peak, origin_peak] = watch.peaks()?;
    let golden = golden.stop()?;
    let after = closed(&server, &origin, idle.descriptors + DESCRIPTOR_SLACK, origin_idle.descriptors)?;
    let second = ticks_per_second()?;
    let identity_after = server.identity()?;
    Ok(Outcome {
        attack: attack.name,
        target,
        golden,
        before,
        peak,
        after,
        origin: (origin_idle.descriptors, origin_peak.descriptors),
        origin_after: Usage::of(origin.id())?.descriptors,
        processor: ended.ticks.saturating_sub(before.ticks) as f64 / second,
        origin_processor: origin_ended.ticks.saturating_sub(origin_before.ticks) as f64 / second,
        lasted,
        met,
        counters: table::grown(&counters, &server.counters()?),
        replaced: (identity != identity_after).then_some((identity, identity_after)),
    })
}

/// Waits until the descriptors of the attack are closed, or time is over; those of connections kept to the origin may stay.
fn closed(server: &Server, origin: &Origin, allowed: u64, origin_before: u64) -> Result<Usage> {
    let started = Instant::now();
    loop {
        let now = Usage::of(server.id())?;
        let kept = Usage::of(origin.id())?.descriptors.saturating_sub(origin_before);
        if now.descriptors <= allowed + kept || started.elapsed() > CLOSED_WITHIN {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Clock ticks in a second.
fn ticks_per_second() -> Result<f64> {
    Ok(output(std::process::Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?)
}

fn tell(outcome: &Outcome) {
    let faults = outcome.faults();
    println!("    {}", if faults.is_empty() { "held".to_owned() } else { faults.join("; ") });
    for failure in outcome.golden.failures.iter().take(3) {
        println!("    {}", failure.chars().take(FAILURE_SHOWN).collect::<String>());
    }
}

/// A runner that a server without any defence passes proves nothing.
fn believable(outcomes: &[Outcome]) -> Result<()> {
    let mut controls = outcomes.iter().filter(|outcome| outcome.target == Target::Control).peekable();
    if controls.peek().is_some() && controls.all(|outcome| outcome.faults().is_empty()) {
        bail!("the control, which defends itself against nothing, withstood every attack on it");
    }
    Ok(())
}

fn section(place: &Place, outcomes: &[Outcome]) -> Result<String> {
    let commit = output(place.workspace.command("git").args(["describe", "--always", "--dirty"]))?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!("Measured on {} at commit {}, on {cores} cores.\n", today()?, commit.trim());
    text.push_str(&table::markdown(outcomes));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_chosen_by_the_beginning_of_their_names() {
        assert_eq!(chosen(&[]).unwrap().len(), ATTACKS.len());
        let some = chosen(&["h2-ping".to_owned(), "slow-body".to_owned()]).unwrap();
        let names: Vec<&str> = some.iter().map(|attack| attack.name).collect();
        assert_eq!(names, ["slow-body", "slow-body-tls", "h2-ping"]);
        assert!(chosen(&["none".to_owned()]).is_err());
    }
}
