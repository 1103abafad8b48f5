//! The HTML page: `page.html` with its `{{names}}` filled in. Every value is escaped here, once.

use base::event::Fault;

use super::interface::{Interface, duration};
use super::{Content, shortened};

/// The page with `{{names}}` where words go; holds all its style, and needs nothing from elsewhere.
const TEMPLATE: &str = include_str!("page.html");
/// Longest host name shown; it comes from the request and could be anything.
const MAX_HOST_CHARACTERS: usize = 80;

/// What a station of the path looks like: its CSS class and, for those who cannot see it, the words.
struct Station {
    class: &'static str,
    mark: &'static str,
    state: &'static str,
}

/// Writes the page.
pub fn write(content: &Content) -> Vec<u8> {
    let mut page = String::with_capacity(TEMPLATE.len() + 2048);
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        page.push_str(before);
        fill(&mut page, name, content);
        rest = after;
    }
    page.push_str(rest);
    page.into_bytes()
}

/// Writes the value of one `{{name}}`.
fn fill(page: &mut String, name: &str, content: &Content) {
    let Content { failure, words, interface, language } = content;
    match name {
        "language" => page.push_str(language.tag()),
        "status" => page.push_str(&failure.status.to_string()),
        "error" => escape(page, interface.error),
        "title" => escape(page, words.title),
        "cause" => escape(page, words.cause),
        "path" => escape(page, interface.path),
        "you" => escape(page, interface.you),
        "proxy" => escape(page, interface.proxy),
        "website" => escape(page, interface.website),
        "advice_label" => escape(page, interface.advice),
        "advice" => escape(page, words.advice),
        "receipt_label" => escape(page, interface.receipt),
        "receipt" => escape(page, failure.receipt),
        "reason_label" => escape(page, interface.reason),
        "reason" => escape(page, failure.reason),
        "footer" => escape(page, interface.footer),
        "host" if !failure.host.is_empty() => {
            wrapped(page, "<small>", &shortened(failure.host, MAX_HOST_CHARACTERS), "</small>");
        }
        "again" if content.can_be_repeated() => {
            wrapped(page, "<a href=\"\">", interface.again, "</a>");
        }
        "owner" if !words.owner.is_empty() => {
            wrapped(page, "<section><h2>", interface.owner, "</h2>");
            wrapped(page, "<p>", words.owner, "</p></section>\n");
        }
        "wait" => {
            if let Some(seconds) = content.wait() {
                wrapped(page, "<div><dt>", interface.wait, "</dt>");
                wrapped(page, "<dd>", &duration(seconds, *language), "</dd></div>\n");
            }
        }
        other => {
            if let Some((station, part)) = station(other, failure.fault, interface) {
                match part {
                    "class" => page.push_str(station.class),
                    _ => {
                        page.push_str(station.mark);
                        escape(page, station.state);
                    }
                }
            }
        }
    }
}

/// `you_class` and the like: the station and which part of it is wanted.
fn station<'a>(name: &'a str, fault: Fault, interface: &'static Interface) -> Option<(Station, &'a str)> {
    let (place, part) = name.split_once('_')?;
    let position = ["you", "proxy", "website"].iter().position(|known| *known == place)?;
    let failing = super::failing_station(fault);
    let station = match position.cmp(&failing) {
        std::cmp::Ordering::Less => Station { class: "good", mark: "✓ ", state: interface.works },
        std::cmp::Ordering::Equal => Station { class: "bad", mark: "✕ ", state: interface.fails },
        std::cmp::Ordering::Greater => Station { class: "idle", mark: "", state: interface.idle },
    };
    Some((station, part))
}

/// Writes escaped text between two pieces of markup.
fn wrapped(page: &mut String, before: &str, text: &str, after: &str) {
    page.push_str(before);
    escape(page, text);
    page.push_str(after);
}

/// Writes text so that it is text in elements and in quoted attributes alike.
fn escape(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            _ => page.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_names_only_what_is_known() {
        let names: Vec<&str> =
            TEMPLATE.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0).collect();
        let optional = ["host", "again", "owner", "wait"];
        let failure = super::super::Failure {
            status: 400,
            fault: Fault::Visitor,
            reason: "bad_request",
            retry_after: None,
            receipt: "R",
            host: "",
        };
        let content = Content::of(&failure, super::super::language::Language::English);
        for name in names {
            let mut value = String::new();
            fill(&mut value, name, &content);
            assert_eq!(value.is_empty(), optional.contains(&name), "{name}");
        }
    }

    #[test]
    fn markup_in_text_stays_text() {
        let mut text = String::new();
        escape(&mut text, "<b a=\"1\" c='2'>&</b>");
        assert_eq!(text, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;&lt;/b&gt;");
    }
}
