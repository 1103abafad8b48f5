//! Generations that crash, hang, spin, eat memory or answer wrongly: a taster finds out before any visitor does, and
//! those that are on disk already, or fail only later, give way to the one before.

use std::fs;

use api::admin::{GenerationSource, ProcessRole};
use harness::client;
use harness::companions::Host;
use harness::config::Config;
use harness::rempart::{Place, Rempart, faulty, process_of};

use crate::heavy;
use crate::stage::{Addresses, HOST, LIGHT, PATIENT, config, config_on, load, times};

/// Generations a state folder holds.
const STORED: usize = 5;

/// Faults a taster must find, and words of which one must be in what is said about it.
const FAULTS: [(&str, &[&str]); 6] = [
    ("crash-on-load", &["crash", "died", "ended", "signal", "abort"]),
    ("crash-in-deferred", &["crash", "died", "ended", "signal", "abort"]),
    ("eat-memory-on-load", &["memory", "MiB", "bytes"]),
    ("spin-on-load", &["CPU", "processor", "time", "seconds"]),
    ("hang-on-load", &["hang", "hung", "answer", "time", "seconds"]),
    ("wrong-answer", &["answer", "rehears", "golden", "expected"]),
];

/// Seconds a taster has; the usual minute is long for a test that waits for its end twice.
const TASTE_SECONDS: &str = "6";

fn run(place: &Place) -> Rempart {
    place.start(&["run", "--config", "rempart.toml", "--taste-time", TASTE_SECONDS])
}

/// The site, and beside it one whose name calls up a fault in the binary that knows faults.
fn with_fault(base: Config, host: &Host, fault: &str) -> Config {
    base.site(&format!("fault-{fault}"), &["fault.test"]).origin(host.url())
}

#[test]
fn bad_generations_are_refused_by_a_taster_and_no_request_fails() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::new().using(faulty());
    place.write("rempart.toml", config(&host).text());
    let rempart = run(&place);
    let before = rempart.await_standby();
    let edge = rempart.edge_pid();
    let load = load(&rempart, LIGHT);
    for (n, (fault, words)) in FAULTS.into_iter().enumerate() {
        place.write("rempart.toml", with_fault(config(&host), &host, fault).text());
        let (code, outcome) = rempart.reload();
        assert_eq!((code, outcome.active), (Some(1), false), "{fault}: {outcome:#?}");
        let said = format!("{:?}", outcome.diagnostics);
        assert!(words.iter().any(|word| said.contains(word)), "{fault} is named: {said}");
        println!("{fault}: {said}");
        let status = rempart.ask_status();
        assert_eq!((status.number, &status.generation), (before.number, &before.generation), "{fault}");
        assert!(status.refused.is_some(), "{fault}: {status:#?}");
        assert_eq!(status.supervision.tastes_refused, n as u64 + 1, "{fault}: {status:#?}");
        assert_eq!(process_of(&status, ProcessRole::Edge), Some(edge), "{fault}: {status:#?}");
    }
    let outcome = rempart.configure(&config(&host).raw("# good again"));
    assert!(outcome.active && outcome.changed, "{outcome:#?}");
    load.wait_for(50);
    let report = load.stop();
    report.print("bad generations");
    report.assert_unharmed();
}

/// Writes generations into a state folder with the binary that knows no faults, and puts one that does in its place,
/// with a configuration nobody can use.
fn forged(host: &Host, addresses: Addresses, good: bool, faults: &[&str]) -> Place {
    let place = Place::new();
    let base = config_on(addresses, host);
    // A remark makes each of them a generation of its own, the same fault or not.
    let numbered = faults.iter().enumerate();
    let mut configs: Vec<Config> =
        numbered.map(|(n, fault)| with_fault(base.clone().raw(&format!("# {n}")), host, fault)).collect();
    if good {
        configs.insert(0, base);
    }
    place.write("rempart.toml", configs[0].text());
    let rempart = place.run();
    configs[1..].iter().for_each(|config| assert!(rempart.configure(config).active));
    rempart.stop();
    let stored = fs::read_dir(place.state().join("generations")).unwrap().flatten();
    let stored = stored.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "generation"));
    assert_eq!(stored.count(), STORED);
    place.write("rempart.toml", "this is [not a configuration");
    place.using(faulty())
}

#[test]
fn bad_generations_on_disk_give_way_to_the_newest_good_one() {
    let _alone = heavy();
    let (host, addresses) = (Host::new(), Addresses::free());
    let faults = ["crash-on-load", "wrong-answer", "eat-memory-on-load", "crash-in-deferred"];
    let place = forged(&host, addresses, true, &faults);
    let rempart = place.run();
    let status = rempart.await_standby();
    assert_eq!(status.source, GenerationSource::LastGood, "{status:#?}");
    assert!(status.refused.is_some(), "{status:#?}");
    assert_eq!(status.sites.len(), 1, "the one without a fault: {status:#?}");
    assert_eq!(rempart.client().get(HOST, "/ok").unwrap().text(), "ok");
}

#[test]
fn with_five_bad_generations_a_page_says_so_and_the_admin_socket_answers() {
    let _alone = heavy();
    let (host, addresses) = (Host::new(), Addresses::free());
    let hang = if times(0, 1) == 1 { "hang-on-load" } else { "crash-on-load" };
    let faults = [hang, "wrong-answer", "eat-memory-on-load", "crash-in-deferred", "crash-on-load"];
    let place = forged(&host, addresses, false, &faults);
    let mut rempart = run(&place);
    let status = rempart.status();
    assert_eq!(status.source, GenerationSource::Defaults, "{status:#?}");
    assert!(status.refused.is_some(), "{status:#?}");
    let page = client::get(addresses.0[0], HOST, "/").unwrap();
    assert_eq!(page.status, 503);
    assert!(page.text().len() > 40, "a page that explains: {}", page.text());
    assert!(rempart.is_running());
    // The way out: a configuration that can be used.
    place.write("rempart.toml", config_on(addresses, &host).text());
    let (code, outcome) = rempart.reload();
    assert_eq!((code, outcome.active), (Some(0), true), "{outcome:#?}");
    assert_eq!(client::get(addresses.0[0], HOST, "/ok").unwrap().text(), "ok");
}

/// A fault no taster can find: the first real request ends the process.
#[test]
fn a_generation_that_crashes_under_visitors_gives_way_after_three_crashes() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::new().using(faulty());
    place.write("rempart.toml", config(&host).text());
    let rempart: Rempart = place.run();
    let before = rempart.await_standby();
    let during = load(&rempart, LIGHT);
    let fatal = Config::new().raw(PATIENT).listeners().site("fault-crash-on-request", &[HOST]);
    place.write("rempart.toml", fatal.origin(host.url()).text());
    let (_, outcome) = rempart.reload();
    println!("reload: {outcome:?}");
    // With visitors quick enough every edge dies before the change is made, and the generation is refused.
    let source = if outcome.active { GenerationSource::LastGood } else { before.source };
    let after = rempart.await_status("the generation before", |status| {
        status.generation == before.generation && status.source == source && status.refused.is_some()
    });
    assert!((1..=3).contains(&after.supervision.crashes), "{after:#?}");
    assert!(after.refused.is_some(), "it is told: {after:#?}");
    during.wait_for(50);
    let report = during.stop();
    report.print("a generation that crashes under visitors");
    assert_eq!((report.refused, report.wrong, report.timeouts), (0, 0, 0), "{report:#?}");
    let calm = load(&rempart, LIGHT);
    calm.wait_for(100);
    calm.stop().assert_unharmed();
}
