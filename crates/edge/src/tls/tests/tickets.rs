//! Session tickets: what opens, what does not, and resumption in another process that was given the same keys.

use std::sync::Arc;
use std::time::Duration;

use api::process::TicketKey;
use base::time::Timestamp;
use rustls::SupportedProtocolVersion;
use snapshot::generation::Certificate;

use super::fixture::*;
use crate::generation::Loader;
use crate::telemetry::metrics::Metrics;
use crate::tls::tickets::{MAX_TICKET_KEYS, TICKET_SECONDS};
use crate::tls::{DevelopmentAuthority, Expired, ServerSettings, TicketKeyError, TicketKeys};

fn key() -> TicketKey {
    TicketKeys::generate(now()).unwrap()
}

fn ring(keys: &[&TicketKey]) -> TicketKeys {
    let ring = TicketKeys::random(now()).unwrap();
    let keys: Vec<TicketKey> = keys.iter().map(|&key| key.clone()).collect();
    ring.set(&keys).unwrap();
    ring
}

#[test]
fn a_ticket_opens_whole_and_unaltered_only() {
    let keys = ring(&[&key()]);
    let time = now();
    let ticket = keys.seal(b"a session", time).unwrap();
    assert_eq!(keys.open(&ticket, time).as_deref(), Some(&b"a session"[..]));
    assert!(!ticket.windows(9).any(|part| part == b"a session"), "it is encrypted");
    assert_ne!(keys.seal(b"a session", time).unwrap(), ticket, "each has a nonce of its own");
    for position in 0..ticket.len() {
        for bit in 0..8 {
            let mut altered = ticket.clone();
            altered[position] ^= 1 << bit;
            assert_eq!(keys.open(&altered, time), None, "bit {bit} of byte {position}");
        }
        assert_eq!(keys.open(&ticket[..position], time), None, "cut at {position}");
    }
    assert_eq!(keys.open(&[&ticket[..], b"!"].concat(), time), None);
    assert_eq!(ring(&[&key()]).open(&ticket, time), None, "another ring");
    assert_eq!(keys.seal(&[0; 5000], time), None, "no session is that long");
    assert_eq!(keys.open(&[&ticket[..16], &[0; 5000]].concat(), time), None);
}

#[test]
fn a_ticket_is_good_for_half_a_day_and_as_long_as_its_key() {
    let (old, new) = (key(), key());
    let keys = ring(&[&old]);
    let issued = Timestamp::from_unix(Duration::from_secs(1_800_000_000));
    let ticket = keys.seal(b"s", issued).unwrap();
    let seconds = |seconds: u64| Duration::from_secs(seconds);
    let life = u64::from(TICKET_SECONDS);
    assert!(keys.open(&ticket, issued.plus(seconds(life - 1))).is_some());
    assert!(keys.open(&ticket, issued.plus(seconds(life))).is_none());
    // Two machines' clocks differ a little, not a lot.
    let before = |by: u64| Timestamp::from_unix(seconds(1_800_000_000 - by));
    assert!(keys.open(&ticket, before(200)).is_some());
    assert!(keys.open(&ticket, before(3600)).is_none());
    keys.set(&[new.clone(), old.clone()]).unwrap();
    assert!(keys.open(&ticket, issued).is_some(), "an older key still opens");
    let fresh = keys.seal(b"s", issued).unwrap();
    assert!(ring(&[&new]).open(&fresh, issued).is_some(), "the newest key seals");
    keys.set(&[new]).unwrap();
    assert!(keys.open(&ticket, issued).is_none(), "its key is gone");
}

#[test]
fn bad_keys_are_refused_and_the_ring_stays() {
    let keys = ring(&[&key()]);
    let time = now();
    let ticket = keys.seal(b"s", time).unwrap();
    let good = key();
    let named = |name: &str| TicketKey { name: name.to_owned(), ..key() };
    let secret = |secret: &str| TicketKey { secret: secret.to_owned(), ..key() };
    let many: Vec<TicketKey> = (0..=MAX_TICKET_KEYS).map(|_| key()).collect();
    for (given, expected) in [
        (vec![], TicketKeyError::Empty),
        (many.clone(), TicketKeyError::TooMany(MAX_TICKET_KEYS + 1)),
        (vec![good.clone(), named("")], TicketKeyError::Name(1)),
        (vec![named(&"0".repeat(31))], TicketKeyError::Name(0)),
        (vec![named(&"g".repeat(32))], TicketKeyError::Name(0)),
        (vec![named(&"é".repeat(16))], TicketKeyError::Name(0)),
        (vec![secret(&"0".repeat(66))], TicketKeyError::Secret(0)),
        (vec![secret(&"+0".repeat(32))], TicketKeyError::Secret(0)),
        (vec![good.clone(), key(), good.clone()], TicketKeyError::Repeated(2)),
    ] {
        assert_eq!(keys.set(&given), Err(expected));
        assert!(keys.open(&ticket, time).is_some(), "after {expected}");
    }
    assert_eq!(keys.set(&many[1..]), Ok(()));
    assert!(!format!("{keys:?} {good:?}").contains(&good.secret));
}

/// A process: what it loads resumes with the keys it was given.
fn process(keys: Option<&[TicketKey]>) -> Loader {
    let loader = Loader::new(Arc::new(Metrics::new(1, Arc::default()))).unwrap();
    if let Some(keys) = keys {
        loader.tickets().set(keys).unwrap();
    }
    loader
}

fn load_in(loader: &Loader, authority: &Arc<DevelopmentAuthority>) -> Arc<ServerSettings> {
    let snapshot = generation(vec![site(0, &["a.example"], Certificate::Development)]);
    loader.load(snapshot, 1, Some(authority), now(), Expired::Refuse).unwrap().tls.unwrap()
}

#[tokio::test]
async fn a_session_continues_in_every_process_with_the_same_keys() {
    const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    let authority = authority();
    let (old, new) = (key(), key());
    let one = process(Some(std::slice::from_ref(&old)));
    let two = process(Some(&[new, old]));
    let stranger = process(None);
    for version in VERSIONS {
        let client = Arc::new(client_with(authority.certificate_pem(), &["h2"], &[version], None));
        let mut resumed = Vec::new();
        // The second load of a process is its reload; the stranger comes last, for a client drops what it refused.
        for process in [&one, &two, &two, &one, &stranger] {
            let server = load_in(process, &authority);
            resumed.push(visit(&client, "a.example", &server).await.1.facts.resumed);
        }
        // What the second process seals with its newest key the first does not know.
        assert_eq!(resumed[..3], [false, true, true], "{version:?}");
        assert!(!resumed[4], "{version:?}");
    }
}
