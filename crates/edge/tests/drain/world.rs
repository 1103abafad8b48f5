//! An edge with live threads, in front of an origin that answers when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use base::time::Timestamp;
use edge::generation::Loader;
use edge::telemetry::access_log::AccessLog;
use edge::telemetry::metrics::Metrics;
use edge::tls::certificates::Expired;
use edge::{BoundListener, Edge, EdgeOptions, ListenerSet};
use snapshot::generation::{AccessLogTarget, Drain, Snapshot};
use snapshot::source::SourceTree;
use snapshot::{Input, Mode};

pub const NOW: Timestamp = Timestamp(1_790_000_000_000_000);
pub const AT_ONCE: Duration = Duration::ZERO;
pub const HOUR: Duration = Duration::from_secs(3600);
/// Only to end a test that hangs; nothing is decided by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Opens once, for everybody.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// What the origin does is told by the path.
pub struct Origin {
    pub address: SocketAddr,
    /// Paths, as their heads arrive.
    pub asked: mpsc::Receiver<String>,
    /// What `/wait` waits for before it answers, and `/events` before its second event.
    pub gate: Gate,
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, paths) = mpsc::channel();
        let gate = Gate::default();
        let held = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, gate) = (asked.clone(), held.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &asked, &gate));
            }
        });
        Self { address, asked: paths, gate }
    }

    /// Waits until this path is asked for.
    pub fn expect(&self, path: &str) {
        assert_eq!(self.asked.recv_timeout(PATIENCE).unwrap(), path);
    }
}

/// Serves requests on one connection until it ends, in whatever way.
fn serve(mut stream: &TcpStream, asked: &mpsc::Sender<String>, gate: &Gate) {
    let mut input = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if input.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap().to_owned();
        loop {
            let mut field = String::new();
            input.read_line(&mut field).unwrap();
            let field = field.trim().to_ascii_lowercase();
            if let Some(value) = field.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            if field.is_empty() {
                break;
            }
        }
        // Nobody may listen any more.
        asked.send(path.clone()).unwrap_or_default();
        let mut body = vec![0; length];
        if input.read_exact(&mut body).is_err() {
            return;
        }
        let answered = match path.as_str() {
            "/ws" => {
                let head =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                return echo(input, stream);
            }
            "/events" => {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\none\n";
                stream.write_all(head.as_bytes()).unwrap();
                gate.wait();
                return stream.write_all(b"two\n").unwrap_or_default();
            }
            "/wait" => {
                gate.wait();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            }
            _ => {
                let text = String::from_utf8(body).unwrap();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}")
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

fn echo(mut input: impl Read, mut output: impl Write) {
    let mut byte = [0];
    while matches!(input.read(&mut byte), Ok(1)) && output.write_all(&byte).is_ok() {}
}

/// An edge and what it was made of.
pub struct World {
    pub edge: Arc<Edge>,
    pub origin: Origin,
    pub loader: Loader,
    pub metrics: Arc<Metrics>,
    /// The listening sockets, kept as the supervisor keeps them.
    pub sockets: Vec<TcpListener>,
    pub address: SocketAddr,
}

impl World {
    /// One thread, one socket, accepting.
    pub fn start() -> Self {
        Self::with(1, 1, |_| {})
    }

    pub fn with(threads: usize, sockets: usize, change: impl FnOnce(&mut Snapshot)) -> Self {
        let origin = Origin::start();
        // Nobody listens where nothing is bound any more.
        let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n\
             [[site]]\nhosts = [\"shop\"]\n[[site.origin]]\nurl = \"http://{}\"\n\
             [[site]]\nhosts = [\"broken\"]\n[[site.origin]]\nurl = \"http://{nowhere}\"\n",
            origin.address,
        );
        let input = Input { file: "test.toml", text: text.as_bytes(), tree: &SourceTree::default() };
        let compiled = snapshot::compile(input, NOW, Mode::Fresh);
        let mut snapshot = compiled.snapshot.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
        snapshot.access_log.to = AccessLogTarget::Off;
        change(&mut snapshot);
        let access_log = Arc::new(AccessLog::start(&snapshot.access_log, Arc::default()).unwrap());
        let metrics = Arc::new(Metrics::new(threads, access_log.counts().clone()));
        let loader = Loader::new(metrics.clone()).unwrap();
        let generation = loader.load(Arc::new(snapshot), 1, None, NOW, Expired::Refuse).unwrap();
        let events =
            Arc::new(edge::telemetry::events::Events::start("unused".into(), Arc::default()).unwrap());
        let options = EdgeOptions { threads, seed: 1, metrics: metrics.clone(), access_log, events };
        let edge = Arc::new(Edge::start(options, generation).unwrap());
        let sockets = listen(sockets);
        let address = sockets[0].local_addr().unwrap();
        let world = Self { edge, origin, loader, metrics, sockets, address };
        world.edge.activate(None, vec![world.listener()]);
        world
    }

    /// The listener with copies of its sockets, as they come from the supervisor.
    pub fn listener(&self) -> ListenerSet {
        let listener = BoundListener {
            id: 7,
            configured: self.address,
            address: self.address,
            tls: false,
            proxy_protocol: false,
        };
        let sockets = self.sockets.iter().map(|socket| socket.try_clone().unwrap()).collect();
        ListenerSet { listener, sockets }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Begins a drain. Its answer comes by joining; a canary connection tells when the threads have heard of it.
    pub fn drain(&self, idle: Duration, requests: Duration, tunnels: Duration) -> JoinHandle<bool> {
        let edge = self.edge.clone();
        std::thread::spawn(move || edge.drain(Drain { idle, requests, tunnels }))
    }
}

/// Sockets that share a port, as many as are asked for.
fn listen(count: usize) -> Vec<TcpListener> {
    let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    (0..count)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(128).unwrap();
            let listener = TcpListener::from(socket);
            address = listener.local_addr().unwrap();
            listener
        })
        .collect()
}
