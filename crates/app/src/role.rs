//! What the processes beside the edge have in common: how they meet the supervisor, answer it and tell it what happened.

use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use api::diagnostic::{Diagnostic, Severity};
use api::process::{Reply, Word};
use base::happening::Happening;

use crate::channel::Channel;

/// Says hello. The number is drawn at random, for whoever needs a seed.
pub fn begin(stream: UnixStream) -> anyhow::Result<(Channel, u64)> {
    let channel = Channel::new(stream)?;
    let seed = getrandom::u64().context("this machine has no randomness")?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    channel.send(&Word::Hello { pid: std::process::id(), version, instance: format!("{seed:016x}") }, &[])?;
    Ok((channel, seed))
}

/// Answers an order: done, or not for this reason.
pub fn answer(channel: &Channel, id: u64, code: &str, outcome: Result<(), String>) {
    let reply = match outcome {
        Ok(()) => Reply::Done,
        Err(message) => {
            let (severity, code) = (Severity::Error, code.to_owned());
            Reply::Refused {
                diagnostics: vec![Diagnostic { severity, code, message, location: None, hint: None }],
            }
        }
    };
    if let Err(error) = channel.send(&Word::Answer { id, reply }, &[]) {
        tracing::debug!(%error, "an answer could not be given");
    }
}

/// Tells the supervisor, who tells analytics and watch. What cannot be told is in this process's log all the same.
pub fn happened(channel: &Channel, happening: Happening) {
    if let Err(error) = channel.send(&Word::Happened { happening }, &[]) {
        tracing::debug!(%error, "the supervisor could not be told");
    }
}
