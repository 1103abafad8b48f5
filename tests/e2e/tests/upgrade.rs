//! A new binary takes over while visitors are being served: none fails, none of those who stay is cut off, and a binary
//! that does not serve well is taken back without anybody's help.

use std::fs;
use std::path::{Path, PathBuf};

use api::admin::ProcessRole;
use harness::companions::{Companions, Habit, Host};
use harness::rempart::{Place, Rempart, binary, faulty, process_of};

use crate::heavy;
use crate::stage::{FULL, HOST, LIGHT, config, load, times};

/// How long a new binary is watched, in seconds.
const BAKE: u32 = 1;

fn executable(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn upgrades_under_load_fail_no_request_and_cut_no_visitor() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::with(&config(&host));
    let copies = ["rempart-one", "rempart-two"].map(|name| place.copy_of(binary(), name));
    let mut rempart = place.run();
    rempart.await_standby();
    let mut companions = Companions::arrive(&rempart, &host, HOST);
    let load = load(&rempart, FULL);
    let rounds = times(3, 20);
    for n in 0..rounds {
        let edge = rempart.edge_pid();
        let copy = &copies[n % 2];
        let (code, outcome) = rempart.upgrade(Some(copy), BAKE);
        assert_eq!((code, outcome.upgraded), (Some(0), true), "upgrade {n}: {outcome:#?}");
        let status = rempart.await_standby();
        assert_eq!(status.supervision.upgrades, n as u64 + 1, "{status:#?}");
        assert_ne!(process_of(&status, ProcessRole::Edge), Some(edge), "upgrade {n}");
        for role in [ProcessRole::Supervisor, ProcessRole::Edge, ProcessRole::Standby] {
            let pid = process_of(&status, role).unwrap_or_else(|| panic!("no {role:?}: {status:#?}"));
            assert_eq!(&executable(pid), copy, "upgrade {n}: {role:?}");
        }
        assert_eq!(status.pid, rempart.pid(), "who started it still knows it by its process id");
        assert!(rempart.is_running());
        companions.move_on();
        companions.join(Habit::ALL[n % Habit::ALL.len()], &rempart, HOST);
        load.wait_for(200);
    }
    let report = load.stop();
    report.print("upgrades");
    report.assert_unharmed();
    assert_eq!(host.answered(), report.served, "what was asked twice was answered once");
    let pieces = companions.leave().unwrap_or_else(|cut| panic!("cut: {cut:#?}"));
    println!("{rounds} upgrades; {pieces} pieces on connections that stayed");
    rempart.await_status("the end of those that were replaced", |status| {
        process_of(status, ProcessRole::Draining).is_none()
    });
}

/// Upgrades to this binary and expects the old one back.
fn is_taken_back(rempart: &Rempart, new: &Path) {
    let before = rempart.await_standby();
    let (code, outcome) = rempart.upgrade(Some(new), BAKE);
    let name = new.display();
    assert_eq!((code, outcome.upgraded), (Some(1), false), "{name}: {outcome:#?}");
    assert!(!outcome.diagnostics.is_empty(), "{name}: it says why");
    println!("{name}: {:?}", outcome.diagnostics);
    let after = rempart.await_standby();
    let edge = process_of(&before, ProcessRole::Edge);
    assert_eq!(process_of(&after, ProcessRole::Edge), edge, "{name}: the old one serves: {after:#?}");
    assert_eq!(after.supervision.upgrades_reverted, before.supervision.upgrades_reverted + 1, "{name}");
    assert_eq!(executable(rempart.pid()), binary(), "{name}");
}

#[test]
fn a_binary_that_fails_before_it_serves_is_taken_back_and_nobody_notices() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::with(&config(&host));
    let rempart = place.run();
    rempart.await_standby();
    let companions = Companions::arrive(&rempart, &host, HOST);
    let load = load(&rempart, LIGHT);
    place.write("text", "#!/bin/sh\necho no rempart\n");
    for stranger in [Path::new("/bin/true"), &place.path("text"), &place.path("missing")] {
        is_taken_back(&rempart, stranger);
    }
    for fault in ["rempart-faulty-crashes", "rempart-faulty-hangs"] {
        is_taken_back(&rempart, &place.copy_of(faulty(), fault));
    }
    companions.move_on();
    let report = load.stop();
    report.print("upgrades to what does not start");
    report.assert_unharmed();
    companions.leave().unwrap_or_else(|cut| panic!("cut: {cut:#?}"));
}

/// These get as far as being given traffic. What reaches them in that time may be lost; nobody is turned away, nobody
/// waits in vain, visitors of the old process notice nothing, and after it everything is as before.
#[test]
fn a_binary_that_serves_badly_is_taken_back() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::with(&config(&host));
    let rempart = place.run();
    rempart.await_standby();
    let companions = Companions::arrive(&rempart, &host, HOST);
    for fault in ["rempart-faulty-refuses", "rempart-faulty-slow", "rempart-faulty-crashes-later"] {
        let during = load(&rempart, LIGHT);
        is_taken_back(&rempart, &place.copy_of(faulty(), fault));
        let report = during.stop();
        report.print(fault);
        assert_eq!((report.refused, report.timeouts, report.unasked), (0, 0, 0), "{fault}: {report:#?}");
        let harmed = report.total() - report.served;
        // The old one serves but for the moment of the first probes, which at this pace is a few requests.
        assert!(harmed * 20 <= report.total(), "{fault}: {harmed} of {} harmed: {report:#?}", report.total());
        let after = load(&rempart, LIGHT);
        after.wait_for(100);
        after.stop().assert_unharmed();
        companions.move_on();
    }
    companions.leave().unwrap_or_else(|cut| panic!("cut: {cut:#?}"));
}
