//! Request events between processes: frames of records, compact, versioned, bounded, and open to fields added at the end.
//!
//! A frame is a head of `Head::BYTES` and its records. A record is its length (two bytes) and its fields in fixed order; numbers
//! are little-endian. A reader takes the fields it knows and passes over what follows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Completion, Fault, Protocol, RequestEvent, TlsVersion};
use crate::address::truncate;
use crate::time::Timestamp;

/// Version of the encoding. A field may be added at the end of a record within a version, never change meaning.
pub const WIRE_VERSION: u8 = 1;
/// Bytes of a text kept at most; longer ones are cut between characters.
pub const MAX_TEXT: usize = 2048;
/// Bytes of a module's name, outcome and reason kept at most.
pub const MAX_NAME: usize = 64;
/// Bytes of a record at most: nine texts, sixteen verdicts and the numbers fit.
pub const MAX_RECORD: usize = 24 * 1024;
/// Bytes of records in a frame at most.
pub const MAX_FRAME: usize = 128 * 1024;
/// What every frame begins with.
const MAGIC: [u8; 4] = *b"RPEV";
/// Length of a text that is not there.
const ABSENT: u16 = u16::MAX;

/// Why something could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not a frame of events.
    #[error("this is no frame of events")]
    NotAFrame,
    /// Of a version this reader does not know.
    #[error("a frame of version {0}, which is not known here")]
    Version(u8),
    /// Longer than allowed.
    #[error("a frame of {0} bytes, which is more than {MAX_FRAME}")]
    TooLong(u32),
    /// A record ends before its fields, or a field holds what it cannot.
    #[error("a record is cut short or damaged")]
    Damaged,
}

/// What stands before the records of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of records that follow.
    pub length: u32,
    /// Records that follow.
    pub records: u32,
    /// Requests that no frame tells of, lost since the frame before: to be added to every count, as nobody knows to which.
    pub lost: u64,
}

impl Head {
    /// Bytes of a head.
    pub const BYTES: usize = 24;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let parts: [&[u8]; 5] = [
            &MAGIC,
            &[WIRE_VERSION, 0, 0, 0],
            &self.length.to_le_bytes(),
            &self.records.to_le_bytes(),
            &self.lost.to_le_bytes(),
        ];
        for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    /// Reads one.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        if reader.array::<4>()? != MAGIC {
            return Err(WireError::NotAFrame);
        }
        let [version, ..] = reader.array::<4>()?;
        if version != WIRE_VERSION {
            return Err(WireError::Version(version));
        }
        let head = Self { length: reader.u32()?, records: reader.u32()?, lost: reader.u64()? };
        if head.length as usize > MAX_FRAME {
            return Err(WireError::TooLong(head.length));
        }
        Ok(head)
    }
}

/// What a module said, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedRecord<'a> {
    /// The module.
    pub module: &'a str,
    /// What it said.
    pub outcome: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// A request event as read; the fields of `RequestEvent`, with the client's network instead of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "said at the fields of the same name of `RequestEvent`")]
pub struct Record<'a> {
    pub id: &'a str,
    pub at: Timestamp,
    pub duration_us: u64,
    pub origin_wait_us: Option<u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub generation: u64,
    pub weight: u32,
    pub status: u16,
    pub attempts: u8,
    pub protocol: Protocol,
    pub tls: bool,
    pub tls_version: Option<TlsVersion>,
    pub fault: Option<Fault>,
    pub completion: Completion,
    pub origin_protocol: Option<Protocol>,
    /// The client's address without its host bits (`address::truncate`).
    pub network: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    pub target: &'a str,
    pub site: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub referer: Option<&'a str>,
    pub ja4: Option<&'a str>,
    pub introduction: Option<&'a str>,
    pub verdicts: Vec<NotedRecord<'a>>,
}

/// Appends one record that stands for `weight` requests. Allocates only when `out` has no room left.
pub fn encode(out: &mut Vec<u8>, event: &RequestEvent, weight: u32) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(event.id.as_str().as_bytes());
    let wait = event.origin_wait_us.unwrap_or(u64::MAX);
    for number in [event.at.0, event.duration_us, wait, event.bytes_in, event.bytes_out, event.generation] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&weight.to_le_bytes());
    out.extend_from_slice(&event.status.to_le_bytes());
    out.extend_from_slice(&[
        event.attempts,
        protocol_code(Some(event.protocol)),
        tls_code(event),
        fault_code(event.fault),
        completion_code(event.completion),
        protocol_code(event.origin_protocol),
    ]);
    address(out, truncate(event.client));
    let texts = [
        Some(event.method.as_ref()),
        Some(&*event.host),
        Some(&*event.target),
        event.site.as_deref(),
        event.reason,
        event.origin.as_deref(),
        event.user_agent.as_deref(),
        event.referer.as_deref(),
        event.ja4.as_ref().map(|ja4| ja4.as_str()),
        event.introduction.as_deref(),
    ];
    texts.into_iter().for_each(|it| text(out, it, MAX_TEXT));
    let verdicts = event.verdicts.as_slice();
    // At most `MAX_VERDICTS`.
    out.push(verdicts.len() as u8);
    for noted in verdicts {
        [noted.module, noted.outcome, &*noted.reason]
            .into_iter()
            .for_each(|it| text(out, Some(it), MAX_NAME));
    }
    // The limits above keep it below `MAX_RECORD`.
    let length = u16::try_from(out.len() - start - 2).unwrap_or(u16::MAX).to_le_bytes();
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length);
    }
}

/// The records of a frame, in order. After one whose length is wrong there is none any more.
pub fn records(frame: &[u8]) -> impl Iterator<Item = Result<Record<'_>, WireError>> {
    let mut rest = Some(Reader(frame));
    std::iter::from_fn(move || {
        let mut reader = rest.take().filter(|reader| !reader.0.is_empty())?;
        let body = reader.u16().and_then(|length| reader.take(usize::from(length)));
        Some(body.and_then(|body| {
            rest = Some(reader);
            decode(body)
        }))
    })
}

fn decode(body: &[u8]) -> Result<Record<'_>, WireError> {
    let mut reader = Reader(body);
    let id = std::str::from_utf8(reader.take(16)?).map_err(|_| WireError::Damaged)?;
    let at = Timestamp(reader.u64()?);
    let duration_us = reader.u64()?;
    let origin_wait_us = Some(reader.u64()?).filter(|&wait| wait != u64::MAX);
    let (bytes_in, bytes_out, generation) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (weight, status) = (reader.u32()?, reader.u16()?);
    let [attempts, protocol, tls, fault, completion, origin_protocol] = reader.array::<6>()?;
    let network = reader.address()?;
    let (method, host, target) = (reader.whole_text()?, reader.whole_text()?, reader.whole_text()?);
    let (site, reason, origin) = (reader.text()?, reader.text()?, reader.text()?);
    let (user_agent, referer) = (reader.text()?, reader.text()?);
    let (ja4, introduction) = (reader.text()?, reader.text()?);
    let [count] = reader.array::<1>()?;
    let mut verdicts = Vec::new();
    for _ in 0..count {
        let (module, outcome, reason) = (reader.whole_text()?, reader.whole_text()?, reader.whole_text()?);
        verdicts.push(NotedRecord { module, outcome, reason });
    }
    Ok(Record {
        id,
        at,
        duration_us,
        origin_wait_us,
        bytes_in,
        bytes_out,
        generation,
        weight,
        status,
        attempts,
        protocol: protocol_of(protocol)?.ok_or(WireError::Damaged)?,
        tls: tls != 0,
        tls_version: match tls {
            2 => Some(TlsVersion::Tls12),
            3 => Some(TlsVersion::Tls13),
            _ => None,
        },
        fault: fault_of(fault)?,
        completion: completion_of(completion)?,
        origin_protocol: protocol_of(origin_protocol)?,
        network,
        method,
        host,
        target,
        site,
        reason,
        origin,
        user_agent,
        referer,
        ja4,
        introduction,
        verdicts,
    })
}

fn protocol_code(protocol: Option<Protocol>) -> u8 {
    match protocol {
        None => 0,
        Some(Protocol::Http10) => 1,
        Some(Protocol::Http11) => 2,
        Some(Protocol::Http2) => 3,
    }
}

fn protocol_of(code: u8) -> Result<Option<Protocol>, WireError> {
    Ok(match code {
        0 => None,
        1 => Some(Protocol::Http10),
        2 => Some(Protocol::Http11),
        3 => Some(Protocol::Http2),
        _ => return Err(WireError::Damaged),
    })
}

/// 0 plain, 1 encrypted with an unknown version, else the minor version.
fn tls_code(event: &RequestEvent) -> u8 {
    match event.tls_version {
        _ if !event.tls => 0,
        None => 1,
        Some(TlsVersion::Tls12) => 2,
        Some(TlsVersion::Tls13) => 3,
    }
}

fn fault_code(fault: Option<Fault>) -> u8 {
    match fault {
        None => 0,
        Some(Fault::Visitor) => 1,
        Some(Fault::Edge) => 2,
        Some(Fault::Origin) => 3,
    }
}

fn fault_of(code: u8) -> Result<Option<Fault>, WireError> {
    Ok(match code {
        0 => None,
        1 => Some(Fault::Visitor),
        2 => Some(Fault::Edge),
        3 => Some(Fault::Origin),
        _ => return Err(WireError::Damaged),
    })
}

fn completion_code(completion: Completion) -> u8 {
    match completion {
        Completion::Complete => 0,
        Completion::ClientGone => 1,
        Completion::OriginCut => 2,
        Completion::TimedOut => 3,
    }
}

fn completion_of(code: u8) -> Result<Completion, WireError> {
    Ok(match code {
        0 => Completion::Complete,
        1 => Completion::ClientGone,
        2 => Completion::OriginCut,
        3 => Completion::TimedOut,
        _ => return Err(WireError::Damaged),
    })
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
}

fn text(out: &mut Vec<u8>, text: Option<&str>, limit: usize) {
    let Some(text) = text else { return out.extend_from_slice(&ABSENT.to_le_bytes()) };
    let text = text.get(..text.floor_char_boundary(limit)).unwrap_or_default();
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads from the front; every read fails instead of reaching past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.first_chunk().copied().ok_or(WireError::Damaged)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn address(&mut self) -> Result<IpAddr, WireError> {
        Ok(match self.array::<1>()? {
            [4] => Ipv4Addr::from(self.array::<4>()?).into(),
            [6] => Ipv6Addr::from(self.array::<16>()?).into(),
            _ => return Err(WireError::Damaged),
        })
    }

    fn text(&mut self) -> Result<Option<&'a str>, WireError> {
        let length = self.u16()?;
        if length == ABSENT {
            return Ok(None);
        }
        std::str::from_utf8(self.take(usize::from(length))?).map(Some).map_err(|_| WireError::Damaged)
    }

    fn whole_text(&mut self) -> Result<&'a str, WireError> {
        self.text()?.ok_or(WireError::Damaged)
    }
}

#[cfg(test)]
mod tests;
