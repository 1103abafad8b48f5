//! OCSP responses to be stapled: read far enough to know that one is fit to be shown (RFC 6960 section 4.2).

#![deny(clippy::indexing_slicing)]

use std::time::Duration;

use base::time::Timestamp;

/// Bytes of a response; authorities' are below 4 KiB, with a certificate of their own in it.
pub const MAX_OCSP_BYTES: usize = 64 * 1024;
/// Answers looked at in one response; authorities send one per certificate asked about.
const MAX_ANSWERS: usize = 64;
/// How far the authority's clock may be ahead of this machine's.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// 1.3.6.1.5.5.7.48.1.1, id-pkix-ocsp-basic: the one kind of response there is.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// Tags of DER (X.690 section 8), constructed bit and class included.
mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const ENUMERATED: u8 = 0x0a;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const GOOD: u8 = 0x80;
    pub const UNKNOWN: u8 = 0x82;
    pub const CONTEXT_0: u8 = 0xa0;
    pub const REVOKED: u8 = 0xa1;
}

/// Why bytes are no response that could ever be stapled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// Larger than `MAX_OCSP_BYTES`.
    #[error("it has {0} bytes, more than the {MAX_OCSP_BYTES} a response may have")]
    TooLarge(usize),
    /// Not DER, cut short, or of another structure.
    #[error("it is no OCSP response in DER")]
    Malformed,
    /// The authority answered with an error instead (RFC 6960 section 4.2.1).
    #[error("the authority answered with the error \"{0}\"")]
    Unsuccessful(&'static str),
}

/// Why a well-formed response is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is about another certificate.
    #[error("it is about another certificate")]
    Other,
    /// Its `nextUpdate` is past.
    #[error("it is past its end")]
    Expired,
    /// Its `thisUpdate` is to come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// The authority has revoked the certificate.
    #[error("the authority has revoked the certificate")]
    Revoked,
    /// The authority does not know the certificate.
    #[error("the authority does not know the certificate")]
    Unknown,
}

/// The answer about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    serial: Vec<u8>,
    status: u8,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
}

/// A response whose structure has been checked. Its signature has not: that is what visitors do.
#[derive(Clone, Debug)]
pub struct Response(Vec<Answer>);

impl Response {
    /// Reads one DER response and nothing after it.
    pub fn read(der: &[u8]) -> Result<Self, OcspError> {
        if der.len() > MAX_OCSP_BYTES {
            return Err(OcspError::TooLarge(der.len()));
        }
        let mut response = whole(der, tag::SEQUENCE).ok_or(OcspError::Malformed)?;
        match response.take(tag::ENUMERATED).ok_or(OcspError::Malformed)? {
            [0] => {}
            [1] => return Err(OcspError::Unsuccessful("malformedRequest")),
            [2] => return Err(OcspError::Unsuccessful("internalError")),
            [3] => return Err(OcspError::Unsuccessful("tryLater")),
            [5] => return Err(OcspError::Unsuccessful("sigRequired")),
            [6] => return Err(OcspError::Unsuccessful("unauthorized")),
            _ => return Err(OcspError::Malformed),
        }
        answers(response).map(Self).ok_or(OcspError::Malformed)
    }

    /// Whether it may be shown at `now` for the certificate of this serial number (its DER content).
    /// Answers until when; `None` is without an end.
    pub fn fit_until(&self, serial: &[u8], now: Timestamp) -> Result<Option<Timestamp>, Unfit> {
        let answer = self.0.iter().find(|answer| answer.serial == serial).ok_or(Unfit::Other)?;
        match answer.status {
            tag::GOOD => {}
            tag::REVOKED => return Err(Unfit::Revoked),
            _ => return Err(Unfit::Unknown),
        }
        if answer.this_update > now.plus(CLOCK_SKEW) {
            return Err(Unfit::NotYetValid);
        }
        if answer.next_update.is_some_and(|end| end <= now) {
            return Err(Unfit::Expired);
        }
        Ok(answer.next_update)
    }
}

/// From behind the status to the list of answers, checking what stands around it.
fn answers(mut response: Reader<'_>) -> Option<Vec<Answer>> {
    let mut bytes = whole(response.last(tag::CONTEXT_0)?, tag::SEQUENCE)?;
    if bytes.take(tag::OBJECT_IDENTIFIER)? != BASIC {
        return None;
    }
    let mut basic = whole(bytes.last(tag::OCTET_STRING)?, tag::SEQUENCE)?;
    let mut data = Reader(basic.take(tag::SEQUENCE)?);
    // The signature's algorithm, the signature, and perhaps certificates.
    basic.take(tag::SEQUENCE)?;
    basic.take(tag::BIT_STRING)?;
    if !basic.0.is_empty() {
        basic.last(tag::CONTEXT_0)?;
    }
    // Version, where it is not 1; then who answers, by name or by key; then when.
    let (mut first, _) = data.any()?;
    if first == tag::CONTEXT_0 {
        (first, _) = data.any()?;
    }
    if !matches!(first, 0xa1 | 0xa2) {
        return None;
    }
    data.take(tag::GENERALIZED_TIME)?;
    let mut list = Reader(data.take(tag::SEQUENCE)?);
    let mut answers = Vec::new();
    while !list.0.is_empty() {
        if answers.len() == MAX_ANSWERS {
            return None;
        }
        answers.push(answer(Reader(list.take(tag::SEQUENCE)?))?);
    }
    (!answers.is_empty()).then_some(answers)
}

fn answer(mut single: Reader<'_>) -> Option<Answer> {
    let mut id = Reader(single.take(tag::SEQUENCE)?);
    id.take(tag::SEQUENCE)?;
    id.take(tag::OCTET_STRING)?;
    id.take(tag::OCTET_STRING)?;
    let serial = id.last(tag::INTEGER)?.to_vec();
    let (status, _) = single.any()?;
    if !matches!(status, tag::GOOD | tag::REVOKED | tag::UNKNOWN) {
        return None;
    }
    let this_update = time(single.take(tag::GENERALIZED_TIME)?)?;
    let next_update = match single.0.first() {
        Some(&tag::CONTEXT_0) => {
            let end = whole(single.take(tag::CONTEXT_0)?, tag::GENERALIZED_TIME)?;
            Some(time(end.0)?)
        }
        _ => None,
    };
    Some(Answer { serial, status, this_update, next_update })
}

/// `YYYYMMDDHHMMSSZ`, the one form DER and RFC 6960 leave of a GeneralizedTime.
fn time(text: &[u8]) -> Option<Timestamp> {
    if text.len() != 15 || !text.ends_with(b"Z") || !text.iter().take(14).all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let civil = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let second = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    Some(super::timestamp(second))
}

/// The content of the one element `bytes` consists of.
fn whole(bytes: &[u8], tag: u8) -> Option<Reader<'_>> {
    Reader(bytes).last(tag).map(Reader)
}

/// What is left of some DER; every length is checked against it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element: its tag and its content.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags above 30 take more bytes and stand nowhere in a response.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // DER: the shortest form, never the indefinite one.
            0x81 => rest
                .split_first()
                .map(|(&byte, rest)| (usize::from(byte), rest))
                .filter(|&(n, _)| n > 0x7f)?,
            0x82 => {
                let (bytes, rest) = rest.split_first_chunk::<2>()?;
                Some((usize::from(u16::from_be_bytes(*bytes)), rest)).filter(|&(n, _)| n > 0xff)?
            }
            // Longer than `MAX_OCSP_BYTES`.
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.any().filter(|&(tag, _)| tag == wanted).map(|(_, content)| content)
    }

    /// The content of the next element, which must have this tag and be the last.
    fn last(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.take(wanted).filter(|_| self.0.is_empty())
    }
}
