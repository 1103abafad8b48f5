//! How old a response is when it comes, and how long it is fresh (RFC 9111 section 4.2).

use std::time::Duration;

use base::headers::HeaderList;
use base::time::Timestamp;

use super::directives::{Directives, SECONDS_MOST, contains_token, delta_seconds};
use super::settings::{EdgeLifetime, Settings, StatusLifetime};
use super::stored::Source;
use super::validators::date;

/// Statuses of which a lifetime may be guessed (RFC 9110 section 15.1).
const HEURISTIC: [u16; 12] = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];
/// The longest lifetime that is guessed.
const GUESSED_MOST: Duration = Duration::from_secs(24 * 3600);

/// Its age when it was received (section 4.2.3). One that cannot be read is as old as can be: unknown is not zero.
pub fn initial_age(fields: &HeaderList, asked: Timestamp, answered: Timestamp) -> Duration {
    let mut values = fields.all(b"age");
    let told = match (values.next(), values.next()) {
        (None, _) => Some(0),
        (Some(value), None) => delta_seconds(value),
        (Some(_), Some(_)) => None,
    };
    let Some(told) = told else { return Duration::from_secs(SECONDS_MOST) };
    let since = |earlier: Timestamp| Duration::from_micros(answered.0.saturating_sub(earlier.0));
    // HTTP dates have whole seconds: less than one is no age.
    let sent = fields.get(b"date").and_then(date).unwrap_or(answered);
    let apparent = Duration::from_secs(answered.seconds().saturating_sub(sent.seconds()));
    apparent.max(Duration::from_secs(told) + since(asked))
}

/// How long it is fresh, and who said so; `None`: it is not to be kept.
pub fn lifetime(
    status: u16,
    fields: &HeaderList,
    (own, targeted): (&Directives, Option<&Directives>),
    settings: &Settings,
    answered: Timestamp,
) -> Option<(Duration, Source)> {
    if let Some((_, wanted)) = settings.by_status.iter().find(|(range, _)| range.contains(&status)) {
        return match wanted {
            StatusLifetime::NotKept => None,
            StatusLifetime::For(time) => Some((*time, Source::Rule)),
        };
    }
    if let EdgeLifetime::Override(time) = settings.edge {
        return Some((time, Source::Rule));
    }
    if let Some(said) = explicit(fields, own, targeted, answered) {
        return Some(said);
    }
    match settings.edge {
        EdgeLifetime::OriginOnly => None,
        EdgeLifetime::RespectOrigin { otherwise: Some(time) } => Some((time, Source::Rule)),
        _ => Some(guessed(status, fields, targeted.unwrap_or(own), settings, answered)),
    }
}

/// What the origin says (section 4.2.1, RFC 9213 section 2.2).
fn explicit(
    fields: &HeaderList,
    own: &Directives,
    targeted: Option<&Directives>,
    answered: Timestamp,
) -> Option<(Duration, Source)> {
    if let Some(targeted) = targeted {
        return targeted.s_maxage.or(targeted.max_age).map(|time| (time, Source::Targeted));
    }
    if let Some(time) = own.s_maxage {
        return Some((time, Source::SMaxage));
    }
    if let Some(time) = own.max_age {
        return Some((time, Source::MaxAge));
    }
    let mut values = fields.all(b"expires");
    let (first, second) = (values.next()?, values.next());
    // Invalid dates, especially "0", are in the past (section 5.3); of two nobody knows which.
    let expires = date(first).filter(|_| second.is_none());
    let sent = fields.get(b"date").and_then(date).unwrap_or(answered);
    let time = expires.map_or(0, |expires| expires.seconds().saturating_sub(sent.seconds()));
    Some((Duration::from_secs(time.min(SECONDS_MOST)), Source::Expires))
}

/// A tenth of the time since it was changed last (section 4.2.2).
fn guessed(
    status: u16,
    fields: &HeaderList,
    directives: &Directives,
    settings: &Settings,
    answered: Timestamp,
) -> (Duration, Source) {
    let may = settings.heuristics && (HEURISTIC.contains(&status) || directives.public);
    let forbidden = !directives.any && fields.all(b"pragma").any(|value| contains_token(value, b"no-cache"));
    let changed = fields.get(b"last-modified").and_then(date);
    let (Some(changed), true, false) = (changed, may, forbidden) else {
        return (Duration::ZERO, Source::Nobody);
    };
    let sent = fields.get(b"date").and_then(date).unwrap_or(answered);
    let tenth = Duration::from_secs(sent.seconds().saturating_sub(changed.seconds()) / 10);
    (tenth.min(GUESSED_MOST), Source::Heuristic)
}
