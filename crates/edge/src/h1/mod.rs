//! Strict HTTP/1.1, both directions (RFC 9112): what is ambiguous is refused, never repaired and passed on.

pub mod body;
pub mod client;
pub mod encode;
pub mod parse;
pub mod server;
pub mod syntax;
