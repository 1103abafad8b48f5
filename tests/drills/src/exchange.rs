//! One HTTP/1.1 exchange as a visitor sees it: the request as given, the answer read to its end.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest head read, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Largest body read, in bytes.
const MAX_BODY: usize = 8 << 20;
/// Bytes asked for at a time.
const PIECE: usize = 16 << 10;
/// Field in which the origins of a drill sign what they answer.
pub const SIGNATURE: &str = "drill-origin";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Names in lower case, with values.
    pub fields: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// First value of a field, asked for in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether an origin of the drill made it, and not Rempart.
    pub fn is_of_origin(&self) -> bool {
        self.field(SIGNATURE).is_some()
    }

    /// Whether the connection can be used for another request.
    pub fn keeps_alive(&self) -> bool {
        let closes = self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        !closes && (self.field("content-length").is_some() || self.field("transfer-encoding").is_some())
    }
}

/// Sends the request and reads the answer. An end before the answer is complete is an `UnexpectedEof`.
pub async fn exchange(
    wire: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> io::Result<Answer> {
    wire.write_all(request).await?;
    wire.flush().await?;
    let (mut answer, mut rest) = head(wire).await?;
    while (100..200).contains(&answer.status) && answer.status != 101 {
        (answer, rest) = head_after(wire, rest).await?;
    }
    if answer.status == 101 || answer.status == 204 || answer.status == 304 {
        return Ok(answer);
    }
    let chunked =
        answer.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length = answer.field("content-length").and_then(|length| length.trim().parse::<usize>().ok());
    answer.body = match (chunked, length) {
        (true, _) => read_chunks(wire, rest).await?,
        (false, Some(length)) => read_length(wire, rest, length).await?,
        (false, None) => read_to_end(wire, rest).await?,
    };
    Ok(answer)
}

/// Reads one head; answers with what came after it.
async fn head(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<(Answer, Vec<u8>)> {
    head_after(wire, Vec::new()).await
}

async fn head_after(
    wire: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
) -> io::Result<(Answer, Vec<u8>)> {
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((parse(&bytes)?, rest));
        }
        if bytes.len() > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless head"));
        }
        more(wire, &mut bytes).await?;
    }
}

pub(crate) async fn more(wire: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; PIECE];
    let count = wire.read(&mut piece).await?;
    let read = piece.get(..count).filter(|read| !read.is_empty());
    bytes.extend_from_slice(read.ok_or(io::ErrorKind::UnexpectedEof)?);
    if bytes.len() > MAX_BODY + MAX_HEAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless body"));
    }
    Ok(())
}

pub(crate) async fn read_length(
    wire: &mut (impl AsyncRead + Unpin),
    mut body: Vec<u8>,
    length: usize,
) -> io::Result<Vec<u8>> {
    while body.len() < length {
        more(wire, &mut body).await?;
    }
    body.truncate(length);
    Ok(body)
}

async fn read_to_end(wire: &mut (impl AsyncRead + Unpin), mut body: Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        match more(wire, &mut body).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(body),
            Err(error) => return Err(error),
        }
    }
}

pub(crate) async fn read_chunks(
    wire: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
) -> io::Result<Vec<u8>> {
    let (mut body, mut at) = (Vec::new(), 0);
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a broken chunk");
    loop {
        let line = loop {
            match find(bytes.get(at..).unwrap_or_default(), b"\r\n") {
                Some(length) => break length,
                None => more(wire, &mut bytes).await?,
            }
        };
        let size = std::str::from_utf8(bytes.get(at..at + line).unwrap_or_default()).map_err(|_| broken())?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| broken())?;
        at += line + 2;
        if size > MAX_BODY {
            return Err(broken());
        }
        while bytes.len() < at + size + 2 {
            more(wire, &mut bytes).await?;
        }
        body.extend_from_slice(bytes.get(at..at + size).ok_or_else(broken)?);
        at += size + 2;
        if size == 0 {
            return Ok(body);
        }
    }
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse(head: &[u8]) -> io::Result<Answer> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 answer");
    let text = std::str::from_utf8(head).map_err(|_| broken())?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status =
        line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(broken)?;
    let fields = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Answer { status, fields, body: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(bytes: &'static [u8]) -> io::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut wire = tokio_test_wire(bytes);
            exchange(&mut wire, b"GET / HTTP/1.1\r\n\r\n").await
        })
    }

    /// Reads the bytes, takes everything.
    fn tokio_test_wire(bytes: &'static [u8]) -> tokio::io::Join<&'static [u8], tokio::io::Sink> {
        tokio::io::join(bytes, tokio::io::sink())
    }

    #[test]
    fn bodies_of_every_framing_are_read_to_their_end() {
        for (bytes, status, body) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], 200, &b"ok"[..]),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\n\r\n",
                200,
                b"ok",
            ),
            (b"HTTP/1.1 503 No\r\n\r\nto the end", 503, b"to the end"),
            (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
            (b"HTTP/1.1 204 None\r\n\r\n", 204, b""),
        ] {
            let answer = answer_to(bytes).unwrap();
            assert_eq!((answer.status, &*answer.body), (status, body), "{answer:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        ] {
            assert_eq!(answer_to(bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(answer_to(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn only_a_signed_answer_is_the_origins() {
        let signed = answer_to(b"HTTP/1.1 200 OK\r\nDrill-Origin: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(signed.is_of_origin() && signed.keeps_alive());
        let own = answer_to(b"HTTP/1.1 502 Bad\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(!own.is_of_origin() && !own.keeps_alive());
    }
}
