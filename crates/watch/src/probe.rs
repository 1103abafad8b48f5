//! Probes.

/// Cause of a failing probe: Rempart itself.
pub const EDGE: &str = "edge";
/// Cause of a failing probe: the origin.
pub const ORIGIN: &str = "origin";
