//! Byte ranges: what a visitor asks for, what an origin has sent, and what of it is held (RFC 9110 section 14).

use base::headers::HeaderList;

/// Ranges in one request; more are answered with the whole (section 14.2 allows to ignore the field).
const RANGES_MOST: usize = 16;
/// Pieces of a representation that are held apart; one that comes beyond is not kept.
const PIECES_MOST: usize = 64;

/// Bytes from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
}

impl Span {
    /// How many bytes; never 0.
    pub fn length(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// One range of a `Range` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// From here to there, or to the end.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

/// What a `Range` field comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// There is none, or none that has to be heeded.
    Whole,
    /// These, in the order asked for.
    Spans(Vec<Span>),
    /// None of them is in it: 416.
    Unsatisfiable,
}

/// Reads the `Range` of a request for something of this length.
pub fn wanted(request: &HeaderList, length: u64) -> Wanted {
    let mut values = request.all(b"range");
    let (Some(value), None) = (values.next(), values.next()) else { return Wanted::Whole };
    let Some(asked) = parse(value) else { return Wanted::Whole };
    let spans: Vec<Span> = asked.iter().filter_map(|one| resolve(*one, length)).collect();
    match spans.is_empty() {
        true => Wanted::Unsatisfiable,
        // Overlapping ones would multiply what is sent (section 17.15).
        false if overlap(&spans) => Wanted::Whole,
        false => Wanted::Spans(spans),
    }
}

/// The one range asked for, where what is asked for does not depend on the length: what may be answered from a part.
pub fn single(request: &HeaderList) -> Option<(u64, Option<u64>)> {
    let mut values = request.all(b"range");
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    match parse(value)?.as_slice() {
        [Asked::From(first, last)] => Some((*first, *last)),
        _ => None,
    }
}

fn parse(value: &[u8]) -> Option<Vec<Asked>> {
    let (unit, set) = std::str::from_utf8(value).ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut asked = Vec::new();
    for part in set.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-')?;
        let number = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
        };
        asked.push(match (first, last) {
            ("", last) => Asked::Last(number(last)?),
            (first, "") => Asked::From(number(first)?, None),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // The whole field is invalid then (section 14.1.1).
                if last < first {
                    return None;
                }
                Asked::From(first, Some(last))
            }
        });
        if asked.len() > RANGES_MOST {
            return None;
        }
    }
    (!asked.is_empty()).then_some(asked)
}

fn resolve(asked: Asked, length: u64) -> Option<Span> {
    let end = length.checked_sub(1)?;
    match asked {
        Asked::From(first, _) if first > end => None,
        Asked::From(first, last) => Some(Span { first, last: last.unwrap_or(end).min(end) }),
        Asked::Last(0) => None,
        Asked::Last(count) => Some(Span { first: length.saturating_sub(count), last: end }),
    }
}

fn overlap(spans: &[Span]) -> bool {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| matches!(pair, [one, other] if other.first <= one.last))
}

/// What `Content-Range` says of a 206: which bytes, and of how many; `None` for the latter where it is unknown.
pub fn content_range(fields: &HeaderList) -> Option<(Span, Option<u64>)> {
    let mut values = fields.all(b"content-range");
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let rest = std::str::from_utf8(value).ok()?.trim().strip_prefix("bytes ")?;
    let (span, length) = rest.split_once('/')?;
    let (first, last) = span.trim().split_once('-')?;
    let span = Span { first: first.parse().ok()?, last: last.parse().ok()? };
    let length = match length.trim() {
        "*" => None,
        length => Some(length.parse::<u64>().ok()?),
    };
    let fits = span.first <= span.last && length.is_none_or(|length| span.last < length);
    fits.then_some((span, length))
}

/// What is held of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// All of it.
    Whole,
    /// These pieces, in order, none touching another.
    Pieces(Vec<Span>),
}

impl Held {
    /// Whether all of this is held.
    pub fn has(&self, span: Span) -> bool {
        match self {
            Self::Whole => true,
            Self::Pieces(pieces) => {
                pieces.iter().any(|piece| piece.first <= span.first && span.last <= piece.last)
            }
        }
    }

    /// With another piece; `None` when there are too many. `length` is that of the whole, where it is known.
    pub fn with(&self, span: Span, length: Option<u64>) -> Option<Self> {
        let Self::Pieces(pieces) = self else { return Some(Self::Whole) };
        let mut all: Vec<Span> = pieces.iter().copied().chain([span]).collect();
        all.sort_unstable();
        let mut whole: Vec<Span> = Vec::with_capacity(all.len());
        for piece in all {
            match whole.last_mut() {
                Some(before) if piece.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(piece.last)
                }
                _ => whole.push(piece),
            }
        }
        let complete = matches!((whole.as_slice(), length), ([one], Some(length)) if one.first == 0 && one.length() == length);
        match complete {
            true => Some(Self::Whole),
            false => (whole.len() <= PIECES_MOST).then_some(Self::Pieces(whole)),
        }
    }

    /// What is missing of this, as one range to ask the origin for; `None` when nothing is.
    pub fn missing(&self, span: Span) -> Option<Span> {
        let Self::Pieces(pieces) = self else { return None };
        let mut missing = span;
        for piece in pieces {
            if piece.first <= missing.first && missing.first <= piece.last {
                missing.first = piece.last.checked_add(1)?;
            }
        }
        for piece in pieces.iter().rev() {
            if piece.first <= missing.last && missing.last <= piece.last && missing.first <= missing.last {
                missing.last = piece.first.checked_sub(1)?;
            }
        }
        (missing.first <= missing.last).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    fn of(value: &str) -> HeaderList {
        let mut fields = HeaderList::default();
        fields.push("Range", value);
        fields
    }

    fn spans(list: &[(u64, u64)]) -> Wanted {
        Wanted::Spans(list.iter().map(|(first, last)| Span { first: *first, last: *last }).collect())
    }

    #[test]
    fn ranges_as_asked_for() {
        for (value, expected) in [
            ("bytes=0-4", spans(&[(0, 4)])),
            ("bytes=5-", spans(&[(5, 9)])),
            ("bytes=-3", spans(&[(7, 9)])),
            ("bytes=-30", spans(&[(0, 9)])),
            ("bytes=8-100", spans(&[(8, 9)])),
            ("bytes=0-0,9-9", spans(&[(0, 0), (9, 9)])),
            ("bytes=9-9, 0-0", spans(&[(9, 9), (0, 0)])),
            ("bytes=0-5,3-8", Wanted::Whole),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=10-11,2-3", spans(&[(2, 3)])),
            ("bytes=4-3", Wanted::Whole),
            ("bytes=+1-3", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("Bytes=1-2", spans(&[(1, 2)])),
        ] {
            assert_eq!(wanted(&of(value), 10), expected, "{value}");
        }
        assert_eq!(wanted(&of("bytes=0-"), 0), Wanted::Unsatisfiable);
        let many = format!("bytes={}", (0..40).map(|n| format!("{}-{},", n * 4, n * 4)).collect::<String>());
        assert_eq!(wanted(&of(&many), 1000), Wanted::Whole);
    }

    #[test]
    fn pieces_come_together_like_bytes_in_a_file() {
        let mut random = Random::seeded(3);
        for _ in 0..2_000 {
            let (mut held, mut model) = (Held::Pieces(Vec::new()), [false; 40]);
            for _ in 0..6 {
                let first = u64::from(random.below(40));
                let span = Span { first, last: (first + u64::from(random.below(12))).min(39) };
                held = held.with(span, Some(40)).unwrap();
                model[span.first as usize..=span.last as usize].fill(true);
                let first = u64::from(random.below(40));
                let asked = Span { first, last: (first + u64::from(random.below(12))).min(39) };
                let range = asked.first as usize..=asked.last as usize;
                assert_eq!(
                    held.has(asked),
                    model[range.clone()].iter().all(|byte| *byte),
                    "{held:?} {asked:?}"
                );
                let missing: Vec<u64> = range.filter(|at| !model[*at]).map(|at| at as u64).collect();
                let expected =
                    missing.first().map(|first| Span { first: *first, last: missing[missing.len() - 1] });
                assert_eq!(held.missing(asked), expected, "{held:?} {asked:?}");
            }
            assert_eq!(held == Held::Whole, model.iter().all(|byte| *byte));
        }
    }

    #[test]
    fn content_ranges() {
        let read = |value: &str| {
            let mut fields = HeaderList::default();
            fields.push("Content-Range", value);
            content_range(&fields)
        };
        assert_eq!(read("bytes 4-9/10"), Some((Span { first: 4, last: 9 }, Some(10))));
        assert_eq!(read("bytes 4-9/*"), Some((Span { first: 4, last: 9 }, None)));
        for wrong in ["bytes 4-10/10", "bytes 5-4/10", "bytes */10", "4-9/10", "bytes 4-9"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
