//! The picture fits whatever terminal it is for, and says what matters first.

use api::analytics::{Details, Evidence, Judgement, StoreStatus};
use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;

use super::*;

fn plain(top: &Top, width: usize, height: usize) -> Vec<String> {
    frame(top, Look { width, height, colour: false, live: true })
}

fn named(names: &[(&str, u64)]) -> Vec<Named> {
    names.iter().map(|(name, count)| Named { name: (*name).to_owned(), count: *count }).collect()
}

fn busy() -> Top {
    let figures = Figures {
        requests: 18_000,
        by_class: [3, 0, 17_000, 500, 400, 97],
        faults: [20, 0, 97],
        origin_errors: 97,
        bytes_in: 900_000,
        bytes_out: 240_000_000,
        p50_us: Some(2_100),
        p95_us: Some(15_000),
        p99_us: Some(1_200_000),
    };
    let at = Timestamp(1_700_000_000_000_000);
    let text = "generation 9 came into force (rempart.toml)".to_owned();
    let change = Happening::new(
        at,
        What::GenerationActivated,
        Severity::Info,
        Component::Configuration,
        "reload",
        text,
    );
    let sentence = "looks like a fault of our own: 40.1 % of requests fail, usually 0.2 % (1.0 times the usual requests, \
        about 212 client networks, 3 % of requests from new ones; 2 min before: generation 9 came into force \
        (rempart.toml))";
    Top {
        at,
        seconds: 15.0,
        per_second: (0..60).map(|second| 900 + second * 10).collect(),
        details: Details {
            protocols: named(&[("http/1.1", 4_000), ("h2", 14_000)]),
            verdicts: named(&[("request-policy block", 400)]),
            origins: named(&[("http://127.0.0.1:3000", 17_000)]),
            paths: named(&[
                ("/", 9_000),
                ("/a/very/long/path/that/does/not/fit/into/a/column/of/any/terminal", 800),
            ]),
            networks: named(&[("203.0.113.0", 3_000), ("2001:db8:1234::", 200)]),
            distinct_networks: 212,
        },
        sites: (0..30)
            .map(|number| SiteFigures {
                site: (number > 0).then(|| format!("site-{number}")),
                figures: figures.clone(),
            })
            .collect(),
        anomalies: vec![Anomaly {
            since: at,
            site: Some("shop".into()),
            signal: "error-share".into(),
            value: 0.4,
            usual: 0.002,
            evidence: Evidence::default(),
            judgement: Judgement::LooksLikeOwnFault,
            sentence: sentence.into(),
        }],
        changes: vec![change],
        lost: 12,
        store: StoreStatus { problem: Some("database or disk is full".into()), waiting: 120, dropped: 0 },
        figures,
    }
}

#[test]
fn it_fits_every_terminal() {
    for (top, width, height) in [20, 40, 80, 100, 120, 200]
        .into_iter()
        .flat_map(|width| [1, 5, 24, 40, 60].map(|height| (width, height)))
        .flat_map(|(width, height)| [(busy(), width, height), (Top::default(), width, height)])
    {
        let lines = plain(&top, width, height);
        assert!(lines.len() <= height, "{width}x{height}: {} lines", lines.len());
        for line in &lines {
            assert!(line.chars().count() <= width.max(20), "{width}x{height}: {line:?}");
        }
    }
}

#[test]
fn an_ordinary_terminal_shows_trouble_changes_sites_and_names() {
    let lines = plain(&busy(), 80, 24);
    let text = lines.join("\n");
    for part in [
        "1200 requests/s",
        "looks like a fault of our own",
        "generation 9 came into force",
        "database or disk is full",
        "12 more requests",
        "site-1 ",
        "/",
        "203.0.113.0",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn nothing_is_told_as_nothing_and_not_as_a_figure() {
    let text = plain(&Top::default(), 80, 24).join("\n");
    assert!(text.contains("0 requests/s  5xx -  p50 -  p95 -"), "{text}");
    assert!(text.contains("no requests"), "{text}");
}

#[test]
fn names_cannot_move_the_cursor() {
    let mut top = busy();
    top.details.paths = named(&[("/\u{1b}[2J", 5)]);
    top.changes[0].message = "\u{1b}]0;title\u{7}".into();
    let text = plain(&top, 120, 40).concat();
    assert!(!text.contains(char::is_control), "{text:?}");
}
