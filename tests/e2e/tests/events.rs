//! Events: one for each request with what it says, and analytics that is stopped, killed or out of room costs events, which are
//! counted, and never a request.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::{Place, Rempart};
use harness::{PATIENCE, client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const HOST: &str = "shop.test";
/// What the analytics process is called.
const COMM: &str = "rempart-analyst";

fn site() -> (Origin, Place) {
    let origin = Origin::answering(|request| {
        if request.target().contains("broken") {
            Reply::text(503, "broken")
        } else {
            Reply::text(200, "fine")
        }
    });
    let config = Config::empty().raw("[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"");
    let config = config.listeners().site("shop", &[HOST]).origin(origin.url());
    let place = Place::with(&config);
    (origin, place)
}

/// The process that is analytics of this Rempart, once there is one.
fn analyst(rempart: &Rempart) -> Pid {
    let children = format!("PPid:\t{}\n", rempart.pid());
    await_some("an analytics process", || {
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
            let named = fs::read_to_string(entry.path().join("comm")).ok()?.trim() == COMM;
            let ours = fs::read_to_string(entry.path().join("status")).ok()?.contains(&children);
            Pid::from_raw(pid).filter(|_| named && ours)
        })
    })
}

fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} is waited for in vain");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What `rempart events` tells; nothing while analytics is not there.
fn events(rempart: &Rempart, words: &[&str]) -> Vec<Value> {
    let asked: Vec<&str> = [&["events", "--limit", "10000"], words].concat();
    let ended = rempart.place().ask(&asked);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn requests(rempart: &Rempart) -> Vec<Value> {
    events(rempart, &["--kind", "requests"])
}

/// Requests told of and requests dropped, as the edge counts them.
fn counts(rempart: &Rempart) -> (u64, u64) {
    let text = client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text();
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    };
    (sum("rempart_events_sent_total"), sum("rempart_events_dropped_total"))
}

fn get(rempart: &Rempart, path: &str) -> u16 {
    client::get(rempart.plain(), HOST, path).unwrap().status
}

#[test]
fn every_request_is_told_with_what_became_of_it() {
    let (_origin, place) = site();
    let rempart = place.run();
    analyst(&rempart);
    await_some("the first event", || {
        get(&rempart, "/warm-up");
        (!requests(&rempart).is_empty()).then_some(())
    });
    for number in 0..20 {
        assert_eq!(get(&rempart, &format!("/page/{number}?q=1")), 200);
    }
    assert_eq!(get(&rempart, "/broken"), 503);
    let mut secure = rempart.tls_client(HOST);
    assert_eq!(secure.get(HOST, "/secure").unwrap().status, 200);
    let told = await_some("all events", || {
        let told = requests(&rempart);
        let of =
            |path: &str| told.iter().filter(|it| it["target"].as_str().unwrap().starts_with(path)).count();
        (of("/page/") == 20 && of("/broken") == 1 && of("/secure") == 1).then_some(told)
    });
    let find = |target: &str| told.iter().find(|event| event["target"] == target).unwrap();
    let page = find("/page/7?q=1");
    for (field, value) in [
        ("item", Value::from("request")),
        ("site", "shop".into()),
        ("host", HOST.into()),
        ("method", "GET".into()),
        ("status", 200.into()),
        ("network", "127.0.0.0".into()),
        ("protocol", "http/1.1".into()),
        ("origin_protocol", "http/1.1".into()),
        ("generation", 1.into()),
        ("completion", "complete".into()),
        ("bytes_out", 4.into()),
        ("weight", 1.into()),
    ] {
        assert_eq!(page[field], value, "{field} of {page}");
    }
    assert!(page["duration_us"].as_u64().unwrap() >= page["origin_wait_us"].as_u64().unwrap());
    assert!(page.get("tls").is_none() && page.get("ja4").is_none(), "{page}");
    let secure = find("/secure");
    assert_eq!(secure["tls"], "TLSv1.3");
    let ja4 = secure["ja4"].as_str().unwrap();
    assert!(ja4.starts_with("t13d") && ja4.len() == 36, "{ja4}");
    let failed = events(&rempart, &["--status", "5xx"]);
    assert!(failed.iter().all(|event| event["target"] == "/broken") && !failed.is_empty());
    assert!(events(&rempart, &["--site", "another"]).is_empty());
    let top: Value = rempart.place().ask(&["top"]).json();
    assert!(top["sites"].as_array().unwrap().iter().any(|site| site["site"] == "shop"), "{top}");
}

#[test]
fn analytics_that_stands_still_or_dies_costs_no_request() {
    let (_origin, place) = site();
    let rempart = place.run();
    let first = analyst(&rempart);
    await_some("the first event", || {
        get(&rempart, "/warm-up");
        (!requests(&rempart).is_empty()).then_some(())
    });
    kill_process(first, Signal::STOP).unwrap();
    for number in 0..200 {
        assert_eq!(get(&rempart, &format!("/stopped/{number}")), 200);
    }
    kill_process(first, Signal::CONT).unwrap();
    await_some("what waited meanwhile", || {
        let told = requests(&rempart);
        let waited = told.iter().filter(|it| it["target"].as_str().unwrap().starts_with("/stopped/"));
        (waited.count() == 200).then_some(())
    });
    kill_process(first, Signal::KILL).unwrap();
    let mut made = 0;
    let second = await_some("another analytics process", || {
        assert_eq!(get(&rempart, "/dead"), 200);
        made += 1;
        Some(analyst(&rempart)).filter(|pid| *pid != first)
    });
    assert_ne!(first, second);
    await_some("events again", || {
        assert_eq!(get(&rempart, "/again"), 200);
        requests(&rempart).iter().any(|event| event["target"] == "/again").then_some(())
    });
    let total = rempart.status().requests;
    await_some("every request sent or counted as dropped", || {
        let (sent, dropped) = counts(&rempart);
        (sent + dropped == total).then_some(())
    });
}

#[test]
fn a_database_that_takes_nothing_is_told_and_costs_no_request() {
    let (_origin, place) = site();
    fs::create_dir_all(place.state().join("events.db")).unwrap();
    let rempart = place.run();
    analyst(&rempart);
    await_some("an event", || {
        assert_eq!(get(&rempart, "/page"), 200);
        (!requests(&rempart).is_empty()).then_some(())
    });
    let problem = await_some("the problem", || {
        let ended = rempart.place().ask(&["top"]);
        let top: Value = serde_json::from_str(&ended.stdout).ok()?;
        top["store"]["problem"].as_str().map(str::to_owned)
    });
    assert!(!problem.is_empty());
    assert_eq!(get(&rempart, "/page"), 200);
}

#[test]
fn events_that_are_off_are_not_made() {
    let (_origin, place) = site();
    let text = fs::read_to_string(place.config()).unwrap();
    place.write("rempart.toml", format!("[analytics]\nenabled = false\n{text}"));
    let rempart = place.run();
    assert_eq!(get(&rempart, "/page"), 200);
    assert_eq!(counts(&rempart), (0, 0));
    let ended = rempart.place().ask(&["events"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("[analytics]"), "{}", ended.stderr);
}
