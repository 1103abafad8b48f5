//! Whoever writes a store is killed at random moments: what is in force afterwards is whole, and numbers never go back.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what failed by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use api::seal::{Keyring, SigningKey};
use base::time::Timestamp;
use feed::store::Store;
use snapshot::kind;
use snapshot::package::{self, Draft, MAX_BYTES};

const NOW: Timestamp = Timestamp(1_000_000_000_000);
/// Where the child works.
const FOLDER: &str = "REMPART_KILLS_FOLDER";

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn made(generation: u64) -> Vec<u8> {
    let rows: String = (0..200).map(|row| format!("row-{row}\t{generation}.5\n")).collect();
    let text = format!("#columns name:text weight:number\n{rows}");
    let kind = kind::find("table").unwrap();
    let described = kind::describe(kind, &kind.read(text.as_bytes(), NOW).unwrap());
    let draft = Draft {
        name: "features".to_owned(),
        generation,
        created: NOW,
        expires: None,
        source: String::new(),
        query_hash: None,
    };
    package::pack(draft, described, text.as_bytes(), &key()).unwrap()
}

/// Keeps one generation after the other and says so, until it is killed.
#[test]
#[ignore = "the child of the tests below"]
fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(Path::new(&folder), "features").unwrap();
    loop {
        let number = store.highest_ever() + 1;
        store.put(&made(number), number).unwrap();
        store.mark_active(number).unwrap();
        if number.is_multiple_of(3) {
            store.mark_good(number).unwrap();
        }
        println!("in force {number}");
    }
}

/// Starts a writer, and kills it a random while after it has put one in force. Answers the last one it said was.
fn write_and_kill(folder: &Path, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = lines.filter_map(|line| line.strip_prefix("in force ")?.parse().ok());
    let first: u64 = said.next().expect("the writer writes");
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    said.last().unwrap_or(first)
}

fn survives(kills: u64) {
    let folder = tempfile::tempdir().unwrap();
    let trusted = Keyring::new([key().public().into()]).unwrap();
    let (mut seed, mut before) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for kill in 0..kills {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Longer than one round of writing, so that the kill may strike anywhere in it.
        let said = write_and_kill(folder.path(), Duration::from_micros(seed % 3000));
        let store = Store::open(folder.path(), "features").unwrap();
        let active = store.active().expect("one is in force");
        assert!(
            active >= said && said > before,
            "kill {kill}: {active} in force, {said} said, {before} before"
        );
        assert!(store.highest_ever() >= active && store.good() <= Some(active), "kill {kill}");
        let candidates = store.candidates();
        assert_eq!(candidates.first().map(|(number, _)| *number), Some(active), "kill {kill}");
        for (number, bytes) in &candidates {
            let package = package::open(bytes, &trusted, NOW, MAX_BYTES, true).unwrap();
            assert_eq!(package.manifest.generation, *number, "kill {kill}");
        }
        let names = std::fs::read_dir(folder.path().join("features")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(
            !names.iter().any(|name| name.contains("damaged")),
            "kill {kill}: nothing is ever torn: {names:?}"
        );
        before = active;
    }
}

#[test]
fn fifty_kills_tear_nothing() {
    survives(50);
}

#[test]
#[ignore = "takes its time"]
fn five_hundred_kills_tear_nothing() {
    survives(500);
}
