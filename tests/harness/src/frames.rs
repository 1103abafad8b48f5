//! HTTP/2 frame by frame (RFC 9113 section 4), for peers that do what no library would do.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// What a client sends before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types.
pub const DATA: u8 = 0;
/// Opens a stream.
pub const HEADERS: u8 = 1;
/// What a stream depends on.
pub const PRIORITY: u8 = 2;
/// Ends a stream.
pub const RST_STREAM: u8 = 3;
/// Parameters of the connection.
pub const SETTINGS: u8 = 4;
/// Is answered.
pub const PING: u8 = 6;
/// Ends the connection.
pub const GOAWAY: u8 = 7;
/// Lets the other side send more.
pub const WINDOW_UPDATE: u8 = 8;
/// Goes on with a field block.
pub const CONTINUATION: u8 = 9;
/// Flag of PING and SETTINGS.
pub const ACK: u8 = 1;
/// Flag of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// The error code of those who flood.
pub const ENHANCE_YOUR_CALM: u32 = 11;
/// Payload of the PING that asks whether everything before it was read.
const MARK: [u8; 8] = *b"how far?";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream; 0 is the connection.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The first four bytes of the payload as a number: an error code, an increment.
    pub fn number(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// Bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block for a request (RFC 7541): literals that are not indexed, so that every block stands for itself.
pub fn request_block(method: &str, authority: &str, path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| {
        assert!(value.len() < 127, "one byte of length");
        [&[index, value.len() as u8], value.as_bytes()].concat()
    };
    [literal(2, method), vec![0x86], literal(4, path), literal(1, authority)].concat()
}

/// HEADERS of a GET without a body.
pub fn get(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request_block("GET", authority, path))
}

/// HEADERS of a POST whose body may follow.
pub fn post(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request_block("POST", authority, path))
}

/// RST_STREAM with CANCEL.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// SETTINGS.
pub fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entry = |&(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &entries.iter().flat_map(entry).collect::<Vec<_>>())
}

/// How the other side ended the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Error code of its GOAWAY; `None`: it closed without a word.
    pub reason: Option<u32>,
    /// What it wrote into the GOAWAY for people.
    pub text: String,
}

/// A connection, either side of it.
pub struct Frames<S> {
    stream: BufReader<S>,
}

impl<S> fmt::Debug for Frames<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frames")
    }
}

impl Frames<TcpStream> {
    /// Connects without TLS and introduces itself as a client.
    pub fn connect(address: SocketAddr, entries: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut frames = Self::over(stream);
        frames.send(&[PREFACE, &settings(entries)].concat()).unwrap();
        frames
    }
}

impl<S: Read + Write> Frames<S> {
    /// Over a connection on which the introduction has been made.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(64 * 1024, stream) }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next frame; `None` when the other side has closed, however. Acknowledges SETTINGS.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        if kind == SETTINGS && flags & ACK == 0 {
            // Whoever has closed does not want it any more.
            self.send(&frame(SETTINGS, ACK, 0, b"")).unwrap_or_default();
        }
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// Sends these bytes and waits until the other side has read them; hands over the frames that come meanwhile.
    /// Fails when it ends the connection instead.
    pub fn settle(&mut self, bytes: &[u8], mut seen: impl FnMut(Frame)) -> Result<(), Goodbye> {
        let sent = self.send(&[bytes, &frame(PING, 0, 0, &MARK)].concat());
        // What could not be sent may still have been answered.
        drop(sent);
        while let Some(frame) = self.receive() {
            match frame.kind {
                PING if frame.flags & ACK != 0 && frame.payload == MARK => return Ok(()),
                GOAWAY => {
                    let text = frame.payload.get(8..).unwrap_or_default();
                    let text = String::from_utf8_lossy(text).into_owned();
                    return Err(Goodbye { reason: frame.number(4), text });
                }
                _ => seen(frame),
            }
        }
        Err(Goodbye { reason: None, text: String::new() })
    }

    /// Reads frames until the answer on this stream is complete; its body. Fails with the error code of a reset.
    pub fn answer(&mut self, stream: u32) -> Result<Vec<u8>, Option<u32>> {
        let mut body = Vec::new();
        while let Some(frame) = self.receive() {
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                RST_STREAM => return Err(frame.number(0)),
                DATA => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Ok(body);
            }
        }
        Err(None)
    }
}
