//! Killed at random moments of writing, activating and promoting: what serves afterwards has passed every check, whole.
//!
//! A writer brings good and bad configurations and good and bad packages. Every bad one carries a mark, so that it is known
//! if it is ever in force. `REMPART_SEED` repeats a run as far as chance is concerned; the clock is not repeated.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use api::admin::{Answer, FeedStatus, GenerationSource, ProcessRole, Request, Status};
use api::seal::SigningKey;
use base::random::Random;
use harness::PATIENCE;
use harness::config::Config;
use harness::rempart::{Orphans, Place, Rempart, process_of};
use rustix::process::{Pid, Signal, kill_process};
use snapshot::package;

use crate::feeds::{FEED, feed, key, packed, put, source};

/// Rows of a good package; a bad one has a tenth.
const ROWS: usize = 50;
/// How long the writer waits for what it brought to be judged, and the killer for something to be written.
const JUDGED: Duration = Duration::from_millis(500);

/// What is known by construction, and what Rempart has said.
#[derive(Default)]
struct Known {
    /// Content of the good packages, by their generations.
    good: BTreeMap<u64, String>,
    /// Content hashes of configurations, by the numbers they were said to have.
    configurations: BTreeMap<u64, String>,
    /// Numbers never go below these.
    configuration: u64,
    artefact: u64,
    /// The generation of the feed that was said to be one to go back to.
    proven: u64,
    /// Numbers given out.
    next_site: u64,
    next_package: u64,
}

struct Script<'a> {
    place: &'a Place,
    admin: &'a Path,
    /// An address that no configuration can listen on.
    occupied: &'a str,
    known: &'a Mutex<Known>,
    over: &'a AtomicBool,
}

fn ask(admin: &Path, request: &Request) -> io::Result<Answer> {
    let mut socket = UnixStream::connect(admin)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all((serde_json::to_string(request)? + "\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

fn config(place: &Place, site: &str) -> String {
    let config = Config::new().raw(&feed(place)).listen("127.0.0.1:0", false);
    let config = config.site(site, &["shop.test"]).origin("http://127.0.0.1:9");
    format!("bake = \"1s\"\n{}", config.text())
}

impl Script<'_> {
    /// One change after the other, until nobody answers.
    fn run(&self, random: &mut Random) {
        while !self.over.load(Ordering::Relaxed) {
            let done = match random.below(8) {
                0..3 => self.good_configuration(),
                3 => self.bad_configuration(random),
                4..7 => self.good_package(),
                _ => self.bad_package(random),
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn reload(&self) -> io::Result<()> {
        if let Answer::Reload(outcome) = ask(self.admin, &Request::Reload { force: false })?
            && outcome.active
        {
            self.known.lock().unwrap().acknowledge(outcome.number, &outcome.generation);
        }
        Ok(())
    }

    fn good_configuration(&self) -> io::Result<()> {
        let site = {
            let mut known = self.known.lock().unwrap();
            known.next_site += 1;
            format!("good-{}", known.next_site)
        };
        self.place.write("rempart.toml", config(self.place, &site));
        self.reload()
    }

    fn bad_configuration(&self, random: &mut Random) -> io::Result<()> {
        let text = config(self.place, "bad");
        let text = match random.below(3) {
            // Not to be read, not to be understood, not to be listened on.
            0 => text.split_at(text.len() / 2).0.to_owned() + "[[[",
            1 => text + "colour = \"red\"\n",
            _ => text.replace("127.0.0.1:0", self.occupied),
        };
        self.place.write("rempart.toml", text);
        self.reload()
    }

    fn next_package(&self) -> u64 {
        let mut known = self.known.lock().unwrap();
        known.next_package += 1;
        known.next_package
    }

    fn good_package(&self) -> io::Result<()> {
        let generation = self.next_package();
        let bytes = packed(generation, ROWS, &key(), None);
        let content = package::peek(&bytes).unwrap().content;
        self.known.lock().unwrap().good.insert(generation, content);
        self.bring(generation, &bytes)
    }

    fn bad_package(&self, random: &mut Random) -> io::Result<()> {
        let generation = self.next_package();
        let bytes = match random.below(3) {
            0 => packed(generation, ROWS, &SigningKey::from_seed(&[8; 32]).unwrap(), None),
            // More rows are missing than a change may take away; there may be nothing to compare it with at first.
            1 if self.known.lock().unwrap().artefact > 0 => packed(generation, ROWS / 10, &key(), None),
            _ => {
                let mut bytes = packed(generation, ROWS, &key(), None);
                let at = bytes.len() - 1 - random.below(200) as usize;
                bytes[at] ^= 1;
                bytes
            }
        };
        self.bring(generation, &bytes)
    }

    /// Puts it where the feeder looks, and waits for a while for what comes of it.
    fn bring(&self, generation: u64, bytes: &[u8]) -> io::Result<()> {
        put(self.place, generation, bytes);
        for old in generation.saturating_sub(3)..generation {
            // What a run before this one removed is gone.
            drop(fs::remove_file(source(self.place, old)));
        }
        let order = |thaw| ask(self.admin, &Request::Feed { name: FEED.to_owned(), thaw, force: false });
        let begin = Instant::now();
        // The feeder is started after the edge, and one that was killed is started again.
        while let Answer::Refused { message } = order(false)? {
            if message.contains("frozen") {
                order(true)?;
            } else if begin.elapsed() > JUDGED || self.over.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let deadline = Instant::now() + JUDGED;
        while Instant::now() < deadline && !self.over.load(Ordering::Relaxed) {
            if let Answer::Feeds { feeds } = ask(self.admin, &Request::Feeds)?
                && let Some(feed) = feeds.first()
            {
                self.known.lock().unwrap().acknowledge_feed(feed);
                let refused = feed.refusals.iter().any(|found| found.generation == Some(generation));
                if refused || feed.generation >= Some(generation) {
                    return Ok(());
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Known {
    fn acknowledge(&mut self, number: u64, content: &str) {
        let before = self.configurations.insert(number, content.to_owned());
        assert!(before.is_none_or(|before| before == content), "number {number} was given twice");
        self.configuration = self.configuration.max(number);
    }

    fn acknowledge_feed(&mut self, feed: &FeedStatus) {
        self.artefact = self.artefact.max(feed.generation.unwrap_or(0));
        self.proven = self.proven.max(feed.good.unwrap_or(0));
    }

    /// An edge that dies while data is watched has it taken back, as far as to what has proved itself.
    fn may_go_back(&mut self) {
        self.artefact = self.proven;
    }

    /// What is in force has passed every check, and is not older than what was said.
    fn judge(&mut self, status: &Status, place: &Place) {
        let names: Vec<&str> = status.sites.iter().map(|site| site.name.as_str()).collect();
        assert!(matches!(names[..], [name] if name.starts_with("good-")), "sites {names:?}");
        // What is served for want of a readable configuration keeps the number it came with.
        let is_last_good = status.source == GenerationSource::LastGood;
        assert!(
            is_last_good || status.number >= self.configuration,
            "configuration {} after {}",
            status.number,
            self.configuration
        );
        self.acknowledge(status.number, &status.generation);
        let held = status.artefacts.first();
        if let Some(held) = held {
            let content = held.content.as_ref();
            assert!(
                content.is_some() && content == self.good.get(&held.generation),
                "{held:?} is no good one"
            );
        }
        let generation = held.map_or(0, |held| held.generation);
        assert!(generation >= self.artefact, "package {generation} in force, {} was", self.artefact);
        self.artefact = generation;
        self.judge_disk(place);
    }

    fn judge_disk(&self, place: &Place) {
        let folder = place.state().join("feeds").join(FEED);
        let trusted = api::seal::Keyring::new([key().public().into()]).unwrap();
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            assert_ne!(extension, "damaged", "{} is torn", path.display());
            if extension == "package" {
                // The oldest goes when a newer one comes.
                let Ok(bytes) = fs::read(&path) else { continue };
                let made = base::time::Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap());
                let opened = package::open(&bytes, &trusted, made, package::MAX_BYTES, false).unwrap();
                let generation = opened.manifest.generation;
                assert_eq!(self.good.get(&generation), Some(&opened.manifest.content), "{generation}");
            }
        }
    }
}

/// Lets the writer work for a while, then waits until something is written in the state folder, and a little longer.
fn await_a_moment(place: &Place, random: &mut Random) {
    let longest = if random.below(8) == 0 { 2_000 } else { 600 };
    thread::sleep(Duration::from_millis(u64::from(random.below(longest))));
    if random.below(4) == 0 {
        return;
    }
    let watched = ["generations".to_owned(), format!("feeds/{FEED}"), String::new()];
    let stamp =
        |name: &String| fs::metadata(place.state().join(name)).and_then(|found| found.modified()).ok();
    let stamps = || watched.each_ref().map(stamp);
    let (begin, before) = (Instant::now(), stamps());
    while begin.elapsed() < JUDGED && stamps() == before {
        thread::yield_now();
    }
    thread::sleep(Duration::from_micros(u64::from(random.below(4_000))));
}

/// Who is killed this time.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Everybody,
    Supervisor,
    Child(ProcessRole),
}

fn victim(random: &mut Random) -> Victim {
    match random.below(10) {
        0..4 => Victim::Everybody,
        4..7 => Victim::Supervisor,
        7 => Victim::Child(ProcessRole::Edge),
        8 => Victim::Child(ProcessRole::Feeder),
        // What waits to take over was the taster, and is one again while something is tried.
        _ => Victim::Child(ProcessRole::Standby),
    }
}

fn kill_child(rempart: &Rempart, role: ProcessRole) {
    let status = rempart.ask_status();
    let taster = process_of(&status, ProcessRole::Taster);
    let found = taster.filter(|_| role == ProcessRole::Standby).or_else(|| process_of(&status, role));
    if let Some(pid) = found.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())) {
        // It may have ended by itself.
        let _gone_already = kill_process(pid, Signal::KILL);
    }
}

/// Everything has settled: one edge serves, and holds what the supervisor says is in force. While something comes into force the
/// one is a moment ahead of the other.
fn settled(rempart: &Rempart, known: &Mutex<Known>) -> Status {
    rempart.await_status("an edge with what is said to be in force", |status| {
        let good = &known.lock().unwrap().good;
        process_of(status, ProcessRole::Edge).is_some()
            && !status.sites.is_empty()
            && status
                .artefacts
                .iter()
                .all(|held| held.content.is_some() && held.content.as_ref() == good.get(&held.generation))
    })
}

fn survives(kills: u32) {
    let seed = std::env::var("REMPART_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()));
    println!("REMPART_SEED={seed}");
    let mut random = Random::seeded(seed);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let occupied = taken.local_addr().unwrap().to_string();
    let place = Place::new();
    place.write("rempart.toml", config(&place, "good-0"));
    let known = Mutex::new(Known::default());
    let mut rempart = place.run();
    let mut orphans: Vec<Orphans> = Vec::new();
    for kill in 0..kills {
        let (over, victim) = (AtomicBool::new(false), victim(&mut random));
        let mut writes = Random::seeded(random.next_u64());
        let admin = rempart.admin().to_owned();
        let script = Script { place: &place, admin: &admin, occupied: &occupied, known: &known, over: &over };
        rempart = thread::scope(|scope| {
            let writer = scope.spawn(|| script.run(&mut writes));
            await_a_moment(&place, &mut random);
            match victim {
                Victim::Everybody => {
                    drop(rempart.kill());
                    // An edge that was adopted is nobody's child.
                    orphans.clear();
                }
                Victim::Supervisor => orphans.push(rempart.kill_supervisor()),
                Victim::Child(role) => {
                    known.lock().unwrap().may_go_back();
                    kill_child(&rempart, role);
                    over.store(true, Ordering::Relaxed);
                    writer.join().unwrap();
                    known.lock().unwrap().may_go_back();
                    return rempart;
                }
            }
            over.store(true, Ordering::Relaxed);
            writer.join().unwrap();
            place.run()
        });
        let status = settled(&rempart, &known);
        println!("kill {kill} of {victim:?}: {} and {:?}", status.number, status.artefacts.first());
        let mut known = known.lock().unwrap();
        known.judge(&status, &place);
        if let Answer::Feeds { feeds } = rempart.ask(&Request::Feeds)
            && let Some(feed) = feeds.first()
        {
            assert!(feed.good.unwrap_or(0) >= known.proven, "{} had proved itself: {feed:?}", known.proven);
            known.acknowledge_feed(feed);
        }
        drop(known);
        // Seldom would one serve for its whole bake otherwise.
        if kill % 10 == 9 {
            rempart
                .await_status("the end of the bake", |status| status.artefacts.iter().all(|it| !it.baking));
        }
    }
    let known = known.into_inner().unwrap();
    let Known { configuration, artefact, proven, next_package, .. } = known;
    println!("{configuration} configurations; {artefact} of {next_package} packages, {proven} proven");
    assert!(configuration > 1 && artefact > 0 && proven > 0, "the writer got nowhere");
}

#[test]
fn three_dozen_kills_leave_nothing_torn_or_unverified_in_force() {
    let _heavy = crate::heavy();
    survives(36);
}

#[test]
#[ignore = "takes minutes: 500 kills"]
fn five_hundred_kills_leave_nothing_torn_or_unverified_in_force() {
    let _heavy = crate::heavy();
    survives(500);
}
