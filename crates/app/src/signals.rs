//! `rempart ban`, `revert` and `disable`: signals sealed with this machine's key, and handed to the supervisor. `rempart enable` is
//! none, because it gives back what was taken.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::admin::{Answer, Request};
use api::seal::SigningKey;
use api::signal::{self, Signal};
use ipnet::IpNet;
use serde_json::json;

use crate::builder::now;
use crate::cli::{BanArguments, DisableArguments, EnableArguments, Place, RevertArguments};
use crate::report::Terminal;
use crate::{EXIT_OK, run, state};

/// Turns a network away.
pub fn ban(arguments: &BanArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let text = &arguments.network;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.with_context(|| format!("{text:?} is neither an address nor a network"))?;
    let until = now().plus(Duration::from_secs(arguments.minutes * 60));
    send(&arguments.place, Signal::Ban { network, until, reason: arguments.reason.clone() }, terminal)
}

/// Goes back.
pub fn revert(arguments: &RevertArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let signal = Signal::Revert { feed: arguments.feed.clone(), reason: arguments.reason.clone() };
    send(&arguments.place, signal, terminal)
}

/// Switches a module off.
pub fn disable(arguments: &DisableArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let DisableArguments { module, site, reason, place } = arguments;
    let signal = Signal::Disable { module: module.clone(), site: site.clone(), reason: reason.clone() };
    send(place, signal, terminal)
}

/// Switches a module on again.
pub fn enable(arguments: &EnableArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let EnableArguments { module, site, place } = arguments;
    ask(place, &Request::Enable { module: module.clone(), site: site.clone() }, terminal)
}

fn send(place: &Place, signal: Signal, terminal: &Terminal) -> anyhow::Result<u8> {
    let (folder, _) = run::places(place, false);
    let path = state::machine_key_file(&folder);
    let key = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; has Rempart run here, as this user?", path.display()))?;
    let key = SigningKey::parse(&key).with_context(|| format!("{} is damaged", path.display()))?;
    let id = getrandom::u64().context("this machine has no randomness")?;
    let sealed = signal::seal(signal, id, now(), &key)?;
    ask(place, &Request::Signal { sealed }, terminal)
}

fn ask(place: &Place, request: &Request, terminal: &Terminal) -> anyhow::Result<u8> {
    match crate::ask(place, request) {
        Err(error) => return Ok(crate::unreached(terminal, &error)),
        Ok(Answer::Signalled { message }) if terminal.json => {
            terminal.print_json(&json!({ "done": message }))
        }
        Ok(Answer::Signalled { message }) => terminal.print(&message),
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}
