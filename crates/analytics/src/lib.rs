//! What becomes of events: counted by minute, sampled, compared with what is usual, kept in a database, told to whoever asks.
//! All of it may be late, killed, or out of disk space: then it knows less, says so, and nobody waits for it.

pub mod anomaly;
pub mod collector;
pub mod histogram;
mod query;
pub mod reservoir;
pub mod service;
pub mod sketch;
pub mod store;
pub mod tally;
pub mod view;

pub use service::{Service, Sockets, StartError};

/// Lets a result go on purpose; a comment at the call says why.
pub(crate) fn ignore<T>(_: T) {}
