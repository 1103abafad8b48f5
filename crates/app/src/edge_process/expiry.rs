//! Certificates that come near their end are told in the log, each step once; `rempart status` shows them all the time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::EdgeProcess;
use crate::builder::now;

/// How often certificates are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Steps that are remembered as told.
const MAX_TOLD: usize = 16 * 1024;

/// Looks at the certificates in force for as long as the process lives.
pub fn watch(process: Arc<EdgeProcess>) -> std::io::Result<()> {
    std::thread::Builder::new().name("expiry".to_owned()).spawn(move || {
        let mut told = HashSet::new();
        loop {
            std::thread::sleep(LOOK);
            tell(&process, &mut told);
        }
    })?;
    Ok(())
}

fn tell(process: &EdgeProcess, told: &mut HashSet<(String, &'static str)>) {
    let generation = process.lock().in_force.as_ref().map(|ready| ready.generation.clone());
    let Some(generation) = generation else { return };
    if told.len() > MAX_TOLD {
        told.clear();
    }
    for found in generation.certificates.warnings_at(now()) {
        if told.insert((found.place.clone(), found.code)) {
            let (place, code) = (&found.place, found.code);
            if code == "certificate-expired" {
                tracing::error!(
                    place,
                    code,
                    "{}; it is served on, and visitors are warned: {}",
                    found.message,
                    found.hint
                );
            } else {
                tracing::warn!(place, code, "{}: {}", found.message, found.hint);
            }
        }
    }
}
