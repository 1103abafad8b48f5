//! Faults in a generation: found in the rehearsal, or let through on purpose to strike later.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

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
