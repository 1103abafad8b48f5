//! The golden origin: answers every request with what it received, so that the visitor can see what the edge sent.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::h1::encode;
use crate::h1::parse::{self, Framing, HeadEnd, HeadLimits, ParsedRequest};
use crate::message::RequestHead;

/// Field of every golden answer; its value is drawn anew for each rehearsal.
pub const MARK: &str = "Rempart-Golden";
/// Limits on what the edge may send; a golden request is far smaller.
const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 256, target: 64 * 1024 };

/// The golden origin's socket, and the mark by which its answers are known.
pub struct Golden {
    /// Where it listens.
    pub address: SocketAddr,
    /// Value of `MARK`.
    pub mark: String,
    socket: TcpListener,
}

impl Golden {
    /// Listens on a free port of the loopback interface.
    pub fn open() -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let mut mark = [0; 8];
        getrandom::fill(&mut mark).map_err(io::Error::other)?;
        Ok(Self { address: socket.local_addr()?, mark: format!("{:016x}", u64::from_be_bytes(mark)), socket })
    }

    /// Answers until dropped; to be run inside a local runtime.
    pub fn answer(&self) -> io::Result<impl Future<Output = ()> + 'static> {
        let listener = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        let mark = self.mark.clone();
        Ok(async move {
            // Ends with the runtime; a failed accept shows as a golden request without an answer.
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(one(stream, mark.clone()));
            }
        })
    }
}

/// One request: read, echoed, closed. Whatever cannot be read gets no answer, which the edge reports as its own failure.
async fn one(mut stream: TcpStream, mark: String) {
    let mut bytes = Vec::new();
    while bytes.len() <= LIMITS.bytes {
        if let Some(received) = Received::read(&bytes)
            && received.is_complete()
        {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            encode::field(&mut answer, MARK.as_bytes(), mark.as_bytes());
            encode::field(&mut answer, b"Content-Type", b"application/octet-stream");
            encode::field(&mut answer, b"Cache-Control", b"no-store");
            encode::field(&mut answer, b"Connection", b"close");
            encode::framing_field(&mut answer, encode::BodyFraming::Length(bytes.len() as u64));
            answer.extend_from_slice(b"\r\n");
            answer.extend_from_slice(&bytes);
            // The edge notices when this does not arrive.
            crate::ignore(stream.write_all(&answer).await);
            crate::ignore(stream.shutdown().await);
            return;
        }
        match stream.read_buf(&mut bytes).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

/// A request as the golden origin got it; also read back from its echo.
pub struct Received {
    /// Its head; framing fields are taken out.
    pub head: RequestHead,
    /// Its body, as far as it has come.
    pub body: Vec<u8>,
    length: u64,
}

impl Received {
    /// Reads a request; `None` while its head is not complete, and for one that is not HTTP/1.1 with a plain length.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let HeadEnd::At(end) = parse::find_head_end(bytes, 0) else { return None };
        let (head, body) = bytes.split_at_checked(end)?;
        let ParsedRequest { head, framing, .. } = parse::parse_request(head, &LIMITS).ok()?;
        let length = match framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked | Framing::Close => return None,
        };
        Some(Self { head, body: body.to_vec(), length })
    }

    fn is_complete(&self) -> bool {
        self.body.len() as u64 >= self.length
    }
}
