//! What a notice says: as a mail, and as the JSON of a webhook, whose outer shape is that of Cloudflare's notifications.

use std::fmt::Write as _;

use base::happening::Severity;
use base::time::Timestamp;
use serde_json::{Value, json};

use super::{Notice, Stage};
use crate::incident::{Incident, fingerprint};
use crate::page::time;
use crate::words::Language;

/// With more incidents than this in one message, the changes before them are left to the page.
const IN_FULL: usize = 3;

/// One message, the same in every attempt to send it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Names it: 16 hexadecimal digits.
    pub id: String,
    /// The incident it is about, if it is about one.
    pub incident: Option<String>,
    /// When it was written.
    pub at: Timestamp,
    /// One line.
    pub subject: String,
    /// Lines of plain text.
    pub text: String,
    /// Body of a webhook.
    pub json: Value,
}

/// Who speaks, to whom.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Title of the status page.
    pub title: &'a str,
    /// Where the status page is, with a `/` at the end, if there is one.
    pub page: Option<&'a str>,
    /// The channel it is for.
    pub channel: &'a str,
}

impl Message {
    /// What a notice says.
    pub fn of(notice: &Notice, sender: Sender<'_>, now: Timestamp) -> Self {
        let one = if let [(incident, before)] = notice.incidents.as_slice() {
            Some((incident, *before))
        } else {
            None
        };
        let subject = match one {
            Some((incident, before)) => {
                format!("{}: {}", turn(incident, before), Language::English.title(incident))
            }
            None => digest(notice),
        };
        let mut text = String::new();
        for (incident, before) in &notice.incidents {
            describe(&mut text, incident, *before, notice.incidents.len() <= IN_FULL);
        }
        if notice.more > 0 {
            line(&mut text, &format!("There are {} more.\n", notice.more));
        }
        let link = match (sender.page, one) {
            (Some(page), Some((incident, _))) => Some(format!("{page}#{}", incident.id)),
            (Some(page), None) => Some(page.to_owned()),
            (None, _) => None,
        };
        link.iter().for_each(|link| line(&mut text, link));
        let told = notice.incidents.iter().map(|(it, _)| format!("{} {:?}", it.id, it.stage()));
        let id = fingerprint(&format!("{} {}", sender.channel, told.collect::<Vec<_>>().join(" ")));
        let lasts = notice.incidents.iter().any(|(incident, _)| incident.is_open());
        let full = notice.incidents.len() <= IN_FULL;
        let listed: Vec<_> = notice.incidents.iter().map(|(it, before)| data(it, *before, full)).collect();
        let details = json!({
            "title": sender.title,
            "page": link,
            "incidents": listed,
            "more": notice.more,
        });
        let about = one.map_or("", |(incident, _)| &incident.id);
        let event = if lasts { "ALERT_STATE_EVENT_START" } else { "ALERT_STATE_EVENT_END" };
        let subject = one_line(&format!("[{}] {subject}", sender.title));
        let outer = Outer { kind: "rempart_incident", about, event, details };
        let json = outer.json(sender, &subject, &text, now);
        let incident = one.map(|(incident, _)| incident.id.clone());
        Self { id: format!("{id:016x}"), incident, at: now, subject, text, json }
    }

    /// One that only shows that it arrives.
    pub fn test(sender: Sender<'_>, now: Timestamp) -> Self {
        let id = fingerprint(&format!("test {} {}", sender.channel, now.0));
        let subject = one_line(&format!("[{}] Test", sender.title));
        let text = format!(
            "This is a test. Incidents of {} are told through the channel {}.\n",
            sender.title, sender.channel
        );
        let details = json!({ "title": sender.title, "page": sender.page, "incidents": [], "more": 0 });
        let outer = Outer { kind: "rempart_test", about: "", event: "ALERT_STATE_EVENT_START", details };
        let json = outer.json(sender, &subject, &text, now);
        Self { id: format!("{id:016x}"), incident: None, at: now, subject, text, json }
    }
}

/// The shape around what there is to tell.
struct Outer<'a> {
    kind: &'a str,
    about: &'a str,
    event: &'a str,
    details: Value,
}

impl Outer<'_> {
    fn json(self, sender: Sender<'_>, subject: &str, text: &str, now: Timestamp) -> Value {
        json!({
            "name": subject,
            "text": format!("{subject}\n{text}"),
            "data": self.details,
            "ts": now.seconds(),
            "account_id": "",
            "policy_id": sender.channel,
            "policy_name": sender.channel,
            "alert_type": self.kind,
            "alert_correlation_id": self.about,
            "alert_event": self.event,
        })
    }
}

/// What became of an incident since it was told last.
fn turn(incident: &Incident, before: Option<Stage>) -> &'static str {
    match (incident.stage(), before) {
        (Stage::Resolved, _) => "Over",
        (Stage::Open(_), Some(_)) => "Worse",
        (Stage::Open(Severity::Critical), None) => "Outage",
        (Stage::Open(_), None) => "Problem",
    }
}

fn digest(notice: &Notice) -> String {
    let lasting = notice.incidents.iter().filter(|(incident, _)| incident.is_open()).count();
    let all = notice.incidents.len();
    let more = if notice.more > 0 { format!(", and {} more", notice.more) } else { String::new() };
    format!("{all} incidents, {lasting} of them last{more}")
}

fn describe(text: &mut String, incident: &Incident, before: Option<Stage>, full: bool) {
    let title = Language::English.title(incident);
    line(text, &format!("{}: {title}", turn(incident, before)));
    line(text, &format!("  {}", one_line(incident.updates.last().map_or(&incident.message, |it| &it.text))));
    let part = Language::English.component(incident.component);
    let site = incident.site.as_ref().map(|site| format!(", site {site}")).unwrap_or_default();
    let until = incident.resolved.map(|end| format!(" until {}", time(end))).unwrap_or_default();
    line(text, &format!("  {part}{site}, since {}{until}", time(incident.began)));
    if full && incident.is_open() {
        if incident.suspects.is_empty() {
            line(text, "  Nothing was changed in the 30 minutes before it.");
        } else {
            line(text, "  Changed in the 30 minutes before it:");
        }
        for suspect in &incident.suspects {
            let by = suspect.by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default();
            line(text, &format!("    {} {}{by}", time(suspect.at), one_line(&suspect.text)));
        }
    }
    line(text, "");
}

fn data(incident: &Incident, before: Option<Stage>, full: bool) -> Value {
    let suspects = if full { incident.suspects.as_slice() } else { &[] };
    json!({
        "id": incident.id,
        "turn": turn(incident, before).to_lowercase(),
        "what": incident.what,
        "title": Language::English.title(incident),
        "severity": incident.severity,
        "component": incident.component,
        "site": incident.site,
        "subject": incident.subject,
        "generation": incident.generation,
        "cause": incident.cause,
        "message": incident.message,
        "began": time(incident.began),
        "resolved": incident.resolved.map(time),
        "count": incident.count,
        "changes_before": suspects,
    })
}

fn line(text: &mut String, line: &str) {
    // Writing to a `String` cannot fail.
    let _written = writeln!(text, "{line}");
}

/// A subject must not become another header, nor a message another paragraph.
fn one_line(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}
