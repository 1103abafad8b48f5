//! The HTML pages: a layout with a content in it, and what a page tells about the request that asked for it.

use hyper::{Request, StatusCode, header};
use serde_json::json;

use super::reply::{self, Reply, full, uncached, with};
use super::sessions::{NAME, PASSWORD};

const LAYOUT: &str = include_str!("assets/layout.html");
/// What pages may load: this site, and the empty icon of an error page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'";
/// Pages in the navigation: address and name.
const NAVIGATION: &[(&str, &str)] = &[
    ("/", "Home"),
    ("/pictures", "Pictures"),
    ("/notes", "Notes"),
    ("/transfer", "Transfer"),
    ("/trouble", "Trouble"),
    ("/account", "Account"),
];
/// Headers that a proxy adds for the website behind it; also whatever begins with `cf-`.
const ADDED_BY_A_PROXY: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "via",
    "cdn-loop",
];

/// The home page, with what Rempart added to this very request.
pub fn home<B>(request: &Request<B>) -> Reply {
    let added: Vec<(String, String)> =
        request_headers(request).filter(|(name, _)| added_by_a_proxy(name)).collect();
    let direct = !added.iter().any(|(name, _)| name == "via" || name.contains("forwarded"));
    let rows: String = added
        .iter()
        .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(name), escaped(value)))
        .collect();
    let (title, lead, none, proxy) = match direct {
        true => (
            "You are talking to the demo site directly",
            "This request did not come through Rempart. Open the address that Rempart printed instead.",
            "<p>Nothing was added: no proxy was on the way.</p>",
            "is not on the way",
        ),
        false => (
            "Rempart stands in front of this page",
            "Your browser asked Rempart, Rempart asked this website, and the answer came back the same way. \
             Everything below happens through it.",
            "",
            "checks it and passes it on",
        ),
    };
    let origin = escaped(&base_address(request));
    let values = [
        ("heading", title),
        ("lead", lead),
        ("added", &rows),
        ("none", none),
        ("origin", &origin),
        ("proxy", proxy),
        ("proxy_class", if direct { "absent" } else { "" }),
    ];
    uncached(page(StatusCode::OK, "/", title, &filled(include_str!("assets/home.html"), &values)))
}

/// Pictures made by the website, each in several sizes.
pub fn pictures() -> Reply {
    page(StatusCode::OK, "/pictures", "Pictures", include_str!("assets/pictures.html"))
}

/// A page on top of the JSON API.
pub fn notes<B>(request: &Request<B>) -> Reply {
    let values = [("origin", &*escaped(&base_address(request)))];
    uncached(page(StatusCode::OK, "/notes", "Notes", &filled(include_str!("assets/notes.html"), &values)))
}

/// Downloads and uploads.
pub fn transfer() -> Reply {
    page(StatusCode::OK, "/transfer", "Transfer", include_str!("assets/transfer.html"))
}

/// Links to everything that goes wrong.
pub fn trouble() -> Reply {
    page(StatusCode::OK, "/trouble", "Trouble", include_str!("assets/trouble.html"))
}

/// The form to log in; with 403 also that it did not work.
pub fn login(status: StatusCode) -> Reply {
    let refusal = "<p class=\"alert\" role=\"alert\">That name and password do not belong together.</p>";
    let alert = if status == StatusCode::OK { "" } else { refusal };
    let values = [("name", NAME), ("password", PASSWORD), ("alert", alert)];
    let content = filled(include_str!("assets/login.html"), &values);
    uncached(page(status, "/account", "Log in", &content))
}

/// The page for those who are logged in.
pub fn account(name: &str) -> Reply {
    let content = filled(include_str!("assets/account.html"), &[("name", &escaped(name))]);
    uncached(page(StatusCode::OK, "/account", "Account", &content))
}

/// The website's own error page: Rempart passes it on unchanged.
pub fn failed() -> Reply {
    message(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The website failed",
        "This is the website’s own error page, with status 500. Rempart passes it on as it is: it answers for itself \
         only when the website gives no answer.",
    )
}

/// No such page.
pub fn not_found(path: &str) -> Reply {
    let sentence =
        format!("There is no {path} on the demo site. This page, too, comes from the website itself.");
    message(StatusCode::NOT_FOUND, "There is nothing here", &sentence)
}

/// The request as the website saw it, for programs and for the home page.
pub fn headers<B>(request: &Request<B>) -> Reply {
    let fields: Vec<_> = request_headers(request)
        .map(|(name, value)| json!({ "added": added_by_a_proxy(&name), "name": name, "value": value }))
        .collect();
    let seen = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": fields,
    });
    reply::json(StatusCode::OK, &seen)
}

/// Header fields in the order hyper kept them, as text.
fn request_headers<B>(request: &Request<B>) -> impl Iterator<Item = (String, String)> {
    let fields = request.headers().iter();
    fields.map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    })
}

fn added_by_a_proxy(name: &str) -> bool {
    ADDED_BY_A_PROXY.contains(&name) || name.starts_with("cf-")
}

/// `https://host`, as the visitor wrote it.
fn base_address<B>(request: &Request<B>) -> String {
    let value = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let scheme = value("x-forwarded-proto").unwrap_or("http");
    let host = value("x-forwarded-host").or_else(|| value("host")).unwrap_or("localhost");
    format!("{scheme}://{host}")
}

fn message(status: StatusCode, heading: &str, sentence: &str) -> Reply {
    let values = [("heading", &*escaped(heading)), ("sentence", &*escaped(sentence))];
    uncached(page(status, "", heading, &filled(include_str!("assets/message.html"), &values)))
}

/// The layout around a content.
fn page(status: StatusCode, address: &str, title: &str, content: &str) -> Reply {
    let link = |(href, name): &(&str, &str)| {
        let current = if *href == address { " aria-current=\"page\"" } else { "" };
        format!("<a href=\"{href}\"{current}>{name}</a>\n")
    };
    let navigation: String = NAVIGATION.iter().map(link).collect();
    let values = [("title", &*escaped(title)), ("navigation", &navigation), ("content", content)];
    let reply = full(status, "text/html; charset=utf-8", filled(LAYOUT, &values));
    with(reply, header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)
}

/// The template with its `{{names}}` replaced; a name without value becomes nothing.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() + 1024);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        text.push_str(before);
        let value = values.iter().find(|(known, _)| *known == name);
        text.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Text that stays text in elements and quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}
