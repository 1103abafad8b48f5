//! The smallest cache that these rules make: one list of stored responses, an origin that answers what it is told to.

use base::headers::HeaderList;
use base::time::Timestamp;

use super::super::keep::{Why, combines, confirms, freshen, head_agrees, keep};
use super::super::key::{Key, Secret};
use super::super::reuse::{Failure, Reuse, conditional, instead_of, only_if_cached, reuse};
use super::super::serve::{Body, serve};
use super::super::settings::Settings;
use super::super::stored::Stored;
use super::super::{Request, Response, Visitor, invalidate, range};

/// What an origin answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0: it cannot be reached.
    pub status: u16,
    pub fields: HeaderList,
    /// Names this body.
    pub body: u64,
}

/// What a visitor gets.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub fields: HeaderList,
    /// Which body, and whether it comes from the cache.
    pub body: u64,
    pub part: Option<Body>,
    /// `hit`, `stale`, `updating`, `validated`, `origin`, `none`.
    pub how: &'static str,
    /// What the origin was asked with, when it was.
    pub asked: Option<HeaderList>,
    pub why: Option<Why>,
}

pub struct Cache {
    pub settings: Settings,
    pub stored: Vec<(Stored, u64)>,
    pub now: Timestamp,
}

pub fn fields(lines: &[(&str, &str)]) -> HeaderList {
    let mut fields = HeaderList::default();
    lines.iter().for_each(|(name, value)| fields.push(name, value));
    fields
}

impl Cache {
    pub fn new(settings: Settings) -> Self {
        Self { settings, stored: Vec::new(), now: Timestamp(1_780_272_000_000_000) }
    }

    pub fn ask(&mut self, method: &str, target: &str, sent: &HeaderList, answer: &Answer) -> Got {
        let request = Request {
            method: method.as_bytes(),
            scheme: b"https",
            host: b"a.test",
            target: target.as_bytes(),
            fields: sent,
            visitor: Visitor::default(),
        };
        let key = Key::new("a", &request, &self.settings.key, &Secret([1; 16])).text;
        let readable = matches!(method, "GET" | "HEAD") && self.settings.eligible != Some(false);
        let found = self.stored.iter().position(|(stored, _)| {
            let language = stored.fields.get(b"content-language");
            readable && stored.key == key && stored.selecting.selects(sent, language)
        });
        let Some(at) = found else {
            if only_if_cached(&request) {
                return self.nothing(504);
            }
            return self.forward(&request, &key, answer, sent.clone());
        };
        let stored = self.stored[at].0.clone();
        match reuse(&stored, &request, &self.settings, self.now, false) {
            Reuse::Fresh if self.holds(&stored, &request) => self.answer_stored(at, &request, "hit"),
            Reuse::StaleByWish if self.holds(&stored, &request) => self.answer_stored(at, &request, "stale"),
            Reuse::StaleWhileRevalidate if self.holds(&stored, &request) => {
                self.answer_stored(at, &request, "updating")
            }
            Reuse::Fresh | Reuse::StaleByWish | Reuse::StaleWhileRevalidate => {
                self.forward(&request, &key, answer, sent.clone())
            }
            Reuse::Ask => self.validate(at, &request, answer),
        }
    }

    fn holds(&self, stored: &Stored, request: &Request<'_>) -> bool {
        match (&stored.held, stored.length) {
            (range::Held::Whole, _) => true,
            (_, Some(length)) => match range::wanted(request.fields, length) {
                range::Wanted::Spans(spans) => spans.iter().all(|span| stored.held.has(*span)),
                _ => false,
            },
            _ => false,
        }
    }

    fn validate(&mut self, at: usize, request: &Request<'_>, answer: &Answer) -> Got {
        let stored = self.stored[at].0.clone();
        let asked = conditional(request.fields, &stored);
        let response = Response { status: answer.status, fields: &answer.fields };
        let failure = match answer.status {
            0 => Some(Failure::Unreachable),
            status => (status >= 500).then_some(Failure::Status(status)),
        };
        if failure.is_some_and(|failure| instead_of(&stored, failure, &self.settings, self.now)) {
            return Got { asked: Some(asked), ..self.answer_stored(at, request, "stale") };
        }
        let matches = answer.status == 304 && confirms(&stored, &response);
        let times = (self.now, self.now);
        if matches && let Ok(new) = freshen(&stored, request, &response, &self.settings, times) {
            self.stored[at].0 = *new;
            return Got { asked: Some(asked), ..self.answer_stored(at, request, "validated") };
        }
        let key = stored.key.clone();
        self.forward(request, &key, answer, asked)
    }

    fn answer_stored(&self, at: usize, request: &Request<'_>, how: &'static str) -> Got {
        let (stored, body) = &self.stored[at];
        let served = serve(stored, request, &self.settings, self.now, "boundary");
        Got {
            status: served.status,
            fields: served.fields,
            body: *body,
            part: Some(served.body),
            how,
            asked: None,
            why: None,
        }
    }

    fn nothing(&self, status: u16) -> Got {
        Got {
            status,
            fields: HeaderList::default(),
            body: 0,
            part: None,
            how: "none",
            asked: None,
            why: None,
        }
    }

    fn forward(&mut self, request: &Request<'_>, key: &[u8], answer: &Answer, asked: HeaderList) -> Got {
        if answer.status == 0 {
            return Got { asked: Some(asked), ..self.nothing(502) };
        }
        let response = Response { status: answer.status, fields: &answer.fields };
        for target in invalidate::invalidates(request, &response) {
            let gone = Key::of_target("a", request, &target, &self.settings.key, &Secret([1; 16])).text;
            self.stored.retain(|(stored, _)| stored.key != gone);
        }
        let times = (self.now, self.now);
        let why = match request.method {
            b"HEAD" => {
                for (stored, _) in self.stored.iter_mut().filter(|(stored, _)| *stored.key == *key) {
                    if head_agrees(stored, &response) {
                        if let Ok(new) = freshen(stored, request, &response, &self.settings, times) {
                            *stored = *new;
                        }
                    } else {
                        stored.lifetime = Default::default();
                    }
                }
                None
            }
            _ => match keep(request, &response, key, &self.settings, times) {
                Ok(new) => {
                    self.put(*new, answer.body, &response);
                    None
                }
                Err(why) => Some(why),
            },
        };
        Got {
            status: answer.status,
            fields: answer.fields.clone(),
            body: answer.body,
            part: None,
            how: "origin",
            asked: Some(asked),
            why,
        }
    }

    fn put(&mut self, mut new: Stored, body: u64, response: &Response<'_>) {
        let same = |stored: &Stored| stored.key == new.key && stored.selecting == new.selecting;
        if let Some(at) = self.stored.iter().position(|(stored, _)| same(stored)) {
            let (old, _) = self.stored.swap_remove(at);
            if let (range::Held::Pieces(pieces), true) = (&new.held.clone(), combines(&old, response)) {
                new.held =
                    pieces.iter().try_fold(old.held, |held, piece| held.with(*piece, new.length)).unwrap();
            }
        }
        self.stored.push((new, body));
    }
}
