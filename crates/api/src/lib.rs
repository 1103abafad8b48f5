//! Wire types: the admin socket, the channel between supervisor and children, and the diagnostics they carry.

pub mod admin;
pub mod analytics;
pub mod certificates;
pub mod diagnostic;
pub mod process;
pub mod roles;
pub mod seal;
pub mod signal;
