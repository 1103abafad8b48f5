//! What becomes of a request by the rules that match it: worked out under the budget of their module, carried out afterwards.

use std::borrow::Cow;
use std::sync::Arc;

use base::module::OverBudget;
use bytes::Bytes;
use expr::{Context, Fetched, Phase, Steps, Value, ValueExpression};
use smallvec::SmallVec;
use snapshot::desired::rules::CacheSettings;
use snapshot::routes::Route;
use snapshot::rules::{
    Action, Algorithm, Answer, HeaderOperation, LoggedField, PhaseRules, Redirect, STEPS_PER_RULE, Settings,
    Text,
};

use super::facts::Facts;
use super::walk::{Fate, Found, Founds, Skipped, Switches, walk};
use crate::message::{HeaderList, ResponseHead};
use crate::modules::Meter;
use crate::pipeline::Own;

/// Bytes a rule may make of a URL, a path or a header value; what is longer is not used.
const TEXT_MOST: usize = 16 << 10;

/// What rules have decided about a request so far.
#[derive(Default)]
pub struct Decisions<'s> {
    /// What is left out.
    pub skipped: Skipped<'s>,
    /// Settings for this request.
    pub settings: Settings,
    /// Where its origin is, and under what name, as far as rules say.
    pub route: Option<Cow<'s, Route>>,
    /// How the response may be kept, the last word last.
    pub cache: SmallVec<[Arc<CacheSettings>; 1]>,
}

/// What a phase makes of a request.
#[derive(Debug, Default)]
pub struct Effects<'s> {
    /// The rules that are carried out or noted.
    pub found: Founds<'s>,
    /// The end of the request's way, if one of them ends it.
    pub end: Option<End>,
    path: Option<String>,
    query: Option<String>,
    headers: Vec<(&'s str, Change)>,
    settings: Settings,
    route: Option<Cow<'s, Route>>,
    cache: SmallVec<[Arc<CacheSettings>; 1]>,
    /// How the response is to be compressed.
    pub compress: Option<&'s Arc<[Algorithm]>>,
    /// Fields to be logged.
    pub logged: Vec<&'s LoggedField>,
}

/// How rules end a request's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is turned away; with an answer of the rule, or a page.
    Block(Option<Arc<Answer>>),
    /// The visitor is to show that it is human.
    Challenge,
    /// It is sent elsewhere.
    Redirect {
        /// `Location`.
        location: Vec<u8>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// An error is answered like this.
    Error(Arc<Answer>),
}

#[derive(Clone, Debug)]
enum Change {
    Add(Vec<u8>),
    Set(Vec<u8>),
    Remove,
}

/// Works out what the rules of a phase make of a request. `facts` is the request, `context` the same with its response where
/// there is one.
pub fn decide<'s>(
    rules: &'s PhaseRules,
    facts: &Facts<'_>,
    context: &dyn Context,
    skipped: &mut Skipped<'s>,
    switches: &dyn Switches,
    meter: &mut Meter,
) -> Result<Effects<'s>, OverBudget> {
    let found = walk(rules, context, skipped, switches, meter)?;
    let mut effects = Effects::default();
    for Found { rule, .. } in found.iter().filter(|found| found.fate == Fate::Enforced) {
        match &rule.action {
            Action::Log | Action::Skip(_) | Action::Execute(_) => {}
            Action::Block(answer) => effects.end = Some(End::Block(answer.clone())),
            Action::Challenge(_) => effects.end = Some(End::Challenge),
            Action::Redirect(redirect) => effects.end = to(redirect, facts, context),
            Action::RedirectFromList { list, key } => effects.end = from_list(list, key, facts, context),
            Action::RewriteUri { path, query } => {
                let made = path.as_ref().and_then(|path| make(path, context));
                effects.path = made.map(|path| url_part(&path, b"?#", true)).or(effects.path.take());
                let made = query.as_ref().and_then(|query| make(query, context));
                effects.query = made.map(|query| url_part(&query, b"#", false)).or(effects.query.take());
            }
            Action::RewriteHeaders(changes) => {
                effects.headers.extend(
                    changes.iter().filter_map(|change| {
                        Some((&*change.name, header_change(&change.operation, context)?))
                    }),
                );
            }
            Action::Route(route) => {
                effects.route = Some(together(effects.route.take(), Cow::Borrowed(route)))
            }
            Action::SetConfig(settings) => effects.settings = effects.settings.then(*settings),
            Action::SetCacheSettings(settings) => effects.cache.push(settings.clone()),
            Action::Compress(algorithms) => effects.compress = Some(algorithms),
            Action::ServeError(answer) => effects.end = Some(End::Error(answer.clone())),
            Action::LogFields(fields) => effects.logged.extend(fields.iter()),
        }
    }
    effects.found = found;
    Ok(effects)
}

impl<'s> Effects<'s> {
    /// Carries out what concerns the request.
    pub fn on_request(&mut self, facts: &mut Facts<'_>, decisions: &mut Decisions<'s>) {
        if self.path.is_some() || self.query.is_some() {
            let (sent_path, sent_query) = facts.sent();
            let path = self.path.take().unwrap_or_else(|| sent_path.to_owned());
            let query = self.query.take().unwrap_or_else(|| sent_query.to_owned());
            let question = if query.is_empty() { "" } else { "?" };
            // `*` asks about the server as a whole (RFC 9110 section 9.3.7) and has no path to change.
            if facts.head().target != "*" {
                facts.rewrite(format!("{path}{question}{query}"));
            }
        }
        if !self.headers.is_empty() {
            edit(facts.headers_mut(), &mut self.headers);
        }
        decisions.settings = decisions.settings.then(self.settings);
        if let Some(route) = self.route.take() {
            decisions.route = Some(together(decisions.route.take(), route));
        }
        decisions.cache.append(&mut self.cache);
    }

    /// Carries out what concerns the head of the response.
    pub fn on_response(&mut self, head: &mut ResponseHead) {
        edit(&mut head.headers, &mut self.headers);
    }
}

/// What the rules so far and one more say. Hardly ever more than one has something to say, and then nothing is copied.
fn together<'s>(earlier: Option<Cow<'s, Route>>, later: Cow<'s, Route>) -> Cow<'s, Route> {
    match earlier {
        None => later,
        Some(earlier) => Cow::Owned(earlier.then(&later)),
    }
}

/// The answer of an end that needs no page; `None` for one that does.
pub fn answer(end: &End) -> Option<Own> {
    match end {
        End::Block(Some(answer)) => Some(written(answer, 403)),
        End::Error(answer) => Some(written(answer, 500)),
        End::Redirect { location, status } => {
            let mut head = ResponseHead::new(*status);
            head.headers.push("Location", location);
            head.headers.push("Cache-Control", "no-store");
            Some(Own { head, body: Bytes::new() })
        }
        End::Block(None) | End::Challenge => None,
    }
}

/// An answer written out in a rule; `usual` is its status where it names none.
pub fn written(answer: &Answer, usual: u16) -> Own {
    let mut head = ResponseHead::new(answer.status.unwrap_or(usual));
    head.headers.push("Content-Type", &*answer.content_type);
    head.headers.push("X-Content-Type-Options", "nosniff");
    head.headers.push("Cache-Control", "no-store");
    Own { head, body: Bytes::copy_from_slice(&answer.content) }
}

fn edit(headers: &mut HeaderList, changes: &mut Vec<(&str, Change)>) {
    for (name, change) in changes.drain(..) {
        match change {
            Change::Add(value) => headers.push(name, value),
            Change::Set(value) => {
                headers.remove(name.as_bytes());
                headers.push(name, value);
            }
            Change::Remove => headers.remove(name.as_bytes()),
        }
    }
}

/// A field that would be empty is not sent. Where a field is to be set and its value is not known, or cannot stand in a field,
/// there is none: what the visitor sent under that name must not pass for what the rule would have said.
fn header_change(operation: &HeaderOperation, context: &dyn Context) -> Option<Change> {
    let (text, add) = match operation {
        HeaderOperation::Remove => return Some(Change::Remove),
        HeaderOperation::Add(text) => (text, true),
        HeaderOperation::Set(text) => (text, false),
    };
    let made = make(text, context).unwrap_or_default();
    let value = made.trim_ascii();
    // RFC 9110 section 5.5: CR, LF and NUL end more than a field; other controls help nobody.
    let good = !value.is_empty() && !value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    match (good, add) {
        (true, true) => Some(Change::Add(value.to_vec())),
        (true, false) => Some(Change::Set(value.to_vec())),
        (false, true) => None,
        (false, false) => Some(Change::Remove),
    }
}

/// The text; nothing when it is not known, or too long. A value that is missing is empty, as in Cloudflare's `concat`.
fn make<'t>(text: &'t Text, context: &'t dyn Context) -> Option<Cow<'t, [u8]>> {
    let made = match text {
        Text::Value(value) => Cow::Borrowed(value.as_bytes()),
        Text::Made(expression) => match expression.evaluate(context, &mut Steps::new(STEPS_PER_RULE)) {
            Fetched::Value(Value::Bytes(bytes)) => bytes,
            Fetched::Missing => Cow::Borrowed(&b""[..]),
            Fetched::Value(_) | Fetched::Unknown => return None,
        },
    };
    (made.len() <= TEXT_MOST).then_some(made)
}

fn to(redirect: &Redirect, facts: &Facts<'_>, context: &dyn Context) -> Option<End> {
    let made = make(&redirect.target, context)?;
    let mut location = url_part(&made, b"", false).into_bytes();
    if location.is_empty() {
        return None;
    }
    let query = facts.query();
    if redirect.keep_query && !query.is_empty() {
        location.push(if location.contains(&b'?') { b'&' } else { b'?' });
        location.extend_from_slice(query.as_bytes());
    }
    Some(End::Redirect { location, status: redirect.status })
}

/// Where the list sends this request, if it has it. Without the list nobody knows, and the request goes on.
fn from_list(list: &str, key: &ValueExpression, facts: &Facts<'_>, context: &dyn Context) -> Option<End> {
    let Fetched::Value(Value::Bytes(uri)) = key.evaluate(context, &mut Steps::new(STEPS_PER_RULE)) else {
        return None;
    };
    let (location, status) = facts.lists().redirects(list)?.find(std::str::from_utf8(&uri).ok()?)?;
    Some(End::Redirect { location: location.into_bytes(), status })
}

/// Bytes as they may stand in a URL (RFC 3986 section 2.1): all but visible ASCII, and what would mean something else here, is
/// percent-encoded. A path begins with a slash.
fn url_part(bytes: &[u8], special: &[u8], path: bool) -> String {
    let mut out = String::with_capacity(bytes.len() + 1);
    if path && !bytes.starts_with(b"/") {
        out.push('/');
    }
    for &byte in bytes {
        if byte.is_ascii_graphic() && !special.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Whether a phase has rules, and nobody skips it.
pub fn rules_of<'s>(facts: &Facts<'s>, decisions: &Decisions<'_>, phase: Phase) -> Option<&'s PhaseRules> {
    let rules = facts.surroundings().site.site.rules.phase(phase)?;
    (!decisions.skipped.phase(phase)).then_some(rules)
}

#[cfg(test)]
mod tests {
    use expr::{FieldId, List};

    use super::*;

    /// Every text field is this one; nothing else is known.
    struct Only(Option<&'static [u8]>);

    impl Context for Only {
        fn field(&self, field: FieldId) -> Fetched<'_> {
            match (field.field().kind, self.0) {
                (expr::Type::Bytes, Some(bytes)) => Fetched::Value(Value::text(bytes)),
                _ => Fetched::Unknown,
            }
        }

        fn list(&self, _: &str) -> Option<&dyn List> {
            None
        }
    }

    fn made(source: &str) -> Text {
        Text::Made(Arc::new(expr::ValueExpression::parse(source, &expr::Options::default()).unwrap()))
    }

    #[test]
    fn what_cannot_stand_in_a_field_or_is_not_known_takes_the_visitors_word_away() {
        let set = HeaderOperation::Set(made("http.request.uri.path"));
        for (value, expected) in [
            (Some(&b" a\tb "[..]), Some(&b"a\tb"[..])),
            (Some(b"a\r\nX-Evil: 1"), None),
            (Some(b"a\0"), None),
            (Some(b""), None),
            (None, None),
        ] {
            let mut headers = HeaderList::default();
            headers.push("x-path", "what the visitor says");
            let mut changes = vec![("X-Path", header_change(&set, &Only(value)).unwrap())];
            edit(&mut headers, &mut changes);
            assert_eq!(headers.get(b"x-path"), expected, "{value:?}");
        }
        let add = HeaderOperation::Add(made("http.request.uri.path"));
        assert!(header_change(&add, &Only(None)).is_none());
    }

    #[test]
    fn urls_are_made_safe_to_send() {
        for (bytes, special, path, expected) in [
            (&b"/a b"[..], &b"?#"[..], true, "/a%20b"),
            (b"a?b#c", b"?#", true, "/a%3Fb%23c"),
            (b"x=1#y", b"#", false, "x=1%23y"),
            (b"https://a.test/\r\nSet-Cookie: a", b"", false, "https://a.test/%0D%0ASet-Cookie:%20a"),
            (b"/\xc3\xa4", b"", true, "/%C3%A4"),
            (b"", b"", true, "/"),
        ] {
            assert_eq!(url_part(bytes, special, path), expected);
        }
    }
}
