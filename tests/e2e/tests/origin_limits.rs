//! Connections to an origin have a limit: requests beyond it wait in order and for a bounded time, nobody is forgotten, and an
//! origin that is merely busy is not taken for a broken one.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use harness::client::{self, Client};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::Rempart;
use harness::servers::Server;
use harness::{PATIENCE, certificates, ports};

const HOST: &str = "busy.test";

/// Answers with the request's target; `/hold..` only when a token comes.
fn holding() -> (Origin, Sender<()>) {
    let (release, tokens) = channel();
    (answering(Arc::new(Mutex::new(tokens))), release)
}

fn answering(tokens: Arc<Mutex<Receiver<()>>>) -> Origin {
    Origin::answering(move |seen| {
        let target = seen.target();
        if target.starts_with("/hold") {
            let _released = tokens.lock().unwrap().recv();
        }
        Reply::text(200, &target)
    })
}

/// One thread, metrics, and these lines at each origin.
fn before(origins: &[&Origin], lines: &str, site: &str) -> Rempart {
    let top = "[limits]\nthreads = 1\n[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"";
    let mut config = Config::empty().raw(top).listeners().site("busy", &[HOST]).raw(site);
    for origin in origins {
        config = config.origin(origin.url()).raw(lines);
    }
    Rempart::with(&config)
}

fn send(rempart: &Rempart, target: &str) -> Client {
    let mut client = rempart.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Language: de\r\n\r\n")).unwrap();
    client
}

fn answer(client: &mut Client) -> (u16, String) {
    let answer = client.response("GET").unwrap();
    (answer.status, answer.text())
}

fn sample(rempart: &Rempart, sample: &str) -> u64 {
    let text = client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
}

/// How many have waited and how that ended.
fn waits(rempart: &Rempart, result: &str) -> u64 {
    sample(rempart, &format!("rempart_origin_waits_total{{site=\"busy\",result=\"{result}\"}}"))
}

fn waiting(rempart: &Rempart) -> u64 {
    sample(rempart, "rempart_origin_waiting{site=\"busy\"}")
}

/// Waits until that many requests wait.
fn await_waiting(rempart: &Rempart, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while waiting(rempart) != count {
        assert!(Instant::now() < deadline, "{} requests wait instead of {count}", waiting(rempart));
    }
}

#[test]
fn requests_wait_in_order_and_those_beyond_the_queue_are_told_to_come_again() {
    let (origin, release) = holding();
    let rempart = before(&[&origin], "max_connections = 1\nqueue = 2", "[site.health]\nfailures = 1");
    let mut first = send(&rempart, "/hold");
    origin.wait_for(1);
    let mut second = send(&rempart, "/second");
    await_waiting(&rempart, 1);
    let mut third = send(&rempart, "/third");
    await_waiting(&rempart, 2);
    for _ in 0..3 {
        let mut beyond = send(&rempart, "/beyond");
        let page = beyond.response("GET").unwrap();
        assert_eq!((page.status, page.head.text("retry-after").as_deref()), (503, Some("5")), "{page:?}");
        assert!(page.text().contains("stark ausgelastet"), "{}", page.text());
    }
    release.send(()).unwrap();
    assert_eq!(answer(&mut first), (200, "/hold".into()));
    assert_eq!(answer(&mut second), (200, "/second".into()));
    assert_eq!(answer(&mut third), (200, "/third".into()));
    let targets: Vec<String> = origin.seen().iter().map(|seen| seen.target()).collect();
    assert_eq!((targets, origin.connections()), (vec!["/hold".into(), "/second".into(), "/third".into()], 1));
    // One failure would have set it aside; a single origin is asked all the same, so the status is what tells.
    let status = rempart.ask_status();
    assert!(
        status.sites.iter().all(|site| site.origins.iter().all(|origin| origin.failures == 0)),
        "{status:#?}"
    );
    assert_eq!((waits(&rempart, "served"), waits(&rempart, "full"), waits(&rempart, "late")), (2, 3, 0));
}

#[test]
fn waiting_ends_in_time() {
    let (origin, release) = holding();
    let lines = "max_connections = 1\n[site.origin.timeouts]\nqueue = \"100ms\"";
    let rempart = before(&[&origin], lines, "[site.health]\nfailures = 1");
    let mut first = send(&rempart, "/hold");
    origin.wait_for(1);
    assert_eq!(answer(&mut send(&rempart, "/late")).0, 503);
    release.send(()).unwrap();
    assert_eq!(answer(&mut first).0, 200);
    assert_eq!(answer(&mut send(&rempart, "/next")), (200, "/next".into()));
    assert_eq!((origin.seen().len(), waits(&rempart, "late")), (2, 1));
}

#[test]
fn an_origin_with_room_is_asked_before_anybody_waits() {
    let (release, tokens) = channel();
    let tokens = Arc::new(Mutex::new(tokens));
    let origins = [answering(tokens.clone()), answering(tokens.clone()), answering(tokens)];
    let all: Vec<&Origin> = origins.iter().collect();
    let rempart = before(&all, "max_connections = 1", "[site.retry]\nattempts = 0");
    let mut held: Vec<Client> = (0..3).map(|_| send(&rempart, "/hold")).collect();
    origins.iter().for_each(|origin| drop(origin.wait_for(1)));
    assert_eq!(waits(&rempart, "served"), 0);
    let mut fourth = send(&rempart, "/fourth");
    await_waiting(&rempart, 1);
    (0..3).for_each(|_| release.send(()).unwrap());
    held.iter_mut().for_each(|client| assert_eq!(answer(client).0, 200));
    assert_eq!(answer(&mut fourth), (200, "/fourth".into()));
    assert_eq!(waits(&rempart, "served"), 1);
}

#[test]
fn connections_that_close_make_room_like_those_that_come_back() {
    let open = Arc::new(Mutex::new((0usize, 0usize)));
    let theirs = open.clone();
    let origin = Origin::scripted(move |connection| {
        {
            let mut open = theirs.lock().unwrap();
            *open = (open.0 + 1, open.1.max(open.0 + 1));
        }
        let seen = connection.request()?;
        // Counted out before the end can be seen at the other side.
        theirs.lock().unwrap().0 -= 1;
        // Every third time without an answer: that, too, makes room.
        match seen {
            Some(seen) if seen.connection % 3 != 2 => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            }
            _ => Ok(()),
        }
    });
    let rempart = before(&[&origin], "max_connections = 2", "[site.retry]\nattempts = 0");
    let answers: Vec<u16> = thread::scope(|scope| {
        let ask = || answer(&mut send(&rempart, "/")).0;
        let asking: Vec<_> = (0..60).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let good = answers.iter().filter(|status| **status == 200).count();
    assert_eq!((answers.len(), origin.connections()), (60, 60), "each has had its connection");
    assert_eq!(good, 40, "{answers:?}");
    assert!(open.lock().unwrap().1 <= 2, "{open:?}");
}

#[test]
fn who_leaves_while_waiting_leaves_the_queue() {
    let (origin, release) = holding();
    let rempart = before(&[&origin], "max_connections = 1\nqueue = 1", "");
    let mut first = send(&rempart, "/hold");
    origin.wait_for(1);
    // Over HTTP/2 a client says that it leaves: the stream is reset.
    for _ in 0..5 {
        let leaving = rempart.http2(HOST);
        leaving.ask_and_leave(HOST, "/gone", || waiting(&rempart) == 1).unwrap();
        await_waiting(&rempart, 0);
    }
    let mut second = send(&rempart, "/second");
    await_waiting(&rempart, 1);
    release.send(()).unwrap();
    assert_eq!((answer(&mut first).0, answer(&mut second)), (200, (200, "/second".into())));
    assert_eq!((origin.seen().len(), waits(&rempart, "left")), (2, 5));
}

#[test]
fn a_connection_nobody_uses_gives_way() {
    let origin = Origin::scripted(|connection| {
        let header = connection.wire.line()?.unwrap_or_default();
        let length = header.len();
        while connection.request()?.is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))?;
            connection.send(&header)?;
        }
        Ok(())
    });
    let rempart = before(&[&origin], "max_connections = 1\nproxy_protocol = \"v1\"", "");
    // Each visitor's connection needs one of its own towards the origin, and there may be only one.
    let mut headers: Vec<String> = (0..10)
        .map(|_| {
            let mut client = send(&rempart, "/");
            let first = answer(&mut client);
            assert!(first.0 == 200 && first.1.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{first:?}");
            assert_eq!(
                client.get(HOST, "/").unwrap().text(),
                first.1,
                "its own is kept as long as nobody comes"
            );
            first.1
        })
        .collect();
    headers.sort();
    headers.dedup();
    assert_eq!((headers.len(), origin.connections(), waits(&rempart, "served")), (10, 10, 0));
}

#[test]
fn the_first_requests_to_an_http2_origin_share_one_connection() {
    let authority = certificates::Authority::new("limits test");
    let leaf = authority.leaf(&["127.0.0.1"], certificates::Validity::Good);
    let folder = harness::rempart::Place::new();
    let port = ports::free();
    folder.write("authority.pem", authority.pem());
    folder.write("leaf.pem", &leaf.certificate);
    folder.write("leaf.key", &leaf.key);
    let _nginx = Server::nginx(&format!(
        "listen 127.0.0.1:{port} ssl http2; http2_max_concurrent_streams 4;\n\
         ssl_certificate {root}/leaf.pem; ssl_certificate_key {root}/leaf.key;\n\
         location / {{ return 200 \"$server_protocol $connection\"; }}",
        root = folder.path("").display(),
    ));
    for (http, limit) in
        [("auto", ""), ("2", ""), ("auto", "max_connections = 1"), ("2", "max_connections = 1")]
    {
        let lines = format!(
            "http = \"{http}\"\n{limit}\n[site.origin.tls]\nauthorities = \"{}\"",
            folder.path("authority.pem").display()
        );
        let config = Config::new().raw("[limits]\nthreads = 1").listeners().site("busy", &[HOST]);
        let rempart = Rempart::with(&config.origin(format!("https://127.0.0.1:{port}")).raw(&lines));
        let mut clients: Vec<Client> = (0..80).map(|_| rempart.client()).collect();
        for client in &mut clients {
            client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
        }
        let mut connections: Vec<String> = clients
            .iter_mut()
            .map(|client| {
                let (status, text) = answer(client);
                assert_eq!(status, 200, "{http} {limit}: {text}");
                assert!(text.starts_with("HTTP/2.0 "), "{text}");
                text
            })
            .collect();
        connections.sort();
        connections.dedup();
        if limit.is_empty() {
            // Of four streams at a time not all could be had, so there may be more than one, but none for each.
            assert!(connections.len() < 40, "{http}: {connections:?}");
        } else {
            assert_eq!(connections.len(), 1, "{http}: {connections:?}");
        }
    }
}
