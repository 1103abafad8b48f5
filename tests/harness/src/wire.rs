//! HTTP/1.1 messages read strictly, byte for byte: the origin's and the client's common eye. Anything a lenient
//! reader would repair is an error here, so a proxy that emits it is caught.

use std::fmt;
use std::io::{self, Read, Write};

/// Longest head or line accepted.
const MAX_LINE: usize = 1 << 20;
/// Bytes asked of the socket at once.
const READ_SIZE: usize = 64 * 1024;

/// One header or trailer field: name and value as sent, the value without surrounding blanks.
pub type Field = (Vec<u8>, Vec<u8>);

/// A start line and its fields.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Request line or status line, without line end.
    pub start: Vec<u8>,
    /// Fields in the order they came.
    pub fields: Vec<Field>,
}

/// How the length of a body is told (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    None,
    /// Content-Length.
    Exactly(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Up to the end of the connection; responses only.
    UntilClose,
}

/// A body and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// How its length was told.
    pub length: Length,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<Field>,
}

impl fmt::Debug for Head {
    /// As it would be read, because that is what a failing test has to show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.start.escape_ascii(), readable(&self.fields))
    }
}

impl Head {
    /// All values of a field, in order; the name is compared without case.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        all(&self.fields, name)
    }

    /// The first value of a field as text; bytes beyond UTF-8 are replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.all(name).first().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The status of a response head.
    pub fn status(&self) -> io::Result<u16> {
        let text = String::from_utf8_lossy(&self.start);
        let mut words = text.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().unwrap_or_default();
        if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || status.len() != 3 || words.next().is_none() {
            return Err(bad(format!("status line {text:?}")));
        }
        status.parse().map_err(|_| bad(format!("status line {text:?}")))
    }

    /// Method, target and version of a request head.
    pub fn request(&self) -> io::Result<(&[u8], &[u8], &[u8])> {
        let words: Vec<&[u8]> = self.start.split(|&byte| byte == b' ').collect();
        match words[..] {
            [method, target, version] => Ok((method, target, version)),
            _ => Err(bad(format!("request line {:?}", String::from_utf8_lossy(&self.start)))),
        }
    }

    /// Length of the body of a request with this head.
    pub fn request_length(&self) -> io::Result<Length> {
        Ok(self.told_length()?.unwrap_or(Length::None))
    }

    /// Length of the body of a response with this head to a request with that method.
    pub fn response_length(&self, method: &str) -> io::Result<Length> {
        let told = self.told_length()?;
        Ok(match self.status()? {
            100..200 | 204 | 304 => Length::None,
            _ if method == "HEAD" => Length::None,
            _ => told.unwrap_or(Length::UntilClose),
        })
    }

    fn told_length(&self) -> io::Result<Option<Length>> {
        match (&self.all("transfer-encoding")[..], &self.all("content-length")[..]) {
            ([], []) => Ok(None),
            ([b"chunked"], []) => Ok(Some(Length::Chunked)),
            ([], [digits]) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let text = String::from_utf8_lossy(digits);
                text.parse()
                    .map(|n| Some(Length::Exactly(n)))
                    .map_err(|_| bad(format!("Content-Length {text}")))
            }
            _ => Err(bad(format!("ambiguous framing: {:?}", readable(&self.fields)))),
        }
    }
}

/// All values of a field in a list, in order; the name is compared without case.
pub fn all<'a>(fields: &'a [Field], name: &str) -> Vec<&'a [u8]> {
    fields
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value.as_slice())
        .collect()
}

/// Fields as text, for messages.
pub fn readable(fields: &[Field]) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii())).collect()
}

/// A stream with what was read from it but not yet used.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    used: usize,
    total: u64,
}

impl<S: Read + Write> Wire<S> {
    /// Wraps a stream from which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), used: 0, total: 0 }
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, for another use; nothing that was read may be left.
    pub fn into_stream(self) -> S {
        assert!(self.used == self.buffer.len(), "bytes are left over");
        self.stream
    }

    /// The stream itself, to be written to.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes read from the stream so far.
    pub fn received(&self) -> u64 {
        self.total
    }

    /// Writes all of it, at once.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads once more; 0 at the end of the connection.
    fn fill(&mut self) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        let old = self.buffer.len();
        self.buffer.resize(old + READ_SIZE, 0);
        let count = loop {
            match self.stream.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(old + *count.as_ref().unwrap_or(&0));
        self.total += *count.as_ref().unwrap_or(&0) as u64;
        count
    }

    /// The next line without its CRLF, or `None` when the connection ended before its first byte.
    pub fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = self.used;
        loop {
            if let Some(i) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer[self.used..searched + i].to_vec();
                self.used = searched + i + 1;
                return match line.split_last() {
                    Some((b'\r', rest)) if !rest.contains(&b'\r') => Ok(Some(rest.to_vec())),
                    _ => Err(bad(format!("line without CRLF: {}", line.escape_ascii()))),
                };
            }
            let pending = self.buffer.len() - self.used;
            if pending > MAX_LINE {
                return Err(bad("line too long".into()));
            }
            if self.fill()? == 0 {
                return if pending == 0 { Ok(None) } else { Err(cut("inside a line")) };
            }
            searched = self.used + pending;
        }
    }

    /// The next head, or `None` when the connection ended before its first byte.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(start) = self.line()? else { return Ok(None) };
        Ok(Some(Head { start, fields: self.fields()? }))
    }

    fn fields(&mut self) -> io::Result<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(|| cut("inside the fields"))?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|&byte| byte == b':');
            let Some(colon) = colon.filter(|&i| i > 0 && line[..i].iter().all(|&byte| is_token(byte))) else {
                return Err(bad(format!("field {}", line.escape_ascii())));
            };
            fields.push((line[..colon].to_vec(), trim(&line[colon + 1..]).to_vec()));
        }
    }

    /// Reads a whole body.
    pub fn body(&mut self, length: Length) -> io::Result<Body> {
        let mut bytes = Vec::new();
        let trailers = self.body_to(length, |piece| bytes.extend_from_slice(piece))?;
        Ok(Body { length, bytes, trailers })
    }

    /// Reads a whole body piece by piece, keeping none of it; answers its trailer fields.
    pub fn body_to(&mut self, length: Length, mut take: impl FnMut(&[u8])) -> io::Result<Vec<Field>> {
        match length {
            Length::None => {}
            Length::Exactly(count) => self.exactly(count, &mut take)?,
            Length::UntilClose => while self.piece(u64::MAX, &mut take)? > 0 {},
            Length::Chunked => loop {
                let count = self.chunk_size()?;
                if count == 0 {
                    return self.fields();
                }
                self.exactly(count, &mut take)?;
                if self.line()?.is_none_or(|rest| !rest.is_empty()) {
                    return Err(bad("chunk not followed by CRLF".into()));
                }
            },
        }
        Ok(Vec::new())
    }

    /// Reads the size line of one chunk.
    pub fn chunk_size(&mut self) -> io::Result<u64> {
        let line = self.line()?.ok_or_else(|| cut("before a chunk"))?;
        let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad(format!("chunk size {}", line.escape_ascii())));
        }
        u64::from_str_radix(text, 16).map_err(|_| bad(format!("chunk size {text}")))
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, count: u64, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            match self.piece(left, take)? {
                0 => return Err(cut("inside a body")),
                got => left -= got,
            }
        }
        Ok(())
    }

    /// Hands over what is there, at most `limit` bytes, reading once if nothing is; 0 at the end.
    fn piece(&mut self, limit: u64, take: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        if self.used == self.buffer.len() && self.fill()? == 0 {
            return Ok(0);
        }
        let there = (self.buffer.len() - self.used) as u64;
        let count = there.min(limit);
        take(&self.buffer[self.used..self.used + count as usize]);
        self.used += count as usize;
        Ok(count)
    }

    /// Waits for the other side to close; anything it still sends is an error. A reset counts as closed.
    pub fn closed(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        match self.body_to(Length::UntilClose, |piece| rest.extend_from_slice(piece)) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ if rest.is_empty() => Ok(()),
            _ => Err(bad(format!("bytes after the end: {}", rest.escape_ascii()))),
        }
    }
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |i| i + 1);
    &value[start..end]
}

fn bad(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn cut(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(bytes: &[u8]) -> Wire<io::Cursor<Vec<u8>>> {
        Wire::new(io::Cursor::new(bytes.to_vec()))
    }

    #[test]
    fn a_chunked_message_is_read_with_its_trailers() {
        let mut wire =
            wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\nrest");
        let head = wire.head().unwrap().unwrap();
        let body = wire.body(head.response_length("GET").unwrap()).unwrap();
        assert_eq!((&body.bytes[..], body.trailers.len()), (&b"abc"[..], 1));
        assert!(wire.closed().unwrap_err().to_string().contains("rest"));
    }

    #[test]
    fn what_a_lenient_reader_would_repair_is_an_error() {
        for message in [
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n",
        ] {
            assert!(wire(message.as_bytes()).head().is_err(), "{message:?}");
        }
        for fields in
            ["Content-Length: 1\r\nTransfer-Encoding: chunked", "Content-Length: +1", "Content-Length: 1, 1"]
        {
            let head =
                wire(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes()).head().unwrap().unwrap();
            assert!(head.response_length("GET").is_err(), "{fields}");
        }
        for chunks in
            ["+3\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\r\nab", "0x3\r\nabc\r\n0\r\n\r\n", "\r\n"]
        {
            assert!(wire(chunks.as_bytes()).body(Length::Chunked).is_err(), "{chunks:?}");
        }
    }
}
