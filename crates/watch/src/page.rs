//! The status page: the same view as HTML, as JSON in the shape of Statuspage's API, and as an Atom feed.

mod atom;
mod html;
mod statuspage;

pub use statuspage::time;

use crate::view::View;
use crate::words::Language;

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// Answers a path; `None`: there is nothing.
pub fn answer(path: &str, accept_language: &str, view: &View<'_>) -> Option<Answer> {
    let json =
        |value: serde_json::Value| Some(Answer { content_type: "application/json", body: value.to_string() });
    match path {
        "/" => {
            let body = html::page(view, Language::negotiate(accept_language));
            Some(Answer { content_type: "text/html; charset=utf-8", body })
        }
        "/history.atom" => {
            Some(Answer { content_type: "application/atom+xml; charset=utf-8", body: atom::feed(view) })
        }
        "/api/v2/summary.json" => json(statuspage::summary(view)),
        "/api/v2/status.json" => json(statuspage::status(view)),
        "/api/v2/components.json" => json(statuspage::components(view)),
        "/api/v2/incidents.json" => json(statuspage::incidents(view, false)),
        "/api/v2/incidents/unresolved.json" => json(statuspage::incidents(view, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
