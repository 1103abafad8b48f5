//! A response as it is kept: its head, when it was made, what may be done with it, and its form as bytes.

use std::time::Duration;

use base::headers::HeaderList;
use base::time::Timestamp;

use super::range::{Held, Span};
use super::vary::Selecting;

/// Version of the form as bytes; another one is not read.
const VERSION: u8 = 1;
/// Longest head as bytes.
pub const HEAD_MOST: usize = 64 << 10;

/// Who said how long a response is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// Nobody: it is asked anew each time.
    Nobody = 0,
    /// `s-maxage`.
    SMaxage = 1,
    /// `max-age`.
    MaxAge = 2,
    /// A field for caches like this one (RFC 9213).
    Targeted = 3,
    /// `Expires`.
    Expires = 4,
    /// A tenth of its age when it was received (RFC 9111 section 4.2.2).
    Heuristic = 5,
    /// A rule of the operator.
    Rule = 6,
}

impl Source {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Targeted => "targeted field",
            Self::Expires => "Expires",
            Self::Heuristic => "heuristic",
            Self::Rule => "rule",
        }
    }

    fn of(number: u8) -> Option<Self> {
        [
            Self::Nobody,
            Self::SMaxage,
            Self::MaxAge,
            Self::Targeted,
            Self::Expires,
            Self::Heuristic,
            Self::Rule,
        ]
        .into_iter()
        .find(|source| *source as u8 == number)
    }
}

/// A stored response without its body.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Text of its key, to be compared with that of a request.
    pub key: Box<[u8]>,
    /// Status; 200 for what came as parts (206).
    pub status: u16,
    /// Its fields, without those of the connection, `Age` and `Content-Range`.
    pub fields: HeaderList,
    /// What of the request it depends on.
    pub selecting: Selecting,
    /// When it was asked for.
    pub asked: Timestamp,
    /// When its head was received.
    pub answered: Timestamp,
    /// Its age when it was received (RFC 9111 section 4.2.3).
    pub initial_age: Duration,
    /// How long it is fresh from its making on.
    pub lifetime: Duration,
    /// Who said so.
    pub source: Source,
    /// Never without asking (`no-cache`).
    pub always_ask: bool,
    /// Never stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub never_stale: bool,
    /// Stale for so long while it is fetched anew.
    pub while_revalidate: Duration,
    /// Stale for so long when that fails; `None`: as usual.
    pub if_error: Option<Duration>,
    /// Bytes of the whole body; `None` while they are not known.
    pub length: Option<u64>,
    /// What of it is here.
    pub held: Held,
    /// Tags it can be purged by.
    pub tags: Vec<Box<[u8]>>,
}

impl Stored {
    /// Its age now (RFC 9111 section 4.2.3).
    pub fn age(&self, now: Timestamp) -> Duration {
        self.initial_age + Duration::from_micros(now.0.saturating_sub(self.answered.0))
    }

    /// Whether it is fresh now.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.age(now) < self.lifetime
    }

    /// How long it has been stale; `None` while it is fresh.
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        self.age(now).checked_sub(self.lifetime)
    }

    /// What `Age` says now: whole seconds.
    pub fn age_seconds(&self, now: Timestamp) -> u64 {
        self.age(now).as_secs()
    }

    /// As bytes; `None` when that is more than `HEAD_MOST`.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        out.extend(self.status.to_le_bytes());
        for time in [
            self.asked.0,
            self.answered.0,
            micros(self.initial_age),
            micros(self.lifetime),
            micros(self.while_revalidate),
        ] {
            out.extend(time.to_le_bytes());
        }
        let flags = u8::from(self.always_ask) | u8::from(self.never_stale) << 1;
        out.extend([self.source as u8, flags]);
        for optional in [self.if_error.map(micros), self.length] {
            out.push(u8::from(optional.is_some()));
            out.extend(optional.unwrap_or(0).to_le_bytes());
        }
        bytes(&mut out, &self.key);
        count(&mut out, self.fields.len());
        for (name, value) in self.fields.iter() {
            bytes(&mut out, name);
            bytes(&mut out, value);
        }
        count(&mut out, self.selecting.0.len());
        for (name, value) in &self.selecting.0 {
            bytes(&mut out, name);
            out.push(u8::from(value.is_some()));
            bytes(&mut out, value.as_deref().unwrap_or_default());
        }
        count(&mut out, self.tags.len());
        self.tags.iter().for_each(|tag| bytes(&mut out, tag));
        let pieces = match &self.held {
            Held::Whole => &[],
            Held::Pieces(pieces) => &pieces[..],
        };
        out.push(u8::from(self.held == Held::Whole));
        count(&mut out, pieces.len());
        for piece in pieces {
            out.extend(piece.first.to_le_bytes());
            out.extend(piece.last.to_le_bytes());
        }
        (out.len() <= HEAD_MOST).then_some(out)
    }

    /// From bytes; `None` for what `encode` did not make.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > HEAD_MOST {
            return None;
        }
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let status = u16::from_le_bytes(reader.array()?);
        let [asked, answered, initial_age, lifetime, while_revalidate] =
            [reader.number()?, reader.number()?, reader.number()?, reader.number()?, reader.number()?];
        let (source, flags) = (Source::of(reader.byte()?)?, reader.byte()?);
        let (if_error, length) = (reader.optional()?, reader.optional()?);
        let key = reader.bytes()?.into();
        let mut fields = HeaderList::default();
        for _ in 0..reader.count()? {
            fields.push(reader.bytes()?, reader.bytes()?);
        }
        let mut selecting = Selecting::default();
        for _ in 0..reader.count()? {
            let (name, there, value) = (reader.bytes()?, reader.byte()?, reader.bytes()?);
            selecting.0.push((name.into(), (there == 1).then(|| value.into())));
        }
        let mut tags = Vec::new();
        for _ in 0..reader.count()? {
            tags.push(reader.bytes()?.into());
        }
        let whole = reader.byte()? == 1;
        let mut pieces = Vec::new();
        for _ in 0..reader.count()? {
            let (first, last) = (reader.number()?, reader.number()?);
            pieces.push((first <= last).then_some(Span { first, last })?);
        }
        if !reader.0.is_empty() || flags > 3 {
            return None;
        }
        Some(Self {
            key,
            status,
            fields,
            selecting,
            asked: Timestamp(asked),
            answered: Timestamp(answered),
            initial_age: Duration::from_micros(initial_age),
            lifetime: Duration::from_micros(lifetime),
            source,
            always_ask: flags & 1 != 0,
            never_stale: flags & 2 != 0,
            while_revalidate: Duration::from_micros(while_revalidate),
            if_error: if_error.map(Duration::from_micros),
            length,
            held: if whole { Held::Whole } else { Held::Pieces(pieces) },
            tags,
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Both fit: whoever is too long is refused at the end.
fn count(out: &mut Vec<u8>, count: usize) {
    out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads from the front, and never beyond the end.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        let (there, number) = (self.byte()?, self.number()?);
        match there {
            0 => Some(None),
            1 => Some(Some(number)),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(length as usize)
    }
}
