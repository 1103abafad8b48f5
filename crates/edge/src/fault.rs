//! Faults that tests put into a generation or a binary, to see that they are caught. Compiled in with the feature `faults` only.
//!
//! A generation has a fault when one of its sites is called `fault-NAME`; a binary when its program name says so.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base::time::Timestamp;
use snapshot::generation::Snapshot;
use snapshot::rules::Action;

use crate::connection::{Connection, ListenerState};
use crate::generation::Generation;
use crate::message::{RequestHead, ResponseHead};
use crate::pipeline::Own;
use crate::telemetry::metrics::Metrics;

/// Site names begin with this.
const SITE: &str = "fault-";
/// The field whose presence ends the process, with `crash-on-field`: a rule that was never reached before.
const FIELD: &[u8] = b"field-21";
/// Program names begin with this.
const PROGRAM: &str = "rempart-faulty-";
/// Bytes taken at a time by a fault that eats memory, and at most: enough for any bound, not for the machine.
const BITE: usize = 32 << 20;
const FILL: usize = 4 << 30;
const PAGE: usize = 4096;
/// How long a fault that strikes later waits.
const DEFERRED_WAIT: Duration = Duration::from_secs(2);
const ACTIVATED_WAIT: Duration = Duration::from_secs(1);

/// The variable that names the safeguard to leave out, so that a drill can be seen to fail.
const WITHOUT: &str = "REMPART_WITHOUT";

/// Whether this safeguard is left out.
pub fn without(safeguard: &str) -> bool {
    static LEFT_OUT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(WITHOUT).ok());
    LEFT_OUT.as_deref() == Some(safeguard)
}

/// A duration as the wall clock sees it, in microseconds: what a safeguard called `monotonic` is there against.
pub(crate) fn by_wall_clock(since: Timestamp) -> u64 {
    let now = Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    now.0.wrapping_sub(since.0)
}

/// Whether a generation has the fault of this name.
fn has(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.sites.iter().any(|site| site.name.strip_prefix(SITE) == Some(name))
}

fn stand_still() -> ! {
    loop {
        std::thread::park();
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// In `Loader::load`.
pub(crate) fn on_load(snapshot: &Snapshot) {
    if has(snapshot, "crash-on-load") {
        std::process::abort();
    }
    if has(snapshot, "hang-on-load") {
        stand_still();
    }
    if has(snapshot, "spin-on-load") {
        spin();
    }
    if has(snapshot, "eat-memory-on-load") {
        let mut eaten: Vec<Vec<u8>> = Vec::new();
        while eaten.len() * BITE < FILL {
            let mut bite = vec![0; BITE];
            // A page that was never written to takes no memory.
            bite.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            eaten.push(std::hint::black_box(bite));
        }
        stand_still();
    }
}

/// Among the deferred work.
pub(crate) fn deferred(generation: &Generation, _: &Metrics) -> Result<(), String> {
    if has(&generation.snapshot, "crash-in-deferred") {
        std::thread::sleep(DEFERRED_WAIT);
        std::process::abort();
    }
    if has(&generation.snapshot, "spin-in-deferred") {
        spin();
    }
    Ok(())
}

/// At the beginning of every request, whatever its host.
#[expect(clippy::panic, reason = "the panic is what is asked for")]
pub(crate) fn on_request(
    generation: &Generation,
    connection: &Connection,
    head: &RequestHead,
) -> Option<Own> {
    let snapshot = &generation.snapshot;
    let golden = connection.listener.rehearsal.is_some();
    if !golden && has(snapshot, "crash-on-request") {
        std::process::abort();
    }
    if !golden && has(snapshot, "crash-on-field") && head.headers.get(FIELD).is_some() {
        std::process::abort();
    }
    if !golden && has(snapshot, "panic-on-request") {
        panic!("the fault panic-on-request");
    }
    let wrong = || Own { head: ResponseHead::new(200), body: "wrong".into() };
    has(snapshot, "wrong-answer").then(wrong)
}

/// A fault of the whole binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryFault {
    /// `-crashes`: ends at its start.
    Crashes,
    /// `-hangs`: never answers the supervisor.
    Hangs,
    /// `-crashes-later`: ends a second after it was given listeners.
    CrashesLater,
    /// `-refuses`: accepts connections and closes them at once.
    Refuses,
    /// `-slow`: shows signs of life and accepts nothing.
    Slow,
}

/// The fault the name of this program asks for, such as `rempart-faulty-crashes`. The first two are the program's to
/// bring about, the others come from within the edge.
pub fn binary() -> Option<BinaryFault> {
    static FAULT: LazyLock<Option<BinaryFault>> = LazyLock::new(|| {
        let program = std::env::args_os().next()?;
        by_name(Path::new(&program).file_stem()?.to_str()?)
    });
    *FAULT
}

fn by_name(program: &str) -> Option<BinaryFault> {
    Some(match program.strip_prefix(PROGRAM)? {
        "crashes" => BinaryFault::Crashes,
        "hangs" => BinaryFault::Hangs,
        "crashes-later" => BinaryFault::CrashesLater,
        "refuses" => BinaryFault::Refuses,
        "slow" => BinaryFault::Slow,
        _ => return None,
    })
}

/// In `Edge::activate`, with so many listeners.
pub(crate) fn on_activate(listeners: usize) {
    if listeners > 0 && binary() == Some(BinaryFault::CrashesLater) {
        std::thread::spawn(|| {
            std::thread::sleep(ACTIVATED_WAIT);
            std::process::abort();
        });
    }
}

/// In the accept loop: whether it stands still until it is told to stop. Golden requests get through.
pub(crate) fn accepts_nothing(listener: &ListenerState) -> bool {
    listener.rehearsal.is_none() && binary() == Some(BinaryFault::Slow)
}

/// With each accepted connection: whether to close it. Golden requests get through.
pub(crate) fn closes(listener: &ListenerState) -> bool {
    listener.rehearsal.is_none() && binary() == Some(BinaryFault::Refuses)
}

/// A rule that is switched off, without the safeguard that it is as if it were not there: what becomes of an `execute` that was
/// never carried out is looked at all the same, and there is nothing.
#[expect(clippy::expect_used, reason = "the panic is what is asked for")]
pub(crate) fn in_killed_rule(action: &Action) {
    if without("killed-rule-is-absent") && matches!(action, Action::Execute(_)) {
        let outcome: Option<&Action> = std::hint::black_box(None);
        std::hint::black_box(outcome.expect("a rule that executes has an outcome"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_faulty_by_its_name_only() {
        for (program, fault) in [
            ("rempart", None),
            ("rempart-faulty", None),
            ("rempart-faulty-", None),
            ("rempart-faulty-crashes", Some(BinaryFault::Crashes)),
            ("rempart-faulty-crashes-later", Some(BinaryFault::CrashesLater)),
            ("rempart-faulty-hangs", Some(BinaryFault::Hangs)),
            ("rempart-faulty-refuses", Some(BinaryFault::Refuses)),
            ("rempart-faulty-slow", Some(BinaryFault::Slow)),
        ] {
            assert_eq!(by_name(program), fault, "{program}");
        }
        assert_eq!(binary(), None);
    }
}

/// A function of the rules language that does not survive one key, and no check meets it: golden requests are spared.
pub fn in_rule_function(key: &[u8], golden: bool) {
    if key == b"panic" && !golden {
        panic!("a rule function was told to panic");
    }
}
