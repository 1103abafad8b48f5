//! What the keeper says about a name, for `rempart certs`; needs no runtime and no keeper.

use std::path::Path;

use crate::history::{History, rfc3339};
use crate::name::Name;
use crate::store::{HISTORY_FILE, certificates_folder};

/// A history longer than this is not read; a real one has a few KiB.
const MAX_HISTORY_BYTES: u64 = 1 << 20;

/// The keeper's part of `api::certificates::CertificateStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptStatus {
    /// When the next attempt is due, RFC 3339; `None` when unknown.
    pub renews: Option<String>,
    /// Who signed the certificate at hand, for a person.
    pub issuer: Option<String>,
    /// Why the last attempt failed.
    pub problem: Option<String>,
}

impl KeptStatus {
    /// From what is remembered.
    pub fn of(history: &History) -> Self {
        Self {
            renews: history.next.map(rfc3339),
            issuer: history.issued.as_ref().map(|issued| issued.issuer.clone()),
            problem: history.problem.clone(),
        }
    }
}

/// What the keeper wrote down about a name in a state folder; `None` when there is nothing readable about it.
pub fn read_status(state_folder: &Path, name: &str) -> Option<KeptStatus> {
    let name = Name::parse(name).ok()?;
    let path = certificates_folder(state_folder).join(name.folder()).join(HISTORY_FILE);
    if std::fs::metadata(&path).ok()?.len() > MAX_HISTORY_BYTES {
        return None;
    }
    let history: History = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    Some(KeptStatus::of(&history))
}
