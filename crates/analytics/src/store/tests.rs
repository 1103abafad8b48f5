//! What was committed survives; what cannot be written waits, bounded and counted; what is damaged is set aside.

use api::analytics::{Figures, Filter};
use base::happening::{Component, Severity, What};

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn minute(at: u64, site: &str, requests: u64) -> Entry {
    let figures = Figures { requests, ..Figures::default() };
    let site = (!site.is_empty()).then(|| site.to_owned());
    Entry::Minute(Box::new(Minute { at: Timestamp(at), site, figures, ..Minute::default() }))
}

fn sample(at: u64, site: &str, status: u16) -> Entry {
    let request = RequestView {
        id: format!("{at:016}"),
        at: Timestamp(at),
        site: Some(site.to_owned()),
        status,
        target: "x".repeat(500),
        ..RequestView::default()
    };
    Entry::Sample(Box::new(request))
}

fn happening(at: u64) -> Entry {
    let text = "generation 8 came into force".to_owned();
    let (what, component) = (What::GenerationActivated, Component::Configuration);
    Entry::Happening(Box::new(Happening::new(Timestamp(at), what, Severity::Info, component, "reload", text)))
}

fn settings(days: u32, max_bytes: u64) -> AnalyticsSettings {
    AnalyticsSettings { minutes_days: days, samples_days: days, max_bytes, sites: Vec::new() }
}

fn write(database: &mut Database, entries: &[Entry]) {
    database.write(&entries.iter().collect::<Vec<_>>()).unwrap();
}

fn writer(path: &Path) -> Writer {
    Writer::new(path.to_owned(), Arc::default())
}

#[test]
fn what_is_written_is_found_by_time_site_and_status() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut database = Database::open(&path).unwrap();
    write(&mut database, &[minute(60, "shop", 5), minute(60, "", 2), minute(120, "shop", 7), happening(70)]);
    write(&mut database, &[sample(61, "shop", 200), sample(62, "shop", 503), sample(63, "blog", 500)]);
    write(&mut database, &[Entry::Lost(Timestamp(60), 3), Entry::Lost(Timestamp(60), 4)]);
    let reader = Database::open_to_read(&path).unwrap();
    let requests = |since, site| -> Vec<u64> {
        let minutes = reader.minutes(Timestamp(since), site).unwrap();
        minutes.iter().map(|minute| minute.figures.requests).collect()
    };
    assert_eq!((requests(0, None), requests(61, Some("shop"))), (vec![2, 5, 7], vec![7]));
    assert_eq!(reader.lost(Timestamp(0)).unwrap(), 7);
    let statuses = |filter: &Filter, limit| -> Vec<u16> {
        reader.samples(filter, limit).unwrap().iter().map(|request| request.status).collect()
    };
    let failed = Filter { status: Some((500, 599)), ..Filter::default() };
    assert_eq!(statuses(&failed, 10), [503, 500]);
    assert_eq!(statuses(&Filter { site: Some("shop".into()), ..failed.clone() }, 10), [503]);
    assert_eq!(statuses(&Filter { since: Some(Timestamp(63)), ..failed }, 10), [500]);
    assert_eq!(statuses(&Filter::default(), 2), [503, 500], "the newest");
    assert_eq!(reader.happenings(&Filter::default(), 9).unwrap().len(), 1);
}

#[test]
fn a_minute_told_in_two_parts_is_two_entries() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Database::open(&folder.path().join("events.db")).unwrap();
    write(&mut database, &[minute(60_000_000, "shop", 5)]);
    write(&mut database, &[minute(60_000_000, "shop", 6), minute(60_000_000, "blog", 1)]);
    let minutes = database.minutes(Timestamp(60_000_000), Some("shop")).unwrap();
    assert_eq!(minutes.iter().map(|minute| minute.figures.requests).sum::<u64>(), 11);
}

#[test]
fn what_is_old_goes_and_then_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Database::open(&folder.path().join("events.db")).unwrap();
    let day = 86_400_000_000;
    write(&mut database, &[minute(NOW.0 - 3 * day, "shop", 1), minute(NOW.0 - day, "shop", 2)]);
    write(&mut database, &[happening(NOW.0 - 3 * day), happening(NOW.0 - day)]);
    for batch in 0..40 {
        let entries: Vec<_> = (0..500).map(|n| sample(NOW.0 - day + batch * 500 + n, "shop", 200)).collect();
        write(&mut database, &entries);
    }
    database.tidy(&settings(2, 1 << 30), NOW).unwrap();
    assert_eq!(database.minutes(Timestamp(0), None).unwrap().len(), 1);
    assert_eq!(database.happenings(&Filter::default(), 9).unwrap().len(), 1);
    let before = database.used_bytes().unwrap();
    assert!(before > 10 << 20, "the premise: {before}");
    database.tidy(&settings(2, 4 << 20), NOW).unwrap();
    assert!(database.used_bytes().unwrap() <= 4 << 20);
    let kept = database.samples(&Filter::default(), 20_000).unwrap();
    assert_eq!(kept.last().unwrap().at, Timestamp(NOW.0 - day + 19_999), "the oldest go");
    assert!(kept.len() > 1_000, "and not all of them");
    assert_eq!(database.minutes(Timestamp(0), None).unwrap().len(), 1, "figures stay longest");
    let file = std::fs::metadata(folder.path().join("events.db")).unwrap().len();
    assert!(file <= 5 << 20, "the file itself becomes smaller: {file}");
}

#[test]
fn a_damaged_database_is_set_aside_and_a_new_one_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    std::fs::write(
        &path,
        "this is no database at all, and it is long enough to be read as one. ".repeat(100),
    )
    .unwrap();
    let mut writer = writer(&path);
    writer.wait(vec![minute(60, "shop", 5)]);
    writer.write();
    assert!(writer.status.lock().unwrap().problem.is_some());
    writer.write();
    assert_eq!(*writer.status.lock().unwrap(), StoreStatus::default(), "nothing waits, nothing is wrong");
    assert_eq!(Database::open_to_read(&path).unwrap().minutes(Timestamp(0), None).unwrap().len(), 1);
    assert!(folder.path().join("events.db.damaged").exists());
}

#[test]
fn a_full_disk_costs_the_oldest_entries_which_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut writer = writer(&path);
    writer.wait(vec![minute(60, "shop", 5)]);
    writer.write();
    // SQLite's own way to run out of room: the error is that of a full disk.
    let pages = |count: i64, writer: &Writer| {
        let connection = writer.database.as_ref().unwrap().connection();
        connection.pragma_update_and_check(None, "max_page_count", count, |_| Ok(())).unwrap();
    };
    pages(1, &writer);
    let flood = MAX_WAITING as u64 + 100;
    for part in 0..flood / 100 {
        writer.wait((0..100).map(|n| sample(1_000 + part * 100 + n, "shop", 200)).collect());
    }
    writer.write();
    let status = writer.status.lock().unwrap().clone();
    assert_eq!((status.waiting, status.dropped), (MAX_WAITING as u64, 100));
    assert!(status.problem.unwrap().contains("full"));
    // There is room again.
    writer.again = Instant::now();
    writer.write();
    let status = writer.status.lock().unwrap().clone();
    assert_eq!((status.waiting, status.problem), (0, None));
    let kept = Database::open_to_read(&path).unwrap().samples(&Filter::default(), u32::MAX).unwrap();
    assert_eq!((kept.len(), kept[0].at), (MAX_WAITING, Timestamp(1_100)), "the oldest were given up");
}

#[test]
fn what_was_committed_is_there_without_a_goodbye() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut database = Database::open(&path).unwrap();
    write(&mut database, &[minute(60, "shop", 5)]);
    // As if killed: neither closed nor checkpointed.
    let copy = tempfile::tempdir().unwrap();
    for file in ["events.db", "events.db-wal"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let again = Database::open(&copy.path().join("events.db")).unwrap();
    assert_eq!(again.minutes(Timestamp(0), None).unwrap().len(), 1);
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let database = Database::open(&path).unwrap();
    database.connection().pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let mut writer = writer(&path);
    writer.wait(vec![minute(60, "shop", 5)]);
    writer.write();
    assert!(writer.status.lock().unwrap().problem.as_ref().unwrap().contains("newer Rempart"));
    assert!(!folder.path().join("events.db.damaged").exists());
}
