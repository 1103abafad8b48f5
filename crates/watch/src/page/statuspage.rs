//! JSON in the shape of Statuspage's API, version 2, which monitors and dashboards read.

use base::happening::{Component, Severity, What};
use base::time::Timestamp;
use serde_json::{Value, json};

use crate::incident::{Incident, Turn, Update};
use crate::view::{Part, Status, View};
use crate::words::Language;

/// Incidents in one answer.
const MAX_INCIDENTS: usize = 50;
/// Names the page.
const PAGE: &str = "rempart";

/// Everything at once.
pub fn summary(view: &View<'_>) -> Value {
    json!({
        "page": page(view),
        "components": list(view),
        "incidents": listed(view, true),
        "scheduled_maintenances": [],
        "status": overall(view),
    })
}

/// How the whole is.
pub fn status(view: &View<'_>) -> Value {
    json!({ "page": page(view), "status": overall(view) })
}

/// All components.
pub fn components(view: &View<'_>) -> Value {
    json!({ "page": page(view), "components": list(view) })
}

/// Incidents, newest first.
pub fn incidents(view: &View<'_>, unresolved: bool) -> Value {
    json!({ "page": page(view), "incidents": listed(view, unresolved) })
}

fn page(view: &View<'_>) -> Value {
    json!({
        "id": PAGE,
        "name": view.title,
        "url": view.url,
        "time_zone": "Etc/UTC",
        "updated_at": time(view.now),
    })
}

fn overall(view: &View<'_>) -> Value {
    let status = view.overall();
    let indicator = match status {
        Status::Operational | Status::Unknown | Status::Switched => "none",
        Status::Degraded => "minor",
        Status::PartialOutage => "major",
        Status::MajorOutage => "critical",
    };
    json!({ "indicator": indicator, "description": Language::English.overall(status) })
}

fn list(view: &View<'_>) -> Vec<Value> {
    view.parts().enumerate().map(|(at, part)| component(view, part, at + 1)).collect()
}

fn component(view: &View<'_>, part: Part<'_>, position: usize) -> Value {
    let concerning = view.concerning(part);
    let changed = concerning.iter().map(|incident| incident.last).max().unwrap_or(view.since);
    let status = view.status(part);
    let description = concerning.first().map(|incident| Language::English.title(incident)).or_else(|| {
        let asked = if let Part::Site(site) = part { site.asked.as_ref() } else { None };
        let text = asked.map(|(_, text)| text.clone());
        text.or_else(|| (status == Status::Unknown).then(|| "not asked yet".to_owned()))
    });
    let (id, name) = named(part);
    json!({
        "id": id,
        "name": name,
        "status": word(status),
        "created_at": time(view.since),
        "updated_at": time(changed),
        "position": position,
        "description": description,
        "showcase": false,
        "start_date": null,
        "group_id": null,
        "page_id": PAGE,
        "group": false,
        "only_show_if_degraded": false,
    })
}

/// Id and name.
fn named(part: Part<'_>) -> (String, String) {
    match part {
        Part::Component(component) => {
            let name = Language::English.component(component);
            (slug(component).to_owned(), name.to_owned())
        }
        Part::Site(site) => (format!("site-{}", site.name), site.name.clone()),
    }
}

fn slug(component: Component) -> &'static str {
    match component {
        Component::Delivery => "delivery",
        Component::Configuration => "configuration",
        Component::Certificates => "certificates",
        Component::Feeds => "feeds",
        Component::Modules => "modules",
        Component::Analytics => "analytics",
        Component::Watch => "watch",
    }
}

/// The shape has no word for what is not known: it is not known to be anything but operational.
fn word(status: Status) -> &'static str {
    match status {
        Status::Operational | Status::Unknown => "operational",
        Status::Switched => "under_maintenance",
        Status::Degraded => "degraded_performance",
        Status::PartialOutage => "partial_outage",
        Status::MajorOutage => "major_outage",
    }
}

fn listed(view: &View<'_>, unresolved: bool) -> Vec<Value> {
    let wanted = view.incidents.all().iter().rev().filter(|incident| !unresolved || incident.is_open());
    wanted.take(MAX_INCIDENTS).map(|it| incident(view, it)).collect()
}

fn incident(view: &View<'_>, incident: &Incident) -> Value {
    let impact = match incident.severity {
        Severity::Info => "none",
        Severity::Warning => "minor",
        Severity::Critical if incident.site.is_some() => "major",
        Severity::Critical => "critical",
    };
    let concerned = view.parts().enumerate().filter(|(_, part)| view_concerns(*part, incident));
    let components: Vec<_> = concerned.map(|(at, part)| component(view, part, at + 1)).collect();
    let updates: Vec<_> = incident.updates.iter().enumerate().rev().map(|it| update(incident, it)).collect();
    json!({
        "id": incident.id,
        "name": Language::English.title(incident),
        "status": stage(incident),
        "created_at": time(incident.began),
        "updated_at": time(incident.resolved.unwrap_or(incident.last)),
        "monitoring_at": null,
        "resolved_at": incident.resolved.map(time),
        "impact": impact,
        "shortlink": format!("{}#{}", view.url, incident.id),
        "started_at": time(incident.began),
        "page_id": PAGE,
        "incident_updates": updates,
        "components": components,
        "reminder_intervals": null,
    })
}

fn view_concerns(part: Part<'_>, incident: &Incident) -> bool {
    match part {
        Part::Component(component) => incident.component == component,
        Part::Site(site) => incident.site.as_deref() == Some(site.name.as_str()),
    }
}

fn update(incident: &Incident, (number, update): (usize, &Update)) -> Value {
    let mut body = update.text.clone();
    if number == 0 {
        for suspect in &incident.suspects {
            body.push_str(&format!("\nChanged at {} before it: {}", time(suspect.at), suspect.text));
        }
    }
    let status = if update.turn == Turn::Resolved { "resolved" } else { ongoing(incident) };
    json!({
        "id": format!("{}-{number}", incident.id),
        "status": status,
        "body": body,
        "incident_id": incident.id,
        "created_at": time(update.at),
        "updated_at": time(update.at),
        "display_at": time(update.at),
        "affected_components": null,
        "deliver_notifications": true,
        "custom_tweet": null,
        "tweet_id": null,
    })
}

fn stage(incident: &Incident) -> &'static str {
    if incident.is_open() { ongoing(incident) } else { "resolved" }
}

/// What is only seen from outside is looked into; the rest comes with its cause.
fn ongoing(incident: &Incident) -> &'static str {
    match incident.what {
        What::ProbeFailed | What::AnomalyBegan => "investigating",
        What::EdgeReplaced | What::RoleRestarted => "monitoring",
        _ => "identified",
    }
}

/// RFC 3339 with milliseconds, in UTC.
pub fn time(at: Timestamp) -> String {
    let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
