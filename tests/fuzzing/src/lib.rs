//! What the parsers must do with any bytes at all: targets as plain functions, and the corpus they are replayed on.
//!
//! A target panics when its parser did something it must never do; hanging, or taking much memory, is for the fuzzer to
//! see. `cargo xtask fuzz` looks for such inputs, `tests/replay.rs` tries the ones that were interesting once on every
//! change.

mod access_log;
mod codec;
mod config;
mod cut;
mod expression;
mod forwarded;
mod hello;
mod host;
mod origin;
mod package;
mod pem;
mod preface;
mod proxy_protocol;
mod request;
mod response;
pub mod second_reading;

/// A parser under test.
pub struct Target {
    /// Its name: `cargo xtask fuzz --only NAME`, and the folder of its corpus.
    pub name: &'static str,
    /// The first byte of its inputs. Never changes and is never used again: the corpus is full of it.
    pub byte: u8,
    /// Tries the rest of an input; panics when something is wrong.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "h1_request", byte: b'q', run: request::run },
    Target { name: "h1_response", byte: b'r', run: response::run },
    Target { name: "client_hello", byte: b't', run: hello::run },
    Target { name: "proxy_protocol", byte: b'x', run: proxy_protocol::run },
    Target { name: "http2_preface", byte: b'2', run: preface::run },
    Target { name: "config", byte: b'c', run: config::text },
    Target { name: "config_pieces", byte: b'g', run: config::pieces },
    Target { name: "host", byte: b'h', run: host::run },
    Target { name: "forwarded", byte: b'f', run: forwarded::run },
    Target { name: "pem", byte: b'p', run: pem::run },
    Target { name: "access_log", byte: b'j', run: access_log::run },
    Target { name: "package", byte: b'k', run: package::run },
    Target { name: "expression", byte: b'e', run: expression::run },
];

/// Tries an input; false when its first byte names no target.
pub fn run(data: &[u8]) -> bool {
    let Some((byte, rest)) = data.split_first() else { return false };
    let Some(target) = TARGETS.iter().find(|target| target.byte == *byte) else { return false };
    (target.run)(rest);
    true
}
