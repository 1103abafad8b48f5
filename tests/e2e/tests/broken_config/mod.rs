//! No broken configuration hurts: each kind is refused with the place and the way out, the running generation stays
//! in force, and the traffic does not notice. A start with a broken one serves the last good one and says so.

mod cases;

use std::net::TcpListener;

use api::admin::{GenerationSource, ReloadOutcome};
use api::diagnostic::{Diagnostic, Severity};
use harness::certificates::{Authority, Pair, Validity};
use harness::client::{self, tls_config};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::ports;
use harness::rempart::{Place, Rempart};
use harness::traffic::{Asks, Speaks, Traffic};

use cases::{Broken, Where};

const HOST: &str = "shop.test";

/// What every case starts from: a good configuration with a certificate of its own, running, with traffic.
struct Shop {
    origin: Origin,
    authority: Authority,
    leaf: Pair,
    place: Place,
    good: String,
}

impl Shop {
    fn new() -> Self {
        let origin = Origin::answering(|_| Reply::text(200, "ok"));
        let authority = Authority::new("Authority of this test");
        // A port of its own, so that a loop can be seen in the file alone.
        let good = Config::new()
            .listen(&format!("127.0.0.1:{}", ports::free()), false)
            .listen("127.0.0.1:0", true)
            .site("shop", &[HOST])
            .raw("[site.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"")
            .origin(origin.url())
            .text()
            .to_owned();
        let leaf = authority.leaf(&[HOST], Validity::Good);
        let shop = Self { origin, authority, leaf, place: Place::new(), good };
        shop.restore();
        shop
    }

    /// Puts every file back as it was good.
    fn restore(&self) {
        self.place.write("cert.pem", &self.leaf.certificate);
        self.place.write("key.pem", &self.leaf.key);
        let config = self.place.config();
        if config.is_dir() {
            std::fs::remove_dir(&config).unwrap();
        }
        self.place.write("rempart.toml", &self.good);
    }

    fn traffic(&self, rempart: &Rempart) -> Traffic {
        let authority = self.authority.pem();
        let workers = vec![
            Speaks::Plain(rempart.plain()),
            Speaks::Tls(rempart.tls(), tls_config(&authority, &["http/1.1"])),
            Speaks::Http2(rempart.tls(), tls_config(&authority, &["h2"])),
        ];
        let asks = Asks { host: HOST.into(), path: "/".into(), expect: "ok".into() };
        Traffic::start(workers, 50, &asks)
    }
}

/// What is wrong with the diagnostics of a refused configuration.
fn faults(case: &Broken, diagnostics: &[Diagnostic]) -> Vec<String> {
    let errors: Vec<_> = diagnostics.iter().filter(|found| found.severity == Severity::Error).collect();
    let mut wrong = Vec::new();
    if errors.is_empty() {
        wrong.push("refused without an error".to_owned());
    }
    for error in &errors {
        if error.hint.as_ref().is_none_or(String::is_empty) {
            wrong.push(format!("no way out: {error:?}"));
        }
        match (&error.location, case.place) {
            (Some(at), _) if at.line == 0 || at.column == 0 || at.file.is_empty() => {
                wrong.push(format!("a place that is none: {error:?}"));
            }
            (None, Where::Line) => wrong.push(format!("no place: {error:?}")),
            _ => {}
        }
    }
    let told = |found: &&Diagnostic| {
        let Diagnostic { code, message, location, hint, .. } = found;
        let place = location.as_ref().map(|at| format!("{} {}", at.file, at.text)).unwrap_or_default();
        let text = format!("{code} {message} {place} {}", hint.as_deref().unwrap_or_default()).to_lowercase();
        case.says.iter().any(|word| text.contains(word))
    };
    if !errors.iter().any(told) {
        wrong.push(format!("none speaks of {:?}: {errors:?}", case.says));
    }
    wrong
}

#[test]
fn every_kind_of_broken_configuration_is_refused_and_hurts_nobody() {
    let shop = Shop::new();
    let rempart = shop.place.run();
    let traffic = shop.traffic(&rempart);
    traffic.wait_for(30);
    let before = rempart.status();
    // A port that another process (here: this one) has taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = cases::all(&shop, &rempart, taken.local_addr().unwrap());
    assert!(cases.len() >= 25, "{} kinds", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        shop.restore();
        (case.spoil)(&shop);
        let (code, outcome) = rempart.reload();
        wrong.extend(judge(case, &rempart, code, &outcome, before.number, &before.generation));
        traffic.wait_for(3);
    }
    drop(taken);
    shop.restore();
    let (code, outcome) = rempart.reload();
    assert_eq!((code, outcome.active), (Some(0), true), "a good configuration is taken again: {outcome:?}");
    assert!(rempart.status().refused.is_none());
    traffic.wait_for(30);
    assert!(wrong.is_empty(), "{} findings in {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    traffic.stop_unharmed();
    assert!(!shop.origin.seen().is_empty());
}

fn judge(
    case: &Broken,
    rempart: &Rempart,
    code: Option<i32>,
    outcome: &ReloadOutcome,
    number: u64,
    generation: &str,
) -> Vec<String> {
    let mut wrong = faults(case, &outcome.diagnostics);
    if code != Some(1) || outcome.active {
        wrong.push(format!("taken: exit {code:?}, {outcome:?}"));
    }
    if outcome.number != number || outcome.generation != generation {
        wrong.push(format!("generation {} in force instead of {number}", outcome.number));
    }
    let status = rempart.status();
    if status.number != number || status.generation != generation {
        wrong.push(format!("status tells generation {}", status.number));
    }
    if status.refused.is_none_or(|refusal| refusal.diagnostics.is_empty() || refusal.at.is_empty()) {
        wrong.push("status does not tell the refusal".into());
    }
    if !case.only_running {
        let (code, report) = rempart.place().check("rempart.toml");
        if code != Some(1) || report.ok || report.diagnostics.is_empty() {
            wrong.push(format!("check finds nothing: exit {code:?}, {report:?}"));
        }
    }
    wrong.into_iter().map(|words| format!("{}: {words}", case.name)).collect()
}

#[test]
fn a_start_with_a_broken_configuration_serves_the_last_good_one_and_says_so() {
    let shop = Shop::new();
    let first = shop.place.run();
    let generation = first.status().generation;
    first.stop();
    for end in ["stopped", "killed"] {
        let running = shop.place.run();
        if end == "stopped" {
            running.stop()
        } else {
            running.kill()
        };
        shop.place.write("rempart.toml", shop.good.replace("[[site]]", "[[sight]]"));
        let rempart = shop.place.run();
        assert_eq!(client::get(rempart.plain(), HOST, "/").unwrap().text(), "ok", "{end}");
        let status = rempart.status();
        assert_eq!(
            (status.source, status.generation.as_str()),
            (GenerationSource::LastGood, generation.as_str()),
            "{end}"
        );
        assert!(status.refused.is_some_and(|refusal| !refusal.diagnostics.is_empty()), "{end}");
        // What it writes comes through a pipe of its own, maybe after its answers.
        for wanted in ["sight", "LAST GOOD"] {
            let found = rempart.log().wait_for(|line| line.contains(wanted));
            assert!(found.is_some(), "{end}, no {wanted}: {}", rempart.log().text());
        }
        shop.restore();
        let (code, outcome) = rempart.reload();
        assert_eq!((code, outcome.active), (Some(0), true), "{end}: {outcome:?}");
        assert_eq!(rempart.status().source, GenerationSource::Config, "{end}");
        rempart.stop();
    }
}

/// The last good generation holds its certificates too: nothing but the state folder is needed.
#[test]
fn the_last_good_generation_serves_when_every_other_file_is_gone() {
    let shop = Shop::new();
    shop.place.run().stop();
    for name in ["rempart.toml", "cert.pem", "key.pem"] {
        std::fs::remove_file(shop.place.path(name)).unwrap();
    }
    let rempart = shop.place.run();
    let tls = tls_config(&shop.authority.pem(), &["http/1.1"]);
    let mut client = client::Client::tls(rempart.tls(), HOST, tls).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().text(), "ok");
    assert_eq!(rempart.status().source, GenerationSource::LastGood);
}

#[test]
fn a_first_start_with_a_broken_configuration_ends_with_1_and_the_diagnostics() {
    let shop = Shop::new();
    shop.place.write("rempart.toml", shop.good.replace("hosts =", "hots ="));
    let ended = shop.place.ask(&["run", "--config", "rempart.toml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = format!("{}{}", ended.stdout, ended.stderr);
    assert!(told.contains("hots") && told.contains("rempart.toml"), "{told}");
    let mut command = shop.place.command(&["check".as_ref(), "rempart.toml".as_ref()]);
    let text = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
    assert!(
        text.contains("rempart.toml:") && text.contains('^') && text.contains("hint"),
        "for people: {text}"
    );
}

#[test]
fn check_tells_what_a_good_configuration_would_change() {
    let shop = Shop::new();
    let rempart = shop.place.run();
    let (code, report) = rempart.place().check("rempart.toml");
    assert_eq!((code, report.ok, report.changes.as_deref()), (Some(0), true, Some(&[][..])), "{report:?}");
    shop.place.write("next.toml", shop.good.replace("hosts = [", "hosts = [\"next.test\", "));
    let (code, report) = rempart.place().check("next.toml");
    assert_eq!((code, report.ok), (Some(0), true), "{report:?}");
    let changes = serde_json::to_string(&report.changes).unwrap();
    assert!(changes.contains("next.test"), "{changes}");
    assert_eq!(client::get(rempart.plain(), "next.test", "/").unwrap().status, 421, "check is dry");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let shop = Shop::new();
    for (words, code) in [
        (&["status"][..], 3),
        (&["reload"], 3),
        (&["run", "--no-such-option"], 2),
        (&["no-such-command"], 2),
        (&["run", "--origin", "not a url"], 1),
        (&["check", "no-such-file.toml"], 1),
    ] {
        let ended = shop.place.ask(words);
        // A value that is no URL is a usage error to a command line parser and a refusal to a compiler; both are right.
        let right = ended.code == Some(code) || (words.contains(&"--origin") && ended.code == Some(2));
        assert!(right, "{words:?}: {ended:?}");
        assert!(!ended.stderr.is_empty() || !ended.stdout.is_empty(), "{words:?} says nothing");
    }
}
