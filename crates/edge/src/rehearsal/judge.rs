//! What a golden answer must be like, and what is wrong with one that is not.

use http::Method;
use snapshot::generation::Compatibility;

use super::golden::{MARK, Received};
use crate::visitor::Answer;

/// Characters of an answer quoted in a finding.
const QUOTED: usize = 120;

/// What is expected of an answer.
#[derive(Clone, Debug)]
pub enum Expected {
    /// This status.
    Status(u16),
    /// `/.rempart/trace` with these lines.
    Trace(Trace),
    /// The golden origin's echo of this request.
    Echo(Box<Echo>),
    /// A permanent redirect to `https`, same host and target.
    Redirect {
        /// Host, in brackets if it is an IPv6 address.
        authority: String,
        /// Path and query.
        target: String,
    },
    /// Any of these.
    Either(Box<Expected>, Box<Expected>),
}

/// What a trace must say.
#[derive(Clone, Debug)]
pub struct Trace {
    /// `h`.
    pub authority: String,
    /// `visit_scheme`.
    pub scheme: &'static str,
    /// `http`.
    pub protocol: &'static str,
    /// `sni`; `None` when none was sent or there is no TLS.
    pub server_name: Option<String>,
    /// `site`, where the trace has such a line.
    pub site: String,
}

/// What the golden origin must have received, and what must be added to its answer.
#[derive(Clone, Debug)]
pub struct Echo {
    /// The golden origin's mark.
    pub mark: String,
    /// Method sent.
    pub method: Method,
    /// Path and query sent.
    pub target: String,
    /// Body sent.
    pub body: Vec<u8>,
    /// What `Host` may be: one for each origin of the site.
    pub hosts: Vec<String>,
    /// Host the visitor asked for.
    pub authority: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// This installation's name in `Via` and `CDN-Loop`.
    pub via: String,
    /// Whose fields are added.
    pub compatibility: Compatibility,
    /// `Strict-Transport-Security` of the answer.
    pub hsts: Option<String>,
}

/// What was wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// In words.
    pub expected: String,
    /// In words.
    pub got: String,
}

fn mismatch(expected: impl Into<String>, got: impl Into<String>) -> Mismatch {
    Mismatch { expected: expected.into(), got: got.into() }
}

impl Expected {
    /// Compares.
    pub fn judge(&self, answer: &Answer) -> Result<(), Mismatch> {
        match self {
            Self::Status(status) => check_status(*status, answer),
            Self::Trace(trace) => trace.judge(answer),
            Self::Echo(echo) => echo.judge(answer),
            Self::Redirect { authority, target } => judge_redirect(authority, target, answer),
            Self::Either(one, other) => one.judge(answer).or_else(|first| {
                other.judge(answer).map_err(|second| {
                    mismatch(format!("{} or {}", first.expected, second.expected), second.got)
                })
            }),
        }
    }
}

fn check_status(status: u16, answer: &Answer) -> Result<(), Mismatch> {
    if answer.head.status == status {
        return Ok(());
    }
    Err(mismatch(format!("status {status}"), format!("status {}", answer.head.status)))
}

fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

fn field(answer: &Answer, name: &str) -> Option<String> {
    answer.head.headers.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
}

impl Trace {
    fn judge(&self, answer: &Answer) -> Result<(), Mismatch> {
        check_status(200, answer)?;
        let text = String::from_utf8_lossy(&answer.body);
        let line = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, v)| v)
        };
        let mut wanted =
            vec![("h", self.authority.as_str()), ("visit_scheme", self.scheme), ("http", self.protocol)];
        wanted.extend(self.server_name.as_deref().map(|name| ("sni", name)));
        wanted.extend(line("site").map(|_| ("site", self.site.as_str())));
        for (key, value) in wanted {
            if line(key) != Some(value) {
                let got = match line(key) {
                    Some(other) => format!("{key}={other}"),
                    None => quote(&answer.body),
                };
                return Err(mismatch(format!("a trace with {key}={value}"), got));
            }
        }
        Ok(())
    }
}

impl Echo {
    fn judge(&self, answer: &Answer) -> Result<(), Mismatch> {
        check_status(200, answer)?;
        if field(answer, MARK).as_deref() != Some(&self.mark) {
            return Err(mismatch("the golden origin's answer", quote(&answer.body)));
        }
        if let Some(hsts) = &self.hsts {
            let got = field(answer, "strict-transport-security");
            if got.as_ref() != Some(hsts) {
                return Err(mismatch(format!("Strict-Transport-Security: {hsts}"), or_none(got)));
            }
        }
        let received = Received::read(&answer.body)
            .ok_or_else(|| mismatch("the origin's answer unchanged", quote(&answer.body)))?;
        self.judge_request(&received)
    }

    /// What reached the origin.
    fn judge_request(&self, received: &Received) -> Result<(), Mismatch> {
        let Received { head, body, .. } = received;
        let sent = format!("{} {}", self.method, self.target);
        let arrived = format!("{} {}", head.method, head.target);
        if sent != arrived {
            return Err(mismatch(format!("the origin to be asked {sent}"), arrived));
        }
        if !self.hosts.contains(&head.authority) {
            let expected = format!("the origin to be asked for host {}", self.hosts.join(" or "));
            return Err(mismatch(expected, head.authority.clone()));
        }
        if *body != self.body {
            return Err(mismatch(format!("the origin to get the body {}", quote(&self.body)), quote(body)));
        }
        let value = |name: &str| {
            let lines: Vec<_> = head.headers.all(name.as_bytes()).map(String::from_utf8_lossy).collect();
            (!lines.is_empty()).then(|| lines.join(", "))
        };
        let exactly = [
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", self.scheme),
            ("X-Forwarded-Host", &self.authority),
        ];
        for (name, wanted) in exactly {
            if value(name).as_deref() != Some(wanted) {
                let expected = format!("the origin to get {name}: {wanted}");
                return Err(mismatch(expected, or_none(value(name))));
            }
        }
        let proto = format!("proto={}", self.scheme);
        let mut parts = vec![("Forwarded", "for=127.0.0.1"), ("Forwarded", &proto)];
        parts.extend([("Via", self.via.as_str()), ("CDN-Loop", &self.via)]);
        if self.compatibility == Compatibility::Cloudflare {
            parts.push(("CF-Connecting-IP", "127.0.0.1"));
        }
        for (name, part) in parts {
            if !value(name).is_some_and(|value| value.contains(part)) {
                return Err(mismatch(format!("the origin to get {name} with {part}"), or_none(value(name))));
            }
        }
        Ok(())
    }
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| "none".to_owned())
}

/// The port is whatever the TLS listener has, so only what stands around it is known.
fn judge_redirect(authority: &str, target: &str, answer: &Answer) -> Result<(), Mismatch> {
    let expected = || format!("a permanent redirect to https://{authority}{target}");
    if !matches!(answer.head.status, 301 | 308) {
        return Err(mismatch(expected(), format!("status {}", answer.head.status)));
    }
    let location = field(answer, "location").unwrap_or_default();
    let port = location
        .strip_prefix("https://")
        .and_then(|rest| rest.strip_prefix(authority))
        .and_then(|rest| rest.strip_suffix(target));
    match port {
        Some("") => Ok(()),
        Some(port) if port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()) => Ok(()),
        _ => Err(mismatch(expected(), format!("Location: {location}"))),
    }
}

#[cfg(test)]
mod tests;
