//! Golden requests against generations that are right, and against those that are not.

use std::sync::Arc;
use std::time::Duration;

use snapshot::generation::{AccessLog, AccessLogTarget, ClientIpDetail};

use crate::stage::{Silence, Stage, load, shop};

#[test]
fn a_realistic_generation_passes_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let log = AccessLog {
        to: AccessLogTarget::File(file.to_str().unwrap().to_owned()),
        client_ip: ClientIpDetail::Full,
        retention: Duration::from_secs(3600),
        rotate_bytes: 1 << 20,
    };
    let silence = Silence::new();
    let stage = Stage::logging(&shop(silence.address()), &log);
    let before = stage.metrics.render();
    let report = stage.rehearse().unwrap();
    assert_eq!(report.sites, 4);
    // Per site, over HTTP/2, HTTP/1.1 with TLS and without: trace, GET, POST; and one that cannot be read.
    assert_eq!(report.requests, 4 * 3 * 3 + 1);
    assert_eq!(report.warnings, []);
    assert_eq!((stage.edge.connections(), stage.edge.listeners()), (0, vec![]));
    silence.check();
    // Times differ; counters must not.
    let counters = |text: &str| -> Vec<String> {
        let counted = |line: &&str| line.starts_with("rempart_") && !line.contains("process");
        text.lines().filter(counted).map(str::to_owned).collect()
    };
    assert_eq!(counters(&before), counters(&stage.metrics.render()));
    assert!(!counters(&before).is_empty());
    assert!(stage.edge.drain(snapshot::generation::Drain::default()));
    assert!(stage.log.shutdown(Duration::from_secs(10)));
    assert_eq!(std::fs::read(&file).unwrap_or_default(), b"");
}

#[test]
fn it_can_be_rehearsed_again_and_after_a_change() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let first = stage.rehearse().unwrap();
    assert_eq!(stage.rehearse().unwrap(), first);
    let text = shop(silence.address()).replace("shop.example", "store.example");
    let next = Arc::new(load(&stage.loader, &text, |_| ()));
    assert_eq!(edge::rehearsal::rehearse(&stage.edge, &next).unwrap(), first);
    assert!(Arc::ptr_eq(&stage.edge.current(), &next));
    silence.check();
}

#[test]
fn one_kind_of_listener_and_one_connection_are_enough() {
    let silence = Silence::new();
    let text = format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[limits]\nconnections = 1\n[metrics]\nlisten = \"off\"\n\
         [[site]]\nhosts = [\"a.example\"]\n[[site.origin]]\nurl = \"http://{}\"\n",
        silence.address()
    );
    // Plain: an unknown host, two hosts, and three for the site.
    assert_eq!(Stage::with(&text).rehearse().unwrap().requests, 5);
    let report = Stage::with(&text.replace("127.0.0.1:0\"", "127.0.0.1:0\"\ntls = true")).rehearse().unwrap();
    // TLS: an unknown host and the site, over each protocol.
    assert_eq!(report.requests, 8);
    silence.check();
}

#[test]
fn many_sites_are_sampled() {
    let silence = Silence::new();
    let mut text = "[[listen]]\naddress = \"127.0.0.1:0\"\n[metrics]\nlisten = \"off\"\n".to_owned();
    for site in 0..300 {
        text += &format!(
            "[[site]]\nhosts = [\"s{site}.example\"]\n[[site.origin]]\nurl = \"http://{}\"\n",
            silence.address()
        );
    }
    let report = Stage::with(&text).rehearse().unwrap();
    assert_eq!((report.sites, report.requests), (250, 2 + 250 * 3));
    silence.check();
}

#[test]
fn a_site_that_answers_for_another_is_found() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    // As a compiler that mixed up two sites would have it: the host leads to a site that sends a fixed host.
    let wrong = load(&stage.loader, &shop(silence.address()), |snapshot| {
        let mut hosts = snapshot::generation::HostTable::default();
        for site in &snapshot.sites {
            site.hosts.iter().for_each(|host| hosts.insert(host, (site.index + 2) % 4).unwrap());
        }
        snapshot.hosts = hosts;
    });
    let errors = edge::rehearsal::rehearse(&stage.edge, &Arc::new(wrong)).unwrap_err();
    assert!(errors.iter().all(|error| error.code == "golden-request"), "{errors:#?}");
    // The site that answers instead takes bodies of five bytes only.
    let shop = errors.iter().find(|error| error.place == "site[0]").unwrap();
    assert!(shop.message.contains("shop.example") && shop.message.contains("expected"), "{}", shop.message);
    silence.check();
}

#[test]
fn an_edge_that_serves_is_not_rehearsed() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let listeners = stage.open();
    let errors = stage.rehearse().unwrap_err();
    assert_eq!(errors[0].code, "rehearsal-unavailable");
    assert_eq!(stage.edge.listeners(), listeners);
}
