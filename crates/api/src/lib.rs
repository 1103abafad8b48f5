//! Wire types of the admin socket: one JSON object per line each way, and the diagnostics they carry.

pub mod admin;
pub mod diagnostic;
