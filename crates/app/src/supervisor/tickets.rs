//! Keys of TLS session tickets: made here, the same in every edge, so that sessions go on whoever serves them.

use std::time::Duration;

use api::process::{Task, TicketKey};
use edge::tls::TicketKeys;

use super::Supervisor;
use crate::builder::now;
use crate::state::StateFolder;

/// A key encrypts for this long...
const FRESH: Duration = Duration::from_secs(6 * 3600);
/// ...and is good for decrypting this long.
const GOOD: Duration = Duration::from_secs(18 * 3600);
/// Keys kept at most.
const MAX_KEYS: usize = 4;
/// How often the time for a new key is looked for.
const LOOK: Duration = Duration::from_secs(60);

/// The keys to begin with: those of before that are still good, and a fresh one when it is time.
pub fn begin(state: &StateFolder, before: Vec<TicketKey>) -> Vec<TicketKey> {
    let (keys, changed) = renew(before);
    if changed {
        keep(state, &keys);
    }
    keys
}

fn keep(state: &StateFolder, keys: &[TicketKey]) {
    if let Err(error) = state.keep_tickets(keys) {
        tracing::warn!(%error, "ticket keys could not be kept: sessions will not continue after a restart");
    }
}

/// Drops what is too old, or from the future; adds a key in front when the newest is no longer fresh.
fn renew(mut keys: Vec<TicketKey>) -> (Vec<TicketKey>, bool) {
    let at = now();
    let seconds = at.seconds();
    let before = keys.len();
    keys.retain(|key| key.made <= seconds && seconds - key.made < GOOD.as_secs());
    let mut changed = keys.len() != before;
    if keys.first().is_none_or(|newest| seconds - newest.made >= FRESH.as_secs()) {
        match TicketKeys::generate(at) {
            Ok(key) => {
                keys.insert(0, key);
                changed = true;
            }
            Err(error) => tracing::error!(%error, "no ticket key could be made; the old ones are used on"),
        }
    }
    keys.truncate(MAX_KEYS);
    (keys, changed)
}

/// Makes a new key every few hours and gives it to every edge. Runs on a thread of its own.
pub fn rotate(supervisor: &Supervisor) {
    loop {
        std::thread::sleep(LOOK);
        let mut fleet = supervisor.fleet();
        if fleet.ending {
            return;
        }
        let (keys, changed) = renew(std::mem::take(&mut fleet.tickets));
        fleet.tickets = keys;
        if changed {
            let keys = fleet.tickets.clone();
            keep(&supervisor.state, &keys);
            for (_, child) in fleet.processes() {
                child.tell(Task::Tickets { keys: keys.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(age: u64) -> TicketKey {
        TicketKey { name: format!("{age}"), secret: String::new(), made: now().seconds() - age }
    }

    #[test]
    fn a_new_key_comes_when_the_newest_is_old_and_the_oldest_go() {
        let hours = |hours: u64| hours * 3600;
        let (keys, changed) = renew(vec![key(hours(1)), key(hours(7))]);
        assert_eq!((keys.len(), changed), (2, false));
        let (keys, changed) = renew(vec![key(hours(7)), key(hours(13)), key(hours(19))]);
        assert_eq!((keys.len(), changed), (3, true));
        assert!(now().seconds() - keys[0].made < 60);
        let future = TicketKey { made: now().seconds() + hours(1), ..key(0) };
        let (keys, _) = renew(vec![future.clone()]);
        assert!(!keys.contains(&future));
    }
}
