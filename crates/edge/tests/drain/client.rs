//! Clients that do exactly what they are told: HTTP/1.1 in text, HTTP/2 in frames.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::world::World;

/// A client that speaks HTTP/1.1.
pub struct Http1 {
    stream: BufReader<TcpStream>,
}

/// What came back, without its body.
pub struct Answer {
    pub status: u16,
    pub closes: bool,
    length: usize,
    chunked: bool,
}

impl Http1 {
    pub fn connect(world: &World) -> Self {
        Self { stream: BufReader::new(world.connect()) }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
    }

    pub fn upgrade(&mut self) {
        self.send("GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(self.head().status, 101);
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn head(&mut self) -> Answer {
        let status = self.line();
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {status:?}"));
        let mut answer = Answer { status: status.parse().unwrap(), closes: false, length: 0, chunked: false };
        loop {
            let field = self.line().to_ascii_lowercase();
            match field.split_once(": ") {
                Some(("connection", "close")) => answer.closes = true,
                Some(("content-length", length)) => answer.length = length.parse().unwrap(),
                Some(("transfer-encoding", _)) => answer.chunked = true,
                Some(_) => {}
                None => return answer,
            }
        }
    }

    /// Head and body of a response with a length.
    pub fn answer(&mut self) -> (Answer, String) {
        let answer = self.head();
        assert!(!answer.chunked);
        let mut body = vec![0; answer.length];
        self.stream.read_exact(&mut body).unwrap();
        (answer, String::from_utf8(body).unwrap())
    }

    /// Sends a byte through a tunnel and waits for it to come back.
    pub fn echo(&mut self) {
        self.send("x");
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    /// Waits for the end of the connection; answers what came before it.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        let ended = self.stream.read_to_end(&mut rest);
        assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "still open");
        String::from_utf8(rest).unwrap()
    }
}

/// One frame (RFC 9113 section 4.1), flow control and settings left out.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Stream, whether it is the last, and whether the status is 200.
    Head(u32, bool, bool),
    /// Stream, whether it is the last, and the bytes.
    Data(u32, bool, Vec<u8>),
    /// Stream.
    Reset(u32),
    /// Last stream that is served.
    GoAway(u32),
    /// Ours, answered.
    Pong,
    /// Theirs, to be answered.
    Ping([u8; 8]),
    /// The connection's end.
    End,
}

pub const MAX_STREAM: u32 = u32::MAX >> 1;

/// A client that speaks HTTP/2 with prior knowledge.
pub struct Http2 {
    stream: TcpStream,
}

impl Http2 {
    pub fn connect(world: &World) -> Self {
        let mut stream = world.connect();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut client = Self { stream };
        client.write(4, 0, 0, &[]);
        client.ping();
        client
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Sends a ping and waits for its answer, so that everything before it has been heard.
    pub fn ping(&mut self) {
        self.write(6, 0, 0, b"are you?");
        assert_eq!(self.next(), Frame::Pong);
    }

    pub fn pong(&mut self, payload: [u8; 8]) {
        self.write(6, 1, 0, &payload);
    }

    /// A request without a body.
    pub fn ask(&mut self, stream: u32, path: &str) {
        self.write(1, 0b101, stream, &head(b"\x82\x86", path));
    }

    /// A WebSocket (RFC 8441): `:method: CONNECT`, `:protocol: websocket`.
    pub fn upgrade(&mut self, stream: u32) {
        let block = head(b"\x02\x07CONNECT\x00\x09:protocol\x09websocket\x86", "/ws");
        self.write(1, 0b100, stream, &block);
        assert_eq!(self.next(), Frame::Head(stream, false, true));
    }

    /// Sends a byte through a tunnel and waits for it to come back.
    pub fn echo(&mut self, stream: u32) {
        self.write(0, 0, stream, b"x");
        assert_eq!(self.next(), Frame::Data(stream, false, b"x".to_vec()));
    }

    /// Ends the client's side of a stream.
    pub fn finish(&mut self, stream: u32) {
        self.write(0, 1, stream, &[]);
    }

    /// Both steps of a goodbye.
    pub fn see_goodbye(&mut self, last: u32) {
        assert_eq!(self.next(), Frame::GoAway(MAX_STREAM));
        let Frame::Ping(payload) = self.next() else { panic!("no ping between the two steps") };
        self.pong(payload);
        assert_eq!(self.next(), Frame::GoAway(last));
    }

    /// The rest of a stream's body, in however many frames it comes.
    pub fn body(&mut self, wanted: u32) -> String {
        let mut body = Vec::new();
        loop {
            match self.next() {
                Frame::Data(stream, last, data) if stream == wanted => {
                    body.extend(data);
                    if last {
                        return String::from_utf8(body).unwrap();
                    }
                }
                other => panic!("{other:?} while the body of {wanted} was awaited"),
            }
        }
    }

    /// Waits for the connection's end.
    pub fn see_end(&mut self) {
        loop {
            match self.next() {
                Frame::End => return,
                // Once more, now that nothing is left to wait for.
                Frame::GoAway(_) | Frame::Ping(_) => {}
                other => panic!("{other:?} instead of the end"),
            }
        }
    }

    /// The next frame of interest.
    pub fn next(&mut self) -> Frame {
        loop {
            let mut head = [0; 9];
            match self.stream.read_exact(&mut head) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came"),
                Err(_) => return Frame::End,
                Ok(()) => {}
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).unwrap();
            let last = head[4] & 1 == 1;
            match head[3] {
                0 => return Frame::Data(stream, last, payload),
                1 => return Frame::Head(stream, last, payload.first() == Some(&0x88)),
                3 => return Frame::Reset(stream),
                6 if last => return Frame::Pong,
                6 => return Frame::Ping(payload.try_into().unwrap()),
                7 => {
                    let named = u32::from_be_bytes(payload[..4].try_into().unwrap());
                    return Frame::GoAway(named);
                }
                4 if !last => self.write(4, 1, 0, &[]),
                _ => {}
            }
        }
    }
}

/// A field block: these fields first, then path and authority, none of them compressed (RFC 7541 section 6.2.2).
fn head(first: &[u8], path: &str) -> Vec<u8> {
    let mut block = first.to_vec();
    for (name, value) in [(4, path), (1, "shop")] {
        block.extend_from_slice(&[name, value.len() as u8]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}
