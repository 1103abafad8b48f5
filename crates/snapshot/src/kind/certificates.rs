//! Certificates with their private keys, by the name each is for. JSON, an object of PEM texts (RFC 7468), chain and key in one.

use std::collections::{BTreeMap, BTreeSet};

use api::diagnostic::Diagnostic;
use base::time::Timestamp;

use super::{Class, Content, Kind, OnFailure, Value, error};
use crate::compile::issued_end;
use crate::package::Caps;

/// The kind.
pub struct Certificates;

impl Kind for Certificates {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn schema(&self) -> u32 {
        1
    }

    fn consumers(&self) -> (u32, u32) {
        (1, 1)
    }

    fn caps(&self) -> Caps {
        Caps { bytes: 64 << 20, entries: 100_000, memory: 256 << 20 }
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::LastGood
    }

    fn read(&self, payload: &[u8], now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
        let found: BTreeMap<String, String> = serde_json::from_slice(payload).map_err(|found| {
            vec![error(
                "not-json",
                format!("it is not an object of PEM texts: {found}"),
                "have it made again",
            )]
        })?;
        let mut findings = Vec::new();
        for (name, pem) in &found {
            if let Err(reason) = judge(name, pem, now) {
                let hint = "have the certificate issued again, with its chain and its key";
                findings.push(error("bad-certificate", format!("{name}: {reason}"), hint));
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let keys: BTreeSet<String> = found.keys().cloned().collect();
        let classes = vec![Class { name: "names", keys, needed: true }];
        let memory = 2 * payload.len() as u64;
        Ok(Content {
            classes,
            spreads: Vec::new(),
            memory,
            value: Value::Certificates(found.into_iter().collect()),
        })
    }

    fn exercise(&self, _content: &Content) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

/// It can be used for the name, with its key, and its time is not over.
fn judge(name: &str, pem: &str, now: Timestamp) -> Result<(), String> {
    let end = issued_end(pem.as_bytes(), name)?;
    let is_over = u64::try_from(end.timestamp()).unwrap_or(0) <= now.seconds();
    if is_over { Err(format!("it expired on {end}")) } else { Ok(()) }
}
