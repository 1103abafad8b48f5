//! What the parsers must do with any bytes at all: targets as plain functions, and the corpus they are replayed on.
//!
//! A target panics when its parser did something it must never do; hanging, or taking much memory, is for the fuzzer to
//! see. `cargo xtask fuzz` looks for such inputs, `tests/replay.rs` tries the ones that were interesting once on every
//! change.

mod access_log;
mod codec;
mod config;
mod cut;
mod forwarded;
mod hello;
mod host;
mod origin;
mod pem;
mod preface;
mod request;
mod response;
pub mod second_reading;

/// A parser under test.
pub struct Target {
    /// Its name: `cargo xtask fuzz --only NAME`, and the folder of its corpus.
    pub name: &'static str,
    /// The first byte of its inputs. Never changes and is never used again: the corpus is full of it.
    pub byte: u8,
    /// Longest input worth trying, in bytes, the first one included.
    pub longest: usize,
    /// Tries the rest of an input; panics when something is wrong.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "h1_request", byte: b'q', longest: 3072, run: request::run },
    Target { name: "h1_response", byte: b'r', longest: 3072, run: response::run },
    Target { name: "client_hello", byte: b't', longest: 2048, run: hello::run },
    Target { name: "http2_preface", byte: b'2', longest: 2048, run: preface::run },
    Target { name: "config", byte: b'c', longest: 2048, run: config::text },
    Target { name: "config_pieces", byte: b'g', longest: 512, run: config::pieces },
    Target { name: "host", byte: b'h', longest: 320, run: host::run },
    Target { name: "forwarded", byte: b'f', longest: 1024, run: forwarded::run },
    Target { name: "pem", byte: b'p', longest: 2048, run: pem::run },
    Target { name: "access_log", byte: b'j', longest: 1024, run: access_log::run },
];

/// The target whose byte this is.
pub fn target(byte: u8) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.byte == byte)
}

/// Tries an input; false when its first byte names no target.
pub fn run(data: &[u8]) -> bool {
    let Some((target, rest)) = data.split_first().and_then(|(&byte, rest)| Some((target(byte)?, rest)))
    else {
        return false;
    };
    (target.run)(rest);
    true
}
