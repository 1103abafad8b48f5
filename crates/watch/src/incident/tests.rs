//! Scripts of happenings and the incidents that must come of them; every script is also replayed from what was written down.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::*;

const CASES: &[(&str, &str)] = &[
    ("refused-feed", include_str!("cases/refused-feed.txt")),
    ("causes-and-places", include_str!("cases/causes-and-places.txt")),
    ("suspects", include_str!("cases/suspects.txt")),
    ("quiet", include_str!("cases/quiet.txt")),
    ("configuration", include_str!("cases/configuration.txt")),
    ("site", include_str!("cases/site.txt")),
];

/// A line is `MINUTE {fields of a happening}`, `MINUTE passed`, or, beginning with `=`, an incident that must be there then.
#[test]
fn scripts() {
    for (name, text) in CASES {
        let mut incidents = Incidents::default();
        let mut written = Vec::new();
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            let (minute, what) = line.split_once(' ').unwrap();
            let at = Timestamp(minute.parse::<u64>().unwrap() * 60_000_000);
            written.extend(match what {
                "passed" => incidents.passed(at),
                fields => incidents.happened(&happening(at, fields)),
            });
            let mut expected = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with('=')) {
                writeln!(expected, "{line}").unwrap();
            }
            if !expected.is_empty() {
                assert_eq!(shown(&incidents), expected, "{name}, after {line}");
                let restored = Incidents::restored(written.clone());
                assert_eq!(turns(&restored), turns(&incidents), "{name}, after {line}");
            }
        }
    }
}

fn happening(at: Timestamp, fields: &str) -> Happening {
    let mut fields: Map<String, Value> = serde_json::from_str(fields).unwrap();
    fields.insert("at".to_owned(), at.0.into());
    for (name, usual) in [("severity", "warning"), ("component", "feeds"), ("message", "")] {
        fields.entry(name).or_insert_with(|| usual.into());
    }
    serde_json::from_value(fields.into()).unwrap()
}

fn shown(incidents: &Incidents) -> String {
    let mut text = String::new();
    for incident in incidents.all() {
        let minute = |at: Timestamp| at.seconds() / 60;
        let state =
            incident.resolved.map_or_else(|| "open".to_owned(), |at| format!("resolved {}", minute(at)));
        let of = [&incident.site, &incident.subject].map(|it| it.as_deref().unwrap_or("-")).join(" ");
        let (count, began) = (incident.count, minute(incident.began));
        let (cause, severity) = (&incident.cause, incident.severity);
        write!(text, "= {of} {cause} {severity:?} {began} x{count} {state}").unwrap();
        for suspect in &incident.suspects {
            write!(text, " <{}", suspect.text).unwrap();
        }
        text.push('\n');
    }
    text
}

/// What must never be lost; repetitions may.
fn turns(incidents: &Incidents) -> Vec<(String, Vec<Update>)> {
    incidents.all().iter().map(|it| (it.id.clone(), it.updates.clone())).collect()
}

#[test]
fn a_flood_of_causes_is_bounded_and_the_open_ones_stay() {
    let mut incidents = Incidents::default();
    let tell = |number: u64, what: &str| {
        let subject = number.to_string();
        happening(
            Timestamp(number),
            &serde_json::json!({ "what": what, "cause": "c", "subject": subject }).to_string(),
        )
    };
    incidents.happened(&tell(0, "artefact_refused"));
    incidents.happened(&tell(0, "artefact_activated"));
    for number in 1..=MAX_INCIDENTS as u64 + 5 {
        incidents.happened(&tell(number, "artefact_refused"));
    }
    assert_eq!(incidents.all().len(), MAX_INCIDENTS);
    assert!(incidents.all().iter().all(Incident::is_open));
    assert_eq!(incidents.left_out, 5);
    assert!(
        incidents.happened(&tell(1, "artefact_activated")).iter().any(|it| matches!(it, Entry::Incident(_)))
    );
    incidents.happened(&tell(9_999, "artefact_refused"));
    assert_eq!(incidents.all().last().unwrap().subject.as_deref(), Some("9999"));
}

#[test]
fn resolved_ones_are_forgotten_after_ninety_days_and_open_ones_are_not() {
    let mut incidents = Incidents::default();
    let at = |seconds: u64| Timestamp(seconds * 1_000_000);
    incidents.happened(&happening(at(0), r#"{"what":"artefact_refused","cause":"a","subject":"f"}"#));
    incidents.happened(&happening(at(5), r#"{"what":"artefact_activated","cause":"b","subject":"f"}"#));
    incidents.happened(&happening(at(9), r#"{"what":"artefact_refused","cause":"a","subject":"f"}"#));
    incidents.passed(at(KEPT.as_secs() + 4));
    assert_eq!(incidents.all().len(), 2);
    incidents.passed(at(KEPT.as_secs() + 5));
    assert_eq!(incidents.all().iter().map(Incident::is_open).collect::<Vec<_>>(), [true]);
}

#[test]
fn a_clock_that_steps_back_neither_resolves_before_the_beginning_nor_loses_anything() {
    let mut incidents = Incidents::default();
    incidents
        .happened(&happening(Timestamp(900), r#"{"what":"artefact_refused","cause":"a","subject":"f"}"#));
    incidents
        .happened(&happening(Timestamp(5), r#"{"what":"artefact_activated","cause":"b","subject":"f"}"#));
    let incident = &incidents.all()[0];
    assert_eq!(incident.resolved, Some(incident.began));
}
