//! Figures are those of a slow model; nothing is counted twice or lost between windows and minutes; who follows misses nothing
//! unheard.

use std::collections::BTreeMap;

use base::event::wire;
use base::event::{Completion, Protocol, RequestEvent, Verdicts};
use base::happening::{Component, Severity, What};
use base::id::RequestId;

use super::*;

const START: u64 = 1_700_000_040;

fn event(random: &mut Random, site: Option<&str>, status: u16) -> RequestEvent {
    RequestEvent {
        id: RequestId::new(random),
        at: Timestamp(START * 1_000_000),
        client: std::net::Ipv4Addr::from(0x0a00_0000 + (random.below(50) << 8)).into(),
        protocol: if random.below(2) == 0 { Protocol::Http11 } else { Protocol::Http2 },
        tls: false,
        tls_version: None,
        ja4: None,
        introduction: None,
        method: "GET".into(),
        host: "h".into(),
        target: format!("/page/{}?x={}", random.below(5), random.below(1000)).into(),
        site: site.map(Into::into),
        generation: 1,
        verdicts: Verdicts::default(),
        fields: Vec::new(),
        status,
        fault: None,
        reason: None,
        origin: Some("http://o".into()),
        origin_protocol: Some(Protocol::Http11),
        attempts: 1,
        bytes_in: u64::from(random.below(100)),
        bytes_out: u64::from(random.below(10_000)),
        origin_wait_us: None,
        duration_us: u64::from(random.below(1_000_000)),
        completion: Completion::Complete,
        user_agent: None,
        referer: None,
        weight: 1,
    }
}

fn frame(events: &[(RequestEvent, u32)]) -> (Head, Arc<[u8]>) {
    let mut bytes = Vec::new();
    events.iter().for_each(|(event, weight)| wire::encode(&mut bytes, event, *weight));
    (Head { length: bytes.len() as u32, records: events.len() as u32, lost: 0 }, bytes.into())
}

fn at(second: u64) -> Timestamp {
    Timestamp((START + second) * 1_000_000)
}

#[test]
fn minutes_are_those_of_a_slow_model() {
    let mut random = Random::seeded(12);
    let mut collector = Collector::new(1, at(0));
    // Minute and site to requests, 5xx, bytes and durations.
    let mut model = BTreeMap::<(u64, Option<String>), (u64, u64, u64, Vec<u64>)>::new();
    let mut told = Vec::new();
    for second in 0..400 {
        told.push(collector.tick(at(second)));
        let mut events = Vec::new();
        for _ in 0..random.below(20) {
            let site = [None, Some("shop"), Some("blog")][random.below(3) as usize];
            let status = [200, 404, 500, 503][random.below(4) as usize];
            let weight = 1 << random.below(3);
            let event = event(&mut random, site, status);
            let minute = (START + second) / 60 * 60_000_000;
            let (requests, errors, bytes, durations) =
                model.entry((minute, site.map(str::to_owned))).or_default();
            *requests += u64::from(weight);
            *errors += if status >= 500 { u64::from(weight) } else { 0 };
            *bytes += event.bytes_out * u64::from(weight);
            (0..weight).for_each(|_| durations.push(event.duration_us));
            events.push((event, weight));
        }
        let (head, bytes) = frame(&events);
        collector.take(&head, bytes, at(second));
    }
    told.push(collector.finish(at(400)));
    let minutes: Vec<_> = told.iter().flat_map(|complete| &complete.minutes).collect();
    assert_eq!(minutes.len(), model.len());
    for minute in minutes {
        let (requests, errors, bytes, mut durations) =
            model.remove(&(minute.at.0, minute.site.clone())).unwrap();
        let figures = &minute.figures;
        assert_eq!((figures.requests, figures.errors(), figures.bytes_out), (requests, errors, bytes));
        assert_eq!(figures.origin_errors, errors, "all of them came from the origin");
        durations.sort_unstable();
        let exact = durations[durations.len().div_ceil(2) - 1];
        let p50 = figures.p50_us.unwrap();
        assert!(exact <= p50 && p50 as f64 <= exact as f64 * 1.125 + 1.0, "{exact} {p50}");
        assert_eq!(
            minute.details.paths.iter().map(|named| named.count).sum::<u64>(),
            requests,
            "without query"
        );
        assert!(minute.details.distinct_networks <= 55);
    }
    let samples: usize = told.iter().map(|complete| complete.samples.len()).sum();
    assert!(samples > 100 && told.iter().all(|complete| complete.samples.len() <= 3 * SAMPLES));
}

#[test]
fn losses_are_told_with_their_minute() {
    let mut collector = Collector::new(1, at(0));
    collector.take(&Head { lost: 7, ..Head::default() }, Arc::from(&[][..]), at(1));
    collector.take(&Head { lost: 5, ..Head::default() }, Arc::from(&[][..]), at(2));
    assert_eq!(collector.top(at(3), StoreStatus::default()).lost, 12);
    let complete = collector.tick(at(60));
    assert_eq!(complete.lost, Some((Timestamp((START / 60) * 60_000_000), 12)));
    assert_eq!(collector.tick(at(120)).lost, None);
}

#[test]
fn the_present_is_the_last_window_and_the_open_one() {
    let mut random = Random::seeded(3);
    let mut collector = Collector::new(1, at(0));
    for second in 0..25 {
        collector.tick(at(second));
        let (head, bytes) =
            frame(&[(event(&mut random, Some("shop"), 200), 2), (event(&mut random, None, 404), 1)]);
        collector.take(&head, bytes, at(second));
    }
    let top = collector.top(at(25), StoreStatus::default());
    assert_eq!(
        (top.seconds, top.figures.requests),
        (15.0, 45),
        "10 complete seconds and 5 of the open window"
    );
    let sites: Vec<_> = top.sites.iter().map(|site| (site.site.as_deref(), site.figures.requests)).collect();
    assert_eq!(sites, [(Some("shop"), 30), (None, 15)]);
    assert_eq!(top.per_second.len(), SECONDS);
    assert_eq!(top.per_second[SECONDS - 25..], [3; 25]);
    // Half a minute without anything: it is told, not guessed.
    (25..60).for_each(|second| drop(collector.tick(at(second))));
    let top = collector.top(at(60), StoreStatus::default());
    assert_eq!((top.figures.requests, top.figures.p50_us), (0, None));
}

#[test]
fn sites_beyond_the_limit_are_counted_together() {
    let mut random = Random::seeded(3);
    let mut collector = Collector::new(1, at(0));
    for number in 0..MAX_SITES + 50 {
        let (head, bytes) = frame(&[(event(&mut random, Some(&format!("site-{number}")), 200), 1)]);
        collector.take(&head, bytes, at(0));
    }
    let minutes = collector.finish(at(1)).minutes;
    assert_eq!(minutes.len(), MAX_SITES + 1);
    let others = minutes.iter().find(|minute| minute.site.as_deref() == Some(OTHER_SITES)).unwrap();
    assert_eq!(others.figures.requests, 50);
}

#[test]
fn who_follows_too_slowly_is_told_how_much_was_missed() {
    let mut random = Random::seeded(3);
    let mut collector = Collector::new(1, at(0));
    let (_, told) = collector.follow().unwrap();
    let mut give = |collector: &mut Collector| {
        let (head, bytes) = frame(&[(event(&mut random, Some("shop"), 200), 3)]);
        collector.take(&head, bytes, at(0));
    };
    (0..FOLLOWER_QUEUE + 10).for_each(|_| give(&mut collector));
    (0..FOLLOWER_QUEUE).for_each(|_| assert!(matches!(told.try_recv(), Ok(Told::Frame(_)))));
    give(&mut collector);
    assert!(matches!(told.try_recv(), Ok(Told::Missed(30))));
    assert!(matches!(told.try_recv(), Ok(Told::Frame(_))));
    drop(told);
    give(&mut collector);
    assert!(collector.followers.is_empty(), "who has gone is forgotten");
    let all: Vec<_> = (0..MAX_FOLLOWERS).map(|_| collector.follow()).collect();
    assert!(all.iter().all(Option::is_some) && collector.follow().is_none());
}

#[test]
fn an_anomaly_names_the_changes_and_what_came_in() {
    let mut random = Random::seeded(4);
    let mut collector = Collector::new(1, at(0));
    let mut turns = Vec::new();
    for second in 0..900 {
        turns.extend(collector.tick(at(second)).turns);
        let failing = second >= 840;
        if second == 835 {
            let text = "generation 9 came into force".to_owned();
            let (what, component) = (What::GenerationActivated, Component::Configuration);
            collector.happened(Happening::new(at(second), what, Severity::Info, component, "reload", text));
        }
        let events: Vec<_> = (0..20)
            .map(|number| {
                (event(&mut random, Some("shop"), if failing && number < 10 { 502 } else { 200 }), 1)
            })
            .collect();
        let (head, bytes) = frame(&events);
        collector.take(&head, bytes, at(second));
    }
    let [Turn::Began(anomaly)] = turns.as_slice() else { panic!("{turns:?}") };
    assert_eq!((anomaly.signal.as_str(), anomaly.site.as_deref()), ("error-share", Some("shop")));
    assert!(anomaly.since <= at(870), "noticed within 30 seconds");
    assert_eq!(anomaly.judgement, api::analytics::Judgement::LooksLikeOwnFault);
    assert!(anomaly.sentence.contains("generation 9 came into force"), "{}", anomaly.sentence);
    assert!(anomaly.evidence.new_networks_share.unwrap() < 0.1);
    let top = collector.top(at(900), StoreStatus::default());
    assert_eq!((top.anomalies.len(), top.changes.len()), (1, 1));
    assert_eq!(top.anomalies[0].evidence.changes.len(), 1);
}

/// Processor time of this thread for a record: `cargo test --release -p analytics --lib cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn cost_per_record() {
    const ROUNDS: u64 = 5_000;
    let mut random = Random::seeded(7);
    let mut collector = Collector::new(1, at(0));
    let events: Vec<_> = (0..200).map(|_| (event(&mut random, Some("shop"), 200), 1)).collect();
    let (head, bytes) = frame(&events);
    let used = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let start = used();
    for round in 0..ROUNDS {
        drop(collector.tick(at(round / 100)));
        collector.take(&head, bytes.clone(), at(round / 100));
    }
    let spent = (used() - start) as f64 / (ROUNDS * u64::from(head.records)) as f64;
    println!("{spent:.0} ns per record, {} bytes each", bytes.len() / 200);
}
