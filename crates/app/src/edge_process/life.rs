//! Signs of life while orders take their time, and the end by a signal.

use std::sync::Arc;
use std::time::Duration;

use api::process::Word;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::EdgeProcess;
use crate::EXIT_OK;

/// How often a sign of life is given.
const BEAT: Duration = Duration::from_millis(100);

/// A thread of its own, so that a long order does not look like a hang.
pub(super) fn give_signs(process: Arc<EdgeProcess>) -> anyhow::Result<()> {
    std::thread::Builder::new().name("beat".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(BEAT);
            let (edge, channel) = process.lock_living().clone();
            let Some(channel) = channel else { continue };
            let mut beat = edge.map(|edge| edge.pulse()).unwrap_or_default();
            beat.wanted = process.builder.loader.wanted().take();
            // Who no longer listens is noticed where orders are read.
            if let Err(error) = channel.send(&Word::Beat(beat), &[]) {
                tracing::debug!(%error, "a sign of life could not be given");
            }
        }
    })?;
    Ok(())
}

/// The supervisor orders what happens at a signal; one sent to this process is for an edge that has none.
pub(super) fn end_on_signal(process: Arc<EdgeProcess>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            process.pause();
            process.health.drain();
            let limits = process.lock().in_force.as_ref().map(|ready| ready.generation.snapshot.drain);
            process.lock().drain = limits;
            process.finish();
            std::process::exit(EXIT_OK.into());
        }
    })?;
    Ok(())
}
