//! The process that serves is killed or stopped: the standby takes over at once, nobody is turned away, and nothing is
//! lost but what the dead process was doing.

use std::thread;
use std::time::Duration;

use api::admin::{ProcessRole, Status};
use base::random::Random;
use harness::companions::Host;
use harness::load::{Load, Pace};
use harness::rempart::{Rempart, process_of};
use rustix::process::Signal;

use crate::heavy;
use crate::stage::{FULL, HOST, LIGHT, config, load, times};

/// The moment of a kill lies anywhere in this time after the standby has come, in milliseconds.
const MOMENTS: u32 = 300;
/// Visitors of the crowd, each with a connection at every moment.
const CROWD: u32 = 200;
/// How long one holds its connection before it asks: together they open some 1,300 connections a second.
const HOLD: Duration = Duration::from_millis(150);

fn replaced(status: &Status) -> u64 {
    status.supervision.crashes + status.supervision.hangs
}

/// Halts the edge at a random moment and waits for its successor, which must be the standby.
fn strike(rempart: &Rempart, load: &Load, random: &mut Random, signal: Signal) {
    let before = rempart.await_standby();
    // Not a wait for anything: the moment is what is random.
    thread::sleep(Duration::from_millis(random.below(MOMENTS).into()));
    let edge = process_of(&before, ProcessRole::Edge).unwrap();
    load.halt(edge, signal);
    let after = rempart.await_status("a successor", |status| {
        replaced(status) > replaced(&before)
            && process_of(status, ProcessRole::Edge).is_some_and(|successor| successor != edge)
    });
    let standby = process_of(&before, ProcessRole::Standby);
    assert_eq!(process_of(&after, ProcessRole::Edge), standby, "the standby takes over: {after:#?}");
    assert_eq!(replaced(&after), replaced(&before) + 1, "{after:#?}");
    assert_eq!((after.number, after.generation), (before.number, before.generation));
}

#[test]
fn killed_and_stopped_edges_are_replaced_and_only_what_was_in_flight_is_lost() {
    let _alone = heavy();
    let host = Host::new();
    let rempart = Rempart::with(&config(&host));
    rempart.await_standby();
    let load = load(&rempart, FULL);
    let mut random = Random::seeded(3);
    let each = times(5, 50);
    for _ in 0..each {
        strike(&rempart, &load, &mut random, Signal::KILL);
        strike(&rempart, &load, &mut random, Signal::STOP);
    }
    let status = rempart.await_standby();
    load.wait_for(200);
    let report = load.stop();
    report.print("kill -9 and SIGSTOP");
    report.assert_only_in_flight_lost();
    assert_eq!(report.halts.len(), 2 * each);
    assert_eq!((status.supervision.crashes, status.supervision.hangs), (each as u64, each as u64));
}

/// The system gives each connection to one of several sockets by its source port. Whatever happens to the processes,
/// each of these sockets must have somebody who accepts, or its share of the crowd waits in vain.
#[test]
fn no_share_of_connections_waits_in_vain_while_processes_change() {
    let _alone = heavy();
    let host = Host::new();
    let rempart = Rempart::with(&config(&host));
    rempart.await_standby();
    let load = load(&rempart, Pace::Crowd { workers: CROWD, hold: HOLD });
    let mut random = Random::seeded(33);
    for _ in 0..times(2, 20) {
        strike(&rempart, &load, &mut random, Signal::KILL);
        load.wait_for(CROWD as usize * 2);
        rempart.await_standby();
        let (code, outcome) = rempart.upgrade(None, 1);
        assert_eq!(code, Some(0), "{outcome:#?}");
        load.wait_for(CROWD as usize * 2);
        let changed = config(&host).raw(&format!("# {}", random.next_u64()));
        rempart.configure(&changed);
        load.wait_for(CROWD as usize * 2);
    }
    let report = load.stop();
    report.print("crowd");
    report.assert_only_in_flight_lost();
}

/// Without a standby the successor is started from what is on disk, which takes longer and loses no more.
#[test]
fn without_a_standby_a_killed_edge_is_started_anew() {
    let _alone = heavy();
    let host = Host::new();
    let text = format!("standby = false\n{}", config(&host).text());
    let rempart = Rempart::with(&harness::config::Config::empty().raw(&text));
    let before = rempart.ask_status();
    assert!(rempart.standby_pid().is_none() && !before.supervision.standby, "{before:#?}");
    let load = load(&rempart, LIGHT);
    let edge = rempart.edge_pid();
    load.halt(edge, Signal::KILL);
    let after = rempart.await_status("a successor", |status| {
        status.supervision.crashes == 1 && process_of(status, ProcessRole::Edge).is_some()
    });
    assert_ne!(process_of(&after, ProcessRole::Edge), Some(edge));
    assert!(process_of(&after, ProcessRole::Standby).is_none(), "{after:#?}");
    load.wait_for(100);
    let report = load.stop();
    report.print("no standby");
    assert_eq!(report.served + report.lost, report.total(), "{report:#?}");
}

#[test]
fn a_standby_that_dies_is_replaced_and_nobody_notices() {
    let host = Host::new();
    let rempart = Rempart::with(&config(&host));
    let before = rempart.await_standby();
    let load = load(&rempart, LIGHT);
    let standby = process_of(&before, ProcessRole::Standby).unwrap();
    harness::process::end(standby);
    rempart.await_status("another standby", |status| {
        process_of(status, ProcessRole::Standby).is_some_and(|other| other != standby)
    });
    assert_eq!(
        Some(rempart.edge_pid()),
        process_of(&before, ProcessRole::Edge),
        "{HOST} is served as before"
    );
    load.stop().assert_unharmed();
}
