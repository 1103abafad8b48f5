//! The service.

/// Cause of the incident that nobody supervises.
pub const SUPERVISOR_GONE: &str = "supervisor-gone";
/// Cause of the incident that a channel does not work.
pub const CHANNEL_FAILING: &str = "channel-failing";
