//! Watch: what does not work is named on the status page, in its JSON and in a webhook, also when nobody else is left.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use api::admin::ProcessRole;
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::{Place, Rempart, process_of};
use harness::{PATIENCE, client, ports};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const HOST: &str = "shop.test";

fn page() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// Takes every webhook.
fn receiver() -> Origin {
    Origin::answering(|_| Reply::text(200, "taken"))
}

/// What the receiver was told, once there is this much of it.
fn told(receiver: &Origin, count: usize) -> Vec<Value> {
    let seen = receiver.wait_for(count);
    seen.iter().map(|seen| serde_json::from_slice(&seen.body.bytes).unwrap()).collect()
}

fn watch(page: SocketAddr, path: &str, receiver: &Origin) -> String {
    format!(
        "[watch]\nlisten = \"{page}\"\ntitle = \"Shop\"\nprobe = {{ every = \"1s\", path = \"{path}\" }}\n\
         [[watch.notify]]\nname = \"pager\"\nwebhook = \"{}/hook\"\n",
        receiver.url()
    )
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

fn summary(page: SocketAddr) -> Option<Value> {
    let answer = client::get(page, "status.test", "/api/v2/summary.json").ok()?;
    serde_json::from_str(&answer.text()).ok()
}

/// Names of the incidents that last.
fn names(summary: &Value) -> Vec<String> {
    let incidents = summary["incidents"].as_array().unwrap();
    incidents.iter().map(|incident| incident["name"].as_str().unwrap().to_owned()).collect()
}

fn await_named(page: SocketAddr, name: &str) -> Value {
    let is_named = |summary: &Value| names(summary).iter().any(|found| found == name);
    await_some(name, || summary(page).filter(is_named))
}

fn component<'a>(summary: &'a Value, id: &str) -> &'a str {
    let components = summary["components"].as_array().unwrap();
    let found = components.iter().find(|component| component["id"] == id);
    found.unwrap_or_else(|| panic!("no component {id}"))["status"].as_str().unwrap()
}

/// Packs a table with this key as a generation of the feed; it is taken by whoever trusts the key.
fn pack(place: &Place, key: &str, generation: &str, rows: &str) {
    place.write("table.tsv", format!("#columns name:text weight:number\n{rows}"));
    let packed = place.ask(&[
        "feed",
        "pack",
        "table.tsv",
        "--name",
        "bots",
        "--key",
        key,
        "--generation",
        generation,
        "-o",
        "next.package",
    ]);
    assert_eq!(packed.code, Some(0), "{packed:?}");
    std::fs::rename(place.path("next.package"), place.path("bots.package")).unwrap();
}

fn key(place: &Place, name: &str) -> String {
    let made = place.ask(&["feed", "keygen", name]);
    made.json::<Value>()["public"].as_str().unwrap().to_owned()
}

#[test]
fn a_refused_feed_is_named_with_its_cause_everywhere_and_delivery_is_not() {
    let origin = Origin::answering(|_| Reply::text(200, "fine"));
    let (page, receiver) = (page(), receiver());
    let place = Place::new();
    let trusted = key(&place, "maker.key");
    key(&place, "other.key");
    pack(&place, "maker.key", "1", "curl\t0.5\nwget\t0.25\n");
    let feed = format!(
        "[[feeds]]\nname = \"bots\"\nsource = \"bots.package\"\nevery = \"1s\"\nkeys = [\"{trusted}\"]\n"
    );
    let config = Config::new().raw(&watch(page, "/", &receiver)).raw(&feed);
    let config = config.listeners().site("shop", &[HOST]).origin(origin.url());
    place.write("rempart.toml", config.text());
    let rempart = place.run();
    await_some("the feed in force", || {
        let feeds: Value = rempart.place().ask(&["feed"]).json();
        feeds.to_string().contains("\"generation\":1").then_some(())
    });
    pack(&place, "other.key", "2", "curl\t0.5\nwget\t0.25\n");
    let name = "bots: new data refused, unknown-key";
    let found = await_some(name, || {
        let summary = summary(page)?;
        names(&summary).into_iter().find(|name| name.starts_with("bots: ")).map(|name| (name, summary))
    });
    let (name, seen) = found;
    assert!(name.ends_with("refused, unknown-key"), "{name}");
    assert_eq!(component(&seen, "feeds"), "degraded_performance");
    assert_eq!(component(&seen, "delivery"), "operational");
    assert_eq!(seen["status"]["indicator"], "minor");
    let text = client::get(page, "status.test", "/").unwrap().text();
    assert!(text.contains(&name), "{text}");
    let first = &told(&receiver, 1)[0];
    assert_eq!(first["name"], format!("[Shop] Problem: {name}"));
    let incident = &first["data"]["incidents"][0];
    assert_eq!((&incident["subject"], &incident["cause"]), (&"bots".into(), &"unknown-key".into()));
    let changes = incident["changes_before"].to_string();
    assert!(changes.contains("artefact_activated"), "{changes}");
    let listed: Value = rempart.place().ask(&["incidents"]).json();
    assert_eq!(listed["incidents"][0]["id"], incident["id"]);
    // What is good again ends it, and is told once.
    pack(&place, "maker.key", "3", "curl\t0.5\nwget\t0.75\n");
    let second = &told(&receiver, 2)[1];
    assert_eq!(second["name"], format!("[Shop] Over: {name}"));
    assert_eq!(second["alert_correlation_id"], first["alert_correlation_id"]);
    let tested: Value = rempart.place().ask(&["watch", "test"]).json();
    assert_eq!(tested["channels"][0]["error"], Value::Null);
    assert_eq!(told(&receiver, 3)[2]["alert_type"], "rempart_test");
    rempart.stop();
    assert!(summary(page).is_none());
}

/// The process with this role, once there is one.
fn process(rempart: &Rempart, role: ProcessRole) -> Pid {
    let status = rempart.await_status("a process of this role", |status| process_of(status, role).is_some());
    let pid = process_of(&status, role).unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[test]
fn with_supervisor_and_edge_dead_the_page_answers_and_says_so() {
    let origin = Origin::answering(|_| Reply::text(200, "fine"));
    let (page, receiver) = (page(), receiver());
    let listen = format!("127.0.0.1:{}", ports::free());
    let config =
        Config::empty().raw("standby = false\n[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\"");
    let config = config.raw(&watch(page, "/.rempart/trace", &receiver)).listen(&listen, false);
    let config = config.site("shop", &[HOST]).origin(origin.url());
    let place = Place::with(&config);
    let rempart = place.run();
    assert_eq!(names(&await_some("the page", || summary(page))), Vec::<String>::new());
    let edge = process(&rempart, ProcessRole::Edge);
    let orphans = rempart.kill_supervisor();
    assert!(summary(page).is_some());
    await_named(page, "supervisor: the supervisor is gone, nothing can be changed");
    kill_process(edge, Signal::KILL).unwrap();
    let seen = await_named(page, "shop: Rempart does not answer");
    assert_eq!(component(&seen, "site-shop"), "major_outage");
    assert_eq!(seen["status"]["indicator"], "critical");
    // No origin was asked by these probes.
    assert!(origin.seen().is_empty());
    let again = place.run();
    await_some("the end of both incidents", || summary(page).filter(|seen| names(seen).is_empty()));
    let status = again.status();
    let watches = status.processes.iter().filter(|process| process.role == ProcessRole::Watch);
    assert_eq!(watches.count(), 1);
    // Two began and two ended, whoever told it.
    let turns: Vec<_> =
        told(&receiver, 4).iter().map(|it| it["alert_event"].as_str().unwrap().to_owned()).collect();
    let begun = turns.iter().filter(|turn| *turn == "ALERT_STATE_EVENT_START").count();
    assert_eq!((begun, turns.len()), (2, 4));
    drop(orphans);
}

#[test]
fn an_origin_that_fails_is_told_apart_and_a_channel_that_fails_is_shown() {
    let origin = Origin::answering(|_| Reply::text(503, "broken"));
    let fine = Origin::answering(|_| Reply::text(200, "fine"));
    let page = page();
    let dead = format!("http://127.0.0.1:{}/hook", ports::free());
    let watch = format!(
        "[watch]\nlisten = \"{page}\"\nprobe = {{ every = \"1s\", path = \"/\" }}\n[[watch.notify]]\nname = \"pager\"\nwebhook = \"{dead}\"\n"
    );
    let config = Config::new().raw(&watch).listeners();
    let config =
        config.site("shop", &[HOST]).origin(origin.url()).site("news", &["news.test"]).origin(fine.url());
    let rempart = Rempart::with(&config);
    let seen = await_named(page, "shop: the origin does not answer");
    assert_eq!(component(&seen, "site-shop"), "major_outage");
    assert_eq!(component(&seen, "site-news"), "operational");
    assert_eq!(seen["status"]["indicator"], "major");
    let text = await_some("the channel on the page", || {
        let text = client::get(page, "status.test", "/").unwrap().text();
        text.contains("Messages do not reach pager").then_some(text)
    });
    assert!(!text.contains("/hook"), "{text}");
    let events = rempart.place().ask(&["events", "--kind", "operations"]).stdout;
    assert!(events.contains("probe_failed"), "{events}");
    let shop = |incident: &&Value| incident["name"].as_str().unwrap().starts_with("shop: ");
    let incident = seen["incidents"].as_array().unwrap().iter().find(shop).unwrap();
    // A start is a change too.
    let began = incident["incident_updates"].to_string();
    assert!(began.contains("before it: Rempart was started, generation 1"), "{began}");
    rempart.stop();
}
