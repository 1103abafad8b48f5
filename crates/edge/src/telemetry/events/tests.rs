//! Every request is told, or counted as lost; whoever does not read never holds anybody up.

use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};

use base::event::wire::{Head, records};

use super::super::samples;
use super::*;

/// What one connection brings until it closes: requests told of and requests said to be lost.
fn drain(mut stream: UnixStream) -> (u64, u64) {
    let (mut told, mut lost) = (0, 0);
    let mut head = [0; Head::BYTES];
    while stream.read_exact(&mut head).is_ok() {
        let head = Head::parse(&head).unwrap();
        let mut body = vec![0; head.length as usize];
        stream.read_exact(&mut body).unwrap();
        let weights: Vec<_> = records(&body).map(|record| u64::from(record.unwrap().weight)).collect();
        assert_eq!(weights.len(), head.records as usize);
        told += weights.iter().sum::<u64>();
        lost += head.lost;
    }
    (told, lost)
}

fn dropped(counts: &EventCounts) -> u64 {
    counts.dropped().iter().map(|(_, count)| count).sum()
}

#[test]
fn every_event_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("events.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let reader = std::thread::spawn(move || drain(listener.accept().unwrap().0));
    let events = Events::start(socket, Arc::default()).unwrap();
    events.enable(true);
    let threads: Vec<_> = (0..3)
        .map(|seed| {
            let mut handle = events.handle(seed);
            std::thread::spawn(move || (0..1_000).for_each(|_| handle.record(&samples::event())))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(events.shutdown(Duration::from_secs(60)));
    assert_eq!(events.counts().sent(), 3_000);
    drop(events);
    assert_eq!(reader.join().unwrap(), (3_000, 0));
}

#[test]
fn nothing_is_made_while_events_are_off() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::start(folder.path().join("nobody"), Arc::default()).unwrap();
    let mut handle = events.handle(1);
    handle.record(&samples::event());
    assert_eq!((handle.bytes.capacity(), handle.records), (0, 0));
}

#[test]
fn who_does_not_read_costs_events_that_are_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("events.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let events = Events::start(socket, Arc::default()).unwrap();
    events.enable(true);
    let mut handle = events.handle(1);
    let mut made = 0;
    // Far more than queue and socket hold; `record` comes back every time, or this test would not end.
    while dropped(events.counts()) == 0 {
        handle.record(&samples::event());
        made += 1;
    }
    assert_eq!(handle.halvings, MAX_HALVINGS, "sampled before anything was dropped");
    let reader = std::thread::spawn(move || drain(listener.accept().unwrap().0));
    // The first chunk after the loss tells of it.
    while events.counts().sent() == 0 {
        std::thread::yield_now();
    }
    while handle.control.lost.load(Ordering::Relaxed) > 0 {
        handle.record(&samples::event());
        made += 1;
        handle.flush();
    }
    drop(handle);
    assert!(events.shutdown(Duration::from_secs(60)));
    let (sent, lost) = (events.counts().sent(), dropped(events.counts()));
    drop(events);
    assert_eq!(reader.join().unwrap(), (sent, lost));
    // Sampled events stand for those that were left out: right within the spread of the sample.
    let (estimate, made) = ((sent + lost) as f64, made as f64);
    assert!((estimate - made).abs() < made * 0.2, "{estimate} for {made}");
}

#[test]
fn nobody_there_costs_events_that_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::start(folder.path().join("nobody"), Arc::default()).unwrap();
    events.enable(true);
    let mut handle = events.handle(1);
    for _ in 0..10 {
        handle.record(&samples::event());
        handle.flush();
    }
    drop(handle);
    assert!(events.shutdown(Duration::from_secs(60)));
    assert_eq!(events.counts().dropped(), [("queue_full", 0), ("unreachable", 10), ("stopped", 0)]);
}

#[test]
fn failures_are_sampled_less_than_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::start(folder.path().join("nobody"), Arc::default()).unwrap();
    let mut handle = events.handle(1);
    let (fine, mut failed) = (samples::event(), samples::event());
    failed.status = 503;
    for (halvings, of_fine, of_failed) in [(0, 1, 1), (1, 2, 1), (3, 8, 1), (4, 16, 2), (6, 64, 8)] {
        handle.halvings = halvings;
        assert_eq!((handle.weight(&fine), handle.weight(&failed)), (of_fine, of_failed));
    }
}
