//! The raw ClientHello: collected record by record as it arrives, and read strictly for fingerprints and logs.

#![deny(clippy::indexing_slicing)]

use bytes::Bytes;

/// Bytes of a ClientHello message kept at most; rustls accepts no handshake message larger than this either.
pub const MAX_CLIENT_HELLO: usize = 64 * 1024;
/// Bytes in one plaintext record (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;
/// Bytes of the header before each record: type, version, length.
const RECORD_HEADER: usize = 5;
/// Bytes of the header before each handshake message: type, length.
const HANDSHAKE_HEADER: usize = 4;
/// Record type of handshake messages.
pub(super) const HANDSHAKE_RECORD: u8 = 22;
/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// The first ClientHello of a connection, as the client sent it (a second one after HelloRetryRequest is not kept).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The handshake message with its 4-byte header, without record headers.
    pub raw: Bytes,
    /// True when the message is longer than `MAX_CLIENT_HELLO` and `raw` only its beginning.
    pub truncated: bool,
}

impl ClientHello {
    /// Reads the message; `None` when it is truncated or not well formed.
    pub fn view(&self) -> Option<ClientHelloView<'_>> {
        ClientHelloView::parse(&self.raw)
    }
}

/// Where collecting stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// The message is complete, or the limit is reached.
    Complete,
    /// This is no ClientHello; nothing more will be collected.
    NotTls,
}

/// Collects a ClientHello from the bytes of a connection, however they are cut into reads, records and fragments.
///
/// Pure and bounded: memory grows with what arrived, never with what a length field promises.
#[derive(Debug)]
pub struct HelloParser {
    message: Vec<u8>,
    header: [u8; RECORD_HEADER],
    header_length: usize,
    /// Bytes of the current record still to come.
    record_left: usize,
    progress: Progress,
    truncated: bool,
}

impl Default for HelloParser {
    fn default() -> Self {
        Self {
            message: Vec::new(),
            header: [0; RECORD_HEADER],
            header_length: 0,
            record_left: 0,
            progress: Progress::More,
            truncated: false,
        }
    }
}

impl HelloParser {
    /// Takes the next bytes of the connection. After `Complete` or `NotTls` they are ignored.
    pub fn push(&mut self, mut bytes: &[u8]) -> Progress {
        while self.progress == Progress::More && !bytes.is_empty() {
            bytes = if self.record_left == 0 { self.take_header(bytes) } else { self.take_body(bytes) };
        }
        self.progress
    }

    /// The message, once `push` answered `Complete`.
    pub fn finish(mut self) -> Option<ClientHello> {
        if self.progress != Progress::Complete {
            return None;
        }
        self.message.shrink_to_fit();
        Some(ClientHello { raw: Bytes::from(self.message), truncated: self.truncated })
    }

    fn take_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((&byte, rest)) = bytes.split_first() else { return bytes };
        if let Some(slot) = self.header.get_mut(self.header_length) {
            *slot = byte;
        }
        self.header_length += 1;
        // Refused at the first wrong byte: who speaks another protocol may send no second one.
        let [kind, major, _, high, low] = self.header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let sane = match self.header_length {
            1 => kind == HANDSHAKE_RECORD,
            2 => major == 3,
            // RFC 8446 section 5.1: no empty handshake fragments, no plaintext above 2^14.
            RECORD_HEADER => (1..=MAX_RECORD).contains(&length),
            _ => true,
        };
        if !sane {
            self.progress = Progress::NotTls;
        } else if self.header_length == RECORD_HEADER {
            (self.header_length, self.record_left) = (0, length);
        }
        rest
    }

    fn take_body<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        // Until its header is there the message is as long as that header.
        let wanted = self.announced().unwrap_or(HANDSHAKE_HEADER).min(MAX_CLIENT_HELLO);
        let missing = wanted.saturating_sub(self.message.len());
        let (taken, rest) = bytes.split_at(missing.min(self.record_left).min(bytes.len()));
        self.message.extend_from_slice(taken);
        self.record_left -= taken.len();
        if self.message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            self.progress = Progress::NotTls;
        } else if let Some(announced) = self.announced()
            && self.message.len() >= announced.min(MAX_CLIENT_HELLO)
        {
            (self.progress, self.truncated) = (Progress::Complete, announced > MAX_CLIENT_HELLO);
        }
        rest
    }

    /// Length of the message with its header, as the client says, once that can be read.
    fn announced(&self) -> Option<usize> {
        let mut reader = Reader(&self.message);
        reader.take(1)?;
        Some(HANDSHAKE_HEADER + reader.u24()?)
    }
}

/// A ClientHello read in place (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2). Every length has been checked.
#[derive(Clone, Debug)]
pub struct ClientHelloView<'a> {
    /// The version field old servers look at; 0x0303 from every current client.
    pub legacy_version: u16,
    /// 32 bytes.
    pub random: &'a [u8],
    /// 0 to 32 bytes.
    pub session_id: &'a [u8],
    /// Offered suites in order, GREASE included.
    pub cipher_suites: U16List<'a>,
    /// Offered compression methods; `[0]` from every current client.
    pub compression: &'a [u8],
    extensions: &'a [u8],
}

/// Types of the extensions read here (IANA "TLS ExtensionType Values").
pub(super) mod extension {
    pub const SERVER_NAME: u16 = 0;
    pub const SUPPORTED_GROUPS: u16 = 10;
    pub const POINT_FORMATS: u16 = 11;
    pub const SIGNATURE_ALGORITHMS: u16 = 13;
    pub const ALPN: u16 = 16;
    pub const SUPPORTED_VERSIONS: u16 = 43;
    pub const KEY_SHARE: u16 = 51;
}

impl<'a> ClientHelloView<'a> {
    /// Reads a handshake message with its header; `None` when a length is wrong, cut short, or something follows.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(message);
        if reader.u8()? != CLIENT_HELLO {
            return None;
        }
        let length = reader.u24()?;
        let mut body = Reader(reader.take(length)?);
        if !reader.0.is_empty() {
            return None;
        }
        let legacy_version = body.u16()?;
        let random = body.take(32)?;
        let session_id = body.vector_u8()?;
        let cipher_suites = U16List::new(body.vector_u16()?)?;
        let compression = body.vector_u8()?;
        // TLS 1.2 allows a hello without extensions at all.
        let extensions = if body.0.is_empty() { &[] } else { body.vector_u16()? };
        if session_id.len() > 32 || !body.0.is_empty() || !well_formed(extensions) {
            return None;
        }
        Some(Self { legacy_version, random, session_id, cipher_suites, compression, extensions })
    }

    /// The extensions in the order sent: type and content, GREASE and duplicates included.
    pub fn extensions(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut reader = Reader(self.extensions);
        std::iter::from_fn(move || Some((reader.u16()?, reader.vector_u16()?)))
    }

    /// The server name (RFC 6066 section 3) as sent, when it is one host name of printable ASCII. What follows it with another
    /// type cannot be read, as none was ever defined, and is passed over, as rustls does.
    pub fn server_name(&self) -> Option<&'a str> {
        const HOST_NAME: u8 = 0;
        let mut list = Reader(Reader(self.extension(extension::SERVER_NAME)?).whole_vector_u16()?);
        let (kind, name) = (list.u8()?, list.vector_u16()?);
        let only_one = list.0.first() != Some(&HOST_NAME);
        let printable = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        if kind == HOST_NAME && only_one && printable { std::str::from_utf8(name).ok() } else { None }
    }

    /// The protocols of ALPN (RFC 7301) in order; arbitrary bytes.
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let list = self.extension(extension::ALPN).and_then(|content| Reader(content).whole_vector_u16());
        let mut reader = Reader(list.unwrap_or_default());
        std::iter::from_fn(move || reader.vector_u8())
    }

    /// The versions of `supported_versions` in order, GREASE included; empty from a client without TLS 1.3.
    pub fn supported_versions(&self) -> U16List<'a> {
        self.list(extension::SUPPORTED_VERSIONS, Reader::whole_vector_u8)
    }

    /// The key exchange groups in order, GREASE included.
    pub fn groups(&self) -> U16List<'a> {
        self.list(extension::SUPPORTED_GROUPS, Reader::whole_vector_u16)
    }

    /// The groups the client already sent a key for, in order, GREASE included.
    pub fn key_shares(&self) -> impl Iterator<Item = u16> + use<'a> {
        let list =
            self.extension(extension::KEY_SHARE).and_then(|content| Reader(content).whole_vector_u16());
        let mut reader = Reader(list.unwrap_or_default());
        std::iter::from_fn(move || {
            let group = reader.u16()?;
            reader.vector_u16().map(|_| group)
        })
    }

    /// The signature algorithms in order, GREASE included.
    pub fn signature_algorithms(&self) -> U16List<'a> {
        self.list(extension::SIGNATURE_ALGORITHMS, Reader::whole_vector_u16)
    }

    /// What a JA4 fingerprint is computed from; GREASE values (RFC 8701) are left out, order is kept.
    pub fn facts(&self) -> HelloFacts {
        let real = |values: U16List<'_>| values.iter().filter(|&value| !is_grease(value)).collect::<Vec<_>>();
        let versions = real(self.supported_versions());
        HelloFacts {
            version: versions.iter().copied().max().unwrap_or(self.legacy_version),
            server_name: self.extensions().any(|(kind, _)| kind == extension::SERVER_NAME),
            cipher_suites: real(self.cipher_suites),
            extensions: self.extensions().map(|(kind, _)| kind).filter(|&kind| !is_grease(kind)).collect(),
            signature_algorithms: real(self.signature_algorithms()),
            first_alpn: self.alpn().next().map(<[u8]>::to_vec),
        }
    }

    fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        self.extensions().find(|&(kind, _)| kind == wanted).map(|(_, content)| content)
    }

    fn list(&self, wanted: u16, read: fn(&mut Reader<'a>) -> Option<&'a [u8]>) -> U16List<'a> {
        self.extension(wanted)
            .and_then(|content| read(&mut Reader(content)))
            .and_then(U16List::new)
            .unwrap_or_default()
    }
}

/// What a JA4 fingerprint is computed from, in the order the client sent it and without GREASE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloFacts {
    /// The highest version offered: 0x0304 is TLS 1.3.
    pub version: u16,
    /// Whether the server name extension was sent.
    pub server_name: bool,
    /// Cipher suites.
    pub cipher_suites: Vec<u16>,
    /// Extension types, server name and ALPN included.
    pub extensions: Vec<u16>,
    /// Signature algorithms.
    pub signature_algorithms: Vec<u16>,
    /// The first protocol of ALPN.
    pub first_alpn: Option<Vec<u8>>,
}

/// A list of 16-bit values inside a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U16List<'a>(&'a [u8]);

impl<'a> U16List<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(2).then_some(Self(bytes))
    }

    /// The values in order.
    pub fn iter(self) -> impl Iterator<Item = u16> + use<'a> {
        self.0.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair))
    }
}

/// True for the values clients sprinkle in so that servers learn to ignore the unknown (RFC 8701 section 2).
pub fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && high & 0x0f == 0x0a
}

fn well_formed(extensions: &[u8]) -> bool {
    let mut reader = Reader(extensions);
    while !reader.0.is_empty() {
        if reader.u16().and_then(|_| reader.vector_u16()).is_none() {
            return false;
        }
    }
    true
}

/// Reads from the front; every read answers `None` instead of reaching past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
    }

    fn u24(&mut self) -> Option<usize> {
        let &[high, middle, low] = self.take(3)?.first_chunk()?;
        usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()
    }

    fn vector_u8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector_u16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn whole_vector_u8(&mut self) -> Option<&'a [u8]> {
        self.vector_u8().filter(|_| self.0.is_empty())
    }

    fn whole_vector_u16(&mut self) -> Option<&'a [u8]> {
        self.vector_u16().filter(|_| self.0.is_empty())
    }
}
