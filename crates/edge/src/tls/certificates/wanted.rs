//! Names visitors asked for that may be had on demand and have no certificate yet: noted in handshakes, taken by control.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Names held until they are taken; more are dropped, and noted again by the next handshake.
pub const MAX_WANTED: usize = 256;
/// Bytes of a host name (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// The names, each once. Locked only by handshakes for a name without certificate, and by `take`.
#[derive(Debug, Default)]
pub struct Wanted {
    names: Mutex<BTreeSet<String>>,
}

impl Wanted {
    /// Notes a name, lower case.
    pub(in crate::tls) fn note(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if name.len() <= MAX_NAME_BYTES && names.len() < MAX_WANTED && !names.contains(name) {
            names.insert(name.to_owned());
        }
    }

    /// All names noted since the last time, in alphabetical order.
    pub fn take(&self) -> Vec<String> {
        let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
        names.into_iter().collect()
    }
}
