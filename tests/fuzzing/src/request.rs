//! `h1_request`: one connection's requests, read in pieces, whole, and a second time by somebody else.

use base::event::Protocol;
use edge::h1::parse::{self, Framing};

use crate::codec::{Input, LIMITS, NoHead, fields};
use crate::second_reading::body::{Body, Ending};
use crate::second_reading::head::{self, Reading};
use crate::second_reading::message::{self, End, Request, Wishes};
use crate::{cut, origin};

/// Two bytes of seed for the cuts, then what a client sends.
pub fn run(data: &[u8]) {
    let Some((seed, input)) = cut::seed(data) else { return };
    let whole = connection(&[input]);
    let in_pieces = connection(&cut::pieces(seed, input));
    assert_eq!(in_pieces, whole, "in pieces, and whole: {}", input.escape_ascii());
    let second = message::requests(input, &LIMITS);
    agree(&whole, &second, input);
    for request in &whole.0 {
        origin::check(request);
    }
}

/// The codec may refuse what can no longer become a request before its end has come; otherwise both say the same.
fn agree(codec: &(Vec<Request>, End), second: &(Vec<Request>, End), input: &[u8]) {
    if *codec == *second {
        return;
    }
    let early = codec.1 == End::Refused && second.1 == End::Within;
    let without_ending = |requests: &[Request]| {
        let shown: Vec<String> = requests
            .iter()
            .map(|it| format!("{:?} {:?} {:?} {:?}", it.head, it.wishes, it.body.content, it.body.trailers))
            .collect();
        shown
    };
    let same = early && without_ending(&codec.0) == without_ending(&second.0);
    assert!(same, "codec: {codec:#?}\nsecond reading: {second:#?}\nof: {}", input.escape_ascii());
}

/// The requests the codec sees on a connection.
fn connection(pieces: &[&[u8]]) -> (Vec<Request>, End) {
    let mut input = Input::new(pieces);
    let mut requests = Vec::new();
    loop {
        input.skip_empty_lines(message::EMPTY_LINES);
        let head = match input.head() {
            Ok(head) => head,
            Err(NoHead::Nothing) => return (requests, End::Between),
            Err(NoHead::Incomplete) => return (requests, End::Within),
            Err(NoHead::Refused) => return (requests, End::Refused),
        };
        let Ok(parsed) = parse::parse_request(&head, &LIMITS) else { return (requests, End::Refused) };
        let body = input.body(parsed.framing);
        let (ending, last) = (body.ending, !parsed.keep_alive || parsed.head.upgrade.is_some());
        requests.push(request(parsed, body));
        match ending {
            Ending::Complete if last => return (requests, End::Closed(input.rest().len())),
            Ending::Complete => {}
            Ending::Incomplete => return (requests, End::Within),
            Ending::Refused => return (requests, End::Refused),
        }
    }
}

/// The codec's view in the words of the second reading.
fn request(parsed: parse::ParsedRequest, body: Body) -> Request {
    // Whether the target names https is asked only of connections without TLS.
    let parse::ParsedRequest { head, framing, keep_alive, names_https: _ } = parsed;
    Request {
        wishes: Wishes {
            upgrade: head.upgrade.as_deref().map(str::to_owned),
            to_continue: head.expects_continue,
            trailers: head.accepts_trailers,
        },
        head: Reading {
            method: head.method.as_str().to_owned(),
            authority: head.authority,
            target: head.target,
            http10: head.protocol == Protocol::Http10,
            fields: fields(&head.headers),
            body: match framing {
                Framing::None => head::Body::None,
                Framing::Length(length) => head::Body::Length(length),
                Framing::Chunked => head::Body::Chunked,
                Framing::Close => panic!("a request does not end with its connection"),
            },
            keep_alive,
        },
        body,
    }
}
