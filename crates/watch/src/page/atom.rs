//! The Atom feed of incidents (RFC 4287).

use base::happening::Severity;
use maud::{Markup, PreEscaped, html};

use super::statuspage::time;
use crate::incident::Incident;
use crate::view::View;
use crate::words::Language;

/// Entries in the feed, newest first.
const MAX_ENTRIES: usize = 50;

/// The feed.
pub fn feed(view: &View<'_>) -> String {
    let newest = view.incidents.all().iter().rev().take(MAX_ENTRIES);
    let updated = newest.clone().map(|it| it.resolved.unwrap_or(it.last)).max().unwrap_or(view.since);
    let markup = html! {
        (PreEscaped(r#"<?xml version="1.0" encoding="utf-8"?>"#))
        feed xmlns="http://www.w3.org/2005/Atom" {
            id { "urn:rempart:status" }
            title { (view.title) }
            updated { (time(updated)) }
            author { name { "Rempart" } }
            @for incident in newest { (entry(incident)) }
        }
    };
    markup.into_string()
}

fn entry(incident: &Incident) -> Markup {
    let severity = match incident.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let category = PreEscaped(format!(r#"<category term="{severity}"/>"#));
    html! {
        entry {
            id { "urn:rempart:incident:" (incident.id) }
            title { (Language::English.title(incident)) @if !incident.is_open() { " (resolved)" } }
            updated { (time(incident.resolved.unwrap_or(incident.last))) }
            published { (time(incident.began)) }
            (category)
            content type="text" { @for update in &incident.updates { (time(update.at)) " " (update.text) "\n" } }
        }
    }
}
