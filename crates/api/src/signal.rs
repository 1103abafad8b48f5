//! Signals: what has to be everywhere at once and so takes no taster. A closed list: each restricts or reverts, none brings logic.
//!
//! A signal is JSON with its number, its times and its seal, in one line of text. It is good for minutes (a ban for as long as it
//! lasts), counts once, and reaches no further than its kind may. There is no "all" in any of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::certificates::Challenge;
use crate::seal::{Domain, KeyId, Keyring, SIGNATURE_BYTES, Seal, SealError, SigningKey};

/// Longest signal, in bytes of text.
pub const MAX_TEXT: usize = 8 << 10;
/// How long a signal may be under way.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Clocks of machines may differ by so much.
const SKEW: Duration = Duration::from_secs(30);
/// Longest ban.
pub const MAX_BAN: Duration = Duration::from_secs(24 * 3600);
/// Widest networks that can be banned: shortest prefixes of IPv4 and IPv6.
const WIDEST: (u8, u8) = (16, 32);
/// Things named in one purge.
const MAX_PURGED: usize = 100;
/// Longest reason and name, in bytes.
const MAX_NAME: usize = 256;
/// Signals of one kind within a minute.
const PER_MINUTE: usize = 60;
/// Numbers remembered, so that none counts twice. More than all kinds' minutes of `MAX_AGE` together is never needed.
const MAX_SEEN: usize = 8192;

/// What is signalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "snake_case", deny_unknown_fields)]
pub enum Signal {
    /// Forget what is cached of these.
    Purge {
        /// URLs, prefixes, hosts or tags, each with its sort in front: `url:`, `prefix:`, `host:`, `tag:`.
        what: Vec<String>,
    },
    /// Turn a network away for a while.
    Ban {
        /// Which.
        network: IpNet,
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// What another machine has counted, for limits that hold for all of them.
    CounterDigest {
        /// The counter.
        counter: String,
        /// Its value there.
        value: u64,
    },
    /// What a certificate authority will look for.
    AcmeToken {
        /// All that are pending.
        challenges: Vec<Challenge>,
    },
    /// Go back to the last good one.
    Revert {
        /// The feed; `None` is the configuration.
        feed: Option<String>,
        /// Why.
        reason: String,
    },
    /// Switch a module off.
    Disable {
        /// The module.
        module: String,
        /// The site; `None` is every one, which is said in so many words because a module is named.
        site: Option<String>,
        /// Why.
        reason: String,
    },
}

impl Signal {
    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Purge { .. } => "purge",
            Self::Ban { .. } => "ban",
            Self::CounterDigest { .. } => "counter_digest",
            Self::AcmeToken { .. } => "acme_token",
            Self::Revert { .. } => "revert",
            Self::Disable { .. } => "disable",
        }
    }
}

/// A signal as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    id: u64,
    issued: Timestamp,
    signal: Signal,
}

/// Why a signal is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Not a signal, or one of a newer version.
    #[error("it is no signal that this version knows")]
    Malformed,
    /// Nobody trusted has signed it.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// Too old, or from the future.
    #[error("it was issued more than ten minutes ago, or by a clock that is ahead; issue it again")]
    OutOfTime,
    /// It reaches further than it may.
    #[error("{0}")]
    Reach(&'static str),
    /// It was carried out before.
    #[error("it was carried out before")]
    Replayed,
    /// Too many of its kind.
    #[error("more than {PER_MINUTE} signals of this kind came within a minute")]
    TooMany,
}

/// A signal that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub id: u64,
    /// What is signalled.
    pub signal: Signal,
    /// Who has signed it.
    pub key: KeyId,
}

/// Seals a signal. `id` is a random number, which tells it from every other.
pub fn seal(signal: Signal, id: u64, issued: Timestamp, key: &SigningKey) -> Result<String, SignalError> {
    reach(&signal, issued)?;
    let letter = serde_json::to_vec(&Letter { id, issued, signal }).map_err(|_| SignalError::Malformed)?;
    let seal = key.sign(Domain::Signal, &letter);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}.{}", encode(&letter), encode(&seal.key.0), encode(&seal.signature));
    if text.len() > MAX_TEXT {
        Err(SignalError::Reach("it is longer than any signal may be"))
    } else {
        Ok(text)
    }
}

/// Reads and verifies a signal.
pub fn open(text: &str, keys: &Keyring, now: Timestamp) -> Result<Opened, SignalError> {
    if text.len() > MAX_TEXT {
        return Err(SignalError::Malformed);
    }
    let decode = |part: Option<&str>| URL_SAFE_NO_PAD.decode(part?).ok();
    let mut parts = text.trim().split('.');
    let (letter, key, signature) = (decode(parts.next()), decode(parts.next()), decode(parts.next()));
    let (Some(letter), Some(key), Some(signature), None) = (letter, key, signature, parts.next()) else {
        return Err(SignalError::Malformed);
    };
    let key: [u8; 8] = key.try_into().map_err(|_| SignalError::Malformed)?;
    let signature: [u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| SignalError::Malformed)?;
    let seal = Seal { key: KeyId(key), signature };
    keys.verify(Domain::Signal, &letter, &seal, now)?;
    let Letter { id, issued, signal } =
        serde_json::from_slice(&letter).map_err(|_| SignalError::Malformed)?;
    if now > issued.plus(MAX_AGE) || issued > now.plus(SKEW) {
        return Err(SignalError::OutOfTime);
    }
    reach(&signal, now)?;
    Ok(Opened { id, signal, key: seal.key })
}

/// A signal may reach so far and no further.
fn reach(signal: &Signal, now: Timestamp) -> Result<(), SignalError> {
    let named = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
    let wrong = match signal {
        Signal::Purge { what } => (what.is_empty()
            || what.len() > MAX_PURGED
            || !what.iter().all(|one| is_one_thing(one)))
        .then_some("a purge names 1 to 100 things, each with its sort in front; an empty one is not \"all\""),
        Signal::Ban { network, until, reason } => {
            let widest = if matches!(network, IpNet::V4(_)) { WIDEST.0 } else { WIDEST.1 };
            if network.prefix_len() < widest {
                Some("a ban reaches a /16 of IPv4 or a /32 of IPv6 at most")
            } else if matches!(network, IpNet::V6(six) if six.addr().to_ipv4_mapped().is_some()) {
                Some("a ban of IPv4 is written as IPv4, so that it is seen how far it reaches")
            } else if *until > now.plus(MAX_BAN) {
                Some("a ban lasts a day at most")
            } else {
                (!named(reason)).then_some("a ban needs a reason")
            }
        }
        Signal::CounterDigest { counter, .. } => (!named(counter)).then_some("a counter has a name"),
        Signal::AcmeToken { challenges } => {
            (challenges.len() > MAX_PURGED).then_some("more challenges than any authority has pending")
        }
        Signal::Revert { feed, reason } => (feed.as_deref().is_some_and(|feed| !named(feed))
            || !named(reason))
        .then_some("a feed has a name, and going back a reason"),
        Signal::Disable { module, site, reason } => {
            (!named(module) || site.as_deref().is_some_and(|site| !named(site)) || !named(reason))
                .then_some("a switch names a module, a site or none, and a reason; a blank is not \"all\"")
        }
    };
    wrong.map_or(Ok(()), |reason| Err(SignalError::Reach(reason)))
}

/// Whether what is to be purged names something: a host at least. A bare scheme, or the beginning of one, would be everything.
fn is_one_thing(what: &str) -> bool {
    let host = |text: &str| !text.is_empty() && !text.starts_with(['*', '.', '/', ':']);
    match what.split_once(':') {
        Some(("url" | "prefix", rest)) => rest
            .strip_prefix("https://")
            .or_else(|| rest.strip_prefix("http://"))
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(name, _)| host(name)),
        Some(("host", rest)) => host(rest),
        Some(("tag", rest)) => !rest.is_empty(),
        _ => false,
    }
}

/// Sees to it that no signal counts twice, and that there are only so many.
#[derive(Debug, Default)]
pub struct Meter {
    seen: VecDeque<(Timestamp, u64)>,
    recent: BTreeMap<&'static str, VecDeque<Timestamp>>,
}

impl Meter {
    /// Takes note of a signal that is about to be carried out, or says why it must not be.
    pub fn admit(&mut self, opened: &Opened, now: Timestamp) -> Result<(), SignalError> {
        let life = MAX_AGE + SKEW;
        while self.seen.front().is_some_and(|(at, _)| at.plus(life) < now) || self.seen.len() >= MAX_SEEN {
            self.seen.pop_front();
        }
        if self.seen.iter().any(|(_, id)| *id == opened.id) {
            return Err(SignalError::Replayed);
        }
        let recent = self.recent.entry(opened.signal.kind()).or_default();
        // A clock that was set back must not make the minute longer.
        recent.retain(|at| *at <= now && at.plus(Duration::from_secs(60)) > now);
        if recent.len() >= PER_MINUTE {
            return Err(SignalError::TooMany);
        }
        recent.push_back(now);
        self.seen.push_back((now, opened.id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(10_000_000_000);

    fn key() -> SigningKey {
        SigningKey::from_seed(&[5; 32]).unwrap()
    }

    fn ring() -> Keyring {
        Keyring::new([key().public().into()]).unwrap()
    }

    fn ban(network: &str, seconds: u64) -> Signal {
        let until = NOW.plus(Duration::from_secs(seconds));
        Signal::Ban { network: network.parse().unwrap(), until, reason: "a flood".to_owned() }
    }

    #[test]
    fn a_signal_is_read_as_it_was_sealed_and_any_change_is_noticed() {
        let text = seal(ban("192.0.2.0/24", 60), 77, NOW, &key()).unwrap();
        let opened = open(&text, &ring(), NOW).unwrap();
        assert_eq!(
            (opened.id, &opened.signal, opened.key),
            (77, &ban("192.0.2.0/24", 60), key().public().id())
        );
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            // The last character of a part has bits that mean nothing; base64 refuses them unless they are zero.
            assert!(open(&bad, &ring(), NOW).is_err() || bad == text, "character {at}");
        }
        assert!(open(&text, &Keyring::default(), NOW).is_err());
    }

    #[test]
    fn it_is_good_for_minutes() {
        let text = seal(ban("192.0.2.0/24", 60), 1, NOW, &key()).unwrap();
        let at = |seconds: i64| Timestamp(NOW.0.saturating_add_signed(seconds * 1_000_000));
        for (seconds, good) in [(0, true), (600, true), (601, false), (-30, true), (-31, false)] {
            assert_eq!(open(&text, &ring(), at(seconds)).is_ok(), good, "after {seconds} s");
        }
    }

    #[test]
    fn nothing_reaches_everybody() {
        let purge =
            |what: &[&str]| Signal::Purge { what: what.iter().map(|one| (*one).to_owned()).collect() };
        let disable = |module: &str, site: Option<&str>| Signal::Disable {
            module: module.to_owned(),
            site: site.map(str::to_owned),
            reason: "test".to_owned(),
        };
        for (signal, good) in [
            (ban("0.0.0.0/0", 60), false),
            (ban("10.0.0.0/15", 60), false),
            (ban("10.0.0.0/16", 60), true),
            (ban("2001:db8::/31", 60), false),
            (ban("192.0.2.1/32", 24 * 3600), true),
            (ban("192.0.2.1/32", 24 * 3600 + 1), false),
            (purge(&[]), false),
            (purge(&["host:"]), false),
            (purge(&["everything"]), false),
            (purge(&["prefix:h"]), false),
            (purge(&["prefix:https://"]), false),
            (purge(&["prefix:https://exam"]), false),
            (purge(&["prefix:https:///news"]), false),
            (purge(&["host:*"]), false),
            (purge(&["prefix:https://example.org/"]), true),
            (purge(&["url:http://example.org/a?b=c:d"]), true),
            (ban("::ffff:0:0/96", 60), false),
            (ban("::ffff:192.0.2.0/120", 60), false),
            (purge(&["host:example.org", "tag:news"]), true),
            (disable("waf", None), true),
            (disable("waf", Some("")), false),
            (disable("", None), false),
        ] {
            assert_eq!(seal(signal.clone(), 1, NOW, &key()).is_ok(), good, "{signal:?}");
        }
    }

    #[test]
    fn each_counts_once_and_only_so_many_count() {
        let mut meter = Meter::default();
        let opened = |id| Opened { id, signal: ban("192.0.2.0/24", 60), key: key().public().id() };
        assert_eq!(meter.admit(&opened(1), NOW), Ok(()));
        assert_eq!(meter.admit(&opened(1), NOW), Err(SignalError::Replayed));
        for id in 2..=PER_MINUTE as u64 {
            assert_eq!(meter.admit(&opened(id), NOW), Ok(()));
        }
        assert_eq!(meter.admit(&opened(999), NOW), Err(SignalError::TooMany));
        let later = NOW.plus(Duration::from_secs(60));
        assert_eq!(meter.admit(&opened(999), later), Ok(()));
        assert_eq!(meter.admit(&opened(1), later), Err(SignalError::Replayed));
        let before = Timestamp(NOW.0 - 3_600_000_000);
        assert_eq!(meter.admit(&opened(1000), before), Ok(()), "the clock was set back an hour");
        assert_eq!(meter.admit(&opened(1), before), Err(SignalError::Replayed));
    }
}
