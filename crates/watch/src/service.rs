//! The service: ties happenings, probes, incidents, page and messages together, on one thread of its own.

mod core;
mod place;
mod questions;
mod run;
mod web;

pub use self::core::Tell;
pub use place::socket;
pub use questions::{Answer, Question, Tested, ask};
pub use run::{Command, GRACE, Start, run};

/// Cause of the incident that nobody supervises.
pub const SUPERVISOR_GONE: &str = "supervisor-gone";
/// Cause of the incident that a channel does not work.
pub const CHANNEL_FAILING: &str = "channel-failing";

/// Cause of the incident that the page cannot be served.
pub const PAGE_NOT_SERVED: &str = "page-not-served";

#[cfg(test)]
mod tests;
