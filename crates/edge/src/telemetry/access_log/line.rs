//! One event as one line of JSON: which fields, in which order, and what is kept of the client's address.

use std::io::Write;
use std::net::IpAddr;

use base::address;
use base::event::{self, RequestEvent};
use snapshot::generation::ClientIpDetail;

use super::json;
use crate::telemetry::calendar::Clock;
use crate::telemetry::cut;

/// Bytes of the target that are logged; `target_bytes` then gives the whole length.
pub const MAX_TARGET_BYTES: usize = 4_096;
/// Bytes of the host that are logged; a DNS name has at most 253, a port six more.
pub const MAX_HOST_BYTES: usize = 261;
/// Bytes of the method that are logged.
pub const MAX_METHOD_BYTES: usize = 32;
/// Bytes of User-Agent and of Referer that are logged.
pub const MAX_HEADER_BYTES: usize = 256;

/// Appends the event and a line feed. Fields that the event does not have are left out, not written as null.
pub(super) fn write(out: &mut Vec<u8>, clock: &mut Clock, client: ClientIpDetail, event: &RequestEvent) {
    put(out, b"{\"v\":");
    json::number(out, u64::from(event::VERSION));
    put(out, b",\"at\":\"");
    put(out, clock.rfc3339(event.at));
    put(out, b"\",\"id\":\"");
    put(out, event.id.as_str().as_bytes());
    match client {
        ClientIpDetail::Truncated => client_address(out, address::truncate(event.client)),
        ClientIpDetail::Full => client_address(out, address::canonical(event.client)),
        ClientIpDetail::None => {}
    }
    put(out, b"\",\"protocol\":\"");
    put(out, event.protocol.name().as_bytes());
    put(out, if event.tls { b"\",\"tls\":true" } else { b"\",\"tls\":false" });
    request(out, event);
    outcome(out, event);
    optional(out, b",\"user_agent\":", event.user_agent.as_deref().map(|text| cut(text, MAX_HEADER_BYTES)));
    optional(out, b",\"referer\":", event.referer.as_deref().map(|text| cut(text, MAX_HEADER_BYTES)));
    said(out, event);
    count(out, b",\"weight\":", u64::from(event.weight));
    put(out, b"}\n");
}

/// What modules and rules said, and the fields rules want logged; most requests have neither.
fn said(out: &mut Vec<u8>, event: &RequestEvent) {
    for (index, noted) in event.verdicts.as_slice().iter().enumerate() {
        put(out, if index == 0 { b",\"verdicts\":[" } else { b"," });
        put(out, b"{\"module\":");
        json::string(out, noted.module);
        put(out, b",\"outcome\":");
        json::string(out, noted.outcome);
        put(out, b",\"reason\":");
        json::string(out, &noted.reason);
        put(out, b"}");
    }
    if !event.verdicts.as_slice().is_empty() {
        put(out, b"]");
    }
    for (index, (name, value)) in event.fields.iter().enumerate() {
        put(out, if index == 0 { b",\"fields\":{" } else { b"," });
        json::string(out, cut(name, MAX_HEADER_BYTES));
        put(out, b":");
        json::string(out, value);
    }
    if !event.fields.is_empty() {
        put(out, b"}");
    }
}

fn request(out: &mut Vec<u8>, event: &RequestEvent) {
    put(out, b",\"method\":");
    json::string(out, cut(&event.method, MAX_METHOD_BYTES));
    if !event.host.is_empty() {
        put(out, b",\"host\":");
        json::string(out, cut(&event.host, MAX_HOST_BYTES));
    }
    put(out, b",\"target\":");
    json::string(out, cut(&event.target, MAX_TARGET_BYTES));
    if event.target.len() > MAX_TARGET_BYTES {
        count(out, b",\"target_bytes\":", event.target.len() as u64);
    }
    optional(out, b",\"site\":", event.site.as_deref());
}

fn outcome(out: &mut Vec<u8>, event: &RequestEvent) {
    if event.status != 0 {
        count(out, b",\"status\":", u64::from(event.status));
    }
    optional(out, b",\"fault\":", event.fault.map(event::Fault::name));
    optional(out, b",\"reason\":", event.reason);
    optional(out, b",\"origin\":", event.origin.as_deref());
    count(out, b",\"attempts\":", u64::from(event.attempts));
    count(out, b",\"bytes_in\":", event.bytes_in);
    count(out, b",\"bytes_out\":", event.bytes_out);
    if let Some(wait) = event.origin_wait_us {
        count(out, b",\"origin_wait_us\":", wait);
    }
    count(out, b",\"duration_us\":", event.duration_us);
    put(out, b",\"completion\":\"");
    put(out, event.completion.name().as_bytes());
    put(out, b"\"");
}

/// Follows the id, whose closing quote is still to come, and leaves its own to the next field.
fn client_address(out: &mut Vec<u8>, client: IpAddr) {
    put(out, b"\",\"client\":\"");
    match client {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            json::number(out, u64::from(a));
            for octet in [b, c, d] {
                out.push(b'.');
                json::number(out, u64::from(octet));
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(v6) => write!(out, "{v6}").unwrap_or_default(),
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn count(out: &mut Vec<u8>, key: &[u8], value: u64) {
    put(out, key);
    json::number(out, value);
}

fn optional(out: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    if let Some(text) = value {
        put(out, key);
        json::string(out, text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::samples;

    fn parsed(event: &RequestEvent, client: ClientIpDetail) -> Value {
        let mut out = Vec::new();
        write(&mut out, &mut Clock::new(), client, event);
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line per event");
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_rules_said_and_want_logged_is_there_and_nothing_where_they_said_nothing() {
        let mut event = samples::event();
        let plain = parsed(&event, ClientIpDetail::Full);
        assert!(plain.get("verdicts").is_none() && plain.get("fields").is_none());
        for reason in ["no-admin", "a\"b"] {
            let noted =
                event::Noted { module: "firewall-rules", outcome: "block", reason: reason.to_owned().into() };
            assert!(event.verdicts.note(noted));
        }
        event.fields = vec![("request.x".into(), "1".into()), ("cookie.\"".into(), "\n".into())];
        let line = parsed(&event, ClientIpDetail::Full);
        let said = |reason: &str| json!({"module": "firewall-rules", "outcome": "block", "reason": reason});
        assert_eq!(line["verdicts"], json!([said("no-admin"), said("a\"b")]));
        assert_eq!(line["fields"], json!({"request.x": "1", "cookie.\"": "\n"}));
    }

    #[test]
    fn every_field_of_a_full_event_is_there() {
        let mut event = samples::event();
        event.fault = Some(base::event::Fault::Origin);
        event.reason = Some("origin_connect_refused");
        assert_eq!(
            parsed(&event, ClientIpDetail::Truncated),
            json!({
                "v": 1, "at": "2023-11-14T22:13:20.123456Z", "id": event.id.as_str(), "client": "203.0.113.0",
                "protocol": "h2", "tls": true, "method": "GET", "host": "www.example.org",
                "target": "/articles/2023/a-title?page=2", "site": "example", "status": 200, "fault": "origin",
                "reason": "origin_connect_refused", "origin": "http://127.0.0.1:8080", "attempts": 1, "bytes_in": 0,
                "bytes_out": 18_234, "origin_wait_us": 1_840, "duration_us": 2_311, "completion": "complete",
                "user_agent": samples::USER_AGENT, "referer": "https://www.example.org/articles", "weight": 1,
            })
        );
    }

    #[test]
    fn what_an_event_does_not_have_is_left_out() {
        let event = RequestEvent {
            host: "".into(),
            site: None,
            status: 0,
            origin: None,
            origin_wait_us: None,
            user_agent: None,
            referer: None,
            ..samples::event()
        };
        let line = parsed(&event, ClientIpDetail::None);
        let absent = ["client", "host", "site", "status", "fault", "reason", "origin", "origin_wait_us"];
        for key in absent.into_iter().chain(["user_agent", "referer", "target_bytes"]) {
            assert!(line.get(key).is_none(), "{key} in {line}");
        }
    }

    #[test]
    fn the_client_address_is_kept_as_configured() {
        for (address, truncated, full) in [
            ("203.0.113.77", "203.0.113.0", "203.0.113.77"),
            ("::ffff:203.0.113.77", "203.0.113.0", "203.0.113.77"),
            ("2001:db8:1234:5678::9", "2001:db8:1234::", "2001:db8:1234:5678::9"),
        ] {
            let event = RequestEvent { client: address.parse().unwrap(), ..samples::event() };
            assert_eq!(parsed(&event, ClientIpDetail::Truncated)["client"], truncated);
            assert_eq!(parsed(&event, ClientIpDetail::Full)["client"], full);
            assert_eq!(parsed(&event, ClientIpDetail::None).get("client"), None);
        }
    }

    #[test]
    fn what_visitors_choose_cannot_break_the_line_or_make_it_long() {
        let nasty = "\u{0}\"\\\n\r\u{1b}[2J\u{9b}31m\u{7f}\u{fffd}".repeat(2_000);
        let event = RequestEvent {
            method: nasty.clone().into(),
            host: nasty.clone().into(),
            target: nasty.clone().into(),
            user_agent: Some(nasty.clone().into()),
            referer: Some(nasty.clone().into()),
            ..samples::event()
        };
        let line = parsed(&event, ClientIpDetail::Full);
        for (key, limit) in [
            ("method", MAX_METHOD_BYTES),
            ("host", MAX_HOST_BYTES),
            ("target", MAX_TARGET_BYTES),
            ("user_agent", MAX_HEADER_BYTES),
            ("referer", MAX_HEADER_BYTES),
        ] {
            assert_eq!(line[key], cut(&nasty, limit), "{key}");
        }
        assert_eq!(line["target_bytes"], nasty.len());
    }
}
