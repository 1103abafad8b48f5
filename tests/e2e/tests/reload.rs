//! 100 reloads under steady traffic, with listeners added and removed among them, and long-lived connections open
//! all the time: no request fails and no connection is cut.

use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use harness::client::{self, Client, tls_config};
use harness::config::Config;
use harness::origin::{Connection, Origin};
use harness::rempart::Rempart;
use harness::traffic::{Asks, Speaks, Traffic};
use harness::wire::Length;
use harness::{PATIENCE, ports, process, websocket};
use rustix::process::Signal;

use crate::heavy;

const HOST: &str = "reload.test";
const RELOADS: usize = 100;
/// Workers of each kind, and what each asks per second: 1,200 requests a second together.
const WORKERS: usize = 4;
const PER_SECOND: u32 = 100;
/// Answers that must come between one reload and the next: 10,000 over the whole test.
const BETWEEN: u64 = 100;

/// Answers `/ok`; `/long` with one chunk per token received; `/ws` as an echo.
fn serve(connection: &mut Connection, tokens: &Mutex<Receiver<&'static str>>) -> std::io::Result<()> {
    while let Some(seen) = connection.request()? {
        match seen.target().as_str() {
            "/long" => {
                connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                while let Ok(token) = tokens.lock().unwrap().recv() {
                    connection.send(format!("{:x}\r\n{token}\r\n", token.len()))?;
                }
                connection.send("0\r\n\r\n")?;
            }
            "/ws" => {
                connection.send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {}\r\n\r\n",
                    websocket::ACCEPT
                ))?;
                // Every message of this test is one masked frame of 5 bytes; back go the same 5, unmasked.
                loop {
                    let mut frame = Vec::new();
                    connection.wire.exactly(11, &mut |piece| frame.extend_from_slice(piece))?;
                    let text: Vec<u8> = (0..5).map(|i| frame[6 + i] ^ frame[2 + i % 4]).collect();
                    connection.send([&[0x81, 5], &text[..]].concat())?;
                }
            }
            _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
        }
    }
    Ok(())
}

fn origin() -> (Origin, Sender<&'static str>) {
    let (sender, receiver) = channel();
    let tokens = Mutex::new(receiver);
    (Origin::scripted(move |connection| serve(connection, &tokens)), sender)
}

/// The configuration of the n-th reload: something differs every time, and every other one has the extra listeners.
fn config(origin: &Origin, n: usize, extra: &[(SocketAddr, bool)]) -> Config {
    let mut config = Config::new().listeners();
    for (address, tls) in extra {
        config = config.listen(&address.to_string(), *tls);
    }
    config.site("reload", &[HOST, &format!("generation-{n}.test")]).origin(origin.url())
}

fn traffic(rempart: &Rempart) -> Traffic {
    let authority = rempart.authority();
    let (http1, http2) = (tls_config(&authority, &["http/1.1"]), tls_config(&authority, &["h2"]));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(Speaks::Plain(rempart.plain()));
        workers.push(Speaks::Tls(rempart.tls(), http1.clone()));
        workers.push(Speaks::Http2(rempart.tls(), http2.clone()));
    }
    let asks = Asks { host: HOST.into(), path: "/ok".into(), expect: "ok".into() };
    Traffic::start(workers, PER_SECOND, &asks)
}

/// A download that lasts as long as the test: each token sent at the origin must come out at the client.
struct Long {
    client: Client,
    tokens: Sender<&'static str>,
}

impl Long {
    fn open(rempart: &Rempart, tokens: Sender<&'static str>) -> Self {
        let mut client = rempart.tls_client(HOST);
        client.send(format!("GET /long HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
        let (_, head) = client.head().unwrap();
        assert_eq!(head.response_length("GET").unwrap(), Length::Chunked);
        Self { client, tokens }
    }

    fn step(&mut self) {
        self.tokens.send("token").unwrap();
        let mut got = Vec::new();
        while got.len() < 5 {
            let size = self.client.wire.chunk_size().unwrap();
            self.client.wire.exactly(size, &mut |piece| got.extend_from_slice(piece)).unwrap();
            assert_eq!(self.client.wire.line().unwrap().as_deref(), Some(&b""[..]));
        }
        assert_eq!(got, b"token");
    }

    fn finish(mut self) {
        drop(self.tokens);
        assert_eq!(self.client.wire.chunk_size().unwrap(), 0, "the download ends as its origin ended it");
    }
}

#[test]
fn a_hundred_reloads_under_traffic_fail_no_request_and_cut_no_connection() {
    let _alone = heavy();
    let (origin, tokens) = origin();
    let rempart = Rempart::with(&config(&origin, 0, &[]));
    let extra = [(ports::free(), false), (ports::free(), true)]
        .map(|(port, tls)| (SocketAddr::from(([127, 0, 0, 1], port)), tls));
    let mut long = Long::open(&rempart, tokens);
    let mut socket = rempart.client();
    websocket::open(&mut socket, HOST, "/ws").unwrap();
    let traffic = traffic(&rempart);
    traffic.wait_for(BETWEEN);
    let before = rempart.status();
    for n in 1..=RELOADS {
        let listeners = if n % 2 == 1 { &extra[..] } else { &[] };
        let outcome = rempart.configure(&config(&origin, n, listeners));
        assert!(outcome.changed, "reload {n}: {outcome:?}");
        assert_eq!(outcome.number, before.number + n as u64);
        if n % 2 == 1 {
            assert_eq!(client::get(extra[0].0, HOST, "/ok").unwrap().text(), "ok", "reload {n}");
            let tls = tls_config(&rempart.authority(), &["http/1.1"]);
            assert_eq!(
                Client::tls(extra[1].0, HOST, tls).unwrap().get(HOST, "/ok").unwrap().text(),
                "ok",
                "reload {n}"
            );
        } else {
            for (address, _) in extra {
                let refused = TcpStream::connect_timeout(&address, PATIENCE);
                assert!(refused.is_err(), "reload {n}: {address} was removed and still accepts");
            }
        }
        assert_eq!(rempart.status().listeners.len(), 2 + listeners.len(), "reload {n}");
        long.step();
        websocket::send_text(&mut socket.wire, "hello").unwrap();
        assert_eq!(websocket::receive(&mut socket.wire).unwrap(), (1, b"hello".to_vec()), "reload {n}");
        traffic.wait_for(BETWEEN);
    }
    let tally = traffic.stop_unharmed();
    assert!(tally.completed >= BETWEEN * RELOADS as u64);
    long.finish();
}

/// A connection that is in use when its listener goes away is served to its end.
#[test]
fn a_connection_outlives_the_listener_it_came_through() {
    let (origin, tokens) = origin();
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let rempart = Rempart::with(&config(&origin, 0, &[(address, false)]));
    let mut kept = Client::plain(address).unwrap();
    kept.send(format!("GET /long HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    kept.head().unwrap();
    rempart.configure(&config(&origin, 1, &[]));
    assert!(TcpStream::connect_timeout(&address, PATIENCE).is_err(), "the listener is gone");
    let mut long = Long { client: kept, tokens };
    long.step();
    long.finish();
}

/// A request in flight keeps the generation it began with; the next one on the same connection gets the new one.
#[test]
fn the_next_request_on_an_open_connection_is_served_by_the_new_generation() {
    let (old, _tokens) = origin();
    let new = Origin::answering(|_| harness::origin::Reply::text(200, "new"));
    let rempart = Rempart::with(&config(&old, 0, &[]));
    let (mut http1, mut http2) = (rempart.client(), rempart.http2(HOST));
    assert_eq!(http1.get(HOST, "/ok").unwrap().text(), "ok");
    assert_eq!(http2.get(HOST, "/ok").unwrap().body, b"ok");
    rempart.configure(&config(&new, 0, &[]));
    assert_eq!(http1.get(HOST, "/ok").unwrap().text(), "new");
    assert_eq!(http2.get(HOST, "/ok").unwrap().body, b"new");
}

/// The tasters and standbys that are needed no longer are ended, and their exit status is collected.
#[test]
fn reloads_leave_no_dead_process_behind() {
    let (origin, _tokens) = origin();
    let rempart = Rempart::with(&config(&origin, 0, &[]));
    for n in 1..=5 {
        rempart.configure(&config(&origin, n, &[]));
    }
    let dead = || {
        let mut all = process::descendants(rempart.pid());
        all.retain(|pid| !process::lives(*pid));
        all
    };
    let deadline = Instant::now() + PATIENCE;
    while !dead().is_empty() {
        assert!(Instant::now() < deadline, "zombies: {:?}", dead());
        std::thread::yield_now();
    }
}

#[test]
fn sighup_reloads_and_an_unchanged_file_changes_nothing() {
    let (origin, _tokens) = origin();
    let rempart = Rempart::with(&config(&origin, 0, &[]));
    let before = rempart.status();
    let (code, outcome) = rempart.reload();
    assert_eq!(
        (code, outcome.active, outcome.changed, outcome.number),
        (Some(0), true, false, before.number)
    );
    assert_eq!(outcome.generation, before.generation, "equal content, equal id");
    rempart.place().write("rempart.toml", config(&origin, 7, &[]).text());
    rempart.signal(Signal::HUP);
    // The signal has no answer: ask for the host that only the new generation has until it is known.
    let known = (0..10_000).any(|_| {
        client::get(rempart.plain(), "generation-7.test", "/ok").is_ok_and(|response| response.status == 200)
    });
    assert!(known, "SIGHUP changed nothing: {:?}", rempart.status());
    assert_eq!(rempart.status().number, before.number + 1);
}
