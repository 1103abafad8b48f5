//! The phases after the origin: answers in place of errors, header fields, compression, and what is logged.

use std::rc::Rc;

use expr::Phase;
use snapshot::rules::{Algorithm, FieldSource, LoggedField};

use super::act::{self, Decisions, End};
use super::facts::{Announced, Answered, Facts, Timings};
use crate::compress::{self, ROOM_PER_THREAD, Room};
use crate::message::{Body, BodyLength, HeaderList};
use crate::modules;
use crate::pipeline::Response;
use crate::telemetry::bounded_text;
use crate::worker::Worker;

/// Bytes kept of a logged field.
const LOGGED_BYTES: usize = 1024;
/// Fields logged of one request.
const LOGGED_MOST: usize = 64;
/// Fields of an error that stay when another answer takes its place.
const KEPT: [&[u8]; 8] = [
    b"allow",
    b"cf-ray",
    b"date",
    b"rempart-request-id",
    b"retry-after",
    b"server",
    b"via",
    b"www-authenticate",
];
const PHASES: [Phase; 4] =
    [Phase::CustomErrors, Phase::ResponseHeaders, Phase::ResponseCompression, Phase::LogFields];

/// Whether a request's site has rules about responses.
pub fn has_rules(facts: &Facts<'_>) -> bool {
    let rules = &facts.surroundings().site.site.rules;
    !rules.is_empty() && PHASES.iter().any(|phase| rules.phase(*phase).is_some())
}

/// Lets the rules about responses have their word. `raw` are the fields as the origin sent them, `error` is the kind of an error
/// made here, as the rules language names it.
pub fn by_rules<'r>(
    response: &mut Response,
    facts: &Facts<'r>,
    decisions: &Decisions<'r>,
    raw: &HeaderList,
    error: &'static str,
    worker: &Worker,
) {
    let sent = if raw.is_empty() { BodyLength::Absent } else { response.body.length() };
    for phase in PHASES {
        if phase == Phase::CustomErrors && response.head.status < 400 {
            continue;
        }
        let milliseconds = |duration: std::time::Duration| u64::try_from(duration.as_millis()).ok();
        let timings = Timings {
            edge: milliseconds(facts.surroundings().started.elapsed()),
            origin: response.trail.origin_wait().and_then(milliseconds),
        };
        let effects = {
            let announced = Announced { now: response.body.length(), raw: sent };
            let answered = Answered::new(facts, &response.head, raw, error, timings, announced);
            modules::after_upstream(phase, &answered, decisions, worker, &mut response.trail)
        };
        let Some(mut effects) = effects else { continue };
        if let Some(End::Error(answer)) = &effects.end {
            replace(response, answer);
        }
        effects.on_response(&mut response.head);
        if let Some(wanted) = effects.compress {
            compress(response, facts, wanted);
        }
        for field in effects.logged.into_iter().take(LOGGED_MOST) {
            log(response, facts, raw, field);
        }
    }
}

/// Compresses the body as a rule says and the visitor accepts.
fn compress(response: &mut Response, facts: &Facts<'_>, wanted: &[Algorithm]) {
    thread_local! {
        static ROOM: Rc<Room> = Room::new(ROOM_PER_THREAD);
    }
    let asked = facts.received_headers().unwrap_or(&facts.head().headers);
    let body = std::mem::take(&mut response.body);
    let (lines, method) = (asked.all(b"accept-encoding"), &facts.head().method);
    response.body = ROOM.with(|room| compress::apply(wanted, lines, method, &mut response.head, body, room));
}

/// Puts another answer in the place of an error.
fn replace(response: &mut Response, answer: &snapshot::rules::Answer) {
    let status = response.head.status;
    let own = act::written(answer, status);
    let mut head = own.head;
    for (name, value) in response
        .head
        .headers
        .iter()
        .filter(|(name, _)| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name)))
    {
        head.headers.push(name, value);
    }
    response.head = head;
    response.body = Body::Full(own.body);
    let status = response.head.status;
    response.trail.note(|event| event.status = status);
}

fn log(response: &mut Response, facts: &Facts<'_>, raw: &HeaderList, field: &LoggedField) {
    let name = field.name.as_bytes();
    let lines = |headers: &HeaderList| -> Vec<u8> {
        let mut lines = headers.all(name);
        if field.all {
            lines.collect::<Vec<_>>().join(&b", "[..])
        } else {
            lines.next().unwrap_or_default().to_vec()
        }
    };
    let value = match field.from {
        FieldSource::Request => facts.received_headers().map_or_else(|| lines(&facts.head().headers), lines),
        FieldSource::TransformedRequest => lines(&facts.head().headers),
        FieldSource::Response => lines(&response.head.headers),
        FieldSource::RawResponse => lines(raw),
        FieldSource::Cookie => facts.cookie(name).unwrap_or_default().to_vec(),
    };
    if value.is_empty() {
        return;
    }
    let key = format!("{}.{}", field.from.name(), field.name).into_boxed_str();
    let value = bounded_text(&value, LOGGED_BYTES);
    response.trail.note(|event| event.fields.push((key, value)));
}
