//! Faults in a generation: found in the rehearsal, or let through on purpose to strike later.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use crate::probe::orders;
use crate::stage::{Silence, Stage, shop};

fn with_fault(name: &str, silence: &Silence) -> String {
    let site = "[[site]]\nname = \"fault-NAME\"\nhosts = [\"f.example\"]\n[[site.origin]]\nurl = \"http://ORIGIN\"\n";
    let site = site.replace("NAME", name).replace("ORIGIN", &silence.address().to_string());
    format!("{}\n{site}", shop(silence.address()))
}

#[test]
fn wrong_answers_are_found_at_every_site() {
    let silence = Silence::new();
    let stage = Stage::with(&with_fault("wrong-answer", &silence));
    let errors = stage.rehearse().unwrap_err();
    for place in ["site", "site[0]", "site[1]", "site[2]", "site[3]", "site[4]"] {
        // `*` is there, so there is no host without a site.
        let found = errors.iter().any(|error| error.place == place && error.code == "golden-request");
        assert_eq!(found, place != "site", "{place}: {errors:#?}");
    }
    assert!(errors.iter().any(|error| error.message.contains("\"wrong\"")), "{errors:#?}");
    silence.check();
}

#[test]
fn what_only_visitors_meet_passes_and_a_panic_costs_one_connection() {
    let silence = Silence::new();
    let stage = Stage::with(&with_fault("panic-on-request", &silence));
    assert_eq!(edge::deferred::run(&stage.edge.current(), &stage.metrics), Ok(()));
    assert_eq!(stage.rehearse().unwrap().sites, 5);
    let plain = stage.open().into_iter().find(|listener| !listener.tls).unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(plain.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // Closed or reset: no answer either way.
        drop(stream.read_to_end(&mut answer));
        assert_eq!(answer, b"");
    }
    assert_eq!(stage.rehearse().unwrap_err()[0].code, "rehearsal-unavailable");
    silence.check();
}

/// Runs one of the tests below in a process of its own under a program name; answers the signal that ended it, if any,
/// and whether the test passed.
fn apart(program: &str, test: &str) -> (Option<i32>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(program);
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &link).unwrap();
    let output =
        Command::new(link).args(["--ignored", "--exact", &format!("faults::{test}")]).output().unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(ran, "{test}: {output:?}");
    (output.status.signal(), output.status.success())
}

const ABORTED: (Option<i32>, bool) = (Some(6), false);

#[test]
fn faults_that_end_a_process_end_it_where_they_should() {
    for test in ["ends_on_load", "ends_in_deferred_work", "ends_on_a_request"] {
        assert_eq!(apart("rempart", test), ABORTED, "{test}");
    }
}

#[test]
fn faulty_binaries_pass_the_rehearsal_and_fail_as_their_name_says() {
    assert_eq!(apart("rempart-faulty-crashes-later", "waits_for_its_end"), ABORTED);
    for program in ["rempart-faulty-refuses", "rempart-faulty-slow"] {
        assert_eq!(apart(program, "does_not_serve"), (None, true), "{program}");
    }
}

#[test]
#[ignore = "ends the process; run by the test above"]
fn ends_on_load() {
    Stage::with(&with_fault("crash-on-load", &Silence::new()));
}

#[test]
#[ignore = "ends the process; run by the test above"]
fn ends_in_deferred_work() {
    let stage = Stage::with(&with_fault("crash-in-deferred", &Silence::new()));
    stage.rehearse().unwrap();
    drop(edge::deferred::run(&stage.edge.current(), &stage.metrics));
}

#[test]
#[ignore = "ends the process; run by the test above"]
fn ends_on_a_request() {
    let stage = Stage::with(&with_fault("crash-on-request", &Silence::new()));
    stage.rehearse().unwrap();
    drop(edge::probe::probe(&orders(&stage), &stage.edge.current(), ""));
}

#[test]
#[ignore = "ends the process; run by the test above"]
fn waits_for_its_end() {
    let stage = Stage::with(&shop(Silence::new().address()));
    stage.rehearse().unwrap();
    stage.open();
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "needs a program name; run by the test above"]
fn does_not_serve() {
    let stage = Stage::with(&shop(Silence::new().address()));
    stage.rehearse().unwrap();
    for order in orders(&stage) {
        // Closed or reset, as it happens; every connection is one of these.
        let failures = edge::probe::probe(&[order], &stage.edge.current(), "");
        let failed = failures
            .iter()
            .filter_map(|text| text.rsplit_once('(')?.1.split_once(" of 4")?.0.parse::<usize>().ok());
        assert_eq!(failed.sum::<usize>(), 4, "{failures:?}");
    }
    // It can still be told to stop.
    stage.edge.pause();
    assert_eq!(stage.edge.listeners(), []);
}
