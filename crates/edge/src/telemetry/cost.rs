//! What telemetry costs per request: a measurement, run by hand in release mode, and never a test of a timing.
//!
//! `cargo test --release -p edge --lib telemetry::cost -- --ignored --nocapture`

use std::hint::black_box;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use snapshot::generation::{self, AccessLogTarget, ClientIpDetail};

use super::access_log::AccessLog;
use super::events::Events;
use super::metrics::{Metrics, OriginConnection, OriginResult};
use super::samples;

const ROUNDS: u64 = 2_000_000;

/// Processor time of this thread, so that whatever else the machine does is not measured.
fn nanoseconds(rounds: u64, mut work: impl FnMut(u64)) -> f64 {
    let used = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let start = used();
    (0..rounds).for_each(&mut work);
    (used() - start) as f64 / rounds as f64
}

#[test]
#[ignore = "a measurement, not a test"]
fn cost_per_request() {
    let config = generation::AccessLog {
        to: AccessLogTarget::File("/dev/null".to_owned()),
        client_ip: ClientIpDetail::Truncated,
        retention: Duration::from_secs(86_400),
        rotate_bytes: 1 << 30,
    };
    let log = AccessLog::start(&config, Arc::default()).unwrap();
    let metrics = Metrics::new(2, log.counts().clone());
    let origin: Arc<str> = "http://127.0.0.1:8080".into();
    let site = metrics.site(&"example".into(), &[origin]);
    let shard = metrics.register_shard();
    let (mut handle, mut event) = (log.handle(), samples::event());

    let count = |event: &base::event::RequestEvent| {
        site.origin_connection(shard.index(), 0, OriginConnection::Reused);
        site.origin_request(shard.index(), 0, OriginResult::Answered);
        site.finish(shard.index(), event);
    };
    let counted = nanoseconds(ROUNDS, |_| count(black_box(&event)));
    let logged = nanoseconds(ROUNDS, |round| {
        event.at.0 += 10 + round % 3;
        handle.record(black_box(&event));
    });
    let told = {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("events.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let reader = std::thread::spawn(move || {
            std::io::copy(&mut listener.accept().unwrap().0, &mut std::io::sink()).unwrap()
        });
        let events = Events::start(socket, Arc::default()).unwrap();
        events.enable(true);
        let mut handle = events.handle(1);
        let told = nanoseconds(ROUNDS, |_| handle.record(black_box(&event)));
        drop(handle);
        assert!(events.shutdown(Duration::from_secs(60)));
        let sent = events.counts().sent();
        drop(events);
        println!("{sent} of {ROUNDS} events sent, {} bytes", reader.join().unwrap());
        told
    };
    event.client = "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap();
    let both = nanoseconds(ROUNDS, |round| {
        event.at.0 += 10 + round % 3;
        handle.record(black_box(&event));
        count(black_box(&event));
    });
    drop(handle);
    assert!(log.shutdown(Duration::from_secs(60)));
    let dropped: u64 = log.counts().dropped().iter().map(|(_, count)| count).sum();
    assert_eq!(log.counts().written() + dropped, 2 * ROUNDS, "the premise: every request made a line");
    assert_eq!(metrics.totals().requests, 2 * ROUNDS, "the premise: every request was counted");
    let scrape = nanoseconds(100, |_| drop(black_box(metrics.render()))) / 1e3;
    println!(
        "metrics {counted:.0} ns, event {told:.0} ns, log {logged:.0} ns, metrics and log (IPv6 client) {both:.0} ns per request"
    );
    println!("{dropped} of {} lines dropped; one scrape of one site {scrape:.0} us", 2 * ROUNDS);
}
