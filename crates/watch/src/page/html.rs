//! The page for people: one document without script or anything fetched, which asks for itself again every half minute.

use base::happening::Severity;
use base::time::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::statuspage::time;
use crate::incident::{Incident, Suspect, Turn};
use crate::view::{Part, Status, View};
use crate::words::Language;

/// Seconds until the page asks for itself again.
const REFRESH: u32 = 30;
/// Incidents shown that last, and that are over.
const MAX_OPEN: usize = 100;
const MAX_OVER: usize = 20;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(view: &View<'_>, language: Language) -> String {
    let overall = view.overall();
    let markup = html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                meta name="robots" content="noindex";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content=(REFRESH);
                link rel="icon" href="data:,";
                title { (language.overall(overall)) " · " (view.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        p { (view.title) }
                        h1 class=(class(overall)) { (language.overall(overall)) }
                    }
                    @if !view.supervised { (unsupervised(language)) }
                    (open(view, language))
                    (parts(view, language))
                    (over(view, language))
                }
                (footer(view, language))
            }
        }
    };
    markup.into_string()
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Operational => "good",
        Status::Unknown | Status::Switched => "unknown",
        Status::Degraded => "degraded",
        Status::PartialOutage | Status::MajorOutage => "bad",
    }
}

fn unsupervised(language: Language) -> Markup {
    html! {
        p.notice {
            (language.pick(
                "Nobody tells this page what happens inside Rempart at the moment: its supervisor is gone. Sites are still asked from outside.",
                "Personne n'informe cette page de ce qui se passe dans Rempart : son superviseur a disparu. Les sites sont toujours interrogés de l'extérieur.",
                "Niemand sagt dieser Seite gerade, was in Rempart geschieht: Der Supervisor ist fort. Die Websites werden weiter von außen gefragt.",
            ))
        }
    }
}

fn open(view: &View<'_>, language: Language) -> Markup {
    let mut open: Vec<_> = view.incidents.open().collect();
    open.sort_by_key(|incident| std::cmp::Reverse((incident.severity, incident.began)));
    html! {
        @if !open.is_empty() {
            section {
                h2 { (language.pick("Now", "En ce moment", "Jetzt")) }
                @for incident in open.iter().take(MAX_OPEN) { (article(incident, language)) }
                @if open.len() > MAX_OPEN { p { "+ " (open.len() - MAX_OPEN) } }
            }
        }
    }
}

fn parts(view: &View<'_>, language: Language) -> Markup {
    html! {
        section {
            h2 { (language.pick("Parts", "Composants", "Teile")) }
            ul.parts {
                @for part in view.parts() {
                    @let status = view.status(part);
                    li {
                        div { b { (name(part, language)) } (note(view, part, language)) }
                        span class={ "state " (class(status)) } { (language.status(status)) }
                    }
                }
            }
        }
    }
}

fn name(part: Part<'_>, language: Language) -> String {
    match part {
        Part::Component(component) => language.component(component).to_owned(),
        Part::Site(site) => site.name.clone(),
    }
}

/// What is wrong with a part; else, of a site, what it answered last.
fn note(view: &View<'_>, part: Part<'_>, language: Language) -> Markup {
    let concerning = view.concerning(part);
    let asked = if let Part::Site(site) = part { site.asked.as_ref() } else { None };
    html! {
        @if let Some(worst) = concerning.first() {
            small { (language.title(worst)) @if concerning.len() > 1 { " (+" (concerning.len() - 1) ")" } }
        } @else if let Some((at, text)) = asked {
            small { span lang="en" { (text) } " · " (moment(*at)) }
        }
    }
}

fn over(view: &View<'_>, language: Language) -> Markup {
    let mut over: Vec<_> = view.incidents.all().iter().filter(|incident| !incident.is_open()).collect();
    over.sort_by_key(|incident| std::cmp::Reverse(incident.resolved));
    html! {
        section {
            h2 { (language.pick("Before", "Auparavant", "Vorher")) }
            @if over.is_empty() {
                p.facts { (language.pick("No incident in the last 90 days.", "Aucun incident ces 90 derniers jours.", "Kein Vorfall in den letzten 90 Tagen.")) }
            }
            @for incident in over.iter().take(MAX_OVER) { (article(incident, language)) }
        }
    }
}

fn article(incident: &Incident, language: Language) -> Markup {
    let class = match (incident.is_open(), incident.severity) {
        (false, _) => "over",
        (true, Severity::Critical) => "bad",
        (true, _) => "degraded",
    };
    html! {
        article class=(class) id=(incident.id) {
            h3 { (language.title(incident)) }
            @if incident.is_open() { p lang="en" { (incident.message) } }
            p.facts {
                (language.component(incident.component)) " · "
                (moment(incident.began))
                @if let Some(resolved) = incident.resolved { " – " (moment(resolved)) }
                @if incident.count > 1 {
                    " · " (incident.count) " × " (language.pick("told", "signalé", "gemeldet"))
                }
            }
            @if incident.is_open() { (suspects(&incident.suspects, language)) }
            @if incident.updates.len() > 1 || !incident.is_open() { (updates(incident, language)) }
        }
    }
}

fn suspects(suspects: &[Suspect], language: Language) -> Markup {
    html! {
        div.suspects {
            @if suspects.is_empty() {
                (language.pick(
                    "Nothing was changed in the 30 minutes before it.",
                    "Rien n'a été modifié dans les 30 minutes précédentes.",
                    "In den 30 Minuten davor wurde nichts geändert.",
                ))
            } @else {
                b { (language.pick("Changed in the 30 minutes before it:", "Modifié dans les 30 minutes précédentes :", "In den 30 Minuten davor geändert:")) }
                ul lang="en" {
                    @for suspect in suspects {
                        li {
                            (moment(suspect.at)) " " (suspect.text)
                            @if let Some(by) = &suspect.by { " (" (by) ")" }
                        }
                    }
                }
            }
        }
    }
}

fn updates(incident: &Incident, language: Language) -> Markup {
    html! {
        details {
            summary { (language.pick("What happened", "Ce qui s'est passé", "Was geschah")) }
            ul {
                @for update in &incident.updates {
                    li {
                        (moment(update.at)) " "
                        (match update.turn {
                            Turn::Began => language.pick("began", "début", "begann"),
                            Turn::Worse => language.pick("worse", "aggravation", "schlimmer"),
                            Turn::Resolved => language.pick("over", "terminé", "vorbei"),
                        })
                        ": " span lang="en" { (update.text) }
                    }
                }
            }
        }
    }
}

fn footer(view: &View<'_>, language: Language) -> Markup {
    html! {
        footer {
            @for channel in view.channels {
                @if let Some(error) = &channel.error {
                    p {
                        (language.pick("Messages do not reach", "Les messages n'atteignent pas", "Nachrichten erreichen nicht:"))
                        " " (channel.name) ": " span lang="en" { (error) }
                    }
                }
            }
            p {
                (language.pick("As of", "État au", "Stand")) " " (moment(view.now)) " UTC · "
                a href="api/v2/summary.json" { "JSON" } " · " a href="history.atom" { "Atom" }
            }
        }
    }
}

/// `11-23 03:40` in UTC, with everything in the attribute.
fn moment(at: Timestamp) -> Markup {
    let whole = time(at);
    let short = whole.get(5..16).unwrap_or(&whole).replace('T', " ");
    html! { time datetime=(whole) title=(whole) { (short) } }
}
