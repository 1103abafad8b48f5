//! The log from `record` to the file, its queue when the writer stands still, and what reload and shutdown do.

use std::fs;

use super::*;
use crate::telemetry::samples;

const WAIT: Duration = Duration::from_secs(60);

fn config(to: AccessLogTarget) -> generation::AccessLog {
    generation::AccessLog {
        to,
        client_ip: ClientIpDetail::Truncated,
        retention: Duration::from_secs(86_400),
        rotate_bytes: 1 << 30,
    }
}

fn file(directory: &tempfile::TempDir, name: &str) -> AccessLogTarget {
    AccessLogTarget::File(directory.path().join(name).to_str().unwrap().to_owned())
}

fn lines(directory: &tempfile::TempDir, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(directory.path().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn dropped(counts: &LogCounts, reason: &str) -> u64 {
    counts.dropped().into_iter().find(|(name, _)| *name == reason).unwrap().1
}

#[test]
fn every_line_of_every_thread_is_in_the_file_after_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(&config(file(&directory, "access.log")), Arc::default()).unwrap();
    thread::scope(|scope| {
        for worker in 0..4 {
            let mut handle = log.handle();
            scope.spawn(move || {
                for count in 0..1_000 {
                    let target = format!("/{worker}/{count}").into();
                    handle.record(&RequestEvent { target, ..samples::event() });
                }
            });
        }
    });
    assert!(log.shutdown(WAIT));
    let targets: std::collections::HashSet<_> =
        lines(&directory, "access.log").iter().map(|line| line["target"].to_string()).collect();
    assert_eq!(targets.len(), 4_000);
    assert_eq!(log.counts().written(), 4_000);
    assert!(log.counts().dropped().iter().all(|(_, count)| *count == 0));
}

#[test]
fn a_writer_that_stands_still_costs_lines_and_never_waits() {
    let (sender, receiver) = mpsc::sync_channel(2);
    let counts = Arc::new(LogCounts::default());
    let control = Arc::new(Control::new(&config(AccessLogTarget::Stdout)));
    let mut handle = LogHandle::new(sender, control, counts.clone());
    let mut recorded = 0;
    // With the queue full after two chunks, any further chunk has to be dropped for this loop to end.
    while dropped(&counts, "queue_full") == 0 {
        handle.record(&samples::event());
        recorded += 1;
    }
    handle.record(&samples::event());
    recorded += 1;
    let mut queued = 0;
    while let Ok(Message::Chunk(chunk)) = receiver.try_recv() {
        assert!(chunk.bytes.len() < CHUNK_BYTES + 1_024);
        assert_eq!(chunk.bytes.iter().filter(|&&byte| byte == b'\n').count() as u64, chunk.lines);
        queued += chunk.lines;
    }
    drop(receiver);
    drop(handle);
    assert_eq!(dropped(&counts, "stopped"), 1, "the line recorded last");
    assert_eq!(queued + dropped(&counts, "queue_full") + 1, recorded);
}

#[test]
fn a_full_disk_is_counted_and_told() {
    let log =
        AccessLog::start(&config(AccessLogTarget::File("/dev/full".to_owned())), Arc::default()).unwrap();
    let mut handle = log.handle();
    for _ in 0..500 {
        handle.record(&samples::event());
    }
    drop(handle);
    assert!(log.shutdown(WAIT));
    assert_eq!((log.counts().written(), dropped(log.counts(), "write_failed")), (0, 500));
    assert!(log.counts().problem().unwrap().contains("/dev/full"));
}

#[test]
fn lines_wait_no_longer_than_the_flush_interval() {
    let (sender, receiver) = mpsc::sync_channel(2);
    let control = Arc::new(Control::new(&config(AccessLogTarget::Stdout)));
    let mut handle = LogHandle::new(sender, control, Arc::default());
    let start = handle.looked;
    handle.record(&samples::event());
    handle.flush_if_older(start + FLUSH_INTERVAL / 2);
    assert!(receiver.try_recv().is_err());
    handle.flush_if_older(start + FLUSH_INTERVAL);
    assert!(matches!(receiver.try_recv(), Ok(Message::Chunk(Chunk { lines: 1, .. }))));
    handle.flush_if_older(start + 2 * FLUSH_INTERVAL);
    assert!(receiver.try_recv().is_err(), "an idle thread sends nothing");
}

#[test]
fn reload_changes_target_and_detail_without_losing_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(&config(file(&directory, "one.log")), Arc::default()).unwrap();
    let mut handle = log.handle();
    handle.record(&samples::event());
    handle.flush();

    let full =
        generation::AccessLog { client_ip: ClientIpDetail::Full, ..config(file(&directory, "two.log")) };
    log.reconfigure(&full);
    handle.record(&samples::event());
    handle.flush();

    log.reconfigure(&config(AccessLogTarget::Off));
    handle.record(&samples::event());
    drop(handle);
    assert!(log.shutdown(WAIT));
    let all: Vec<_> = ["one.log", "two.log"].map(|name| (directory.path().join(name), name)).into();
    let seen: Vec<_> =
        all.iter().filter(|(path, _)| path.exists()).flat_map(|(_, name)| lines(&directory, name)).collect();
    assert_eq!(
        seen.iter().map(|line| line["client"].as_str().unwrap()).collect::<Vec<_>>(),
        ["203.0.113.0", "203.0.113.77"]
    );
    assert_eq!(log.counts().written(), 2);
    assert!(log.counts().dropped().iter().all(|(_, count)| *count == 0));
}

#[test]
fn lines_after_the_shutdown_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(&config(file(&directory, "access.log")), Arc::default()).unwrap();
    let mut handle = log.handle();
    assert!(log.shutdown(WAIT) && log.shutdown(WAIT), "a second time is harmless");
    handle.record(&samples::event());
    handle.flush();
    assert_eq!(dropped(log.counts(), "stopped"), 1);
}
