//! The exposition read back by a strict parser, sums over threads and generations, and the limits on label sets.

use std::collections::{BTreeSet, HashMap};

use base::event::{Completion, Fault, RequestEvent};

use super::*;
use crate::telemetry::samples;

/// Sample name and sorted labels, to value.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads the text format and refuses what a scraper might: unknown families, families in pieces, twice the same sample,
/// bad names, bad escapes, a missing end of line.
fn parse(text: &str) -> Samples {
    let (mut kinds, mut samples, mut current) = (HashMap::new(), Samples::new(), String::new());
    assert!(text.ends_with('\n'));
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.contains('\\'), "{line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} is in one piece");
            current = name.to_owned();
        } else {
            let (name, labels, value) = parse_sample(line);
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} belongs to no family"));
            let allowed: &[&str] =
                if kinds[&current] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{line}");
            assert_eq!(samples.insert((name, labels), value), None, "{line} is there twice");
        }
    }
    samples
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn parse_sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if rest.starts_with('{') {
        loop {
            let (label, after) = rest[1..].split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let (mut value, mut characters) = (String::new(), after.char_indices());
            let close = loop {
                match characters.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match characters.next().unwrap().1 {
                        'n' => '\n',
                        literal @ ('"' | '\\') => literal,
                        other => panic!("escape {other} in {line}"),
                    }),
                    (_, plain) => value.push(plain),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[close + 1..];
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            assert!(rest.starts_with(','), "{line}");
        }
    }
    labels.sort();
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    (name.to_owned(), labels, value.parse().unwrap())
}

fn get(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut labels: Vec<_> =
        labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    labels.sort();
    samples.get(&(name.to_owned(), labels)).copied()
}

fn metrics() -> Metrics {
    Metrics::new(4, Arc::default())
}

fn labels(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|&name| name.into()).collect()
}

/// A request that fails at one origin, is tried again at the other, and is cut while it is answered.
fn one_cut_request(metrics: &Metrics) -> (Arc<SiteMetrics>, OpenConnection) {
    let shard = metrics.register_shard();
    let site = metrics.site(&"shop".into(), &labels(&["http://a:1", "http://b:2"]));
    let open = shard.connection_opened();
    shard.connection_speaks(Protocol::Http2, true);
    shard.handshake(Handshake::Resumed);
    shard.connection_refused(ConnectionRefused::Connections);
    shard.request_finished(true);
    shard.request_finished(false);
    site.origin_connection(shard.index(), 1, OriginConnection::Failed);
    site.origin_request(shard.index(), 1, OriginResult::ConnectFailed);
    site.retry(Retry::Made);
    site.origin_connection(shard.index(), 0, OriginConnection::New);
    site.origin_request(shard.index(), 0, OriginResult::ServerError);
    let event = RequestEvent {
        status: 502,
        fault: Some(Fault::Origin),
        reason: Some("origin_reset"),
        completion: Completion::OriginCut,
        bytes_in: 5,
        bytes_out: 7,
        duration_us: 1_500,
        ..samples::event()
    };
    site.finish(shard.index(), &event);
    (site, open)
}

#[test]
fn one_request_appears_in_every_family_it_belongs_to() {
    let metrics = metrics();
    let (site, open) = one_cut_request(&metrics);
    metrics.set_generation(3, ContentHash([0xab; 32]));
    metrics.reload_finished(false, Timestamp(1_700_000_000_500_000));
    metrics.set_certificates([("shop".into(), Timestamp(1_800_000_000_000_000))]);

    let seen = parse(&metrics.render());
    let id = "ab".repeat(32);
    let origin = |origin, result| [("site", "shop"), ("origin", origin), ("result", result)];
    for (name, labels, value) in [
        ("rempart_requests_total", &[("site", "shop"), ("protocol", "h2"), ("status", "502")][..], 1.0),
        (
            "rempart_edge_failures_total",
            &[("site", "shop"), ("fault", "origin"), ("reason", "origin_reset")],
            1.0,
        ),
        ("rempart_requests_incomplete_total", &[("site", "shop"), ("completion", "origin_cut")], 1.0),
        ("rempart_bytes_in_total", &[("site", "shop")], 5.0),
        ("rempart_bytes_out_total", &[("site", "shop")], 7.0),
        ("rempart_request_duration_seconds_bucket", &[("site", "shop"), ("le", "0.001")], 0.0),
        ("rempart_request_duration_seconds_bucket", &[("site", "shop"), ("le", "0.0025")], 1.0),
        ("rempart_request_duration_seconds_sum", &[("site", "shop")], 0.0015),
        ("rempart_origin_requests_total", &origin("http://a:1", "server_error"), 1.0),
        ("rempart_origin_requests_total", &origin("http://b:2", "connect_failed"), 1.0),
        ("rempart_origin_requests_total", &origin("http://b:2", "answered"), 0.0),
        ("rempart_origin_connections_total", &origin("http://a:1", "new"), 1.0),
        ("rempart_origin_connections_total", &origin("http://b:2", "failed"), 1.0),
        ("rempart_retries_total", &[("site", "shop"), ("result", "made")], 1.0),
        ("rempart_client_connections", &[], 1.0),
        ("rempart_connections_refused_total", &[("reason", "connections")], 1.0),
        ("rempart_connections_total", &[("protocol", "h2"), ("tls", "true")], 1.0),
        ("rempart_connections_total", &[("protocol", "h2"), ("tls", "false")], 0.0),
        ("rempart_tls_handshakes_total", &[("result", "resumed")], 1.0),
        ("rempart_access_log_dropped_total", &[("reason", "queue_full")], 0.0),
        ("rempart_events_dropped_total", &[("reason", "unreachable")], 0.0),
        ("rempart_generation", &[("number", "3"), ("id", &id)], 1.0),
        ("rempart_config_last_reload_success", &[], 0.0),
        ("rempart_config_last_reload_timestamp_seconds", &[], 1_700_000_000.5),
        ("rempart_certificate_expiry_seconds", &[("site", "shop")], 1_800_000_000.0),
        ("rempart_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ] {
        assert_eq!(get(&seen, name, labels), Some(value), "{name} {labels:?}");
    }
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(get(&seen, name, &[]).unwrap() > 0.0, "{name}");
    }
    assert_eq!(metrics.totals(), Totals { requests: 1, connections: 1 });
    assert_eq!(metrics.pulse(), Pulse { requests: 2, failures: 1, accepted: 1 });
    assert_eq!(
        site.origins(),
        [("http://a:1", 0), ("http://b:2", 1)].map(|(origin, failures)| OriginTotals {
            origin: origin.into(),
            requests: 1,
            failures
        })
    );
    drop(open);
    assert_eq!(metrics.totals().connections, 0);
}

#[test]
fn an_empty_registry_and_odd_names_can_be_read() {
    let metrics = metrics();
    parse(&metrics.render());
    let names = ["quote\"", "back\\slash", "line\nfeed", "\u{e9}\u{1f512}", "none", "other", "a b", "}", ""];
    for name in names {
        let site = metrics.site(&name.into(), &labels(&names));
        site.finish(0, &samples::event());
        site.origin_request(0, 2, OriginResult::Answered);
    }
    let seen = parse(&metrics.render());
    for name in names {
        let labels = [("site", name), ("protocol", "h2"), ("status", "200")];
        assert_eq!(get(&seen, "rempart_requests_total", &labels), Some(1.0), "{name:?}");
        let labels = [("site", name), ("origin", "line\nfeed"), ("result", "answered")];
        assert_eq!(get(&seen, "rempart_origin_requests_total", &labels), Some(1.0), "{name:?}");
    }
}

#[test]
fn the_histogram_is_cumulative_and_agrees_with_its_sum_and_count() {
    let metrics = metrics();
    let site = metrics.site(&"shop".into(), &[]);
    let durations: Vec<u64> = (0..=17).flat_map(|power| [10_u64.pow(power / 2), 500 << power]).collect();
    for (thread, &duration_us) in durations.iter().enumerate() {
        site.finish(thread, &RequestEvent { duration_us, ..samples::event() });
    }
    let tunnel = RequestEvent { status: 101, duration_us: 1_000_000_000, ..samples::event() };
    site.finish(0, &tunnel);
    site.finish(0, &RequestEvent { status: 200, method: "CONNECT".into(), ..tunnel });

    let seen = parse(&metrics.render());
    let mut previous = 0.0;
    for bound in site::BUCKET_LABELS {
        let limit = bound.parse::<f64>().unwrap() * 1e6;
        let expected = durations.iter().filter(|&&duration| duration as f64 <= limit).count() as f64;
        let count = get(&seen, "rempart_request_duration_seconds_bucket", &[("site", "shop"), ("le", bound)])
            .unwrap();
        assert_eq!(count, expected, "le {bound}");
        assert!(count >= previous);
        previous = count;
    }
    let all = durations.len() as f64;
    let bucket = [("site", "shop"), ("le", "+Inf")];
    assert_eq!(get(&seen, "rempart_request_duration_seconds_bucket", &bucket), Some(all));
    assert_eq!(get(&seen, "rempart_request_duration_seconds_count", &[("site", "shop")]), Some(all));
    let sum = durations.iter().sum::<u64>() as f64 / 1e6;
    assert_eq!(get(&seen, "rempart_request_duration_seconds_sum", &[("site", "shop")]), Some(sum));
    assert_eq!(metrics.totals().requests, durations.len() as u64 + 2, "tunnels are requests all the same");
}

#[test]
fn counts_of_all_threads_add_up_and_survive_a_reload() {
    let metrics = metrics();
    let old = metrics.site(&"shop".into(), &labels(&["http://a:1"]));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let shard = metrics.register_shard();
                for _ in 0..1_000 {
                    old.finish(shard.index(), &samples::event());
                    old.origin_request(shard.index(), 0, OriginResult::Answered);
                }
            });
        }
    });
    let new = metrics.site(&"shop".into(), &labels(&["http://b:2", "http://a:1"]));
    new.finish(7, &samples::event());
    new.origin_request(7, 1, OriginResult::TimedOut);
    assert_eq!((old.requests(), new.requests(), metrics.totals().requests), (8_001, 8_001, 8_001));
    let totals = new.origins();
    assert_eq!((totals[0].requests, totals[1].requests, totals[1].failures), (0, 8_001, 1));
    let distinct: BTreeSet<_> = lock(&metrics.shards).iter().map(|shard| shard.index()).collect();
    assert_eq!(distinct.len(), 8);
}

#[test]
fn sites_beyond_the_limit_share_a_label_and_gone_ones_make_room() {
    let metrics = metrics();
    let mut held: Vec<_> =
        (0..MAX_SITES + 3).map(|i| metrics.site(&format!("site-{i}").into(), &[])).collect();
    for site in &held {
        site.finish(0, &samples::event());
    }
    let count = |name: &str| {
        let labels = [("site", name), ("protocol", "h2"), ("status", "200")];
        get(&parse(&metrics.render()), "rempart_requests_total", &labels)
    };
    // One place is taken by `none`, so four did not fit.
    assert_eq!((count("site-0"), count("other")), (Some(1.0), Some(4.0)));
    let kept = held.remove(0);
    drop(held);
    metrics.site(&"fresh".into(), &[]).finish(0, &samples::event());
    assert_eq!((count("site-0"), count("fresh")), (Some(1.0), Some(1.0)));
    assert_eq!(count("other"), Some(MAX_SITES as f64 + 2.0), "nothing that was counted is lost");
    assert_eq!(metrics.totals().requests, MAX_SITES as u64 + 4);
    drop(kept);
}

#[test]
fn origins_beyond_the_limit_share_a_label_and_gone_ones_make_room() {
    let metrics = metrics();
    let many: Vec<Arc<str>> =
        (0..MAX_ORIGINS_PER_SITE + 2).map(|i| format!("http://o{i}:1").into()).collect();
    let site = metrics.site(&"shop".into(), &many);
    for index in 0..many.len() + 5 {
        site.origin_request(0, index, OriginResult::Answered);
    }
    let count = |origin: &str| {
        let labels = [("site", "shop"), ("origin", origin), ("result", "answered")];
        get(&parse(&metrics.render()), "rempart_origin_requests_total", &labels)
    };
    assert_eq!(
        (count("http://o0:1"), count("other")),
        (Some(1.0), Some(2.0)),
        "a position that is not there is ignored"
    );
    drop(site);
    metrics.site(&"shop".into(), &labels(&["http://fresh:1"])).origin_request(0, 0, OriginResult::Answered);
    assert_eq!((count("http://o0:1"), count("http://fresh:1")), (None, Some(1.0)));
    assert_eq!(count("other"), Some(MAX_ORIGINS_PER_SITE as f64 + 2.0));
}

#[test]
fn more_threads_than_shards_share_them() {
    let metrics = metrics();
    let shards: Vec<_> = (0..MAX_SHARDS + 10).map(|_| metrics.register_shard()).collect();
    let open: Vec<_> = shards.iter().map(Shard::connection_opened).collect();
    assert_eq!(metrics.totals().connections, open.len() as u64);
    assert_eq!(metrics.all_shards().len(), MAX_SHARDS);
}
