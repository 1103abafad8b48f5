//! Modules that panic, loop, hang, or are switched off: requests go on, and nobody but the module pays for it.

use std::time::{Duration, Instant};

use api::admin::Status;
use harness::client::Response;
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::{Place, Rempart, faulty};
use harness::{PATIENCE, client};
use serde_json::Value;

const HOSTS: [&str; 2] = ["one.test", "two.test"];

fn origin() -> Origin {
    Origin::answering(|_| Reply::text(200, "ok"))
}

/// Two sites; the text of `policies` comes after the origin of each.
fn config(origin: &Origin, policies: [&str; 2]) -> Config {
    let begin = "bake = \"1s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"\n[limits]\nconnection_rate_per_address = 100000";
    let config = Config::empty().raw(begin).listeners();
    ["one", "two"].iter().zip(HOSTS).zip(policies).fold(config, |config, ((name, host), policy)| {
        config.site(name, &[host]).origin(origin.url()).raw(policy)
    })
}

fn run_faulty(origin: &Origin, policies: [&str; 2]) -> Rempart {
    let place = Place::with(&config(origin, policies)).using(faulty());
    let rempart = place.run();
    rempart.await_standby();
    rempart
}

fn ask(rempart: &Rempart, host: &str, fields: &str) -> Response {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    client::Client::plain(rempart.plain()).unwrap().exchange(request).unwrap()
}

fn status_with(rempart: &Rempart, host: &str, fields: &str) -> u16 {
    ask(rempart, host, fields).status
}

fn outcomes(rempart: &Rempart, module: &str, outcome: &str, reason: &str) -> u64 {
    let text = client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text();
    let name = format!(
        "rempart_module_outcomes_total{{module=\"{module}\",outcome=\"{outcome}\",reason=\"{reason}\"}}"
    );
    let lines = text.lines().filter(|line| line.starts_with(&name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn switch(rempart: &Rempart, words: &[&str]) {
    let ended = rempart.place().ask(words);
    assert_eq!(ended.code, Some(0), "{words:?}: {}{}", ended.stdout, ended.stderr);
}

fn is_passed_over(status: &Status, module: &str, site: &str) -> bool {
    status.modules.breakers.iter().any(|breaker| breaker.module == module && breaker.site == site)
}

#[test]
fn a_policy_holds_at_its_site_until_it_is_switched_off_and_a_switch_outlives_every_process() {
    let origin = origin();
    let policy = "[site.policy]\nmethods = [\"GET\", \"HEAD\"]\nforbid = [{ name = \"X-Bad\" }]";
    let rempart = Rempart::with(&config(&origin, [policy, policy]));
    let post = |host: &str| {
        let request =
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        client::Client::plain(rempart.plain()).unwrap().exchange(request).unwrap()
    };
    let refused = post("one.test");
    assert_eq!((refused.status, refused.head.text("allow").as_deref()), (405, Some("GET, HEAD")));
    assert_eq!(status_with(&rempart, "one.test", "X-Bad: 1\r\n"), 403);
    assert_eq!(status_with(&rempart, "one.test", ""), 200);
    for (words, told) in [
        (&["disable", "waff", "--reason", "x"][..], "request-policy"),
        (&["disable", "waf", "--reason", "x"], "no waf yet"),
        (&["disable", "request-policy", "--site", "three", "--reason", "x"], "one, two"),
        (&["disable", "request-policy", "--site", "", "--reason", "x"], "site"),
        (&["enable", "request-policy"], "switched off are: none"),
    ] {
        let ended = rempart.place().ask(words);
        assert!(ended.code == Some(1) && ended.stderr.contains(told), "{words:?}: {}", ended.stderr);
    }
    switch(&rempart, &["disable", "request-policy", "--site", "one", "--reason", "it turns people away"]);
    assert_eq!((post("one.test").status, post("two.test").status), (200, 405));
    let status = rempart.status();
    let thrown = &status.modules.switches;
    assert_eq!((thrown.len(), thrown[0].site.as_deref()), (1, Some("one")), "{thrown:?}");
    switch(&rempart, &["disable", "request-policy", "--reason", "everywhere"]);
    assert_eq!((post("one.test").status, post("two.test").status), (200, 200));
    // The switch of one site is another than that of all.
    switch(&rempart, &["enable", "request-policy"]);
    assert_eq!((post("one.test").status, post("two.test").status), (200, 405));
    let before = rempart.edge_pid();
    let pid = rustix::process::Pid::from_raw(i32::try_from(before).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    rempart.await_status("another edge", |status| {
        harness::rempart::process_of(status, api::admin::ProcessRole::Edge).is_some_and(|pid| pid != before)
    });
    assert_eq!((post("one.test").status, post("two.test").status), (200, 405));
    let rempart = rempart.stop().run();
    let post = |host: &str| {
        let request =
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        client::Client::plain(rempart.plain()).unwrap().exchange(request).unwrap()
    };
    assert_eq!((post("one.test").status, post("two.test").status), (200, 405));
    switch(&rempart, &["enable", "request-policy", "--site", "one"]);
    assert_eq!(post("one.test").status, 405);
    assert!(rempart.status().modules.switches.is_empty());
}

#[test]
fn a_module_that_panics_every_time_costs_no_request_and_few_words() {
    let origin = origin();
    let rempart = run_faulty(&origin, ["", ""]);
    let began = Instant::now();
    for _ in 0..300 {
        assert_eq!(status_with(&rempart, "one.test", "Rempart-Trial: panic\r\n"), 200);
    }
    let seconds = began.elapsed().as_secs() + 1;
    let status = rempart.status();
    assert!(is_passed_over(&status, "trial", "one"), "{:?}", status.modules);
    assert!(!is_passed_over(&status, "trial", "two"));
    let panicked = outcomes(&rempart, "trial", "unknown", "panicked");
    let passed_over = outcomes(&rempart, "trial", "unknown", "breaker_open");
    assert!(panicked >= 5 && panicked + passed_over == 300, "{panicked} and {passed_over}");
    let told = rempart.log().lines().iter().filter(|line| line.contains("a module panicked")).count() as u64;
    assert!((1..=10 * (seconds + 1)).contains(&told) && told <= panicked, "{told} in {seconds} s");
    // A score there is not is no score of zero: the rule on low ones does not fire.
    assert_eq!(status_with(&rempart, "two.test", "Rempart-Trial: score 10\r\n"), 403);
    assert_eq!(status_with(&rempart, "two.test", "Rempart-Trial: unknown\r\n"), 200);
    assert_eq!(status_with(&rempart, "one.test", "Rempart-Trial: score 10\r\n"), 200, "passed over");
    // It is asked again by and by, and taken back when it works.
    let deadline = Instant::now() + PATIENCE;
    while is_passed_over(&rempart.status(), "trial", "one") {
        assert!(Instant::now() < deadline, "{:?}", rempart.status().modules);
        assert_eq!(status_with(&rempart, "one.test", "Rempart-Trial: score 90\r\n"), 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(status_with(&rempart, "one.test", "Rempart-Trial: score 10\r\n"), 403);
    let deadline = Instant::now() + PATIENCE;
    for what in ["breaker_opened", "breaker_closed"] {
        let count = || {
            let events = rempart.place().ask(&["events", "--kind", "operations", "--limit", "100"]);
            let told = events.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            told.filter(|it| it["what"] == what && it["site"] == "one" && it["subject"] == "trial").count()
        };
        while count() == 0 {
            assert!(Instant::now() < deadline, "{what} is waited for in vain");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(count(), 1, "{what}");
    }
}

#[test]
fn a_module_beyond_its_budget_is_stopped_and_one_that_hangs_costs_one_process_at_most() {
    let origin = origin();
    let rempart = run_faulty(&origin, ["", ""]);
    for way in ["loop", "allocate", "stall"] {
        assert_eq!(status_with(&rempart, "one.test", &format!("Rempart-Trial: {way}\r\n")), 200, "{way}");
    }
    assert_eq!(outcomes(&rempart, "trial", "unknown", "over_budget"), 3);
    let before = rempart.edge_pid();
    // This one gets no answer: its thread is lost, until the edge is replaced.
    let mut stuck = client::Client::plain(rempart.plain()).unwrap();
    stuck.send("GET / HTTP/1.1\r\nHost: two.test\r\nRempart-Trial: hang\r\n\r\n").unwrap();
    let status = rempart.await_status("another edge", |status| {
        harness::rempart::process_of(status, api::admin::ProcessRole::Edge).is_some_and(|pid| pid != before)
    });
    assert_eq!(status.supervision.hangs, 1, "{:?}", status.supervision);
    let after = rempart.await_status("the breaker", |status| is_passed_over(status, "trial", "two"));
    let breaker = after.modules.breakers.iter().find(|breaker| breaker.site == "two").unwrap();
    assert!(breaker.hung && breaker.probe_in_seconds > 30, "{breaker:?}");
    // The request that did it once does not do it again.
    assert_eq!(status_with(&rempart, "two.test", "Rempart-Trial: hang\r\n"), 200);
    let log = rempart.log().lines();
    assert!(log.iter().any(|line| line.contains("does not move on in trial at two")), "{log:?}");
}

#[test]
fn a_site_whose_new_setting_meets_a_fault_goes_back_alone() {
    let origin = origin();
    let rempart = run_faulty(&origin, ["[site.policy]\nmethods = [\"GET\"]", ""]);
    let planted = "[site.policy]\nforbid = [{ name = \"Rempart-Trial\", value = \"panic\" }]";
    let outcome =
        rempart.configure(&config(&origin, [planted, "[site.policy]\nmethods = [\"GET\", \"PUT\"]"]));
    assert!(outcome.active && outcome.number == 2, "{outcome:?}");
    let statuses: Vec<u16> = (0..40).map(|_| status_with(&rempart, "one.test", "")).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let status = rempart.status();
    let reverted = &status.modules.reverted;
    assert_eq!(reverted.len(), 1, "{:?}", status.modules);
    assert_eq!((reverted[0].site.as_str(), reverted[0].generation), ("one", 1));
    assert!(reverted[0].settings.to_ascii_lowercase().contains("rempart-trial"), "{reverted:?}");
    assert_eq!(status.number, 2, "the other site has what it was given");
    let put = |host: &str| {
        let request =
            format!("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        client::Client::plain(rempart.plain()).unwrap().exchange(request).unwrap().status
    };
    assert_eq!((put("one.test"), put("two.test")), (405, 200));
    // A change of another site leaves it there.
    let outcome = rempart.configure(&config(&origin, [planted, ""]));
    assert!(outcome.active && outcome.changed, "{outcome:?}");
    assert_eq!((put("one.test"), rempart.status().modules.reverted.len()), (405, 1));
    // A change of its own ends it.
    let outcome = rempart.configure(&config(&origin, ["[site.policy]\nmethods = [\"PUT\"]", ""]));
    assert!(outcome.active, "{outcome:?}");
    assert_eq!((put("one.test"), rempart.status().modules.reverted.len()), (200, 0));
}

#[test]
fn a_switch_is_taken_while_every_thread_is_busy() {
    let origin = origin();
    let rempart = run_faulty(&origin, ["", ""]);
    let address = rempart.plain();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            // The module runs to the end of its budget with each request, and its breaker is kept busy by the others.
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for told in ["loop", "score 90", "score 90", "score 90"] {
                        let request = format!(
                            "GET / HTTP/1.1\r\nHost: one.test\r\nRempart-Trial: {told}\r\nConnection: close\r\n\r\n"
                        );
                        let answer = client::Client::plain(address).unwrap().exchange(request).unwrap();
                        assert_eq!(answer.status, 200);
                    }
                }
            });
        }
        while outcomes(&rempart, "trial", "unknown", "over_budget") < 4 {
            std::thread::sleep(Duration::from_millis(20));
        }
        switch(&rempart, &["disable", "trial", "--reason", "it takes every core"]);
        let asked = outcomes(&rempart, "trial", "unknown", "over_budget");
        std::thread::sleep(Duration::from_millis(300));
        let still = outcomes(&rempart, "trial", "unknown", "over_budget");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        // Those that were in the module may come to their end.
        assert!(still <= asked + 8, "{asked}, then {still}");
        assert!(outcomes(&rempart, "trial", "unknown", "switched_off") > 0);
    });
}
