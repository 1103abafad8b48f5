//! The whole service, told and asked as a supervisor, visitors and an operator would.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use api::roles::{NotifyChannel, NotifyWay, WatchSettings, WatchedListener, WatchedSite};
use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// A watch in a thread.
struct Running {
    commands: mpsc::Sender<Command>,
    /// What it told the supervisor.
    finds: blocking::Receiver<Happening>,
    thread: JoinHandle<std::io::Result<()>>,
}

fn begin(folder: &Path) -> Running {
    let (commands, received) = mpsc::channel(16);
    let (found, finds) = blocking::channel();
    let folder = folder.to_owned();
    let thread = std::thread::spawn(move || {
        let tell = Box::new(move |happening: &Happening| {
            // Nobody may be listening.
            drop(found.send(happening.clone()));
        });
        run(Start { folder: &folder, seed: 7, now, grace: Duration::ZERO, tell }, received)
    });
    Running { commands, finds, thread }
}

impl Running {
    fn set(&self, settings: &WatchSettings) {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(Command::Settings(settings.clone(), answer)).ok().unwrap();
        answered.blocking_recv().unwrap().unwrap();
    }

    fn tell(&self, what: What, severity: Severity, cause: &str) {
        let one = Happening::new(now(), what, severity, Component::Feeds, cause, "so it is".to_owned());
        self.commands.blocking_send(Command::Happened(vec![one.about("bots")])).ok().unwrap();
    }

    fn end(self) {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(Command::End(answer)).ok().unwrap();
        answered.blocking_recv().unwrap().unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

/// Looks until it is so; the test harness ends what never is.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Head and body of an answer.
fn request(address: SocketAddr, request: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .write_all(format!("{request} HTTP/1.1\r\nhost: status\r\nconnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

fn summary(address: SocketAddr) -> Value {
    let (_, body) = until(|| request(address, "GET /api/v2/summary.json"));
    serde_json::from_str(&body).unwrap()
}

fn incidents(folder: &Path, all: bool) -> (bool, Vec<crate::incident::Incident>) {
    let asked = until(|| ask(&socket(folder), Question::Incidents { all }).ok());
    let Answer::Incidents { supervised, incidents, .. } = asked else { panic!("{asked:?}") };
    (supervised, incidents)
}

/// A server that takes every webhook; what it got comes out of the receiver.
fn receiver() -> (SocketAddr, blocking::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = blocking::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, received)
}

fn webhook(name: &str, address: SocketAddr) -> NotifyChannel {
    let url = format!("http://{address}/");
    NotifyChannel { name: name.to_owned(), way: NotifyWay::Webhook { url, secret: None } }
}

#[test]
fn what_happens_is_on_the_page_in_the_list_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, told) = receiver();
    let listen = free_address();
    let settings = WatchSettings {
        listen: Some(listen),
        title: "Shop".to_owned(),
        // The other one never works; that holds up nobody.
        channels: vec![webhook("broken", free_address()), webhook("pager", hook)],
        ..WatchSettings::default()
    };
    let watch = begin(folder.path());
    watch.set(&settings);
    assert_eq!(summary(listen)["status"]["indicator"], "none");
    watch.tell(What::ArtefactRefused, Severity::Warning, "duplicate-keys");
    let first = told.recv().unwrap();
    assert_eq!(first["name"], "[Shop] Problem: bots: new data refused, duplicate-keys");
    let seen = summary(listen);
    assert_eq!(seen["status"]["indicator"], "minor");
    assert_eq!(seen["incidents"][0]["name"], "bots: new data refused, duplicate-keys");
    let (head, page) = request(listen, "GET /").unwrap();
    assert!(head.contains("default-src 'none'"), "{head}");
    assert!(page.contains("bots: new data refused, duplicate-keys"), "{page}");
    // The same again is no other message: the next one tells of the end.
    watch.tell(What::ArtefactRefused, Severity::Warning, "duplicate-keys");
    watch.tell(What::ArtefactActivated, Severity::Info, "new");
    let second = told.recv().unwrap();
    assert_eq!(second["name"], "[Shop] Over: bots: new data refused, duplicate-keys");
    assert_eq!(second["alert_correlation_id"], first["alert_correlation_id"]);
    let (_, known) = incidents(folder.path(), true);
    assert_eq!((known.len(), known[0].count), (1, 2));
    assert!(incidents(folder.path(), false).1.is_empty());
    let Answer::Tested { channels } = ask(&socket(folder.path()), Question::Test).unwrap() else {
        panic!("another answer")
    };
    let outcomes: Vec<_> = channels.iter().map(|it| (it.channel.as_str(), it.error.is_none())).collect();
    assert_eq!(outcomes, [("broken", false), ("pager", true)]);
    assert_eq!(told.recv().unwrap()["alert_type"], "rempart_test");
    watch.end();
    assert!(TcpStream::connect(listen).is_err());
}

#[test]
fn a_page_answers_what_is_asked_rightly_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let listen = free_address();
    let watch = begin(folder.path());
    watch.set(&WatchSettings { listen: Some(listen), ..WatchSettings::default() });
    summary(listen);
    for (asked, status) in [
        ("GET /", "HTTP/1.1 200 OK"),
        ("HEAD /", "HTTP/1.1 200 OK"),
        ("GET /history.atom", "HTTP/1.1 200 OK"),
        ("GET /../etc/passwd", "HTTP/1.1 404 Not Found"),
        ("POST /", "HTTP/1.1 405 Method Not Allowed"),
    ] {
        let (head, body) = request(listen, asked).unwrap();
        assert!(head.starts_with(status), "{asked}: {head}");
        assert_eq!(body.is_empty(), asked.starts_with("HEAD"), "{asked}");
    }
    watch.end();
}

#[test]
fn without_a_supervisor_it_goes_on_until_another_watch_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, told) = receiver();
    let settings = WatchSettings {
        listen: Some(free_address()),
        channels: vec![webhook("pager", hook)],
        ..WatchSettings::default()
    };
    let listen = settings.listen.unwrap();
    let first = begin(folder.path());
    first.set(&settings);
    first.tell(What::BreakerOpened, Severity::Warning, "panic");
    assert_eq!(told.recv().unwrap()["name"], "[Rempart] Problem: bots: passed over, panic");
    drop(first.commands);
    let gone = told.recv().unwrap();
    let text = "[Rempart] Problem: supervisor: the supervisor is gone, nothing can be changed";
    assert_eq!(gone["name"], text);
    assert!(!incidents(folder.path(), false).0);
    let (_, page) = request(listen, "GET /").unwrap();
    assert!(page.contains("its supervisor is gone"), "{page}");
    // The next one knows what the first one knew, has its address, and tells nothing twice.
    let second = begin(folder.path());
    first.thread.join().unwrap().unwrap();
    let kept = until(|| Some(incidents(folder.path(), false)).filter(|(supervised, _)| *supervised));
    assert_eq!(kept.1.len(), 2);
    second.set(&settings);
    assert_eq!(told.recv().unwrap()["name"], text.replace("Problem", "Over"));
    assert_eq!(summary(listen)["incidents"].as_array().unwrap().len(), 1);
    // Nothing is left to watch once the folder is gone.
    drop(folder);
    second.thread.join().unwrap().unwrap();
    drop(second.commands);
    assert!(told.try_recv().is_err());
}

#[test]
fn with_what_lies_in_its_folder_it_serves_though_nobody_tells_it_anything() {
    let folder = tempfile::tempdir().unwrap();
    let listen = free_address();
    let watch = begin(folder.path());
    watch.set(&WatchSettings { listen: Some(listen), title: "Kept".to_owned(), ..WatchSettings::default() });
    watch.end();
    let again = begin(folder.path());
    assert_eq!(summary(listen)["page"]["name"], "Kept");
    // With compiled-in defaults in force it stays as it was.
    again.set(&WatchSettings { as_before: true, ..WatchSettings::default() });
    assert_eq!(summary(listen)["page"]["name"], "Kept");
    again.end();
}

#[test]
fn a_site_that_does_not_answer_is_an_incident_until_nobody_asks_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, told) = receiver();
    let site = WatchedSite {
        name: "shop".to_owned(),
        host: "shop.example".to_owned(),
        path: "/".to_owned(),
        at: vec![WatchedListener { address: free_address(), tls: false, proxy_protocol: false }],
        asks_for_certificates: false,
    };
    let settings = WatchSettings {
        probe_seconds: 1,
        sites: vec![site],
        channels: vec![webhook("pager", hook)],
        ..WatchSettings::default()
    };
    let watch = begin(folder.path());
    watch.set(&settings);
    let first = told.recv().unwrap();
    assert_eq!(first["name"], "[Rempart] Outage: shop: Rempart does not answer");
    // The supervisor was told once, and tells everybody, this one too: that is nothing new.
    let found = watch.finds.recv().unwrap();
    assert_eq!((found.what, found.site.as_deref()), (What::ProbeFailed, Some("shop")));
    let count = || incidents(folder.path(), false).1[0].count;
    let before = count();
    watch.commands.blocking_send(Command::Happened(vec![found; 1_000])).ok().unwrap();
    watch.set(&settings);
    assert!(count() < before + 1_000);
    watch.set(&WatchSettings { sites: Vec::new(), ..settings });
    assert_eq!(told.recv().unwrap()["name"], "[Rempart] Over: shop: Rempart does not answer");
    assert_eq!(watch.finds.recv().unwrap().what, What::ProbeRecovered);
    watch.end();
}
