//! A JSON API of notes: list, write, read, replace, delete; all in memory, and bounded.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::reply::{self, Reply, method_not_allowed, with};
use super::{Site, forms, pages};

/// Address of the list.
pub const ROOT: &str = "/api/notes";
/// What the address of a note begins with; its number follows.
pub const PREFIX: &str = "/api/notes/";
/// Notes kept at the same time.
const MAX_NOTES: usize = 100;
/// Longest note, in characters.
const MAX_CHARACTERS: usize = 2000;

/// The notes, by number. A number is never used again.
#[derive(Debug, Default)]
pub struct Notes {
    last: u64,
    by_number: BTreeMap<u64, String>,
}

/// Everything under `/api/notes`.
pub async fn answer(request: Request<Incoming>, site: &Site) -> Reply {
    let method = request.method().clone();
    let number = match request.uri().path().strip_prefix(PREFIX) {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Some(number),
            Err(_) => return no_such_note(),
        },
    };
    let text = match (&method, number) {
        (&Method::POST, None) | (&Method::PUT, Some(_)) => match text_of(request).await {
            Ok(text) => text,
            Err(reply) => return reply,
        },
        _ => String::new(),
    };
    let Ok(mut notes) = site.notes.lock() else { return pages::failed() };
    match (method, number) {
        (Method::GET | Method::HEAD, None) => notes.list(),
        (Method::POST, None) => notes.write(text),
        (_, None) => method_not_allowed("GET, HEAD, POST"),
        (Method::GET | Method::HEAD, Some(number)) => notes.read(number),
        (Method::PUT, Some(number)) => notes.replace(number, text),
        (Method::DELETE, Some(number)) => notes.delete(number),
        (_, Some(_)) => method_not_allowed("GET, HEAD, PUT, DELETE"),
    }
}

impl Notes {
    fn list(&self) -> Reply {
        let notes: Vec<Value> = self.by_number.iter().map(|(number, text)| note(*number, text)).collect();
        reply::json(StatusCode::OK, &json!({ "notes": notes, "room_for": MAX_NOTES - notes.len() }))
    }

    fn write(&mut self, text: String) -> Reply {
        if self.by_number.len() >= MAX_NOTES {
            return problem(StatusCode::CONFLICT, "There are 100 notes already. Delete one first.");
        }
        self.last += 1;
        let written = reply::json(StatusCode::CREATED, &note(self.last, &text));
        self.by_number.insert(self.last, text);
        with(written, header::LOCATION, format!("{PREFIX}{}", self.last))
    }

    fn read(&self, number: u64) -> Reply {
        match self.by_number.get(&number) {
            Some(text) => reply::json(StatusCode::OK, &note(number, text)),
            None => no_such_note(),
        }
    }

    fn replace(&mut self, number: u64, text: String) -> Reply {
        match self.by_number.get_mut(&number) {
            Some(kept) => {
                *kept = text;
                reply::json(StatusCode::OK, &note(number, kept))
            }
            None => no_such_note(),
        }
    }

    fn delete(&mut self, number: u64) -> Reply {
        match self.by_number.remove(&number) {
            Some(_) => {
                let mut gone = reply::uncached(reply::text(StatusCode::NO_CONTENT, ""));
                *gone.body_mut() = Default::default();
                gone.headers_mut().remove(header::CONTENT_TYPE);
                gone
            }
            None => no_such_note(),
        }
    }
}

fn note(number: u64, text: &str) -> Value {
    json!({ "number": number, "text": text, "href": format!("{PREFIX}{number}") })
}

/// The `text` member of the JSON object sent, or the answer to give instead.
async fn text_of(request: Request<Incoming>) -> Result<String, Reply> {
    if !forms::is_of_type(&request, "application/json") {
        return Err(problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send application/json: {\"text\": \"...\"}.",
        ));
    }
    let body: Bytes = forms::body(request).await?;
    let object: Value = serde_json::from_slice(&body).unwrap_or_default();
    match object.get("text").and_then(Value::as_str) {
        Some(text) if text.chars().count() <= MAX_CHARACTERS => Ok(text.to_owned()),
        Some(_) => Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "A note has 2000 characters at most.")),
        None => {
            Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "Send an object with a text: {\"text\": \"...\"}."))
        }
    }
}

fn no_such_note() -> Reply {
    problem(StatusCode::NOT_FOUND, "There is no note of that number.")
}

/// An error of the website's own, in the same form Rempart uses for its own (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or_default();
    let value = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    with(reply::json(status, &value), header::CONTENT_TYPE, "application/problem+json")
}
