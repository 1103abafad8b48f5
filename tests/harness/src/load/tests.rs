//! The load itself: what it calls served, lost, dropped and refused, against servers that do just that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Attempt, Halt, Kind, Load, Pace, Record, Report, Target, Trouble};
use crate::certificates::Authority;
use crate::client::tls_config;
use crate::origin::Origin;
use crate::ports;

fn target(plain: std::net::SocketAddr) -> Target {
    let trust = tls_config(&Authority::new("Nobody's authority").pem(), &["http/1.1"]);
    Target {
        plain,
        tls: plain,
        http1: trust.clone(),
        http2: trust,
        source: None,
        host: "load.test".into(),
        path: "/ok".into(),
        expect: "ok".into(),
    }
}

fn crowd(plain: std::net::SocketAddr, requests: usize) -> Report {
    let load = Load::start(&target(plain), Pace::Crowd { workers: 4, hold: Duration::from_millis(1) });
    load.wait_for(requests);
    load.stop()
}

#[test]
fn what_a_server_does_is_called_by_its_name() {
    let turns = Arc::new(AtomicU64::new(0));
    let theirs = turns.clone();
    let origin = Origin::scripted(move |connection| {
        connection.wire.head()?;
        match theirs.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => Ok(()),
            1 => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"),
            2 => connection.send("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"),
            _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    });
    let report = crowd(origin.address(), 40);
    let turns = turns.load(Ordering::SeqCst);
    assert_eq!(report.total(), turns, "{report:#?}");
    assert_eq!((report.served, report.wrong), (turns / 4, (turns + 1) / 4), "{report:#?}");
    assert_eq!((report.dropped, report.lost), (turns - report.served - report.wrong, 0), "nobody was killed");
    assert!(!report.failures.is_empty());
}

#[test]
fn nobody_listening_is_a_refusal() {
    let report = crowd(([127, 0, 0, 1], ports::free()).into(), 10);
    assert_eq!((report.refused, report.served), (report.total(), 0), "{report:#?}");
}

/// Moments are milliseconds after a beginning; the process was killed at 100 and stood still at 110.
#[test]
fn only_connections_of_the_halted_process_are_excused() {
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let halt = Halt { from: at(100), until: at(110) };
    let closed = Some(Trouble::Closed("reset".into()));
    for (opened, began, ended, trouble, lost, in_flight) in [
        (90, 90, 120, closed.clone(), 1, 1),
        (10, 95, 101, closed.clone(), 1, 1),
        (105, 105, 400, closed.clone(), 1, 1),
        // Served, but under way at that moment.
        (90, 90, 101, None, 0, 1),
        // Over before.
        (10, 90, 99, closed.clone(), 0, 0),
        // Its connection came after the process had ended: somebody else dropped it.
        (111, 111, 120, closed.clone(), 0, 0),
        // Other trouble is never excused.
        (90, 90, 120, Some(Trouble::Refused), 0, 1),
        (90, 90, 120, Some(Trouble::Wrong("status 503".into())), 0, 1),
        (90, 90, 120, Some(Trouble::Timeout), 0, 1),
    ] {
        let attempt =
            Attempt { opened: at(opened), began: at(began), ended: at(ended), reused: false, trouble };
        let served = u64::from(attempt.trouble.is_none());
        let record = Record { kind: Kind::Fresh, scheduled: at(began), first: attempt.clone(), second: None };
        let report = Report::of(&[record], &[halt], Duration::from_secs(1));
        let what = format!("{attempt:?}: {report:#?}");
        assert_eq!(
            (report.lost, report.halts[0].lost, report.halts[0].in_flight),
            (lost, lost, in_flight),
            "{what}"
        );
        assert_eq!(report.total(), 1, "{what}");
        assert_eq!(report.failures.is_empty(), served + lost == 1, "{what}");
    }
}

#[test]
fn the_gap_ends_with_the_first_answer_to_what_began_after_the_halt() {
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let record = |began: u64, ended: u64| {
        let (opened, began, ended) = (at(began), at(began), at(ended));
        let first = Attempt { opened, began, ended, reused: false, trouble: None };
        Record { kind: Kind::Fresh, scheduled: began, first, second: None }
    };
    let records = [record(90, 115), record(150, 300), record(120, 280), record(290, 310)];
    let report = Report::of(&records, &[Halt { from: at(100), until: at(101) }], Duration::from_secs(1));
    assert_eq!(report.longest_gap(), Some(Duration::from_millis(180)));
}
