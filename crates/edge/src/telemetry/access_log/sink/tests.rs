//! Rotation, retention, failing disks and torn lines, with the clock as an argument.

use std::os::unix::fs::PermissionsExt;

use super::*;

const START: u64 = 1_700_000_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

/// A sink on a fresh directory, and a clock that only moves when told.
struct Bench {
    directory: tempfile::TempDir,
    sink: Sink,
    counts: Arc<LogCounts>,
    now: Now,
}

impl Bench {
    fn new(name: &str, rotate_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name).to_str().unwrap().to_owned();
        Self::with(directory, path, rotate_bytes)
    }

    fn with(directory: tempfile::TempDir, path: String, rotate_bytes: u64) -> Self {
        let config = AccessLog {
            to: AccessLogTarget::File(path),
            client_ip: snapshot::generation::ClientIpDetail::Truncated,
            retention: 7 * DAY,
            rotate_bytes,
        };
        let counts = Arc::new(LogCounts::default());
        let now = Now { wall: Timestamp(START), steady: Instant::now() };
        Self { directory, sink: Sink::new(config, counts.clone()), counts, now }
    }

    fn write(&mut self, text: &str) {
        self.now.wall = Timestamp(self.now.wall.0 + 1);
        self.sink.write(&chunk(text), self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { wall: self.now.wall.plus(time), steady: self.now.steady + time };
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Written, and lost to failed writes.
    fn counted(&self) -> (u64, u64) {
        (self.counts.written(), self.counts.write_failed.load(Ordering::Relaxed))
    }
}

fn chunk(text: &str) -> Chunk {
    Chunk { bytes: text.as_bytes().to_vec(), lines: text.lines().count() as u64 }
}

#[test]
fn a_file_is_private_to_its_owner_and_group_and_is_appended_to() {
    let mut bench = Bench::new("access.log", 1_000);
    fs::write(bench.directory.path().join("access.log"), "before\n").unwrap();
    bench.write("after\n");
    assert_eq!(bench.read("access.log"), "before\nafter\n");

    let mut fresh = Bench::new("access.log", 1_000);
    fresh.write("line\n");
    let mode = fs::metadata(fresh.directory.path().join("access.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !FILE_MODE, 0, "{mode:o}");
}

#[test]
fn a_full_file_is_rotated_under_the_time_and_no_line_is_lost() {
    let mut bench = Bench::new("access.log", 20);
    for text in
        ["0123456789\n", "second\n", "third\n", "fourth\n", "much longer than the limit of a file\n", "end\n"]
    {
        bench.write(text);
    }
    assert_eq!(
        bench.names(),
        [
            "access.log",
            "access.log.20231114T221320.000003Z",
            "access.log.20231114T221320.000005Z",
            "access.log.20231114T221320.000006Z"
        ]
    );
    assert_eq!(bench.read("access.log.20231114T221320.000003Z"), "0123456789\nsecond\n");
    assert_eq!(bench.read("access.log.20231114T221320.000005Z"), "third\nfourth\n");
    assert_eq!(bench.read("access.log"), "end\n");
    assert_eq!(bench.counted(), (6, 0));
}

#[test]
fn a_quiet_file_is_rotated_by_age_and_deleted_after_the_retention() {
    let mut bench = Bench::new("access.log", 1_000_000);
    for bystander in
        ["access.log.1", "access.log.20010101T000000.000000Z.gz", "other.log.20010101T000000.000000Z"]
    {
        fs::write(bench.directory.path().join(bystander), "not ours\n").unwrap();
    }
    fs::create_dir(bench.directory.path().join("access.log.20010101T000000.000000Z")).unwrap();
    bench.write("one\n");
    assert_eq!(bench.names().len(), 5);

    bench.pass(DAY);
    bench.sink.housekeep(bench.now);
    let rotated = "access.log.20231115T221320.000001Z";
    assert_eq!(bench.read(rotated), "one\n");
    assert_eq!(bench.read("access.log"), "");

    bench.pass(7 * DAY);
    bench.sink.housekeep(bench.now);
    assert!(bench.names().iter().any(|name| name == rotated), "kept for the whole retention");
    bench.pass(Duration::from_secs(1));
    bench.sink.housekeep(bench.now);
    assert_eq!(
        bench.names(),
        [
            "access.log",
            "access.log.1",
            "access.log.20010101T000000.000000Z",
            "access.log.20010101T000000.000000Z.gz",
            "other.log.20010101T000000.000000Z"
        ]
    );
}

#[test]
fn a_full_disk_costs_lines_and_is_left_alone_for_a_while() {
    let mut bench = Bench::with(tempfile::tempdir().unwrap(), "/dev/full".to_owned(), 1);
    bench.write("a\nb\n");
    assert_eq!(bench.counted(), (0, 2));
    let problem = bench.counts.problem().unwrap();
    assert!(problem.contains("/dev/full") && problem.contains("No space left"), "{problem}");

    let mut attempts = 0;
    for _ in 0..600 {
        let before = bench.sink.failing.as_ref().unwrap().until;
        bench.write("c\n");
        attempts += usize::from(bench.sink.failing.as_ref().unwrap().until != before);
        bench.pass(Duration::from_millis(100));
    }
    assert_eq!(bench.counted(), (0, 602));
    assert_eq!(attempts, 5, "after 1, 3, 7, 15 and 31 s of 60");
    assert_eq!(bench.sink.warned.len(), 1, "one cause, one warning");
    assert!(Path::new("/dev/full").exists(), "a device is never renamed");
}

#[test]
fn a_directory_that_comes_back_is_used_again() {
    let mut bench = Bench::new("logs/access.log", 1_000);
    bench.write("lost\n");
    assert!(bench.counts.problem().unwrap().starts_with("cannot open "));
    fs::create_dir(bench.directory.path().join("logs")).unwrap();
    bench.write("lost too, within the back-off\n");
    bench.pass(FIRST_BACK_OFF);
    bench.write("kept\n");
    assert_eq!(bench.read("logs/access.log"), "kept\n");
    assert_eq!((bench.counted(), bench.counts.problem()), ((1, 2), None));

    fs::remove_dir_all(bench.directory.path().join("logs")).unwrap();
    bench.write("lost\n");
    assert!(bench.counts.problem().is_some());
    assert_eq!(bench.counted(), (1, 3));
}

#[test]
fn a_file_moved_away_by_another_tool_is_opened_anew() {
    let mut bench = Bench::new("access.log", 1_000);
    bench.write("one\n");
    fs::rename(bench.directory.path().join("access.log"), bench.directory.path().join("taken")).unwrap();
    bench.write("two\n");
    assert_eq!((bench.read("taken"), bench.read("access.log")), ("one\n".to_owned(), "two\n".to_owned()));
}

#[test]
fn a_rotation_that_cannot_be_done_costs_no_line() {
    let mut bench = Bench::new("access.log", 10);
    bench.write("0123456789\n");
    // The name that the next rotation will want is taken.
    fs::create_dir(bench.directory.path().join("access.log.20231114T221320.000002Z")).unwrap();
    bench.write("second\n");
    bench.write("third\n");
    assert_eq!(bench.read("access.log"), "0123456789\nsecond\nthird\n");
    bench.pass(LONGEST_BACK_OFF);
    bench.write("fourth\n");
    assert_eq!(bench.read("access.log"), "fourth\n");
    assert_eq!(bench.counted(), (4, 0));
    assert!(bench.sink.warned.is_empty());
}

#[test]
fn half_a_line_left_by_a_crash_is_ended_first() {
    let mut bench = Bench::new("access.log", 1_000);
    fs::write(bench.directory.path().join("access.log"), "whole\nhal").unwrap();
    bench.write("next\n");
    assert_eq!(bench.read("access.log"), "whole\nhal\nnext\n");
}

/// Takes some bytes, then fails as a full disk does, until told otherwise.
struct Disk {
    taken: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_that_fails_half_way_counts_whole_lines_only() {
    let (mut disk, mut torn) = (Disk { taken: Vec::new(), room: 9 }, false);
    let (lines, outcome) = deliver(&mut disk, &mut torn, &chunk("one\ntwo\nthree\n"));
    assert_eq!((lines, outcome.unwrap_err().kind(), torn), (2, ErrorKind::StorageFull, true));
    let (lines, outcome) = deliver(&mut disk, &mut torn, &chunk("four\n"));
    assert_eq!((lines, outcome.is_err(), torn), (0, true, true));
    disk.room = 100;
    let (lines, outcome) = deliver(&mut disk, &mut torn, &chunk("five\n"));
    assert_eq!((lines, outcome.is_ok(), torn), (1, true, false));
    assert_eq!(disk.taken, b"one\ntwo\nt\nfive\n");
}

#[test]
fn two_processes_on_one_file_rotate_it_once_and_lose_no_line() {
    let mut one = Bench::new("access.log", 30);
    let path = one.directory.path().join("access.log").to_str().unwrap().to_owned();
    let mut other = Bench::with(tempfile::tempdir().unwrap(), path, 30);
    one.write("one: first\n");
    other.write("other: first\n");
    assert_eq!(one.read("access.log"), "one: first\nother: first\n");
    // This would not fit any more.
    one.write("one: second\n");
    assert_eq!((one.names().len(), one.read("access.log")), (2, "one: second\n".to_owned()));
    // The other one's file is full, but it is not the one at the path any more.
    other.write("other: second\n");
    assert_eq!(one.names().len(), 2);
    assert_eq!(one.read("access.log"), "one: second\nother: second\n");

    // While one of them is at it, the other leaves it alone and goes on writing.
    let held = File::open(one.directory.path().join("access.log")).unwrap();
    held.try_lock().unwrap();
    other.write("other: third\n");
    assert_eq!(one.names().len(), 2);
    assert!(one.read("access.log").ends_with("other: third\n"));
    drop(held);
    other.write("other: fourth\n");
    assert_eq!((one.names().len(), one.read("access.log")), (3, "other: fourth\n".to_owned()));
    assert_eq!((one.counted(), other.counted()), ((2, 0), (4, 0)));
    assert!(other.sink.warned.is_empty());
}
