//! The stories below `tests/stories`: one for each rule, with its section.
//!
//! ```text
//! ## name (RFC 9111 section n)
//! set heuristics off              what an operator says
//! origin 200                      what the origin answers from now on; `origin down`
//! Cache-Control: max-age=60       its fields
//! ask GET /path                   a request
//! If-None-Match: "a"              its fields
//! => hit 200 Age=0                how it is answered, fields that must be there (`Name=value`), or must not (`!Name`)
//! wait 30                         seconds
//! ```

use std::time::Duration;

use base::headers::HeaderList;

use super::super::serve::Body;
use super::super::settings::{BrowserLifetime, EdgeLifetime, Settings, StatusLifetime};
use super::story::{Answer, Cache, Got};

#[derive(Default)]
struct Step {
    /// The line of it, for people.
    line: usize,
    words: Vec<String>,
    fields: HeaderList,
}

fn steps(text: &str) -> Vec<(String, Vec<Step>)> {
    let mut stories: Vec<(String, Vec<Step>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let first = line.split(' ').next().unwrap_or_default();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        if let Some(name) = line.strip_prefix("## ") {
            stories.push((name.to_owned(), Vec::new()));
        } else if matches!(first, "set" | "origin" | "ask" | "=>" | "wait") {
            let words = line.split(' ').map(str::to_owned).collect();
            stories.last_mut().unwrap().1.push(Step {
                line: number + 1,
                words,
                fields: HeaderList::default(),
            });
        } else if let Some((name, value)) = line.split_once(": ") {
            stories.last_mut().unwrap().1.last_mut().unwrap().fields.push(name, value);
        } else {
            panic!("line {}: {line:?}", number + 1);
        }
    }
    stories
}

fn set(settings: &mut Settings, words: &[String]) {
    let seconds = |at: usize| Duration::from_secs(words[at].parse().unwrap());
    match words[1].as_str() {
        "heuristics" => settings.heuristics = words[2] == "on",
        "stale" => settings.serve_stale = words[2] == "on",
        "visitors" => settings.heed_visitors = words[2] == "heeded",
        "cache" => settings.eligible = Some(words[2] == "on"),
        "override" => settings.edge = EdgeLifetime::Override(seconds(2)),
        "origin-only" => settings.edge = EdgeLifetime::OriginOnly,
        "otherwise" => settings.edge = EdgeLifetime::RespectOrigin { otherwise: Some(seconds(2)) },
        "status" => {
            let status: u16 = words[2].parse().unwrap();
            let lifetime = match words[3].as_str() {
                "not-kept" => StatusLifetime::NotKept,
                _ => StatusLifetime::For(seconds(3)),
            };
            settings.by_status.push((status..=status, lifetime));
        }
        "browser" => settings.browser = BrowserLifetime::Override(seconds(2)),
        "browser-not-kept" => settings.browser = BrowserLifetime::NotKept,
        "armour" => settings.deception_armour = true,
        "strip-cookies" => settings.strip_set_cookie = true,
        "cloudflare" => settings.cloudflare = true,
        other => panic!("{other}"),
    }
}

fn check(got: &Got, words: &[String]) -> Result<(), String> {
    let told =
        |name: &str| got.fields.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
    let asked = |name: &str| {
        let fields = got.asked.as_ref()?;
        fields.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let head = format!("{} {}", got.how, got.status);
    if words[1..3].join(" ") != head {
        return Err(format!("{head} (not kept: {:?})", got.why));
    }
    for word in &words[3..] {
        let right = match word.split_once('=') {
            Some(("body", number)) => got.body.to_string() == number,
            Some(("why", name)) => got.why.is_some_and(|why| why.name() == name),
            Some(("bytes", span)) => match &got.part {
                Some(Body::Span(found)) => format!("{}-{}", found.first, found.last) == span,
                Some(Body::Nothing) => span == "none",
                Some(Body::Parts(parts, _)) => parts.len().to_string() == span,
                _ => span == "all",
            },
            Some((name, value)) => match name.strip_prefix("asked:") {
                Some(name) => asked(name).is_some_and(|found| found.replace(' ', "_") == value),
                None => told(name).is_some_and(|found| found.replace(' ', "_") == value),
            },
            None => match (word.strip_prefix("!asked:"), word.strip_prefix('!')) {
                (Some(name), _) => asked(name).is_none(),
                (_, Some(name)) => told(name).is_none(),
                _ => panic!("{word}"),
            },
        };
        if !right {
            return Err(format!(
                "{head}, but not {word}: {:?} (asked {:?}, {:?}, {:?})",
                got.fields, got.asked, got.why, got.part
            ));
        }
    }
    Ok(())
}

#[test]
fn every_story_ends_as_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (name, steps) in steps(&text) {
            let mut cache = Cache::new(Settings::default());
            let mut answer = Answer::default();
            let mut got = None;
            let mut checks = 0;
            for step in steps {
                match step.words[0].as_str() {
                    "set" => set(&mut cache.settings, &step.words),
                    "wait" => cache.now = cache.now.plus(Duration::from_secs(step.words[1].parse().unwrap())),
                    "origin" => {
                        answer.status = step.words[1].parse().unwrap_or(0);
                        answer.body += 1;
                        answer.fields = step.fields;
                    }
                    "ask" => got = Some(cache.ask(&step.words[1], &step.words[2], &step.fields, &answer)),
                    _ => {
                        checks += 1;
                        if let Err(found) = check(got.as_ref().unwrap(), &step.words) {
                            let file = path.file_name().unwrap().to_string_lossy().into_owned();
                            wrong.push(format!(
                                "{file}:{} {name}: wanted {}, got {found}",
                                step.line,
                                step.words[1..].join(" ")
                            ));
                        }
                    }
                }
            }
            assert!(checks > 0, "{name} checks nothing");
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 60, "only {count} stories were found");
}
