//! `/.rempart/trace`: what the edge sees of the very request that asks, as `key=value` lines.
//!
//! Sites with Cloudflare compatibility answer `/cdn-cgi/trace` the same way. It shows a visitor only to himself.

use std::fmt::Write as _;
use std::sync::OnceLock;

use http::Method;
use snapshot::generation::Compatibility;

use crate::connection::Connection;
use crate::forwarded::Client;
use crate::message::{RequestHead, ResponseHead};
use crate::pipeline::Own;
use crate::trail::Trail;

/// Names this process among those that may serve side by side.
static INSTANCE: OnceLock<String> = OnceLock::new();

/// Names this process in every trace from now on, as `instance=..`; once named, it keeps its name.
pub fn set_instance(name: String) {
    // A second name is one too many; the first is what others have been told.
    crate::ignore(INSTANCE.set(name));
}

/// Answers when the request is for the trace.
pub fn answer(
    head: &RequestHead,
    connection: &Connection,
    client: &Client,
    compatibility: Compatibility,
    trail: &Trail,
) -> Option<Own> {
    let path = head.target.split_once('?').map_or(head.target.as_str(), |(path, _)| path);
    let asked =
        path == "/.rempart/trace" || (path == "/cdn-cgi/trace" && compatibility == Compatibility::Cloudflare);
    if !asked || !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut text = String::with_capacity(512);
    let mut line = |key: &str, value: &str| {
        // Values come from the client: a control character must not start a line of its own.
        let value: String = value.chars().filter(|character| !character.is_control()).collect();
        crate::ignore(writeln!(text, "{key}={value}"));
    };
    let own = |name: &[u8]| head.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    line("id", trail.id().as_ref().map(|id| id.as_str()).unwrap_or_default());
    line("h", &head.authority);
    line("ip", &client.address.to_string());
    line("ts", &trail.timestamp());
    line("visit_scheme", client.scheme.map_or(scheme, crate::forwarded::Scheme::name));
    line("uag", &own(b"user-agent").unwrap_or_default());
    line("http", head.protocol.name());
    if let Some(tls) = &connection.tls {
        line("tls", tls.version.as_str());
        line("cipher", tls.cipher);
        line("kex", tls.group.unwrap_or("none"));
        line("sni", tls.server_name.as_deref().unwrap_or("none"));
        line("resumed", if tls.resumed { "yes" } else { "no" });
    }
    if let Some(preface) = connection.preface.get() {
        let settings: Vec<_> = preface.settings.iter().map(|(id, value)| format!("{id}:{value}")).collect();
        line("h2_settings", &settings.join(","));
        line("h2_window_update", &preface.window_update.unwrap_or_default().to_string());
        line("h2_priorities", &preface.priorities.len().to_string());
        line("h2_pseudo_order", &preface.pseudo_order);
    }
    if let Some(instance) = INSTANCE.get() {
        line("instance", instance);
    }
    line("connection_requests", &connection.requests.get().to_string());
    let mut answer = ResponseHead::new(200);
    answer.headers.push("Content-Type", "text/plain; charset=utf-8");
    answer.headers.push("Cache-Control", "no-store");
    Some(Own { head: answer, body: text.into() })
}
