//! What rules see of a response.

use std::cell::OnceCell;

use expr::{Context, Fetched, FieldId, List, Map, Value};

use super::{Facts, parse, table, text};
use crate::message::{BodyLength, HeaderList, ResponseHead};

/// How long parts of a request took, in milliseconds; `None` where that is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From the request's head to now.
    pub edge: Option<u64>,
    /// From the request's head to the origin's first byte.
    pub origin: Option<u64>,
}

/// What heads announce of bodies: framing is no longer among the header fields.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    /// The response as it is now.
    pub now: BodyLength,
    /// The response as the origin sent it.
    pub raw: BodyLength,
}

impl Announced {
    /// Neither has a body.
    pub const NOTHING: Self = Self { now: BodyLength::Absent, raw: BodyLength::Absent };
}

/// A request with its response, for the phases after the origin.
pub struct Answered<'f, 'r> {
    facts: &'f Facts<'r>,
    head: &'f ResponseHead,
    raw: &'f HeaderList,
    error: &'static str,
    timings: Timings,
    announced: Announced,
    headers: OnceCell<parse::Headers>,
    raw_headers: OnceCell<parse::Headers>,
    media_type: OnceCell<Vec<u8>>,
}

impl<'f, 'r> Answered<'f, 'r> {
    /// A request with its response as it is now, and its fields as the origin sent them. `error` is the kind of an error made
    /// here, as the language names it; empty when the response is none.
    pub fn new(
        facts: &'f Facts<'r>,
        head: &'f ResponseHead,
        raw: &'f HeaderList,
        error: &'static str,
        timings: Timings,
        announced: Announced,
    ) -> Self {
        Self {
            facts,
            head,
            raw,
            error,
            timings,
            announced,
            headers: OnceCell::new(),
            raw_headers: OnceCell::new(),
            media_type: OnceCell::new(),
        }
    }

    /// The request.
    pub fn facts(&self) -> &'f Facts<'r> {
        self.facts
    }

    fn now(&self) -> &parse::Headers {
        self.headers.get_or_init(|| parse::Headers::of(self.head.headers.iter(), None, self.announced.now))
    }

    fn received(&self) -> &parse::Headers {
        self.raw_headers.get_or_init(|| parse::Headers::of(self.raw.iter(), None, self.announced.raw))
    }
}

fn int(value: Option<u64>) -> Fetched<'static> {
    let value = value.and_then(|value| i64::try_from(value).ok());
    value.map_or(Fetched::Unknown, |value| Fetched::Value(Value::Int(value)))
}

impl Context for Answered<'_, '_> {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        if let Some(read) = table::of(field) {
            return read(self.facts);
        }
        let strings = |list| Fetched::Value(Value::Array(expr::Array::Kept(list)));
        match field.field().name {
            "http.response.code" => int(Some(self.head.status.into())),
            "http.response.headers" => Fetched::Value(Value::Map(Map::Grouped(&self.now().pairs))),
            "http.response.headers.names" => strings(&self.now().names),
            "http.response.headers.values" => strings(&self.now().values),
            "raw.http.response.headers" => Fetched::Value(Value::Map(Map::Grouped(&self.received().pairs))),
            "raw.http.response.headers.names" => strings(&self.received().names),
            "raw.http.response.headers.values" => strings(&self.received().values),
            "http.response.content_type.media_type" => {
                let kind = self.head.headers.get(b"content-type").unwrap_or_default();
                text(self.media_type.get_or_init(|| parse::media_type(kind)))
            }
            "cf.response.1xxx_code" => int(Some(0)),
            "cf.response.error_type" => text(self.error.as_bytes()),
            "cf.timings.edge_msec" => int(self.timings.edge),
            "cf.timings.origin_ttfb_msec" => int(self.timings.origin),
            "cf.timings.worker_msec" => int(Some(0)),
            _ => Fetched::Unknown,
        }
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        self.facts.list(name)
    }

    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
        self.facts.hmac_sha256(key, message)
    }
}
