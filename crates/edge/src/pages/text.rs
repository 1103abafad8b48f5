//! The Markdown page, which also reads well as plain text, and the JSON object of RFC 9457.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::interface::duration;
use super::{Content, failing_station, shortened};

/// Longest host name shown; it comes from the request and could be anything.
const MAX_HOST_CHARACTERS: usize = 80;

/// Writes the page as Markdown.
pub fn markdown(content: &Content) -> Vec<u8> {
    let Content { failure, words, interface, language } = content;
    let colon = interface.colon;
    let mut page = format!("# {} · {}\n\n{}\n\n", failure.status, words.title, words.cause);
    page.push_str(&path(content));
    page.push_str(&format!("\n\n**{}{colon}** {}\n\n", interface.advice, words.advice));
    if !words.owner.is_empty() {
        page.push_str(&format!("**{}{colon}** {}\n\n", interface.owner, words.owner));
    }
    if let Some(seconds) = content.wait() {
        page.push_str(&format!("- {}{colon} {}\n", interface.wait, duration(seconds, *language)));
    }
    page.push_str(&format!("- {}{colon} `{}`\n", interface.receipt, failure.receipt));
    page.push_str(&format!("- {}{colon} `{}`\n", interface.reason, failure.reason));
    page.into_bytes()
}

/// `    You ✓ → Rempart ✓ → example.org ✕ Problem here`, as a code block so that no host name can be markup.
fn path(content: &Content) -> String {
    let Content { failure, interface, .. } = content;
    let website = match failure.host {
        "" => interface.website.to_owned(),
        host => shortened(host, MAX_HOST_CHARACTERS),
    };
    let failing = failing_station(failure.fault);
    let mut path = String::from("    ");
    for (position, name) in [interface.you, interface.proxy, &website].into_iter().enumerate() {
        if position > 0 {
            path.push_str(" → ");
        }
        path.push_str(name);
        match position.cmp(&failing) {
            Ordering::Less => path.push_str(" ✓"),
            Ordering::Equal => path.push_str(&format!(" ✕ ({})", interface.fails)),
            Ordering::Greater => {}
        }
    }
    path
}

/// Writes the problem details object (RFC 9457 section 3), extended by `fault`, `reason`, `receipt` and, when
/// there is one, `retry_after` in seconds.
pub fn problem(content: &Content) -> Vec<u8> {
    let Content { failure, words, .. } = content;
    let mut problem = json!({
        "type": format!("urn:rempart:failure:{}", failure.reason),
        "title": words.title,
        "status": failure.status,
        "detail": format!("{} {}", words.cause, words.advice),
        "instance": format!("urn:rempart:receipt:{}", failure.receipt),
        "fault": failure.fault.name(),
        "reason": failure.reason,
        "receipt": failure.receipt,
    });
    if let (Some(seconds), Value::Object(members)) = (content.wait(), &mut problem) {
        members.insert("retry_after".to_owned(), seconds.into());
    }
    format!("{problem:#}\n").into_bytes()
}
