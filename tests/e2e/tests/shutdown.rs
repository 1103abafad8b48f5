//! SIGTERM: new visitors are turned away, those who are there are served to the end of what they do and told to come
//! back elsewhere, and nothing is left running.

use std::io;
use std::time::Instant;

use harness::client::{Client, tls_config};
use harness::companions::{Companions, Host, refuses};
use harness::config::Config;
use harness::rempart::Rempart;
use harness::{PATIENCE, process, websocket};
use rustix::process::Signal;

use crate::stage::{HOST, PATIENT};

/// HTTP/2 frame types (RFC 9113 section 6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Flags: of SETTINGS and PING; of HEADERS that are whole and end the stream.
const ACK: u8 = 1;
const WHOLE_REQUEST: u8 = 0x4 | 0x1;
/// Largest stream number: "nothing is refused yet".
const ALL_STREAMS: u32 = 0x7fff_ffff;

/// An HTTP/2 connection read frame by frame.
struct Frames(Client);

impl Frames {
    fn open(rempart: &Rempart) -> Self {
        let mut client = Client::tls(rempart.tls(), HOST, tls_config(&rempart.authority(), &["h2"])).unwrap();
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut frames = Self(client);
        frames.send(SETTINGS, 0, 0, &[]);
        frames
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.send([&head, payload].concat()).unwrap();
    }

    /// GET /ok in HPACK (RFC 7541): `:method GET`, `:scheme https`, then `:path` and `:authority` as literals.
    fn request(&mut self, stream: u32) {
        let literal = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
        let block = [vec![0x82, 0x87], literal(0x04, "/ok"), literal(0x01, HOST)].concat();
        self.send(HEADERS, WHOLE_REQUEST, stream, &block);
    }

    /// The next frame that is not about the connection's upkeep, which is done on the way; `None` at the end.
    fn next(&mut self) -> io::Result<Option<(u8, u32, Vec<u8>)>> {
        loop {
            let mut head = Vec::new();
            match self.0.wire.exactly(9, &mut |piece| head.extend_from_slice(piece)) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => {
                    return Ok(None);
                }
                other => other?,
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = Vec::new();
            self.0.wire.exactly(length.into(), &mut |piece| payload.extend_from_slice(piece))?;
            match kind {
                SETTINGS | PING if flags & ACK == 0 => {
                    let echo = if kind == PING { &payload[..] } else { &[] };
                    self.send(kind, ACK, 0, echo);
                }
                _ if stream == 0 && kind != GOAWAY => {}
                _ => return Ok(Some((kind, stream, payload))),
            }
        }
    }

    /// Reads to the end: the last streams of all GOAWAY frames, each of which must be without an error.
    fn goaways(&mut self) -> Vec<u32> {
        let mut last = Vec::new();
        while let Some((kind, _, payload)) = self.next().unwrap() {
            if kind == GOAWAY {
                assert_eq!(payload[4..8], [0; 4], "NO_ERROR");
                last.push(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]));
            }
        }
        last
    }
}

fn start(host: &Host, drain: &str) -> Rempart {
    let rempart =
        Rempart::with(&Config::new().raw(drain).listeners().site("steady", &[HOST]).origin(host.url()));
    rempart.await_standby();
    rempart
}

#[test]
fn sigterm_lets_everybody_finish_and_leaves_nothing_behind() {
    let host = Host::new();
    let mut rempart = start(&host, PATIENT);
    let family = process::descendants(rempart.pid());
    assert!(family.len() >= 2, "an edge and a standby: {family:?}");
    let (plain, tls) = (rempart.plain(), rempart.tls());
    let mut kept = rempart.client();
    assert_eq!(kept.get(HOST, "/ok").unwrap().text(), "ok");
    let mut frames = Frames::open(&rempart);
    frames.request(1);
    assert_eq!(frames.next().unwrap().unwrap().1, 1, "the first answer");
    let companions = Companions::arrive(&rempart, &host, HOST);

    rempart.signal(Signal::TERM);
    refuses(plain);
    refuses(tls);
    // The idle connection is served once more, and told that this was the last time (RFC 9112 section 9.6). Listeners close a
    // moment before that begins.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = kept.get(HOST, "/ok").unwrap();
        assert_eq!(last.status, 200, "{last:?}");
        if last.head.text("connection").as_deref() == Some("close") {
            break;
        }
        assert!(Instant::now() < deadline, "nobody says that this is the end: {last:?}");
    }
    kept.wire.closed().unwrap();
    // Over HTTP/2: first that the end comes, then which streams were seen (RFC 9113 section 6.8).
    assert_eq!(frames.goaways(), [ALL_STREAMS, 1]);
    companions.move_on();
    assert!(rempart.is_running(), "somebody is still there");
    companions.leave().unwrap_or_else(|cut| panic!("cut: {cut:#?}"));
    assert!(rempart.wait().success(), "{}", rempart.log().text());
    assert!(family.iter().all(|&pid| !process::lives(pid)), "nothing is left running");
}

/// Idle connections and WebSockets end when their grace does, not when their peers please.
#[test]
fn the_grace_of_a_drain_ends() {
    let host = Host::new();
    let mut rempart = start(&host, "[drain]\nidle = \"300ms\"\nrequests = \"1s\"\ntunnels = \"1s\"");
    let (mut idle, mut never_used) = (rempart.client(), rempart.client());
    assert_eq!(idle.get(HOST, "/ok").unwrap().text(), "ok");
    let mut socket = rempart.client();
    websocket::open(&mut socket, HOST, "/talk").unwrap();
    let mut download = rempart.client();
    download.send(format!("GET /trickle HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    let (_, head) = download.head().unwrap();
    rempart.signal(Signal::TERM);
    websocket::send_text(&mut socket.wire, "still here").unwrap();
    assert_eq!(websocket::receive(&mut socket.wire).unwrap(), (1, b"still here".to_vec()));
    idle.wire.closed().unwrap();
    never_used.wire.closed().unwrap();
    let rest = download.wire.body(head.response_length("GET").unwrap());
    assert!(rest.is_err(), "an endless download is cut off, and not as if it were whole: {rest:?}");
    let mut after = Vec::new();
    while let Ok((opcode, payload)) = websocket::receive(&mut socket.wire) {
        after.push((opcode, payload));
    }
    assert!(after.iter().all(|(opcode, _)| *opcode == 8), "{after:?}");
    assert!(rempart.wait().success(), "{}", rempart.log().text());
}
