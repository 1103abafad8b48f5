//! The start: adopt an edge that runs already, else try the configuration, else the last good generations, else what is
//! compiled in.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use api::admin::{GenerationSource, Refusal};
use api::diagnostic::Diagnostic;
use api::process::{Adopted, Load, LoadFrom, Loaded, Reply, Supervision, Task, TicketKey};
use api::seal::Keyring;
use base::happening::{Component, Happening, Severity, What};

use super::artefacts::furnish_at_start;
use super::child::Child;
use super::control::{not_kept, refusal};
use super::fleet::{Fleet, Force};
use super::journal::Journal;
use super::notify::Notify;
use super::sockets::Sockets;
use super::taste::{Dish, Tasted, taste};
use super::{Event, LOAD, Origin, Settings, Supervisor, longest, start_edge, tickets};
use crate::builder::{now, rfc3339};
use crate::edge_process::COMMAND_LINE;
use crate::state::{self, StateFolder};

/// Edges that are adopted or told to drain at most; there is one, or two in the middle of an upgrade.
const MAX_ADOPTED: usize = 16;

/// Why nothing could be started.
pub struct StartError(pub Vec<Diagnostic>);

/// What serving begins with.
struct First {
    child: Arc<Child>,
    loaded: Loaded,
    package: File,
    source: GenerationSource,
    refused: Option<Refusal>,
}

/// Brings Rempart up. When it answers, everything that could be made to serve serves. With it comes the admin socket, when
/// the program that this process was before has left it.
pub fn start(
    settings: Settings,
    state: StateFolder,
    mut sockets: Sockets,
    notify: Notify,
    events: mpsc::SyncSender<Event>,
) -> anyhow::Result<Result<(Supervisor, Option<UnixListener>), StartError>> {
    let adopted = adopt(&state, &settings.launch.journal);
    let is_adopted = adopted.is_some();
    let mut seen = Supervision::default();
    let mut admin = None;
    let (first, keys) = match adopted {
        Some((child, adopted, package, descriptors, loaded)) => {
            tracing::info!(pid = child.pid, number = loaded.number, "an edge that was running is adopted");
            let mut descriptors = descriptors;
            admin = if adopted.admin { descriptors.pop().map(UnixListener::from) } else { None };
            sockets.adopt(&adopted, descriptors);
            let keys = tickets::begin(&state, adopted.tickets);
            seen = adopted.supervision;
            (First { child, loaded, package, source: adopted.source, refused: None }, keys)
        }
        None => {
            let keys = tickets::begin(&state, state.tickets());
            match first_generation(&settings, &state, &mut sockets, &keys)? {
                Ok(first) => (first, keys),
                Err(error) => return Ok(Err(error)),
            }
        }
    };
    let First { child, loaded, package, source, refused } = first;
    let highest = state.highest().max(loaded.number);
    let force = Force::now(loaded, source, package);
    let switches = state.switches().unwrap_or_else(|error| {
        tracing::error!(%error, "what was switched off cannot be read: switch it off again");
        Vec::new()
    });
    let fleet = Fleet {
        switches,
        highest,
        refused,
        supervision: seen,
        tickets: keys,
        ..Fleet::new(child.clone(), sockets, force)
    };
    let keys = Keyring::new([state.machine_key()?.public().into()])?;
    let supervisor = Supervisor {
        keys,
        meter: Mutex::default(),
        origin: settings.origin,
        state,
        journal: settings.launch.journal.clone(),
        launch: Mutex::new(settings.launch),
        taste: settings.taste,
        notify,
        started: Instant::now(),
        changing: Mutex::default(),
        fleet: Mutex::new(fleet),
        events,
    };
    supervisor.tell_restrictions(&child);
    // An adopted edge has them; loading them again tells which, and changes nothing.
    let child = furnish_at_start(&supervisor, child)?;
    supervisor.fleet().active = Some(child.clone());
    if is_adopted {
        keep_adopted(&supervisor);
        child.tell(Task::Tickets { keys: supervisor.fleet().tickets.clone() });
        // What was changed while nobody looked.
        supervisor.reload("start", false);
    } else {
        serve_first(&supervisor, &child)?;
    }
    supervisor.fleet().tell_supervision();
    Ok(Ok((supervisor, admin)))
}

/// The supervisor before may have died between the edge's change and the disk's: without this its number would come again.
fn keep_adopted(supervisor: &Supervisor) {
    let fleet = supervisor.fleet();
    let number = fleet.force.loaded.number;
    if number > supervisor.state.highest()
        && let Err(error) = supervisor.state.keep(number, &fleet.force.package)
    {
        tracing::warn!(number, %error, "what the adopted edge serves could not be kept on disk");
    }
}

fn serve_first(supervisor: &Supervisor, child: &Child) -> anyhow::Result<()> {
    let mut fleet = supervisor.fleet();
    let wanted = fleet.force.loaded.metrics;
    if let Err(error) = fleet.sockets.serve_metrics(wanted) {
        let warning = super::control::metrics_not_served(&error);
        fleet.force.warnings.push(warning);
    }
    fleet.hand_over(child)?;
    let fresh = !matches!(fleet.force.source, GenerationSource::LastGood | GenerationSource::Defaults);
    if fresh && let Err(error) = supervisor.state.keep(fleet.force.loaded.number, &fleet.force.package) {
        fleet.force.warnings.push(not_kept(&error));
    }
    if fresh && let Err(error) = supervisor.state.keep_listeners(&fleet.force.loaded.listeners) {
        tracing::warn!(%error, "the addresses listened on could not be kept");
    }
    tell_start(supervisor, &fleet);
    Ok(())
}

/// A start is a change like any other; what was refused on the way is told after what came into force.
fn tell_start(supervisor: &Supervisor, fleet: &Fleet) {
    let (number, is_none) = (fleet.force.loaded.number, fleet.force.source == GenerationSource::Defaults);
    if !is_none {
        let message = format!("Rempart was started, generation {number} of the configuration is in force");
        let (what, component) = (What::GenerationActivated, Component::Configuration);
        let happening = Happening::new(now(), what, Severity::Info, component, "started", message);
        supervisor.journal.tell(happening.with_generation(number));
    }
    if let Some(refused) = &fleet.refused {
        let severity = if is_none { Severity::Critical } else { Severity::Warning };
        supervisor.journal.tell(Happening { severity, ..refusal(&refused.diagnostics) });
    }
}

/// The configuration, or the newest stored generation that runs, or the defaults.
fn first_generation(
    settings: &Settings,
    state: &StateFolder,
    sockets: &mut Sockets,
    keys: &[TicketKey],
) -> anyhow::Result<Result<First, StartError>> {
    let number = state.highest() + 1;
    let load =
        Load { number, from: settings.origin.load_from(), source: settings.origin.source(), force: false };
    let attempt = taste(
        &settings.launch,
        settings.taste,
        Dish { load, package: None, artefacts: &[], tickets: keys },
        None,
    );
    let diagnostics = match attempt.and_then(|tasted| listen(sockets, tasted)) {
        Ok(Tasted { child, loaded, package }) => {
            let source = settings.origin.source();
            return Ok(Ok(First { child, loaded, package, source, refused: None }));
        }
        Err(diagnostics) => diagnostics,
    };
    let refused = Some(Refusal { at: rfc3339(now()), diagnostics: diagnostics.clone() });
    #[cfg(feature = "faults")]
    if edge::fault::without("last-good") {
        return Ok(Err(StartError(diagnostics)));
    }
    // What was once made from options is nothing a file can fall back to, and the other way round.
    let Origin::File(_) = settings.origin else { return Ok(Err(StartError(diagnostics))) };
    for (number, package) in state.stored() {
        let load = Load {
            number,
            from: LoadFrom::Package { served: true },
            source: GenerationSource::LastGood,
            force: false,
        };
        let dish = Dish { load, package: Some(&package), artefacts: &[], tickets: keys };
        let tasted = taste(&settings.launch, settings.taste, dish, None);
        match tasted.and_then(|tasted| listen(sockets, tasted)) {
            Ok(Tasted { child, loaded, package }) if loaded.file != COMMAND_LINE => {
                let source = GenerationSource::LastGood;
                return Ok(Ok(First { child, loaded, package, source, refused }));
            }
            Ok(other) => {
                other.child.kill();
                sockets.close();
            }
            Err(found) => {
                let first = found.first().map_or("", |found| &found.message);
                tracing::warn!(number, "a stored generation cannot run: {first}");
            }
        }
    }
    let listeners = state.listeners();
    if listeners.is_empty() {
        return Ok(Err(StartError(diagnostics)));
    }
    let child = start_edge(&settings.launch, keys)?;
    let load = Load {
        number,
        from: LoadFrom::Defaults { listeners },
        source: GenerationSource::Defaults,
        force: false,
    };
    let (reply, given) = child.ask(Task::Load(load), &[], LOAD)?;
    let (Reply::Loaded(loaded), Some(package)) = (reply, given.into_iter().next()) else {
        anyhow::bail!("an edge answered something unexpected")
    };
    let tasted = Tasted { child, loaded: *loaded, package: package.into() };
    Ok(match listen(sockets, tasted) {
        Ok(Tasted { child, loaded, package }) => {
            tracing::error!("no generation can be used: every request is answered with 503 until one can");
            Ok(First { child, loaded, package, source: GenerationSource::Defaults, refused })
        }
        Err(_) => Err(StartError(diagnostics)),
    })
}

/// Opens what a generation wants to listen on; its process is ended when that cannot be.
fn listen(sockets: &mut Sockets, tasted: Tasted) -> Result<Tasted, Vec<Diagnostic>> {
    match sockets.plan(&tasted.loaded.listeners, tasted.loaded.threads) {
        Ok(plan) => {
            sockets.put_in_force(plan);
            Ok(tasted)
        }
        Err(diagnostics) => {
            tasted.child.kill();
            Err(diagnostics)
        }
    }
}

type Found = (Arc<Child>, Adopted, File, Vec<std::os::fd::OwnedFd>, Loaded);

/// Edges that run without a supervisor: the one with the newest generation is taken, others are told to drain.
fn adopt(state: &StateFolder, journal: &Arc<Journal>) -> Option<Found> {
    let mut best: Option<Found> = None;
    let folder = std::fs::read_dir(state::edges(state.path())).ok()?;
    for entry in folder.flatten().take(MAX_ADOPTED) {
        let path = entry.path();
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a rendezvous socket that leads nowhere is removed");
                drop(std::fs::remove_file(&path));
                continue;
            }
        };
        let (child, adopted, descriptors) = match Child::adopt(stream, journal) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "an edge that was running could not be adopted");
                continue;
            }
        };
        let mut descriptors = descriptors.into_iter();
        let Some(loaded) = adopted.loaded.clone() else { continue };
        let Some(package) = descriptors.next().map(File::from) else { continue };
        let found: Found = (child, adopted, package, descriptors.collect(), loaded);
        let (kept, other) = match best.take() {
            Some(before) if before.4.number > found.4.number => (before, Some(found)),
            before => (found, before),
        };
        if let Some((child, _, _, _, loaded)) = other {
            tracing::warn!(pid = child.pid, "a second edge was running; it finishes what it has");
            child.tell(Task::Drain(loaded.drain));
            let limit = longest(loaded.drain);
            tracing::debug!(seconds = limit.as_secs(), "at the latest");
        }
        best = Some(kept);
    }
    best
}
