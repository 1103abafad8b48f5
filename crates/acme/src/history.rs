//! What is remembered about one name between attempts and between processes.

use std::collections::BTreeMap;

use base::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened to a name so far. Times are RFC 3339 in the file, so that people can read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Attempts in a row that failed.
    pub failures: u32,
    /// Of those, with the authority that is asked now, and not for a reason of our own.
    pub with_authority: u32,
    /// Directory URL of the authority to ask; `None` for the first of the list.
    pub authority: Option<String>,
    /// No attempt before the end of this.
    pub pause: Option<Pause>,
    /// Authorities that said to come back later for this name.
    pub limited: BTreeMap<String, Pause>,
    /// The last failures that count against an authority's limit of failed validations, oldest first.
    #[serde(with = "readable::list")]
    pub recent_failures: Vec<Timestamp>,
    /// Why the last attempt failed, for people; `None` after a success.
    pub problem: Option<String>,
    /// Whether a new certificate is wanted although the one at hand is good: asked for by an operator, or revoked.
    pub renew_now: bool,
    /// What is known of the certificate at hand beside itself.
    pub issued: Option<Issued>,
    /// What happens next and when; written for people and `rempart certs`, never read back for a decision.
    #[serde(with = "readable::option")]
    pub next: Option<Timestamp>,
}

/// What is remembered about the certificate at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Directory URL of the authority that gave it; `None` when that is unknown.
    pub authority: Option<String>,
    /// Who signed it, for people.
    pub issuer: String,
    /// Its identifier for renewal information (RFC 9773 section 4.1); `None` when it cannot have one.
    pub certificate_id: Option<String>,
    /// When it ends: tells whether this is about the certificate at hand.
    #[serde(with = "readable")]
    pub expires: Timestamp,
    /// When it is to be renewed; drawn once, so that looking again does not change it.
    #[serde(with = "readable")]
    pub renews: Timestamp,
    /// The window the authority suggested, if it did (RFC 9773 section 4.2).
    pub window: Option<Window>,
    /// When to ask for that window again.
    #[serde(with = "readable")]
    pub ask_again: Timestamp,
    /// Whether it has been revoked; it is served until its successor is there.
    #[serde(default)]
    pub revoked: bool,
}

/// A suggested window for renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its begin.
    #[serde(with = "readable")]
    pub start: Timestamp,
    /// Its end.
    #[serde(with = "readable")]
    pub end: Timestamp,
}

/// A time of waiting. Both ends are kept: a clock set back to before its begin ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    #[serde(with = "readable")]
    pub from: Timestamp,
    /// When it ends.
    #[serde(with = "readable")]
    pub until: Timestamp,
}

impl Pause {
    /// Whether one has to wait now.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// The first moment one need not wait: `now` or its end.
    pub fn end(pause: Option<&Self>, now: Timestamp) -> Timestamp {
        pause.filter(|pause| pause.holds(now)).map_or(now, |pause| pause.until)
    }
}

/// A time as RFC 3339 in UTC; seconds since 1970 where the calendar of that format ends.
pub fn rfc3339(time: Timestamp) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|microseconds| jiff::Timestamp::from_microsecond(microseconds).ok())
        .map_or_else(|| time.seconds().to_string(), |time| time.to_string())
}

fn parse(text: &str) -> Option<Timestamp> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => u64::try_from(time.as_microsecond()).ok().map(Timestamp),
        Err(_) => text.parse::<u64>().ok().map(|seconds| Timestamp(seconds.saturating_mul(1_000_000))),
    }
}

mod readable {
    use base::time::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom("a time in RFC 3339 was expected"))
    }

    pub mod option {
        use super::{Deserialize, Deserializer, Error, Serializer, Timestamp};

        pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            let Some(text) = Option::<String>::deserialize(deserializer)? else {
                return Ok(None);
            };
            let time = super::super::parse(&text);
            time.map(Some).ok_or_else(|| D::Error::custom("a time in RFC 3339 was expected"))
        }
    }

    pub mod list {
        use super::{Deserialize, Deserializer, Error, Serializer, Timestamp};

        pub fn serialize<S: Serializer>(times: &[Timestamp], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(times.iter().map(|time| super::super::rfc3339(*time)))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Timestamp>, D::Error> {
            let texts = Vec::<String>::deserialize(deserializer)?;
            let times: Option<Vec<Timestamp>> = texts.iter().map(|text| super::super::parse(text)).collect();
            times.ok_or_else(|| D::Error::custom("times in RFC 3339 were expected"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back_as_it_was_written_and_its_times_are_readable() {
        let time = |seconds: u64| Timestamp(seconds * 1_000_000);
        let pause = Pause { from: time(1_000), until: time(2_000) };
        let history = History {
            failures: 2,
            pause: Some(pause),
            limited: BTreeMap::from([("https://ca.example/dir".to_owned(), pause)]),
            recent_failures: vec![time(900), time(1_000)],
            issued: Some(Issued {
                authority: Some("https://ca.example/dir".into()),
                issuer: "Example CA".into(),
                certificate_id: None,
                expires: time(5_000),
                renews: time(4_000),
                window: Some(Window { start: time(3_500), end: time(4_500) }),
                ask_again: time(3_000),
                revoked: false,
            }),
            next: Some(Timestamp(u64::MAX)),
            ..History::default()
        };
        let text = serde_json::to_string(&history).unwrap();
        assert!(text.contains("1970-01-01T00:16:40Z"), "{text}");
        let back: History = serde_json::from_str(&text).unwrap();
        assert_eq!(back.issued, history.issued);
        assert_eq!(back.limited, history.limited);
        assert_eq!(back.recent_failures, history.recent_failures);
        assert_eq!(serde_json::from_str::<History>("{}").unwrap(), History::default());
        assert!(serde_json::from_str::<History>(r#"{"next":"soon"}"#).is_err());
    }

    #[test]
    fn a_pause_ends_at_its_end_and_when_the_clock_goes_back_before_it() {
        let pause = Pause { from: Timestamp(10), until: Timestamp(20) };
        for (now, end) in [(5, 5), (10, 20), (19, 20), (20, 20), (30, 30)] {
            assert_eq!(Pause::end(Some(&pause), Timestamp(now)), Timestamp(end), "{now}");
        }
    }
}
