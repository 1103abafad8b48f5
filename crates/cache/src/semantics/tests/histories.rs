//! Random histories against a slow reading of RFC 9111 that shares no code: nothing served is older than its fields allow.

use std::time::Duration;

use base::headers::HeaderList;
use base::random::Random;

use super::super::settings::Settings;
use super::story::{Answer, Cache};

const HISTORIES: u64 = 3_000;
const STEPS: usize = 40;

/// What the reader remembers of an answer: when it was given, and what it said.
struct Given {
    at: u64,
    target: String,
    accept: Option<String>,
    words: Vec<String>,
    age: u64,
    authorized: bool,
    varies: bool,
    confirmed: bool,
}

fn number(words: &[String], name: &str) -> Option<u64> {
    words.iter().filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).min()
}

impl Given {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|one| one == word)
    }

    /// Why it must not answer this, unasked; `None`: it may.
    fn objection(&self, now: u64, target: &str, accept: &Option<String>, how: &str) -> Option<&'static str> {
        let age = self.age + (now - self.at);
        let lifetime =
            number(&self.words, "s-maxage").or_else(|| number(&self.words, "max-age")).unwrap_or(0);
        let slack = number(&self.words, "stale-while-revalidate").unwrap_or(0);
        let revalidates = self.has("must-revalidate")
            || self.has("proxy-revalidate")
            || number(&self.words, "s-maxage").is_some();
        if self.target != target {
            return Some("another target");
        }
        if self.varies && self.accept != *accept {
            return Some("another variant");
        }
        if self.has("no-store") || self.has("private") {
            return Some("not for a shared cache");
        }
        if self.authorized
            && !self.has("public")
            && !self.has("must-revalidate")
            && number(&self.words, "s-maxage").is_none()
        {
            return Some("for one visitor");
        }
        match how {
            "hit" if self.has("no-cache") => Some("no-cache"),
            "hit" if age >= lifetime => Some("stale"),
            "updating" if revalidates || age >= lifetime + slack => Some("too stale"),
            _ => None,
        }
    }
}

fn pick<'t>(random: &mut Random, of: &[&'t str]) -> &'t str {
    of[random.below(of.len() as u32) as usize]
}

fn answer(random: &mut Random, body: u64) -> (Answer, Vec<String>) {
    let mut words = Vec::new();
    for _ in 0..random.below(4) {
        words.push(
            pick(
                random,
                &[
                    "max-age=10",
                    "max-age=60",
                    "max-age=0",
                    "s-maxage=20",
                    "s-maxage=0",
                    "no-cache",
                    "no-store",
                    "private",
                    "public",
                    "must-revalidate",
                    "proxy-revalidate",
                    "stale-while-revalidate=15",
                ],
            )
            .to_owned(),
        );
    }
    let mut fields = HeaderList::default();
    let half = random.below(2) == 0 && words.len() > 1;
    if half {
        fields.push("Cache-Control", &words[0]);
        fields.push("Cache-Control", words[1..].join(","));
    } else if !words.is_empty() {
        fields.push("cache-control", words.join(", "));
    }
    if random.below(2) == 0 {
        fields.push("ETag", format!("\"{}\"", random.below(2)));
    }
    (Answer { status: 200, fields, body }, words)
}

#[test]
fn nothing_is_served_that_its_fields_forbid() {
    let (mut hits, mut updating) = (0, 0);
    for seed in 0..HISTORIES {
        let mut random = Random::seeded(seed);
        let mut cache = Cache::new(Settings::default());
        let began = cache.now.seconds();
        let mut given: Vec<Given> = Vec::new();
        for _ in 0..STEPS {
            cache.now = cache.now.plus(Duration::from_secs(u64::from(random.below(12))));
            let target = pick(&mut random, &["/a", "/b", "/a?x"]).to_owned();
            let accept = (random.below(3) == 0).then(|| pick(&mut random, &["x/y", "x/z"]).to_owned());
            let mut sent = HeaderList::default();
            if let Some(accept) = &accept {
                sent.push("Accept", accept);
            }
            let authorized = random.below(8) == 0;
            if authorized {
                sent.push("Authorization", "x");
            }
            let method = pick(&mut random, &["GET", "GET", "GET", "GET", "HEAD", "POST"]);
            let (mut answer, words) = answer(&mut random, given.len() as u64);
            let age = if random.below(4) == 0 { u64::from(random.below(30)) } else { 0 };
            if age > 0 {
                answer.fields.push("Age", age.to_string());
            }
            let varies = random.below(3) == 0;
            if varies {
                answer.fields.push("Vary", "Accept");
            }
            let now = cache.now.seconds() - began;
            let got = cache.ask(method, &target, &sent, &answer);
            let new = Given {
                at: now,
                target: target.clone(),
                accept: accept.clone(),
                words,
                age,
                authorized,
                varies,
                confirmed: false,
            };
            given.push(new);
            match got.how {
                "hit" | "updating" => {
                    let from = &given[got.body as usize];
                    let objection =
                        if from.confirmed { None } else { from.objection(now, &target, &accept, got.how) };
                    assert_eq!(objection, None, "history {seed}: {got:?}");
                    let told: u64 =
                        std::str::from_utf8(got.fields.get(b"age").unwrap()).unwrap().parse().unwrap();
                    assert!(from.confirmed || told == from.age + (now - from.at), "history {seed}: {got:?}");
                    hits += usize::from(got.how == "hit");
                    updating += usize::from(got.how == "updating");
                }
                // A HEAD may have said anew how long; what then follows is judged by the stories.
                _ if method == "HEAD" => {
                    given.iter_mut().filter(|one| one.target == target).for_each(|one| one.confirmed = true)
                }
                // What a POST has changed is not served again.
                _ if method == "POST" => {
                    let gone =
                        |one: &&(super::super::stored::Stored, u64)| given[one.1 as usize].target == target;
                    assert_eq!(cache.stored.iter().filter(gone).count(), 0, "history {seed}");
                }
                _ => {}
            }
        }
    }
    assert!(hits > 5_000 && updating > 200, "{hits} hits, {updating} stale: the histories show too little");
}
