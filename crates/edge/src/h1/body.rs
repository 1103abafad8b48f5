//! Body decoding (RFC 9112 sections 6 and 7): from buffered bytes to content, framing checked byte by byte.

use super::parse::{self, Framing, HeadEnd, HeadLimits};
use super::syntax;
use crate::io::ReadBuffer;
use crate::message::{BodyError, BodyLength, HeaderList};

/// Longest chunk-size line with its extensions, in bytes.
const CHUNK_LINE: usize = 1024;
/// Most hexadecimal digits of a chunk size: 60 bits, beyond any real chunk and far from overflow.
const CHUNK_DIGITS: usize = 15;
/// Most bytes of chunk extensions in one body: they are read and thrown away, and must not outweigh the content.
const EXTENSION_BYTES: usize = 16 * 1024;

/// What the decoder needs or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// So many content bytes lie at the front of the buffer.
    Data(usize),
    /// Read more first.
    More,
    /// The body has ended; the buffer holds what follows it.
    End,
}

#[derive(Debug)]
enum State {
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    length: BodyLength,
    limits: HeadLimits,
    trailers: Option<HeaderList>,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

impl Decoder {
    /// A decoder for a body framed like this; `limits` bound the trailer section.
    pub fn new(framing: Framing, limits: HeadLimits) -> Self {
        let (state, length) = match framing {
            Framing::None => (State::Done, BodyLength::Absent),
            Framing::Length(0) => (State::Done, BodyLength::Exact(0)),
            Framing::Length(length) => (State::Length(length), BodyLength::Exact(length)),
            Framing::Chunked => (State::ChunkSize, BodyLength::Unknown),
            Framing::Close => (State::UntilClose, BodyLength::Unknown),
        };
        Self { state, length, limits, trailers: None, extensions: 0 }
    }

    /// The length announced.
    pub fn length(&self) -> BodyLength {
        self.length
    }

    /// Whether the whole body has been consumed.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Content bytes that follow without any framing between them, where that is known.
    pub fn unframed(&self) -> Option<u64> {
        if let State::Length(left) = self.state { Some(left) } else { None }
    }

    /// Trailer fields, once.
    pub fn take_trailers(&mut self) -> Option<HeaderList> {
        self.trailers.take()
    }

    /// Looks at the buffer, consuming framing but no content.
    pub fn poll(&mut self, buffer: &mut ReadBuffer) -> Result<Decoded, BodyError> {
        loop {
            let at_hand = buffer.bytes().len();
            match &self.state {
                State::Done => return Ok(Decoded::End),
                State::Length(left) | State::ChunkData(left) => {
                    let usable = usize::try_from(*left).unwrap_or(usize::MAX).min(at_hand);
                    return Ok(if usable == 0 { Decoded::More } else { Decoded::Data(usable) });
                }
                State::UntilClose => {
                    return Ok(if at_hand == 0 { Decoded::More } else { Decoded::Data(at_hand) });
                }
                State::ChunkSize => match parse_chunk_line(buffer.bytes())? {
                    None => return Ok(Decoded::More),
                    Some(line) => {
                        self.extensions += line.extension;
                        if self.extensions > EXTENSION_BYTES {
                            return Err(BodyError::Framing);
                        }
                        buffer.consume(line.bytes);
                        self.state =
                            if line.size == 0 { State::Trailers } else { State::ChunkData(line.size) };
                    }
                },
                State::ChunkEnd => match buffer.bytes() {
                    [b'\r', b'\n', ..] => {
                        buffer.consume(2);
                        self.state = State::ChunkSize;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(BodyError::Framing),
                },
                State::Trailers => match self.parse_trailers(buffer.bytes())? {
                    None => return Ok(Decoded::More),
                    Some(section) => {
                        buffer.consume(section);
                        self.state = State::Done;
                    }
                },
            }
        }
    }

    fn parse_trailers(&mut self, bytes: &[u8]) -> Result<Option<usize>, BodyError> {
        if bytes.starts_with(b"\r\n") {
            return Ok(Some(2));
        }
        match parse::find_head_end(bytes, 0) {
            HeadEnd::BadLineEnd => Err(BodyError::Framing),
            HeadEnd::Incomplete if bytes.len() > self.limits.bytes => Err(BodyError::Framing),
            HeadEnd::At(end) if end > self.limits.bytes => Err(BodyError::Framing),
            HeadEnd::Incomplete => Ok(None),
            HeadEnd::At(end) => {
                let section = bytes.get(..end).unwrap_or_default();
                let trailers =
                    parse::parse_trailers(section, &self.limits).map_err(|_| BodyError::Framing)?;
                self.trailers = Some(trailers);
                Ok(Some(end))
            }
        }
    }

    /// Notes that `count` bytes of the last `Data` were consumed from the buffer.
    pub fn consumed(&mut self, count: usize) {
        let count = count as u64;
        match &mut self.state {
            State::Length(left) => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::ChunkData(left) => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
            }
            _ => {}
        }
    }

    /// The connection has ended: fine for a body that ends with it, cut for every other.
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Cut),
        }
    }
}

/// `chunk-size [ chunk-ext ] CRLF`.
struct ChunkLine {
    /// Content bytes of the chunk.
    size: u64,
    /// Bytes of the line.
    bytes: usize,
    /// Bytes of its extensions.
    extension: usize,
}

/// The chunk line at the front, or `None` when it is not complete.
fn parse_chunk_line(bytes: &[u8]) -> Result<Option<ChunkLine>, BodyError> {
    let window = bytes.get(..CHUNK_LINE).unwrap_or(bytes);
    let Some(line_feed) = memchr::memchr(b'\n', window) else {
        let plausible = window.len() < CHUNK_LINE && is_chunk_line_start(window);
        return if plausible { Ok(None) } else { Err(BodyError::Framing) };
    };
    let line = window.get(..line_feed).and_then(|line| line.strip_suffix(b"\r")).ok_or(BodyError::Framing)?;
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extension) = line.split_at_checked(digits).ok_or(BodyError::Framing)?;
    if size.is_empty()
        || size.len() > CHUNK_DIGITS
        // An extension is only checked: nothing of it is used or forwarded.
        || !(extension.is_empty() || syntax::is_chunk_extension(extension))
    {
        return Err(BodyError::Framing);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    let size = size.ok_or(BodyError::Framing)?;
    Ok(Some(ChunkLine { size, bytes: line_feed + 1, extension: extension.len() }))
}

/// Whether an unfinished line can still become a chunk line, so that junk is refused without waiting for a line end.
fn is_chunk_line_start(line: &[u8]) -> bool {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extension) = line.split_at_checked(digits).unwrap_or_default();
    let extension = extension.strip_suffix(b"\r").unwrap_or(extension);
    size.len() <= CHUNK_DIGITS
        && (digits > 0 || line.is_empty())
        && (extension.is_empty() || (extension.starts_with(b";") && syntax::is_field_value(extension)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 8, target: 64 };

    /// Feeds `input` in pieces of `step` bytes; answers content, leftover and trailers.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
        let mut decoder = Decoder::new(framing, LIMITS);
        let mut buffer = ReadBuffer::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut content = Vec::new();
        let mut pieces = input.chunks(step);
        loop {
            match decoder.poll(&mut buffer)? {
                Decoded::End => {
                    let mut leftover = buffer.bytes().to_vec();
                    pieces.for_each(|piece| leftover.extend_from_slice(piece));
                    return Ok((content, leftover));
                }
                Decoded::Data(count) => {
                    content.extend_from_slice(&buffer.bytes()[..count]);
                    buffer.consume(count);
                    decoder.consumed(count);
                }
                Decoded::More => match pieces.next() {
                    None => {
                        decoder.end_of_stream()?;
                    }
                    Some(mut piece) => {
                        let read = buffer.poll_read(&mut cx, &mut pin!(&mut piece), 8192);
                        assert!(matches!(read, Poll::Ready(Ok(count)) if count > 0));
                    }
                },
            }
        }
    }

    #[test]
    fn good_bodies_whatever_the_pieces() {
        let chunked = b"5;name=\"v\"\r\nhello\r\n00a\r\n 123456789\r\n0\r\nX-T: 1\r\n\r\nGET /";
        for step in 1..chunked.len() {
            let (content, leftover) = decode(Framing::Chunked, chunked, step).unwrap();
            assert_eq!(
                (content.as_slice(), leftover.as_slice()),
                (&b"hello 123456789"[..], &b"GET /"[..]),
                "{step}"
            );
            assert_eq!(
                decode(Framing::Length(5), b"helloX", step).unwrap(),
                (b"hello".to_vec(), b"X".to_vec())
            );
            assert_eq!(decode(Framing::Close, b"hello", step).unwrap().0, b"hello");
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for bad in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5;\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\nhello",
            "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: 1\n\r\n",
            "5\r\nhello\r\n0\r\n X: 1\r\n\r\n",
        ] {
            assert_eq!(decode(Framing::Chunked, bad.as_bytes(), 7), Err(BodyError::Framing), "{bad:?}");
        }
    }

    #[test]
    fn extensions_do_not_outweigh_the_content() {
        let chunk = format!("1;{}\r\nx\r\n", "a".repeat(1000));
        let fits = format!("{}0\r\n\r\n", chunk.repeat(16));
        assert_eq!(decode(Framing::Chunked, fits.as_bytes(), 4096).unwrap().0, vec![b'x'; 16]);
        let too_many = format!("{}0\r\n\r\n", chunk.repeat(17));
        assert_eq!(decode(Framing::Chunked, too_many.as_bytes(), 4096), Err(BodyError::Framing));
    }

    #[test]
    fn trailers_are_bounded_however_they_come() {
        let field = format!("X: {}\r\n", "a".repeat(LIMITS.bytes / 2 - 6));
        let body = |fields: usize| format!("0\r\n{}\r\n", field.repeat(fields));
        for step in [1, 100, 4096] {
            assert!(decode(Framing::Chunked, body(1).as_bytes(), step).is_ok(), "{step}");
            assert_eq!(decode(Framing::Chunked, body(3).as_bytes(), step), Err(BodyError::Framing), "{step}");
        }
    }

    #[test]
    fn cut_bodies_are_cut() {
        assert_eq!(decode(Framing::Length(9), b"hello", 2), Err(BodyError::Cut));
        assert_eq!(decode(Framing::Chunked, b"5\r\nhello\r\n", 2), Err(BodyError::Cut));
    }
}
