//! HTTP/2, both directions (RFC 9113), driven directly on the `h2` crate under an IO layer that coalesces writes.

pub mod body;
pub mod client;
pub mod coalesce;
pub mod convert;
pub mod guard;
pub mod heading;
pub mod outbox;
pub mod preface;
pub mod server;
