//! `h1_response`: an origin's answer, read in pieces, whole, and a second time by somebody else.

use edge::h1::parse::{self, Framing};

use crate::codec::{Input, LIMITS, NoHead, fields, text};
use crate::cut;
use crate::second_reading::body::Ending;
use crate::second_reading::response::{Failure, MOST_INTERIM, Response, response};

/// A byte that says whether the request was HEAD, two of seed for the cuts, then what an origin sends.
pub fn run(data: &[u8]) {
    let Some((&to_head, rest)) = data.split_first() else { return };
    let Some((seed, input)) = cut::seed(rest) else { return };
    let to_head = to_head & 1 == 1;
    let whole = exchange(&[input], to_head);
    let in_pieces = exchange(&cut::pieces(seed, input), to_head);
    assert_eq!(in_pieces, whole, "in pieces, and whole: {}", input.escape_ascii());
    let second = response(input, &LIMITS, to_head);
    if whole == second {
        return;
    }
    // What can no longer become a response is refused before its end has come.
    let early = match (&whole, &second) {
        (Err(Failure::Refused), Err(Failure::Incomplete)) => true,
        (Ok(whole), Ok(second)) => {
            let (mut codec, mut other) = (whole.clone(), second.clone());
            (codec.body.ending, other.body.ending) = (Ending::Complete, Ending::Complete);
            (codec.after, other.after) = (0, 0);
            whole.body.ending == Ending::Refused && second.body.ending == Ending::Incomplete && codec == other
        }
        _ => false,
    };
    let shown = input.escape_ascii();
    assert!(early, "codec: {whole:#?}\nsecond reading: {second:#?}\nof: {shown}, to HEAD: {to_head}");
}

/// What the codec makes of an answer, as `h1::client` asks it.
fn exchange(pieces: &[&[u8]], to_head: bool) -> Result<Response, Failure> {
    let mut input = Input::new(pieces);
    let mut interim = Vec::new();
    loop {
        let head = input.head().map_err(|why| match why {
            NoHead::Refused => Failure::Refused,
            NoHead::Nothing | NoHead::Incomplete => Failure::Incomplete,
        })?;
        let parsed = parse::parse_response(&head, &LIMITS, to_head).map_err(|_| Failure::Refused)?;
        let status = parsed.head.status;
        if status < 200 {
            assert_eq!(parsed.framing, Framing::None, "an interim response has no body");
            interim.push(status);
            if status == 101 || interim.len() > MOST_INTERIM {
                return Err(Failure::Refused);
            }
            continue;
        }
        let body = input.body(parsed.framing);
        let usual = || {
            let code = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
            code.unwrap_or_default().to_owned()
        };
        let after = if body.ending == Ending::Complete { input.rest().len() } else { 0 };
        return Ok(Response {
            interim,
            status,
            reason: parsed.head.reason.as_deref().map_or_else(usual, text),
            fields: fields(&parsed.head.headers),
            keep_alive: parsed.keep_alive,
            body,
            after,
        });
    }
}
