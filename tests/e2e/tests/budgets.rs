//! What one address, a thread and the process may have: nobody locks others out, and shortness is survived and told.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::{Place, Rempart, binary};
use harness::{PATIENCE, client};
use rustix::net::{AddressFamily, SocketType};

const HOST: &str = "budget.test";
/// Between two tries of a visitor who was turned away.
const BETWEEN: Duration = Duration::from_millis(50);

fn config(limits: &str, origin: &Origin) -> Config {
    let log = "[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"";
    let config = Config::empty().raw("standby = false").raw(log).raw("[limits]").raw(limits);
    config.listeners().site("budget", &[HOST]).origin(origin.url())
}

fn start(limits: &str, origin: &Origin) -> Rempart {
    Rempart::with(&config(limits, origin))
}

fn origin() -> Origin {
    Origin::answering(|_| Reply::text(200, "ok"))
}

/// A connection from another loopback address: 127.0.0.`last`.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request and reads the status; 0 when the connection ends instead.
fn ask(stream: &mut TcpStream, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let told = stream.write_all(request.as_bytes());
    status(stream).or(told.map(|()| 0)).unwrap_or(0)
}

fn status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let text = std::str::from_utf8(&line[9..]).map_err(io::Error::other)?;
    text.parse().map_err(io::Error::other)
}

/// A visitor that comes until it is served.
fn visit(from: u8, rempart: &Rempart) {
    let deadline = Instant::now() + PATIENCE;
    while ask(&mut connect_from(from, rempart.plain()), "/") != 200 {
        assert!(Instant::now() < deadline, "a visitor is locked out: {}", metrics(rempart));
        thread::sleep(BETWEEN);
    }
}

fn metrics(rempart: &Rempart) -> String {
    client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text()
}

fn refused(rempart: &Rempart, reason: &str) -> u64 {
    let sample = format!("rempart_connections_refused_total{{reason=\"{reason}\"}}");
    metrics(rempart).lines().find_map(|line| line.strip_prefix(&sample)?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn one_address_has_its_share_of_connections_and_no_more() {
    let origin = origin();
    let rempart = start("connections_per_address = 4", &origin);
    let mut held: Vec<_> = (0..4).map(|_| connect_from(2, rempart.plain())).collect();
    assert!(held.iter_mut().all(|stream| ask(stream, "/") == 200));
    assert_eq!(ask(&mut connect_from(2, rempart.plain()), "/"), 429);
    assert_eq!(ask(&mut connect_from(3, rempart.plain()), "/"), 200, "others have their own");
    assert_eq!(refused(&rempart, "address_connections"), 1);
    held.clear();
    visit(2, &rempart);
}

#[test]
fn trusted_proxies_are_not_counted() {
    let origin = origin();
    let text =
        "connections_per_address = 1\nconnection_rate_per_address = 1\n[trust]\nproxies = [\"127.0.0.2\"]";
    let rempart = start(text, &origin);
    let mut held: Vec<_> = (0..20).map(|_| connect_from(2, rempart.plain())).collect();
    assert!(held.iter_mut().all(|stream| ask(stream, "/") == 200));
}

#[test]
fn new_connections_of_one_address_come_no_faster_than_they_may() {
    let origin = origin();
    let rempart = start("connection_rate_per_address = 1", &origin);
    let statuses: Vec<_> = (0..40).map(|_| ask(&mut connect_from(2, rempart.plain()), "/")).collect();
    assert_eq!(statuses[..5], [200; 5], "a burst is let through");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask(&mut connect_from(3, rempart.plain()), "/"), 200);
    visit(2, &rempart);
}

#[test]
fn handshakes_that_are_not_finished_are_bounded_and_make_room() {
    let origin = origin();
    let rempart = start("threads = 1\nhandshakes = 8\nhandshakes_per_address = 6", &origin);
    let mut held: Vec<_> = (0..6).map(|_| connect_from(2, rempart.tls())).collect();
    let mut seventh = connect_from(2, rempart.tls());
    assert_eq!(seventh.read(&mut [0]).unwrap_or(0), 0, "closed before the handshake");
    assert_eq!(refused(&rempart, "address_handshakes"), 1);
    // Another two and the thread has its fill; who comes with a whole handshake is let in all the same.
    held.extend((0..2).map(|_| connect_from(3, rempart.tls())));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let config = client::tls_config(&rempart.authority(), &["http/1.1"]);
        let got =
            client::Client::tls(rempart.tls(), HOST, config).and_then(|mut client| client.get(HOST, "/"));
        if got.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        assert!(Instant::now() < deadline, "a visitor is locked out: {}", metrics(&rempart));
        thread::sleep(BETWEEN);
    }
    assert!(!metrics(&rempart).contains("rempart_clients_cut_total{reason=\"unused\"} 0"));
    drop(held);
}

#[test]
fn a_hoard_of_idle_connections_locks_nobody_out() {
    let origin = origin();
    let rempart = start("threads = 1\nconnections = 10", &origin);
    let mut idle: Vec<_> = (0..10).map(|_| connect_from(2, rempart.plain())).collect();
    assert!(idle.iter_mut().all(|stream| ask(stream, "/") == 200));
    (3..9).for_each(|visitor| visit(visitor, &rempart));
    assert!(!metrics(&rempart).contains("rempart_clients_cut_total{reason=\"idle\"} 0"));

    // The same with connections that never ask for anything.
    let hoard: Vec<_> = (0..30).map(|_| connect_from(2, rempart.plain())).collect();
    (3..9).for_each(|visitor| visit(visitor, &rempart));
    drop((idle, hoard));
}

/// Requests wait at the origin until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let open = self.open.lock().unwrap();
        let waited = self.changed.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        assert!(*waited.0, "the gate stays closed");
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// A copy of the program that is started with so few descriptors.
fn with_descriptors(count: u32, config: &Config) -> Rempart {
    let place = Place::with(config);
    let script = place.path("few-descriptors");
    let text = format!("#!/bin/sh\nulimit -n {count}\nexec {} \"$@\"\n", binary().display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    place.using(&script).run()
}

#[test]
fn when_descriptors_run_out_those_inside_are_served_and_the_others_told() {
    const INSIDE: usize = 20;
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let origin = Origin::answering(move |seen| {
        if seen.target() == "/wait" {
            held.pass();
        }
        Reply::text(200, "ok")
    });
    let rempart = with_descriptors(256, &config("threads = 1", &origin));
    let mut inside: Vec<_> = (0..INSIDE).map(|_| connect_from(2, rempart.plain())).collect();
    for stream in &mut inside {
        stream.write_all(format!("GET /wait HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
    }
    origin.wait_for(INSIDE);
    let mut crowd: Vec<_> = (0..400).map(|_| connect_from(3, rempart.plain())).collect();
    let told = crowd.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        status(stream).ok()
    });
    let told: Vec<_> = told.collect();
    assert!(!told.is_empty() && told.iter().all(|status| *status == 503), "{told:?}");
    assert!(refused(&rempart, "descriptors") > 0);
    gate.open();
    for stream in &mut inside {
        assert_eq!(status(stream).unwrap(), 200);
    }
    visit(4, &rempart);
    drop(crowd);
    visit(5, &rempart);
    assert_eq!(rempart.status().warnings, Vec::<String>::new());
    assert!(rempart.edge_pid() > 0);
}

#[test]
fn with_hardly_any_descriptors_everybody_still_gets_an_answer() {
    let origin = origin();
    let rempart = with_descriptors(88, &config("threads = 1", &origin));
    let mut crowd: Vec<_> = (2..62).map(|visitor| connect_from(visitor, rempart.plain())).collect();
    // 502 is for who is inside when there is no descriptor left for the way to the origin.
    let answers: Vec<_> = crowd.iter_mut().map(|stream| ask(stream, "/")).collect();
    assert!(answers.iter().all(|status| [200, 502, 503].contains(status)), "{answers:?}");
    assert!(answers.contains(&200) && answers.contains(&503), "{answers:?}");
    drop(crowd);
    visit(2, &rempart);
}

#[test]
fn when_memory_runs_out_new_visitors_are_told_and_it_recovers() {
    let origin = origin();
    let rempart = start("threads = 1\nmemory = \"16MiB\"", &origin);
    // So few that it makes no difference are always taken.
    visit(2, &rempart);
    let inside = RefCell::new(Vec::new());
    rempart.await_status("shortness of memory", |status| {
        inside.borrow_mut().push(connect_from(2, rempart.plain()));
        status.warnings.iter().any(|warning| warning.starts_with("memory: "))
    });
    let text = metrics(&rempart);
    assert!(text.contains("rempart_resource_limit{resource=\"memory\"} 16777216"), "{text}");
    inside.take();
    visit(3, &rempart);
    let log = rempart.log();
    assert!(log.wait_for(|line| line.contains("short of resources")).is_some());
    assert!(log.wait_for(|line| line.contains("resources suffice again")).is_some());
}
